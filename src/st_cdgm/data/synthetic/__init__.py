"""A small physical climate with a known causal graph: the embedded default data."""

from __future__ import annotations

from st_cdgm.data.synthetic.climate import SyntheticClimate, simulate
from st_cdgm.data.synthetic.config import (
    GROUPS,
    VARIABLES,
    CausalGraph,
    Edge,
    Intervention,
    SyntheticConfig,
)
from st_cdgm.data.synthetic.writer import (
    SyntheticPaths,
    truth_document,
    write_climate,
    write_synthetic,
)

__all__ = [
    "GROUPS",
    "VARIABLES",
    "CausalGraph",
    "Edge",
    "Intervention",
    "SyntheticClimate",
    "SyntheticConfig",
    "SyntheticPaths",
    "simulate",
    "truth_document",
    "write_climate",
    "write_synthetic",
]
