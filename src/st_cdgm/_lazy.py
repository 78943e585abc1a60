"""Names of a package that are imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

Face = tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]


def attach(
    package: str, homes: Mapping[str, str], known: dict[str, Any], *more: str
) -> Face:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    homes : mapping of str to str
        Name to the module that defines it.
    known : dict
        Its ``globals()``, where a name is kept once it is imported.
    *more : str
        Public names that the package defines itself.
    """

    def get(name: str) -> Any:
        if name not in homes:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        known[name] = getattr(import_module(homes[name]), name)
        return known[name]

    public = sorted({*homes, *more})
    return get, lambda: sorted({*known, *public}), public
