"""Geometry of the graph: neighbours on a grid, and cells between two grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.stacked import check_shape

RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
KNIGHT = [(dy, dx) for dy in (-2, -1, 1, 2) for dx in (-2, -1, 1, 2) if dy**2 != dx**2]
NEIGHBOURS = {8: RING, 16: RING + KNIGHT}


def check_grid_shape(name: str, shape: Sequence[int]) -> tuple[int, int]:
    """Return rows and columns; raise ConfigError unless two positive sizes."""
    values = tuple(shape)
    whole = all(float(size).is_integer() and size >= 1 for size in values)
    if len(values) != 2 or not whole:
        raise ConfigError(
            "a grid has two positive whole sizes",
            variable=name,
            found=values,
            expected="(rows, columns)",
        )
    return int(values[0]), int(values[1])


def covering_cell(coarse: int, fine: int) -> NDArray[np.int64]:
    """Coarse index under the centre of each fine cell: floor((i + 1/2) / ratio)."""
    i = np.arange(fine, dtype=np.int64)
    return (2 * i + 1) * coarse // (2 * fine)  # exact, in integers


def unit_vectors(
    grid: str, lat: NDArray[Any], lon: NDArray[Any], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Cartesian directions of all cells, row-major. Shape ``(N, 3)``."""
    if lat.ndim == 1 and lon.ndim == 1:
        lat, lon = np.meshgrid(lat, lon, indexing="ij")
    check_shape(f"latitudes of the {grid} grid", lat, shape)
    check_shape(f"longitudes of the {grid} grid", lon, shape)
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise InputError(f"the {grid} grid has coordinates that are not finite")
    if np.abs(lat).max() > 90.0 + 1e-6:
        raise InputError(
            f"the {grid} grid has latitudes beyond the poles",
            found=f"{lat.min():g} .. {lat.max():g}",
            expected="degrees north, -90 .. 90",
            remedy="give geographic coordinates, not those of a projection",
        )

    phi, lam = np.radians(lat).ravel(), np.radians(lon).ravel()
    return np.stack(
        [np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1
    )


def grid_edges(
    shape: tuple[int, int], offsets: Sequence[tuple[int, int]], *, wrap: bool
) -> NDArray[np.int64]:
    """Edges from every cell to its neighbours on the grid. Shape ``(2, E)``."""
    rows, cols = shape
    row, col = np.divmod(np.arange(rows * cols), cols)
    pairs = []
    for dy, dx in offsets:
        i, j = row + dy, col + dx
        inside = (i >= 0) & (i < rows)
        if wrap:
            j = j % cols
        else:
            inside &= (j >= 0) & (j < cols)

        source = np.flatnonzero(inside)
        pairs.append(np.stack([source, (i * cols + j)[inside]]))

    edges = np.concatenate(pairs, axis=1)
    if wrap and cols <= 2 * max(abs(dx) for _, dx in offsets):
        # A narrow ring meets itself: the same edge comes from two offsets.
        pair = np.unique(edges[0] * (rows * cols) + edges[1])
        edges = np.stack(np.divmod(pair, rows * cols))
        edges = edges[:, edges[0] != edges[1]]
    return edges.astype(np.int64)


def count_far_cells(
    source: NDArray[np.float64],
    target: NDArray[np.float64],
    parent: NDArray[np.int64],
    shape: tuple[int, int],
) -> int:
    """Count targets farther from their parent than every neighbour of the parent is.

    They lie outside the source grid, by half a cell or more.
    """
    here, there = grid_edges(shape, RING, wrap=False)
    reach = np.zeros(len(source))
    np.maximum.at(reach, here, np.linalg.norm(source[here] - source[there], axis=1))
    distance = np.linalg.norm(target - source[parent], axis=1)
    return int(np.count_nonzero((distance > reach[parent]) & (reach[parent] > 0)))


def grid_to_nodes(
    grid: Tensor, shape: tuple[int, int], *, channel_last: bool
) -> Tensor:
    """Flatten ``(C, y, x)``, or ``(y, x, C)``, to ``(N, C)``, row-major."""
    expected = (*shape, None) if channel_last else (None, *shape)
    check_shape("grid", grid, expected)
    last = grid if channel_last else grid.permute(1, 2, 0)
    return last.reshape(shape[0] * shape[1], last.shape[2])
