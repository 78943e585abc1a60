"""Names of a package that are imported on first use."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

Face = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(package: str) -> Face:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Its names are written once, in its ``__init__.py``, below ``if TYPE_CHECKING`` as
    ``from HOME import NAME as NAME``: there type checkers and editors find them, and
    this function, which reads the source.
    """
    module: Any = sys.modules[package]
    homes = {
        alias.asname: node.module
        for node in ast.walk(ast.parse(module.__loader__.get_source(package)))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname == alias.name
    }

    def get(name: str) -> Any:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        found = getattr(import_module(homes[name]), name)
        setattr(module, name, found)
        return found

    return get, lambda: sorted({*vars(module), *homes}), sorted(homes)
