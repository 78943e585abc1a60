"""Relative humidity on a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.read.derived.contract import Derived, Plane
from st_cdgm.data.space.gradients import ZERO_CELSIUS, relative_humidity
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.registry import register


@register("derived", "hur")
class RelativeHumidity(Derived):
    """``hur_850``: relative humidity over water from q, t and the level."""

    inputs = ("q", "t")
    levels = 1
    units = "%"
    title = "Relative humidity over water"
    standard_name = "relative_humidity"

    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return the ratio of vapour pressures."""
        del grid
        pressure = cast("float", channels[0].level)
        to_kelvin = ZERO_CELSIUS if channels[1].units == "degC" else 0.0

        def plane(q: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
            return relative_humidity(q, t + to_kelvin, pressure).astype(np.float32)

        return plane
