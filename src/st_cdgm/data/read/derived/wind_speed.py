"""Speed of the wind on a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.read.derived.contract import Derived, Plane
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.registry import register


@register("derived", "ws")
class WindSpeed(Derived):
    """``ws_850``: speed of the wind (u, v)."""

    inputs = ("u", "v")
    levels = 1
    units = "m s-1"
    title = "Wind speed"
    standard_name = "wind_speed"

    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return the length of the vector."""
        del grid, channels

        def plane(u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
            speed: NDArray[np.float32] = np.hypot(u, v).astype(np.float32)
            return speed

        return plane
