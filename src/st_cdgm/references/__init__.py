"""What the model must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.references.base import REFERENCES, Reference, build_reference

__all__ = [
    "REFERENCES",
    "Reference",
    "build_reference",
]

_HOME = {
    "REFERENCES": "st_cdgm.references.base",
    "Reference": "st_cdgm.references.base",
    "build_reference": "st_cdgm.references.base",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
