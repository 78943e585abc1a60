"""From climate files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.inspect.files import inspect_file
    from st_cdgm.data.inspect.pairs import inspect_pair
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame, process_netcdf_file
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.space.grid import Grid
    from st_cdgm.data.store.preprocess import (
        convert_netcdf_to_zarr,
        create_shards,
        write_zarr,
    )
    from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
    from st_cdgm.data.task.batch import Batch
    from st_cdgm.data.task.config import DataConfig
    from st_cdgm.data.task.datasets import ResDiffIterableDataset, WindowDataset
    from st_cdgm.data.task.labels import GridMetadata
    from st_cdgm.data.task.predictors import load_predictors
    from st_cdgm.data.time.splits import SplitConfig

__all__ = [
    "Batch",
    "DataConfig",
    "Grid",
    "GridMetadata",
    "NetCDFDataPipeline",
    "NetCDFToDataFrame",
    "Preprocessor",
    "ResDiffIterableDataset",
    "SplitConfig",
    "WebDatasetIterableDataset",
    "WindowDataset",
    "ZarrDataPipeline",
    "convert_netcdf_to_zarr",
    "create_shards",
    "inspect_file",
    "inspect_pair",
    "load_predictors",
    "process_netcdf_file",
    "write_zarr",
]

_HOME = {
    "Batch": "st_cdgm.data.task.batch",
    "DataConfig": "st_cdgm.data.pipeline",
    "Grid": "st_cdgm.data.space.grid",
    "GridMetadata": "st_cdgm.data.pipeline",
    "NetCDFDataPipeline": "st_cdgm.data.pipeline",
    "NetCDFToDataFrame": "st_cdgm.data.netcdf_utils",
    "Preprocessor": "st_cdgm.data.fit.preprocessor",
    "ResDiffIterableDataset": "st_cdgm.data.task.datasets",
    "SplitConfig": "st_cdgm.data.time.splits",
    "WebDatasetIterableDataset": "st_cdgm.data.store.shard_dataset",
    "WindowDataset": "st_cdgm.data.task.datasets",
    "ZarrDataPipeline": "st_cdgm.data.store.zarr_pipeline",
    "convert_netcdf_to_zarr": "st_cdgm.data.store.preprocess",
    "create_shards": "st_cdgm.data.store.preprocess",
    "inspect_file": "st_cdgm.data.inspect.files",
    "inspect_pair": "st_cdgm.data.inspect.pairs",
    "load_predictors": "st_cdgm.data.task.predictors",
    "process_netcdf_file": "st_cdgm.data.netcdf_utils",
    "write_zarr": "st_cdgm.data.store.preprocess",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
