"""Names of a package that are imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def import_name(package: str, name: str, home: Mapping[str, str]) -> Any:
    """Import ``name`` from the module that defines it and keep it in ``package``.

    Parameters
    ----------
    package : str
        Package whose ``__getattr__`` asks.
    name : str
        Name asked for.
    home : mapping of str to str
        Name to defining module.

    Raises
    ------
    AttributeError
        The package does not offer the name.
    """
    if name not in home:
        msg = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(home[name]), name)
    setattr(sys.modules[package], name, value)
    return value
