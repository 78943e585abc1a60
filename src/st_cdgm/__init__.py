"""Climate downscaling ensembles with a learned causal graph.

The names below are imported on first use, so that ``import st_cdgm`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name
from st_cdgm._version import __version__

if TYPE_CHECKING:
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
    from st_cdgm.data.task.datasets import ResDiffIterableDataset
    from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner
    from st_cdgm.models.convolutions import IntelligibleVariableConfig
    from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
    from st_cdgm.models.diffusion_output import DiffusionOutput
    from st_cdgm.models.graph_builder import HeteroGraphBuilder
    from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
    from st_cdgm.training.training_loop import train_epoch

__all__ = [
    "CausalDiffusionDecoder",
    "DiffusionOutput",
    "HeteroGraphBuilder",
    "IntelligibleVariableConfig",
    "IntelligibleVariableEncoder",
    "NetCDFDataPipeline",
    "NetCDFToDataFrame",
    "RCNCell",
    "RCNSequenceRunner",
    "ResDiffIterableDataset",
    "ZarrDataPipeline",
    "__version__",
    "train_epoch",
]

_HOME = {
    "CausalDiffusionDecoder": "st_cdgm.models.diffusion_decoder",
    "DiffusionOutput": "st_cdgm.models.diffusion_output",
    "HeteroGraphBuilder": "st_cdgm.models.graph_builder",
    "IntelligibleVariableConfig": "st_cdgm.models.intelligible_encoder",
    "IntelligibleVariableEncoder": "st_cdgm.models.intelligible_encoder",
    "NetCDFDataPipeline": "st_cdgm.data.pipeline",
    "NetCDFToDataFrame": "st_cdgm.data.netcdf_utils",
    "RCNCell": "st_cdgm.models.causal_rcn",
    "RCNSequenceRunner": "st_cdgm.models.causal_rcn",
    "ResDiffIterableDataset": "st_cdgm.data.task.datasets",
    "ZarrDataPipeline": "st_cdgm.data.store.zarr_pipeline",
    "train_epoch": "st_cdgm.training.training_loop",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
