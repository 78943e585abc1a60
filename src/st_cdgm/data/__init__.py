"""From climate files to batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.data.fit.preprocessor import Preprocessor as Preprocessor
    from st_cdgm.data.inspect.files import inspect_file as inspect_file
    from st_cdgm.data.inspect.pairs import inspect_pair as inspect_pair
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame as NetCDFToDataFrame
    from st_cdgm.data.netcdf_utils import process_netcdf_file as process_netcdf_file
    from st_cdgm.data.pipeline import NetCDFDataPipeline as NetCDFDataPipeline
    from st_cdgm.data.space.grid import Grid as Grid
    from st_cdgm.data.store.preprocess import (
        convert_netcdf_to_zarr as convert_netcdf_to_zarr,
    )
    from st_cdgm.data.store.preprocess import create_shards as create_shards
    from st_cdgm.data.store.preprocess import write_zarr as write_zarr
    from st_cdgm.data.store.shard_dataset import (
        WebDatasetIterableDataset as WebDatasetIterableDataset,
    )
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline as ZarrDataPipeline
    from st_cdgm.data.task.batch import Batch as Batch
    from st_cdgm.data.task.config import DataConfig as DataConfig
    from st_cdgm.data.task.datasets import (
        ResDiffIterableDataset as ResDiffIterableDataset,
    )
    from st_cdgm.data.task.datasets import WindowDataset as WindowDataset
    from st_cdgm.data.task.labels import GridMetadata as GridMetadata
    from st_cdgm.data.task.predictors import load_predictors as load_predictors
    from st_cdgm.data.time.splits import SplitConfig as SplitConfig

__getattr__, __dir__, __all__ = attach(__name__)
