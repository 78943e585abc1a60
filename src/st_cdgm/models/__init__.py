"""Graph, intelligible variables, recurrent causal network, generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner
    from st_cdgm.models.convolutions import IntelligibleVariableConfig
    from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
    from st_cdgm.models.diffusion_output import DiffusionOutput
    from st_cdgm.models.graph_builder import HeteroGraphBuilder
    from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
    from st_cdgm.models.st_cdgm import STCDGM

__all__ = [
    "CausalDiffusionDecoder",
    "DiffusionOutput",
    "HeteroGraphBuilder",
    "IntelligibleVariableConfig",
    "IntelligibleVariableEncoder",
    "RCNCell",
    "RCNSequenceRunner",
    "STCDGM",
]

_HOME = {
    "CausalDiffusionDecoder": "st_cdgm.models.diffusion_decoder",
    "DiffusionOutput": "st_cdgm.models.diffusion_output",
    "HeteroGraphBuilder": "st_cdgm.models.graph_builder",
    "IntelligibleVariableConfig": "st_cdgm.models.intelligible_encoder",
    "IntelligibleVariableEncoder": "st_cdgm.models.intelligible_encoder",
    "RCNCell": "st_cdgm.models.causal_rcn",
    "RCNSequenceRunner": "st_cdgm.models.causal_rcn",
    "STCDGM": "st_cdgm.models.st_cdgm",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
