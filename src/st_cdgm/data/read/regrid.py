"""Predictors of a file brought to the coarse grid of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.read.coarsen import map_fields
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.space.blocks import ConservativeRegridder
from st_cdgm.data.space.coverage import uncovered
from st_cdgm.data.space.grid import Grid, interpolation
from st_cdgm.data.space.matching import same_cells_order
from st_cdgm.errors import GridMismatchError, check_choice

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
    cube : ChannelCube
        On ``grid``.
    text : str or None
        What was done for people and attributes; None if nothing was.

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
