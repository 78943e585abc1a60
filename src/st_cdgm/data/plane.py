"""Grids of which only projection coordinates are known: radar and model planes."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["with_plane_coordinates"]

_LOGGER = logging.getLogger(__name__)

KM_PER_DEGREE = 111.195  # mean Earth radius 6371 km
_TO_KM = {"m": 1e-3, "metre": 1e-3, "meter": 1e-3, "metres": 1e-3, "meters": 1e-3}
_TO_KM |= {"km": 1.0, "kilometre": 1.0, "kilometer": 1.0, "kilometers": 1.0}
_NAMES = {"Y": "projection_y_coordinate", "X": "projection_x_coordinate"}
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
    axes = {axis: _projection_axis(ds, name) for axis, name in _NAMES.items()}
    if any(name is None for name in axes.values()) or _has_mapping(ds):
        return ds
    degrees, origin = {}, {}
    for axis, name in axes.items():
        assert name is not None
        km = ds[name].values.astype(np.float64) * _TO_KM[str(ds[name].attrs["units"])]
        origin[axis] = _ORIGIN_KM * float(np.round(km.mean() / _ORIGIN_KM))
        away = km - origin[axis]
        if not np.isfinite(away).all() or np.abs(away).max() > MAX_KM:
            return ds
        degrees[axis] = away / KM_PER_DEGREE
    y_name, x_name = str(axes["Y"]), str(axes["X"])
    lat, lon = np.meshgrid(degrees["Y"], degrees["X"], indexing="ij")
    _LOGGER.warning(
        "%s: no latitude and longitude: a plane with %s and %s in km is taken to lie "
        "at 0 N, 0 E (its origin: %s = %g km, %s = %g km)",
        ds.encoding.get("source", "data set in memory"),
        y_name,
        x_name,
        y_name,
        origin["Y"],
        x_name,
        origin["X"],
    )
    note = "position on a plane, not on the Earth"
    return ds.assign_coords(
        lat=((y_name, x_name), lat, _attrs("latitude", "degrees_north", note)),
        lon=((y_name, x_name), lon, _attrs("longitude", "degrees_east", note)),
    )


def _attrs(name: str, units: str, note: str) -> dict[str, Any]:
    return {"standard_name": name, "units": units, "comment": note}


def _projection_axis(ds: xr.Dataset, standard_name: str) -> str | None:
    """Return the one-dimensional coordinate with that standard name in m or km."""
    for dim in ds.dims:
        if dim in ds.coords and ds[dim].attrs.get("standard_name") == standard_name:
            known = str(ds[dim].attrs.get("units")) in _TO_KM
            return str(dim) if known and ds[dim].size else None
    return None


def _has_mapping(ds: xr.Dataset) -> bool:
    return any("grid_mapping_name" in v.attrs for v in ds.variables.values())
