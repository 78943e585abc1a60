"""Coordinates that models write in their own way, in the form of the conventions."""

from __future__ import annotations

import cftime
import numpy as np
import xarray as xr

from st_cdgm.data.coordinates import CF_ATTRS, horizontal_coordinates, looks_like
from st_cdgm.data.plane import with_plane_coordinates

__all__ = ["settle_coordinates"]


def settle_coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Bring coordinates of models such as WRF into the form of the CF conventions.

    Latitude and longitude that are repeated for every time step lose the time axis,
    and the only dates along a dimension without coordinate become its coordinate. A
    plane of which only projection coordinates are known is given a place.
    """
    for name, variable in list(ds.variables.items()):
        if variable.ndim == 3 and any(
            looks_like(name, variable, kind) for kind in CF_ATTRS
        ):
            count = variable.shape[0]
            steps = [variable[i].values for i in {0, count // 2, count - 1} if count]
            if steps and all(np.array_equal(step, steps[0]) for step in steps):
                fixed = (variable.dims[1:], steps[0], variable.attrs)
                ds = ds.assign_coords({name: fixed})
    for dim in [d for d in ds.dims if d not in ds.variables]:
        dates = [v for v in ds.variables.values() if v.dims == (dim,) and _dated(v)]
        if len(dates) == 1:
            ds = ds.assign_coords({dim: (dim, dates[0].values, dates[0].attrs)})
    return ds if horizontal_coordinates(ds) else with_plane_coordinates(ds)


def _dated(variable: xr.Variable) -> bool:
    return (
        variable.dtype == object
        and variable.size > 0
        and isinstance(variable.values[0], cftime.datetime)
    )
