"""Cubes of channels on a coarser grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.read.cubes import ChannelCube, TargetCube
from st_cdgm.data.space.blocks import block_mean, check_factor, coarse_grid
from st_cdgm.data.space.cells import cell_areas
from st_cdgm.data.space.grid import Grid

Cube = TypeVar("Cube", ChannelCube, TargetCube)


def coarsen_cube(cube: Cube, factor: int, *, min_valid: float = 0.0) -> Cube:
    """Return area-weighted block means of a cube, lazily, on the grid of the blocks.

    With a model's own fields as both targets and, coarsened, predictors this makes a
    "perfect model" task, in which the large scales are exactly consistent.

    Parameters
    ----------
    cube : ChannelCube or TargetCube
        On any grid.
    factor : int
        Cells per block side; the last block of a row or column may be smaller.
    min_valid : float
        See :func:`block_mean`.
    """
    check_factor(factor)
    if factor == 1:
        return cube
    areas = cell_areas(cube.grid)

    def mean(block: NDArray[Any]) -> NDArray[Any]:
        return block_mean(block, factor, weights=areas, min_valid=min_valid)

    return map_fields(cube, coarse_grid(cube.grid, factor), mean)


def map_fields(
    cube: Cube, grid: Grid, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Cube:
    """Return a cube on another grid, lazily; ``change`` makes ``(..., Y, X)`` of it."""
    array: Any = dask.array
    fields: Any = array.asarray(cube.values.data).rechunk({2: -1, 3: -1})
    chunks = (*fields.chunks[:2], (grid.shape[0],), (grid.shape[1],))
    empty = np.empty((0, 0, 0, 0), fields.dtype)

    values = array.map_blocks(
        change, fields, dtype=fields.dtype, chunks=chunks, meta=empty
    )
    axis = str(cube.values.dims[1])
    coords = {axis: cube.values.coords[axis]} if axis in cube.values.coords else None
    made = xr.DataArray(values, dims=cube.values.dims, coords=coords)
    return replace(cube, grid=grid, values=made)
