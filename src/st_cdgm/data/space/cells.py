"""Bounds and areas of grid cells, and the rotation of a rotated grid."""

from __future__ import annotations

from typing import cast

import numpy as np

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import unit_vectors
from st_cdgm.typing import Floats

# How far cells may lie from where the rotation puts them: coordinates in float32 or
# rounded to a hundredth of a degree.
_TOLERANCE_DEG = 2.0e-2


def cell_edges(grid: Grid) -> tuple[Floats, Floats]:
    """Return the bounds of rows and of columns, half way between the cells.

    Of latitude and longitude on a regular grid, of the one-dimensional axes on another
    (cell numbers where it has none). Outermost cells are as wide towards the border as
    towards the inside; latitudes end at the poles. An axis of one cell is a degree
    wide. Shapes ``(Y + 1,)`` and ``(X + 1,)``, in the order of the grid.
    """
    if grid.regular:
        return np.clip(_edges(grid.lat), -90.0, 90.0), _edges(grid.lon)
    rows, columns = grid.shape
    y = np.arange(rows, dtype=np.float64) if grid.y is None else grid.y
    x = np.arange(columns, dtype=np.float64) if grid.x is None else grid.x
    edges = _edges(y), _edges(x)
    if _rotated(grid):
        return np.clip(edges[0], -90.0, 90.0), edges[1]
    return edges


def _edges(axis: Floats) -> Floats:
    if len(axis) == 1:
        return cast("Floats", axis[0] + np.array([-0.5, 0.5]))
    middle = 0.5 * (axis[:-1] + axis[1:])
    first = axis[0] - (middle[0] - axis[0])
    last = axis[-1] + (axis[-1] - middle[-1])
    return np.concatenate([[first], middle, [last]])


def cell_areas(grid: Grid) -> Floats:
    """Return areas of cells with mean 1. Shape ``(Y, X)``.

    Exact on regular and rotated grids; elsewhere :meth:`Grid.area_weights`.
    """
    if not grid.regular and not _rotated(grid):
        return grid.area_weights().astype(np.float64)
    y, x = cell_edges(grid)
    heights = np.abs(np.diff(np.sin(np.deg2rad(y))))
    areas = np.multiply.outer(heights, np.abs(np.diff(x)))
    return cast("Floats", areas / areas.mean())


def _rotated(grid: Grid) -> bool:
    return grid.kind == "rotated_latitude_longitude" or rotation(grid) is not None


def rotation(grid: Grid) -> Floats | None:
    """Return the matrix from rotated to geographic directions. Shape ``(3, 3)``.

    Found from the cells themselves (Kabsch 1976, doi:10.1107/S0567739476001873), so
    that it needs no attribute of the pole. None where the axes ``y`` and ``x`` are no
    rotated latitude and longitude in degrees.
    """
    if grid.regular or grid.y is None or grid.x is None or min(grid.shape) < 2:
        return None
    if np.abs(grid.y).max() > 90.0 or np.abs(grid.x).max() > 540.0:
        return None

    own = unit_vectors(*np.meshgrid(grid.y, grid.x, indexing="ij")).reshape(-1, 3)
    earth = unit_vectors(grid.lat, grid.lon).reshape(-1, 3)
    left, _, right = np.linalg.svd(earth.T @ own)
    sign = np.sign(np.linalg.det(left @ right))
    turn = left @ np.diag([1.0, 1.0, sign]) @ right
    away = np.rad2deg(np.linalg.norm(own @ turn.T - earth, axis=1).max())
    return cast("Floats", turn) if away < _TOLERANCE_DEG else None
