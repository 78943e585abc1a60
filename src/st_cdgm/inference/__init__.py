"""Ensembles of fine fields from a checkpoint and new coarse data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.inference.downscale import generate
    from st_cdgm.inference.writer import EnsembleWriter, ensemble_dataset

__all__ = [
    "EnsembleWriter",
    "ensemble_dataset",
    "generate",
]

_HOME = {
    "EnsembleWriter": "st_cdgm.inference.writer",
    "ensemble_dataset": "st_cdgm.inference.writer",
    "generate": "st_cdgm.inference.downscale",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
