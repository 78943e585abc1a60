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
    """Return arrays as a data set with coordinates.

    Parameters
    ----------
    values : ndarray or dask array
        Shape ``(T, C, Y, X)``, or ``(C, Y, X)`` without ``days``.
    names : sequence of str
        Variable names, C of them.
    attrs : dict or sequence of dict
        Their attributes, the same for all or one by one.
    grid : Grid
        Horizontal coordinates.
    days : CalendarDays, optional
        Time coordinate.
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
