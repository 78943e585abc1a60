"""Climate downscaling ensembles with a learned causal graph.

The names below are imported on first use, so that ``import st_cdgm`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach
from st_cdgm._version import __version__ as __version__

if TYPE_CHECKING:
    from st_cdgm.api import Downscaler as Downscaler
    from st_cdgm.api import Run as Run
    from st_cdgm.api import counterfactual as counterfactual
    from st_cdgm.api import evaluate as evaluate
    from st_cdgm.api import inspect as inspect
    from st_cdgm.api import load as load
    from st_cdgm.api import open_run as open_run
    from st_cdgm.api import run as run
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame as NetCDFToDataFrame
    from st_cdgm.data.pipeline import NetCDFDataPipeline as NetCDFDataPipeline
    from st_cdgm.data.store.shard_dataset import (
        WebDatasetIterableDataset as WebDatasetIterableDataset,
    )
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline as ZarrDataPipeline
    from st_cdgm.data.task.datasets import (
        ResDiffIterableDataset as ResDiffIterableDataset,
    )
    from st_cdgm.models.causal_rcn import RCNCell as RCNCell
    from st_cdgm.models.causal_rcn import RCNSequenceRunner as RCNSequenceRunner
    from st_cdgm.models.convolutions import (
        IntelligibleVariableConfig as IntelligibleVariableConfig,
    )
    from st_cdgm.models.diffusion_decoder import (
        CausalDiffusionDecoder as CausalDiffusionDecoder,
    )
    from st_cdgm.models.diffusion_output import DiffusionOutput as DiffusionOutput
    from st_cdgm.models.graph_builder import HeteroGraphBuilder as HeteroGraphBuilder
    from st_cdgm.models.intelligible_encoder import (
        IntelligibleVariableEncoder as IntelligibleVariableEncoder,
    )
    from st_cdgm.training.early_stopping import EarlyStopping as EarlyStopping
    from st_cdgm.training.training_loop import train_epoch as train_epoch

__getattr__, __dir__, __all__ = attach(__name__)
