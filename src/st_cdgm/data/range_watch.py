"""Values that no place on Earth has, reported when they are read."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.calendars import CalendarDays
from st_cdgm.data.fields import Channel, TargetVariable
from st_cdgm.data.grids import Grid
from st_cdgm.data.limits import physical_limits

__all__ = ["RangeWatch"]

_LOGGER = logging.getLogger(__name__)


class RangeWatch:
    """Warn once of every variable whose values leave its physical range.

    Parameters
    ----------
    variables : sequence of Channel or TargetVariable
        What lies on the second axis, in canonical units.
    grid : Grid
        For the place.
    days : CalendarDays
        For the date.
    file : str
        For the message.
    """

    def __init__(
        self,
        variables: Sequence[Channel | TargetVariable],
        grid: Grid,
        days: CalendarDays,
        file: str,
    ) -> None:
        self.variables, self.grid, self.days, self.file = variables, grid, days, file
        hours = days.step_seconds / 3600
        self._limits = [_limits_of(variable, hours) for variable in variables]
        self._told: set[str] = set()

    def look(self, values: NDArray[np.floating], index: NDArray[np.integer]) -> None:
        """Look at the days ``index``, values of shape ``(T, C, y, x)``."""
        for c, limits in enumerate(self._limits):
            name = self.variables[c].name
            if limits is None or name in self._told:
                continue
            low, high = limits
            plane = values[:, c]
            outside = (plane < low) | (plane > high)
            if outside.any():
                self._told.add(name)
                self._tell(c, plane, outside, index)

    def _tell(
        self,
        c: int,
        plane: NDArray[np.floating],
        outside: NDArray[np.bool_],
        index: NDArray[np.integer],
    ) -> None:
        day, row, column = (int(i[0]) for i in np.nonzero(outside))
        limits, variable = self._limits[c], self.variables[c]
        assert limits is not None
        date = self.days.select(index[day : day + 1]).iso()[0]
        _LOGGER.warning(
            "%s has values outside %.4g to %.4g %s in %s: %d of the %d read together, "
            "the first %.5g on %s at %.2f degrees north, %.2f degrees east",
            variable.name,
            *limits,
            variable.units,
            self.file,
            int(outside.sum()),
            outside.size,
            float(plane[day, row, column]),
            date,
            float(self.grid.lat2d[row, column]),
            float(self.grid.lon2d[row, column]),
        )


def _limits_of(
    variable: Channel | TargetVariable, hours: float
) -> tuple[float, float] | None:
    """Return the range of a variable in its canonical units, None if not known."""
    base = variable.variable if isinstance(variable, Channel) else variable.name
    attrs: dict[str, str | float] = {"units": variable.units}
    if variable.standard_name:
        attrs["standard_name"] = variable.standard_name
    if isinstance(variable, Channel) and variable.level is not None:
        attrs["pressure_level_hPa"] = variable.level
    return physical_limits(xr.DataArray(np.zeros(()), name=base, attrs=attrs), hours)
