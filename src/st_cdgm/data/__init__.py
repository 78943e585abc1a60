"""From climate files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.data.batch import Batch
    from st_cdgm.data.datasets import ResDiffIterableDataset, WindowDataset
    from st_cdgm.data.grids import Grid
    from st_cdgm.data.inspection import inspect_file
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame, process_netcdf_file
    from st_cdgm.data.pairing import inspect_pair
    from st_cdgm.data.pipeline import DataConfig, GridMetadata, NetCDFDataPipeline
    from st_cdgm.data.predictors import load_predictors
    from st_cdgm.data.preprocess import (
        convert_netcdf_to_zarr,
        create_shards,
        write_zarr,
    )
    from st_cdgm.data.preprocessor import Preprocessor
    from st_cdgm.data.shard_dataset import WebDatasetIterableDataset
    from st_cdgm.data.splits import SplitConfig
    from st_cdgm.data.zarr_pipeline import ZarrDataPipeline

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
    "Batch": "st_cdgm.data.batch",
    "DataConfig": "st_cdgm.data.pipeline",
    "Grid": "st_cdgm.data.grids",
    "GridMetadata": "st_cdgm.data.pipeline",
    "NetCDFDataPipeline": "st_cdgm.data.pipeline",
    "NetCDFToDataFrame": "st_cdgm.data.netcdf_utils",
    "Preprocessor": "st_cdgm.data.preprocessor",
    "ResDiffIterableDataset": "st_cdgm.data.datasets",
    "SplitConfig": "st_cdgm.data.splits",
    "WebDatasetIterableDataset": "st_cdgm.data.shard_dataset",
    "WindowDataset": "st_cdgm.data.datasets",
    "ZarrDataPipeline": "st_cdgm.data.zarr_pipeline",
    "convert_netcdf_to_zarr": "st_cdgm.data.preprocess",
    "create_shards": "st_cdgm.data.preprocess",
    "inspect_file": "st_cdgm.data.inspection",
    "inspect_pair": "st_cdgm.data.pairing",
    "load_predictors": "st_cdgm.data.predictors",
    "process_netcdf_file": "st_cdgm.data.netcdf_utils",
    "write_zarr": "st_cdgm.data.preprocess",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
