"""Coarser fields: block means, and conservative remapping between regular grids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from st_cdgm.data.space.cells import cell_areas, cell_edges, rotation
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import unit_vectors
from st_cdgm.errors import ConfigError, GridMismatchError
from st_cdgm.typing import Floats

# Less of a cell than this is the rounding of cell bounds.
_NOTHING = 1.0e-9
_SAME_POLE_DEG = 1.0e-2


# -- Block means -----------------------------------------------------------------------


def block_mean(
    values: NDArray[Any],
    factor: int,
    *,
    weights: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the mean of blocks of cells, missing values left out.

    Blocks that reach over the border hold the cells that there are: nothing is cut off
    and no missing frame arises (D3).

    Parameters
    ----------
    values : ndarray
        NaN where missing. Shape ``(..., Y, X)`` to ``(..., ceil(Y / factor), ceil(X /
        factor))``; a block is missing where all of its cells are.
    factor : int
        Cells per block side; a ConfigError unless at least 1.
    weights : ndarray, optional
        Areas of the cells; equal if None. Shape ``(Y, X)``.
    """
    check_factor(factor)
    shape = values.shape[-2:]
    area = np.ones(shape) if weights is None else np.asarray(weights, np.float64)
    known = np.isfinite(values)
    total = _block_sum(np.where(known, values, 0.0) * area, factor)
    valid = _block_sum(known * area, factor)
    mean = np.where(valid > 0, total / np.where(valid > 0, valid, 1.0), np.nan)
    return mean.astype(np.result_type(values.dtype, np.float32), copy=False)


def _block_sum(values: Floats, factor: int) -> Floats:
    """Return sums over blocks of the last two axes."""
    rows, columns = values.shape[-2:]
    starts = np.arange(0, rows, factor), np.arange(0, columns, factor)
    wide = np.add.reduceat(values.astype(np.float64), starts[0], axis=-2)
    return cast("Floats", np.add.reduceat(wide, starts[1], axis=-1))


def check_factor(factor: int) -> None:
    """Raise ConfigError unless blocks have a whole number of cells a side."""
    if factor != int(factor) or factor < 1:
        raise ConfigError(
            "blocks have a whole number of cells a side",
            variable="data.lr_coarsen",
            found=factor,
            expected="1, 2, 3, ...",
        )


# -- Coarse grids and cubes ------------------------------------------------------------


def coarse_grid(grid: Grid, factor: int) -> Grid:
    """Return the grid of blocks of ``factor`` by ``factor`` cells.

    Its rows and columns lie in the middle of the blocks, in the order of ``grid``.
    Latitudes and longitudes of a rotated grid follow from its pole; on any other
    two-dimensional grid a block is where the mean position of its cells is.
    """
    check_factor(factor)
    y, x = (
        _middles(edges[np.minimum(np.arange(0, count + factor, factor), count)])
        for edges, count in zip(cell_edges(grid), grid.shape, strict=True)
    )
    if grid.regular:
        return replace(grid, lat=y, lon=x)

    turn = rotation(grid)
    if turn is not None:
        xyz = unit_vectors(*np.meshgrid(y, x, indexing="ij")) @ turn.T
    else:
        cells = unit_vectors(grid.lat, grid.lon)
        planes = np.moveaxis(cells, -1, 0)
        xyz = np.moveaxis(block_mean(planes, factor, weights=cell_areas(grid)), 0, -1)
        xyz = xyz / np.linalg.norm(xyz, axis=-1, keepdims=True)
    lon = np.rad2deg(np.arctan2(xyz[..., 1], xyz[..., 0]))
    middle = float(grid.lon.mean())
    return replace(
        grid,
        lat=np.rad2deg(np.arcsin(np.clip(xyz[..., 2], -1.0, 1.0))),
        lon=middle + (lon - middle + 180.0) % 360.0 - 180.0,
        y=None if grid.y is None else y,
        x=None if grid.x is None else x,
    )


def _middles(edges: Floats) -> Floats:
    return 0.5 * (edges[:-1] + edges[1:])


# -- Conservative remapping ------------------------------------------------------------


class ConservativeRegridder:
    r"""First-order conservative remapping between two regular or two rotated grids.

    .. math:: \bar x_{KL} = \frac{\sum_{kl} Y_{Kk}\, x_{kl}\, X_{Ll}}
                                 {\sum_{kl} Y_{Kk}\, m_{kl}\, X_{Ll}}

    with :math:`Y` the overlap of rows in the sine of latitude, :math:`X` that of
    columns in longitude (on the circle) and :math:`m` 1 where the source has a value.
    The area of a cell on the sphere is the product of the two, so weights are exact.

    Parameters
    ----------
    source, target : Grid
        Both regular, or both rotated with the same pole. Rows and columns in any order.

    Raises
    ------
    GridMismatchError
        If cells of the two grids are not bounded by the same kind of lines.

    References
    ----------
    Jones (1999), doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2.
    """

    def __init__(self, source: Grid, target: Grid) -> None:
        _check_kinds(source, target)
        self.source, self.target = source, target
        old, new = cell_edges(source), cell_edges(target)
        self._rows = _overlap(_sine(old[0]), _sine(new[0]))
        self._columns = _overlap_on_circle(old[1], new[1])
        self._areas = np.multiply.outer(
            np.abs(np.diff(_sine(new[0]))), np.abs(np.diff(np.deg2rad(new[1])))
        )

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the means over the parts of the target cells that have values.

        From the source, ``(..., y, x)``, to the target, ``(..., Y, X)``; NaN where
        missing, in the source and where nothing of a cell has a value.
        """
        if values.shape[-2:] != self.source.shape:
            raise GridMismatchError(
                "the field is not on the source grid",
                found=values.shape,
                expected=(..., *self.source.shape),
            )
        known = np.isfinite(values)
        total = self._sum(np.where(known, values, 0.0))
        # The same for all fields where nothing is missing.
        covered = self._sum(np.ones(self.source.shape) if known.all() else known)
        kept = covered / self._areas > _NOTHING
        out = np.where(kept, total / np.where(kept, covered, 1.0), np.nan)
        return out.astype(np.result_type(values.dtype, np.float32), copy=False)

    def _sum(self, values: NDArray[Any]) -> Floats:
        """Return the integral over every target cell, on the unit sphere."""
        (rows, columns), (new_rows, new_columns) = self.source.shape, self.target.shape
        flat = values.astype(np.float64).reshape(-1, columns)
        wide = (self._columns @ flat.T).T.reshape(-1, rows, new_columns)
        turned = np.moveaxis(wide, 1, 0).reshape(rows, -1)
        out: Floats = (self._rows @ turned).reshape(new_rows, -1, new_columns)
        return np.moveaxis(out, 0, 1).reshape(*values.shape[:-2], *self.target.shape)


def _check_kinds(source: Grid, target: Grid) -> None:
    if source.regular and target.regular:
        return
    reason = "one is regular and the other is not"
    if not source.regular and not target.regular:
        turns = rotation(source), rotation(target)
        if turns[0] is None or turns[1] is None:
            reason = "cells of a curvilinear or projected grid have no common bounds"
        else:
            # Angle by which the one rotation differs from the other.
            cosine = 0.5 * (np.trace(turns[0].T @ turns[1]) - 1.0)
            angle = float(np.rad2deg(np.arccos(np.clip(cosine, -1.0, 1.0))))
            if angle < _SAME_POLE_DEG:
                return
            reason = f"their poles differ by {angle:.3g} degrees"
    raise GridMismatchError(
        f"no conservative remapping between these grids: {reason}",
        found=str(source),
        expected=f"a grid of the same kind and pole as {target}",
        remedy="remap with cdo remapcon, or use block means (coarsen_cube)",
    )


def _sine(latitudes: Floats) -> Floats:
    return cast("Floats", np.sin(np.deg2rad(latitudes)))


def _overlap(old: Floats, new: Floats) -> Any:
    """Return lengths that cells of two axes share, sparse. Shape ``(N_new, N_old)``."""
    low, high = np.minimum(old[:-1], old[1:]), np.maximum(old[:-1], old[1:])
    bottom, top = np.minimum(new[:-1], new[1:]), np.maximum(new[:-1], new[1:])
    shared = np.minimum(high, top[:, None]) - np.maximum(low, bottom[:, None])
    return csr_array(np.maximum(shared, 0.0))


def _overlap_on_circle(old: Floats, new: Floats) -> Any:
    """Return the shared lengths of longitudes in degrees, in radians."""
    turns = 360.0 * np.arange(-2, 3)
    near = np.round((new.mean() - old.mean()) / 360.0) * 360.0
    parts = [_overlap(np.deg2rad(old + near + turn), np.deg2rad(new)) for turn in turns]
    return sum(parts[1:], start=parts[0])
