"""Cubes on another grid: that of a model, or that of blocks of cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar, get_args

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.read.cubes import ChannelCube, TargetCube
from st_cdgm.data.space.blocks import (
    ConservativeRegridder,
    block_mean,
    check_factor,
    coarse_grid,
)
from st_cdgm.data.space.cells import cell_areas
from st_cdgm.data.space.grid import Grid, interpolation
from st_cdgm.data.space.matching import same_cells_order, uncovered
from st_cdgm.errors import GridMismatchError, check_choice

Cube = TypeVar("Cube", ChannelCube, TargetCube)
Regrid = Literal["auto", "bilinear", "conservative", "none"]
METHODS: tuple[str, ...] = get_args(Regrid)
MUCH_FINER = 6.0  # cells of the file in one of the model, from which means are better


def check_method(method: str) -> None:
    """Raise ConfigError unless ``method`` is known."""
    check_choice("regrid", method, METHODS, section="")


def on_grid(
    cube: ChannelCube, grid: Grid, *, method: str = "auto"
) -> tuple[ChannelCube, str | None]:
    """Return a cube on ``grid``, lazily, and how it came there.

    Missing values stay out of every mean; a cell is missing only where all that it is
    made of is. Longitudes close the circle where the file does.

    Parameters
    ----------
    cube : ChannelCube
        On any grid.
    grid : Grid
        The one wanted. Where the cube is on it, the cube itself comes back; where it
        has the same cells in another order, they are put in order.
    method : {"auto", "bilinear", "conservative", "none"}
        ``bilinear`` between cell centres (``auto`` as well; by distance from the four
        nearest cells of a curvilinear grid), ``conservative`` means over the area of
        cells, ``none`` refuses another grid.

    Returns
    -------
    cube, text
        The cube, and what was done for people and attributes; None if nothing was.

    Raises
    ------
    GridMismatchError
        The cube does not cover the grid, and by how much; or there is no conservative
        remapping between the two; or another grid with ``none``.
    """
    check_method(method)
    order = same_cells_order(grid, cube.grid)
    if order is not None:
        return _in_order(cube, grid, *order), None
    if method == "none":
        grid.check_same(cube.grid, file=cube.file, role="predictor")
    _check_covered(cube, grid, whole_cells=method == "conservative")

    change: Callable[[NDArray[Any]], NDArray[Any]]
    if method == "conservative":
        name, change = method, ConservativeRegridder(cube.grid, grid).apply
    else:
        # Between curvilinear cells there is no bilinear interpolation.
        name = "bilinear" if cube.grid.regular else "inverse distance of 4 cells"
        change = interpolation(cube.grid, grid).apply
    return map_fields(cube, grid, change), f"{name}, from {cube.grid} to {grid}"


def _in_order(
    cube: ChannelCube, grid: Grid, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> ChannelCube:
    """Put the same cells into the order of ``grid``."""
    if all(np.array_equal(i, np.arange(len(i))) for i in (rows, columns)):
        return cube
    values: Any = cube.values.isel(y=rows, x=columns)
    return replace(cube, grid=grid, values=values)


def _check_covered(cube: ChannelCube, grid: Grid, *, whole_cells: bool) -> None:
    outside = uncovered(cube.grid, grid, whole_cells=whole_cells)
    if outside:
        raise GridMismatchError(
            "the predictor grid does not cover that of the model",
            file=cube.file,
            found=f"{'; '.join(outside)} ({cube.grid})",
            expected=str(grid),
            remedy="take a larger region of the data; a file that covers the model's "
            "grid is regridded",
        )


def is_much_finer(source: Grid, target: Grid) -> bool:
    """Whether a cell of ``target`` holds so many of ``source`` that means are better.

    Values between cell centres leave out most of what such a cell holds.
    """
    small, large = _mean_area(source), _mean_area(target)
    return 0.0 < MUCH_FINER * small <= large


def _mean_area(grid: Grid) -> float:
    """Return the typical area of a cell in square degrees at the equator."""
    if min(grid.shape) < 2:
        return 0.0
    lat, lon = grid.lat2d, grid.lon2d
    height = np.hypot(*(np.diff(c, axis=0).mean() for c in (lat, lon)))
    width = np.hypot(*(np.diff(c, axis=1).mean() for c in (lat, lon)))
    return float(height * width)


# -- Blocks ----------------------------------------------------------------------------


def coarsen_cube(cube: Cube, factor: int) -> Cube:
    """Return area-weighted block means of a cube, lazily, on the grid of the blocks.

    Blocks have ``factor`` cells a side; the last of a row or column may be smaller.
    With a model's own fields as both targets and, coarsened, predictors this makes a
    "perfect model" task, in which the large scales are exactly consistent.
    """
    check_factor(factor)
    if factor == 1:
        return cube
    areas = cell_areas(cube.grid)

    def mean(block: NDArray[Any]) -> NDArray[Any]:
        return block_mean(block, factor, weights=areas)

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
