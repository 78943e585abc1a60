"""Coordinates that models write in their own way, in the form of the conventions."""

from __future__ import annotations

import logging
import re

import cftime
import numpy as np
import xarray as xr

from st_cdgm.data.coordinates import (
    CF_ATTRS,
    horizontal_coordinates,
    looks_like,
)
from st_cdgm.data.longitudes import in_one_piece
from st_cdgm.data.plane import with_plane_coordinates

__all__ = ["settle_coordinates"]

_LOGGER = logging.getLogger(__name__)

# ECMWF keeps the final reanalysis (1) and its latest months (5) apart.
RELEASES = "expver"
_WRF_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)_(\d\d):(\d\d):(\d\d)")


def settle_coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Bring coordinates of models such as WRF into the form of the CF conventions.

    Latitude and longitude that are repeated for every time step lose the time axis,
    and the only dates along a dimension without coordinate become its coordinate. A
    plane of which only projection coordinates are known is given a place. A region cut
    into two pieces by the end of the longitudes becomes one, and the releases that
    ECMWF gives side by side (``expver``) become one record.
    """
    ds = _one_release(ds)
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
        beside = [v for v in ds.variables.values() if v.dims == (dim,)]
        dates = [v for v in beside if _dated(v)]
        dates = dates or [date for date in map(_from_text, beside) if date is not None]
        if len(dates) == 1:
            ds = ds.assign_coords({dim: (dim, dates[0].values, dates[0].attrs)})
    ds = in_one_piece(ds)
    return ds if horizontal_coordinates(ds) else with_plane_coordinates(ds)


def _dated(variable: xr.Variable) -> bool:
    return (
        variable.dtype == object
        and variable.size > 0
        and isinstance(variable.values[0], cftime.datetime)
    )


def _from_text(variable: xr.Variable) -> xr.Variable | None:
    """Return the dates that WRF writes as text, ``2001-01-31_06:00:00``."""
    if variable.dtype.kind not in "OSU" or not variable.size:
        return None
    texts = [
        text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)
        for text in variable.values
    ]
    found = [_WRF_DATE.fullmatch(text) for text in texts]
    dates = np.empty(len(texts), dtype=object)
    try:
        for i, match in enumerate(found):
            if match is None:
                return None
            parts = (int(part) for part in match.groups())
            dates[i] = cftime.datetime(*parts, calendar="standard")
    except ValueError:  # a day that the calendar does not have
        return None
    return xr.Variable(variable.dims, dates)


def _one_release(ds: xr.Dataset) -> xr.Dataset:
    """Complete the final release by the later one where they are side by side."""
    if ds.sizes.get(RELEASES, 0) < 2 or RELEASES not in ds.coords:
        return ds
    order = np.argsort([str(release).zfill(8) for release in ds[RELEASES].values])
    _LOGGER.warning(
        "%s: %s %s are made one record, the first where both have values",
        ds.encoding.get("source", "data set in memory"),
        RELEASES,
        ", ".join(str(ds[RELEASES].values[i]) for i in order),
    )
    parts = [ds.isel({RELEASES: int(i)}, drop=True) for i in order]
    for name in [n for n, v in ds.data_vars.items() if RELEASES in v.dims]:
        for later in parts[1:]:
            filled = parts[0][name].fillna(later[name])
            parts[0][name] = filled.assign_attrs(ds[name].attrs)
    parts[0].encoding = ds.encoding
    return parts[0]
