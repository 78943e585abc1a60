"""From climate files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.data.batch import Batch
    from st_cdgm.data.datasets import ResDiffIterableDataset, WindowDataset
    from st_cdgm.data.grids import Grid
    from st_cdgm.data.inspection import inspect_file
    from st_cdgm.data.pipeline import DataConfig, GridMetadata, NetCDFDataPipeline
    from st_cdgm.data.predictors import load_predictors
    from st_cdgm.data.preprocessor import Preprocessor
    from st_cdgm.data.splits import SplitConfig

__all__ = [
    "Batch",
    "DataConfig",
    "Grid",
    "GridMetadata",
    "NetCDFDataPipeline",
    "Preprocessor",
    "ResDiffIterableDataset",
    "SplitConfig",
    "WindowDataset",
    "inspect_file",
    "load_predictors",
]

_HOME = {
    "Batch": "st_cdgm.data.batch",
    "DataConfig": "st_cdgm.data.pipeline",
    "Grid": "st_cdgm.data.grids",
    "GridMetadata": "st_cdgm.data.pipeline",
    "NetCDFDataPipeline": "st_cdgm.data.pipeline",
    "Preprocessor": "st_cdgm.data.preprocessor",
    "ResDiffIterableDataset": "st_cdgm.data.datasets",
    "SplitConfig": "st_cdgm.data.splits",
    "WindowDataset": "st_cdgm.data.datasets",
    "inspect_file": "st_cdgm.data.inspection",
    "load_predictors": "st_cdgm.data.predictors",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
