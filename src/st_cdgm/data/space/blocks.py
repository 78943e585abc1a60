"""Coarser fields: block means, and conservative remapping between regular grids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from st_cdgm.data.space.cells import cell_areas, cell_edges, rotation
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import unit_vectors
from st_cdgm.errors import (
    ConfigError,
    GridMismatchError,
    check_between,
    check_choice,
)
from st_cdgm.typing import Floats

Normalisation = Literal["fracarea", "destarea"]
# Less of a cell than this is the rounding of cell bounds.
_NOTHING = 1.0e-9
_SAME_POLE_DEG = 1.0e-2


# -- Block means -----------------------------------------------------------------------


def block_mean(
    values: NDArray[Any],
    factor: int,
    *,
    weights: NDArray[Any] | None = None,
    min_valid: float = 0.0,
) -> NDArray[Any]:
    """Return the mean of blocks of cells, missing values left out.

    Blocks that reach over the border hold the cells that there are: nothing is cut off
    and no missing frame arises (D3).

    Parameters
    ----------
    values : ndarray
        NaN where missing. Shape ``(..., Y, X)``.
    factor : int
        Cells per block side, at least 1.
    weights : ndarray, optional
        Areas of the cells; equal if None. Shape ``(Y, X)``.
    min_valid : float
        Share of the block's area that must be valid for it to have a value, in [0, 1].
        A block without any valid cell has none.

    Returns
    -------
    ndarray
        Shape ``(..., ceil(Y / factor), ceil(X / factor))``, the input's floating type.

    Raises
    ------
    ConfigError
        If ``factor`` or ``min_valid`` is out of range.
    """
    check_factor(factor)
    check_between("min_valid", min_valid, 0, 1)
    shape = values.shape[-2:]
    area = np.ones(shape) if weights is None else np.asarray(weights, np.float64)
    known = np.isfinite(values)
    total = _block_sum(np.where(known, values, 0.0) * area, factor)
    valid = _block_sum(known * area, factor)
    share = valid / _block_sum(area, factor)
    kept = (valid > 0) & (share >= min_valid - _NOTHING)
    mean = np.where(kept, total / np.where(kept, valid, 1.0), np.nan)

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


def coarse_edges(grid: Grid, factor: int) -> tuple[Floats, Floats]:
    """Return the bounds of blocks along rows and columns.

    In degrees on a regular or rotated grid, else in the units of the grid's axes. The
    last block ends where the grid does.
    """
    y, x = (
        edges[np.minimum(np.arange(0, count + factor, factor), count)]
        for edges, count in zip(cell_edges(grid), grid.shape, strict=True)
    )
    return y, x


def coarse_grid(grid: Grid, factor: int) -> Grid:
    """Return the grid of blocks of ``factor`` by ``factor`` cells.

    Its rows and columns lie in the middle of the blocks, in the order of ``grid``.
    Latitudes and longitudes of a rotated grid follow from its pole; on any other
    two-dimensional grid a block is where the mean position of its cells is.
    """
    check_factor(factor)
    edges = coarse_edges(grid, factor)
    y, x = (0.5 * (edge[:-1] + edge[1:]) for edge in edges)
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
    source_edges, target_edges : (ndarray, ndarray), optional
        Bounds of rows and of columns, where they are not half way between the cells;
        see :func:`coarse_edges`.

    Raises
    ------
    GridMismatchError
        If cells of the two grids are not bounded by the same kind of lines.

    References
    ----------
    Jones (1999), doi:10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2.
    """

    def __init__(
        self,
        source: Grid,
        target: Grid,
        *,
        source_edges: tuple[Floats, Floats] | None = None,
        target_edges: tuple[Floats, Floats] | None = None,
    ) -> None:
        _check_kinds(source, target)
        self.source, self.target = source, target
        old = cell_edges(source) if source_edges is None else source_edges
        new = cell_edges(target) if target_edges is None else target_edges
        self._rows = _overlap(_sine(old[0]), _sine(new[0]))
        self._columns = _overlap_on_circle(old[1], new[1])
        self._areas = np.multiply.outer(
            np.abs(np.diff(_sine(new[0]))), np.abs(np.diff(np.deg2rad(new[1])))
        )

    def apply(
        self,
        values: NDArray[Any],
        *,
        normalisation: Normalisation = "fracarea",
        min_valid: float = 0.0,
    ) -> NDArray[Any]:
        """Remap fields.

        Parameters
        ----------
        values : ndarray
            NaN where missing. Shape ``(..., y, x)`` of the source.
        normalisation : {"fracarea", "destarea"}
            ``fracarea``: the mean over the part of the target cell that has values.
            ``destarea``: the integral over that part divided by the whole cell, which
            conserves integrals where values are missing or the source ends.
        min_valid : float
            Share of the target cell's area that must have values; where it has not, and
            where nothing has, the result is NaN.

        Returns
        -------
        ndarray
            Shape ``(..., Y, X)`` of the target, the input's floating type.
        """
        check_choice("normalisation", normalisation, get_args(Normalisation))
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
        share = covered / self._areas
        kept = share > max(min_valid - _NOTHING, _NOTHING)
        divisor = covered if normalisation == "fracarea" else self._areas
        out = np.where(kept, total / np.where(kept, divisor, 1.0), np.nan)
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
