"""The same cells in another order: rows and columns turned, columns begun elsewhere."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import SAME_DEG, Grid
from st_cdgm.typing import Floats

Order = tuple[NDArray[np.int64], NDArray[np.int64]]


def same_cells_order(grid: Grid, other: Grid) -> Order | None:
    """Return the rows and columns of ``other`` that give it the cells of ``grid``.

    Latitudes may run the other way, longitudes count from 0 or from -180 and begin
    anywhere on the circle.

    Returns
    -------
    rows, columns : ndarray
        Shapes ``(Y,)`` and ``(X,)``. None where the grids do not have the same cells.
    """
    if grid.shape != other.shape or grid.regular != other.regular:
        return None

    if grid.regular:
        rows = _positions(other.lat[None, :] - grid.lat[:, None])
        off = other.lon[None, :] - grid.lon[:, None]
        columns = _positions((off + 180.0) % 360.0 - 180.0)
        return None if rows is None or columns is None else (rows, columns)

    rows, columns = (np.arange(count) for count in grid.shape)
    for turned in product((rows, rows[::-1]), (columns, columns[::-1])):
        lat, lon = other.lat[np.ix_(*turned)], other.lon[np.ix_(*turned)]
        off = (lon - grid.lon + 180.0) % 360.0 - 180.0
        if max(np.abs(lat - grid.lat).max(), np.abs(off).max()) <= SAME_DEG:
            return turned
    return None


def _positions(off: Floats) -> NDArray[np.int64] | None:
    """Return where each cell of an axis is on another; None unless all are there."""
    away = np.abs(off)
    nearest = away.argmin(axis=1)
    found = away[np.arange(len(away)), nearest] <= SAME_DEG
    whole = found.all() and len(np.unique(nearest)) == len(nearest)
    return nearest.astype(np.int64) if whole else None
