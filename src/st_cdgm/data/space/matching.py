"""The cells that two grids share, in whatever order each has its rows and columns."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.coordinates import continuous
from st_cdgm.data.space.grid import SAME_DEG, Grid, nearest_index, same_cells
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


# -- A part of the cells ---------------------------------------------------------------


def shared_cells(grid: Grid, other: Grid) -> tuple[Order, Order] | None:
    """Return rows and columns of each of two grids that hold the cells they share.

    They follow one another in both: cells of another size share a centre here and there
    only. A single row or column is enough where a grid has no more.

    Returns
    -------
    of_grid, of_other : (rows, columns)
        In the order of ``grid``. None where they share too little, or only one is
        regular.
    """
    same = same_cells_order(grid, other)
    if same is not None:
        return (np.arange(grid.shape[0]), np.arange(grid.shape[1])), same
    if grid.regular != other.regular:
        return None
    if not grid.regular:
        return _shared_block(grid, other)

    rows, columns = _shared_run(grid.lat, other.lat), _shared_run(grid.lon, other.lon)
    if rows is None or columns is None:
        return None
    return (rows[0], columns[0]), (rows[1], columns[1])


def part_of(grid: Grid, order: Order) -> Grid:
    """Return some rows and columns of a grid, in the order given."""
    rows, columns = order
    cells = np.ix_(rows, columns)
    return replace(
        grid,
        lat=grid.lat[rows] if grid.regular else grid.lat[cells],
        lon=continuous(grid.lon[columns] if grid.regular else grid.lon[cells]),
        y=None if grid.y is None else grid.y[rows],
        x=None if grid.x is None else grid.x[columns],
    )


def _shared_run(axis: Floats, other: Floats) -> Order | None:
    """Return where the cells that two axes share are on each; None if too few."""
    near = [bool((_apart(other, place) <= SAME_DEG).any()) for place in axis]
    found = np.flatnonzero(near)
    if len(found) < min(2, len(axis), len(other)):
        return None

    # An axis around the globe may begin within the run.
    gaps = np.flatnonzero(np.diff(found) > 1)
    run = axis[np.roll(found, -gaps[0] - 1) if gaps.size else found]
    mine, theirs = _positions(run, axis), _positions(run, other)
    return None if mine is None or theirs is None else (mine, theirs)


def _shared_block(grid: Grid, other: Grid) -> tuple[Order, Order] | None:
    """Return where the cells that two curvilinear grids share are on each."""
    nearest = nearest_index(other, grid).reshape(grid.shape)
    lat, lon = other.lat.flat[nearest], other.lon.flat[nearest]
    near = (abs(lat - grid.lat) <= SAME_DEG) & (_apart(lon, grid.lon) <= SAME_DEG)
    mine = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if min(map(len, mine)) < 2:
        return None

    # Each row of the one is a row of the other, and the next one is the next.
    block = np.ix_(*mine)
    rows, columns = np.divmod(nearest[block], other.shape[1])
    theirs = rows[:, 0], columns[0]
    alike = (rows == rows[:, :1]) & (columns == columns[:1]) & near[block]
    runs = all(np.ptp(index) == len(index) - 1 for index in (*mine, *theirs))
    return (mine, theirs) if runs and alike.all() else None
