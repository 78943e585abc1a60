"""The same cells in another order: rows and columns turned, columns begun elsewhere."""

from __future__ import annotations

from itertools import product
from typing import cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import SAME_DEG, Grid, same_cells
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
        rows = _positions(grid.lat, other.lat)
        columns = _positions(grid.lon, other.lon)
        return None if rows is None or columns is None else (rows, columns)

    rows, columns = (np.arange(count) for count in grid.shape)
    for turned in product((rows, rows[::-1]), (columns, columns[::-1])):
        cells = np.ix_(*turned)
        if same_cells(grid, other.lat[cells], other.lon[cells]):
            return turned
    return None


def _positions(wanted: Floats, given: Floats) -> NDArray[np.int64] | None:
    """Return where each cell of an axis is on another; None unless all are there.

    The other may begin elsewhere on the circle, and run the other way.
    """
    start = int(_apart(given, wanted[:1]).argmin())
    for step in (1, -1):
        index = (start + step * np.arange(len(wanted))) % len(given)
        if (_apart(given[index], wanted) <= SAME_DEG).all():
            return index.astype(np.int64)
    return None


def _apart(one: Floats, other: Floats) -> Floats:
    """Return the degrees between angles."""
    return cast("Floats", np.abs((one - other + 180.0) % 360.0 - 180.0))
