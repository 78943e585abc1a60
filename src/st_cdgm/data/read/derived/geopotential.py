"""Of geopotentials: the geostrophic wind on a level, the thickness between two."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.read.derived.contract import Derived, Plane
from st_cdgm.data.space.gradients import EQUATOR_DEG, geostrophic_wind
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.units import STANDARD_GRAVITY
from st_cdgm.errors import InputError
from st_cdgm.registry import register

logger = logging.getLogger(__name__)


class _Geostrophic(Derived):
    """A component; missing within 5 degrees of the equator, which a warning says."""

    inputs = ("z",)
    levels = 1
    units = "m s-1"
    component: ClassVar[int]

    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return the component of the wind."""
        wind, factor = geostrophic_wind(grid), _to_geopotential(channels[0])

        def plane(field: NDArray[Any]) -> NDArray[np.float32]:
            both = wind(field.astype(np.float64) * factor)
            return both[self.component].astype(np.float32)

        return plane

    @staticmethod
    def check(grid: Grid, names: Sequence[str], file: str) -> None:
        """Warn of, or refuse, a region at the equator."""
        near = np.abs(grid.lat2d) < EQUATOR_DEG
        if near.all():
            raise InputError(
                "no geostrophic wind at the equator",
                file=file,
                variable=", ".join(names),
                found=str(grid),
                expected=f"latitudes beyond {EQUATOR_DEG:g} degrees",
                remedy="use the wind itself (u, v)",
            )

        if near.any():
            logger.warning(
                "%s: %s are missing within %g degrees of the equator (%.0f %% of the "
                "grid)",
                file,
                ", ".join(names),
                EQUATOR_DEG,
                100 * float(near.mean()),
            )


@register("derived", "ug")
class EastwardGeostrophic(_Geostrophic):
    """``ug_850``: eastward component."""

    title = "Eastward geostrophic wind"
    standard_name = "geostrophic_eastward_wind"
    component = 0


@register("derived", "vg")
class NorthwardGeostrophic(_Geostrophic):
    """``vg_850``: northward component."""

    title = "Northward geostrophic wind"
    standard_name = "geostrophic_northward_wind"
    component = 1


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
        first, second = (_to_geopotential(c) / STANDARD_GRAVITY for c in channels)
        levels = [channel.level or 0.0 for channel in channels]
        sign = 1.0 if levels[0] > levels[1] else -1.0

        def plane(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
            rise = b.astype(np.float64) * second - a.astype(np.float64) * first
            return (sign * rise).astype(np.float32)

        return plane


def _to_geopotential(channel: Channel) -> float:
    """Return the factor to m2 s-2 from a geopotential or from its height in m."""
    return STANDARD_GRAVITY if channel.units == "m" else 1.0
