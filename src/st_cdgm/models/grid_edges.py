"""Geometry of the graph: neighbours on a grid, and cells between two grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from st_cdgm.errors import InputError

__all__ = ["NEIGHBOURS", "covering_cell", "grid_edges", "nearest", "unit_vectors"]

RING = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
KNIGHT = [(dy, dx) for dy in (-2, -1, 1, 2) for dx in (-2, -1, 1, 2) if dy**2 != dx**2]
NEIGHBOURS = {8: RING, 16: RING + KNIGHT}


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
    if lat.shape != shape or lon.shape != shape:
        raise InputError(
            f"the coordinates of the {grid} grid do not fit its shape",
            found=f"lat {lat.shape}, lon {lon.shape}",
            expected=f"{shape[:1]} and {shape[1:]}, or {shape} both",
        )
    if not (np.isfinite(lat).all() and np.isfinite(lon).all()):
        raise InputError(f"the {grid} grid has coordinates that are not finite")
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
    if wrap:  # a narrow ring meets itself
        edges = np.unique(edges[:, edges[0] != edges[1]], axis=1)
    return edges.astype(np.int64)


def nearest(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Index of the source direction nearest to each target direction.

    The chord grows with the great-circle distance, so both have the same nearest.
    """
    _, index = cKDTree(source).query(target)
    return np.asarray(index, dtype=np.int64)
