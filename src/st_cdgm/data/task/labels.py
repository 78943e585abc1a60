"""Arrays with their names, units and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import CalendarDays


@dataclass
class GridMetadata:
    """Dimension names of the prepared data sets."""

    time: str
    lr_lat: str
    lr_lon: str
    hr_lat: str
    hr_lon: str


def labelled(
    values: Any,
    names: Sequence[str],
    attrs: dict[str, Any] | Sequence[dict[str, Any]],
    grid: Grid,
    days: CalendarDays | None = None,
) -> xr.Dataset:
    """Return arrays as a data set with the coordinates of a grid and of days, if any.

    ``values``, NumPy or dask, are of shape ``(T, C, Y, X)``, ``(C, Y, X)`` without
    ``days``; ``attrs`` are the same for all C names, or one by one.
    """
    dims: tuple[str, ...] = (grid.y_name, grid.x_name)
    coords: dict[str, Any] = dict(grid.coords())
    if days is not None:
        dims = ("time", *dims)
        coords["time"] = ("time", days.dates())
    each = [attrs] * len(names) if isinstance(attrs, dict) else attrs
    fields = {
        name: (dims, values[:, c] if days is not None else values[c], each[c])
        for c, name in enumerate(names)
    }
    return xr.Dataset(fields, coords=coords)
