"""Thickness of the layer between two levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.read.derived.contract import Derived, Plane
from st_cdgm.data.read.derived.geostrophic import to_geopotential
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.units import STANDARD_GRAVITY
from st_cdgm.registry import register


@register("derived", "thickness")
class Thickness(Derived):
    """``thickness_1000_500``: difference of two geopotential heights.

    The order of the levels does not matter: the layer is never upside down.
    """

    inputs = ("z",)
    levels = 2
    units = "m"
    title = "Thickness of the layer"

    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return the height of the upper level above the lower."""
        del grid
        first, second = (to_geopotential(c) / STANDARD_GRAVITY for c in channels)
        levels = [channel.level or 0.0 for channel in channels]
        sign = 1.0 if levels[0] > levels[1] else -1.0

        def plane(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
            rise = b.astype(np.float64) * second - a.astype(np.float64) * first
            return (sign * rise).astype(np.float32)

        return plane
