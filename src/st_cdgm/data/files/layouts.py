"""Coordinates that models write in their own way, in the form of the conventions."""

from __future__ import annotations

import logging
import re

import cftime
import numpy as np
import xarray as xr

from st_cdgm.data.space.coordinates import (
    Located,
    continuous,
    locate,
    named_positions,
)
from st_cdgm.data.space.grid import CF_ATTRS
from st_cdgm.typing import Floats


def first_column(lon: Floats) -> int:
    """Return the column with which a region begins that its file cuts into two pieces.

    ``lon`` is in degrees east in the order of the file, shape ``(X,)``. ``0, 2.5, 355,
    357.5`` and ``-180, -177.5, 175, 177.5`` begin with column 2: their ends are
    neighbours on the globe, and the two columns between which they leap are not. 0
    where the file begins with it, and for what does not go once around the globe in one
    direction.
    """
    if len(lon) < 3 or not np.isfinite(lon).all():
        return 0
    for eastward in (lon, -lon):
        steps = (np.roll(eastward, -1) - eastward) % 360.0  # the last one closes
        usual = float(np.median(steps))
        leaps = np.flatnonzero(steps > 2.0 * usual)
        once_around = steps.min() > 0.0 and abs(steps.sum() - 360.0) < 1e-3
        if once_around and len(leaps) == 1 and leaps[0] < len(lon) - 1:
            return int(leaps[0]) + 1
    return 0


def in_one_piece(ds: xr.Dataset, pair: tuple[str, str] | None) -> xr.Dataset:
    """Join a region that its file cuts into two pieces where the longitudes end.

    All variables on the columns are turned alike, and longitudes and their bounds are
    written without a jump. Other data sets come back as they are. ``pair`` names
    latitude and longitude.
    """
    if pair is None or ds[pair[1]].ndim != 1:
        return ds
    name, dim = pair[1], ds[pair[1]].dims[0]
    first = first_column(np.asarray(ds[name].values, np.float64))
    if not first:
        return ds

    made = ds.isel({dim: np.roll(np.arange(ds.sizes[dim]), -first)})
    lon = made[name].copy(data=continuous(np.asarray(made[name].values, np.float64)))
    written: dict[str, xr.Variable] = {name: lon.variable}
    bounds = str(lon.attrs.get("bounds", lon.encoding.get("bounds")))
    if bounds in made.variables and made[bounds].dims[:1] == (dim,):
        edges, centre = made[bounds].variable, lon.values[:, None]
        turned = centre + (edges.values - centre + 180.0) % 360.0 - 180.0
        written[bounds] = edges.copy(data=turned)

    made = made.assign(written).set_coords([key for key in written if key in ds.coords])
    made.encoding = ds.encoding
    return made


_LOGGER = logging.getLogger(__name__)
KM_PER_DEGREE = 111.195  # mean Earth radius 6371 km
_TO_KM = {"m": 1e-3, "metre": 1e-3, "meter": 1e-3, "metres": 1e-3, "meters": 1e-3}
_TO_KM |= {"km": 1.0, "kilometre": 1.0, "kilometer": 1.0, "kilometers": 1.0}
# The plane's origin, in whole thousands of km so that two files of a region share it.
_ORIGIN_KM = 1000.0
# Beyond this the plane would no longer be nearly flat and of equal area: cos(4 deg).
MAX_KM = 500.0


def with_plane_coordinates(ds: xr.Dataset) -> xr.Dataset:
    """Give a plane without latitude and longitude a place: near 0 N, 0 E.

    Distances and neighbours are those of the plane and cell areas differ by less than
    0.3 %; the position on the Earth stays unknown, which a warning says. Without
    projection coordinates, beyond 500 km from the origin, or with a grid mapping (whose
    file should hold its latitudes and longitudes) the data set is returned as it is.
    """
    y_name, x_name = (_projection_axis(ds, axis) for axis in ("y", "x"))
    mapped = any("grid_mapping_name" in v.attrs for v in ds.variables.values())
    if y_name is None or x_name is None or mapped:
        return ds

    # Metres or kilometres as degrees from an origin that files of a region share.
    degrees, origin = [], []
    for name in (y_name, x_name):
        km = ds[name].values.astype(np.float64) * _TO_KM[str(ds[name].attrs["units"])]
        origin.append(_ORIGIN_KM * float(np.round(km.mean() / _ORIGIN_KM)))
        away = km - origin[-1]
        if not np.isfinite(away).all() or np.abs(away).max() > MAX_KM:
            return ds
        degrees.append(away / KM_PER_DEGREE)

    lat, lon = np.meshgrid(*degrees, indexing="ij")
    _LOGGER.warning(
        "%s: no latitude and longitude: a plane with %s and %s in km is taken to lie "
        "at 0 N, 0 E (its origin: %s = %g km, %s = %g km)",
        ds.encoding.get("source", "data set in memory"),
        *(y_name, x_name, y_name, origin[0], x_name, origin[1]),
    )
    note, dims = {"comment": "position on a plane, not on the Earth"}, (y_name, x_name)
    return ds.assign_coords(
        lat=(dims, lat, CF_ATTRS["latitude"] | note),
        lon=(dims, lon, CF_ATTRS["longitude"] | note),
    )


def _projection_axis(ds: xr.Dataset, axis: str) -> str | None:
    """Return the one-dimensional projection coordinate y or x, in m or km."""
    wanted = f"projection_{axis}_coordinate"
    for dim in ds.dims:
        if dim in ds.coords and ds[dim].attrs.get("standard_name") == wanted:
            known = str(ds[dim].attrs.get("units")) in _TO_KM
            return str(dim) if known and ds[dim].size else None
    return None


# ECMWF keeps the final reanalysis (1) and its latest months (5) apart.
RELEASES = "expver"
_WRF_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)_(\d\d):(\d\d):(\d\d)")


def in_cf_form(ds: xr.Dataset) -> tuple[xr.Dataset, Located]:
    """Bring coordinates of models such as WRF into the form of the CF conventions.

    Latitude and longitude that are repeated for every time step lose the time axis,
    and the only dates along a dimension without coordinate become its coordinate. A
    plane of which only projection coordinates are known is given a place. A region cut
    into two pieces by the end of the longitudes becomes one, and the releases that
    ECMWF gives side by side (``expver``) become one record. What is in the data set
    comes beside it.
    """
    ds = _one_release(ds)
    for dim in [d for d in ds.dims if d not in ds.variables]:
        beside = [v for v in ds.variables.values() if v.dims == (dim,)]
        dates = [v for v in beside if _dated(v)]
        dates = dates or [date for date in map(_from_text, beside) if date is not None]
        if len(dates) == 1:
            ds = ds.assign_coords({dim: (dim, dates[0].values, dates[0].attrs)})

    for name in named_positions(ds):
        variable = ds.variables[name]
        if variable.ndim == 3:
            count = variable.shape[0]
            steps = [variable[i].values for i in {0, count // 2, count - 1} if count]
            if steps and all(np.array_equal(step, steps[0]) for step in steps):
                fixed = (variable.dims[1:], steps[0], variable.attrs)
                ds = ds.assign_coords({name: fixed})

    located = locate(ds)
    if located.pairs:
        return in_one_piece(ds, located.pair()), located
    placed = with_plane_coordinates(ds)
    return placed, located if placed is ds else locate(placed)


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
    found = [match.groups() for match in map(_WRF_DATE.fullmatch, texts) if match]
    try:
        dates = [cftime.datetime(*map(int, p), calendar="standard") for p in found]
    except ValueError:  # a day that the calendar does not have
        return None
    whole = len(dates) == len(texts)
    return xr.Variable(variable.dims, np.array(dates, object)) if whole else None


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
