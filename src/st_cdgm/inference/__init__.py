"""Ensembles of fine fields from a checkpoint and new coarse data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.inference.members import generate as generate
    from st_cdgm.inference.writer import EnsembleWriter as EnsembleWriter
    from st_cdgm.inference.writer import ensemble_dataset as ensemble_dataset

__getattr__, __dir__, __all__ = attach(__name__)
