"""Graph, intelligible variables, recurrent causal network, generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
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
    from st_cdgm.models.st_cdgm import STCDGM as STCDGM

__getattr__, __dir__, __all__ = attach(__name__)
