"""Regions that a file cuts in two at the end of its longitudes, made whole."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.coordinates import continuous, horizontal_coordinates

__all__ = ["first_column", "in_one_piece"]

Floats = NDArray[np.float64]


def first_column(lon: Floats) -> int:
    """Return the column with which a region begins that its file cuts into two pieces.

    Parameters
    ----------
    lon : ndarray
        Degrees east in the order of the file. Shape ``(X,)``.

    Returns
    -------
    int
        0 where the file begins with it. ``0, 2.5, 355, 357.5`` and
        ``-180, -177.5, 175, 177.5`` begin with column 2: their ends are neighbours on
        the globe, and the two columns between which they leap are not. 0 also for what
        does not go once around the globe in one direction.
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


def in_one_piece(ds: xr.Dataset) -> xr.Dataset:
    """Join a region that its file cuts into two pieces where the longitudes end.

    All variables on the columns are turned alike, and longitudes and their bounds are
    written without a jump. Other data sets come back as they are.
    """
    pair = horizontal_coordinates(ds)
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
    coordinates = {key: value for key, value in written.items() if key in ds.coords}
    made = made.assign(written).set_coords(list(coordinates))
    made.encoding = ds.encoding
    return made
