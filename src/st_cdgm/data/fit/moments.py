"""Means and standard deviations that never meet a NaN or a zero."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from st_cdgm.data.variables.table import PRECIPITATION, Named
from st_cdgm.errors import check_choice
from st_cdgm.typing import FloatArray, Floats

logger = logging.getLogger(__name__)
Scope = Literal["per_variable", "per_gridpoint"]
FillStrategy = Literal["zero", "mean", "interpolate"]
# Training days: raw predictors (T, C_lr, y, x), season (T,), truth (T, C, Y, X), NaN
# where missing. Each call starts again at the first day; T may differ between blocks.
Blocks = Callable[[], Iterator[tuple[FloatArray, FloatArray, FloatArray]]]
STD_FLOOR = 0.1
# Below this share of the magnitude a spread is rounding, not variability.
_CONSTANT = 1.0e-6
_FIELDS_PER_BLOCK = 1024
_WET_DAY = 0.1  # mm day-1


class Moments:
    """Running mean and standard deviation of every channel and cell, NaN left out.

    Chunks of days are added one after the other, in float64 and around a shift, so
    that a large mean (geopotential) does not swallow a small spread. A day has the
    shape ``(C, Y, X)``.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = np.zeros(shape, dtype=np.int64)
        self._shift = np.full(shape, np.nan)
        self._sum = np.zeros(shape)
        self._square = np.zeros(shape)

    def add(self, values: FloatArray) -> None:
        """Add days. Shape ``(T, C, Y, X)``."""
        if not len(values):
            return

        finite = np.isfinite(values)
        first = np.take_along_axis(values, finite.argmax(axis=0)[None], axis=0)[0]
        new = np.isnan(self._shift) & np.isfinite(first)
        self._shift[new] = first[new]
        shift = np.nan_to_num(self._shift)
        centred = np.where(finite, values - shift, 0.0)
        self.count += finite.sum(axis=0)
        self._sum += centred.sum(axis=0)
        self._square += np.square(centred).sum(axis=0)

    def result(self, scope: Scope) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of each channel, or of each cell.

        Shape ``(C, 1, 1)`` or ``(C, Y, X)``, float32. Without any variation the
        deviation is 1; per cell it is at least a tenth of the channel's median; a cell
        that was never valid has mean 0 and deviation 1.
        """
        if scope == "per_variable":
            return self._pooled()

        check_choice("normalization", scope, get_args(Scope))
        known = self.count > 0
        count = np.maximum(self.count, 1)
        offset = self._sum / count
        mean = np.where(known, np.nan_to_num(self._shift) + offset, 0.0)
        std = np.sqrt(np.maximum(self._square / count - offset**2, 0.0))
        varies = known & (std > _CONSTANT * np.abs(mean))
        lift(std, varies)
        std = np.where(known & varies.any(axis=(1, 2), keepdims=True), std, 1.0)
        return mean.astype(np.float32), std.astype(np.float32)

    def _pooled(self) -> tuple[FloatArray, FloatArray]:
        """Pool all cells of a channel, weighting each by its number of valid days."""
        axes = (1, 2)
        total = np.maximum(self.count.sum(axis=axes, keepdims=True), 1)
        shift = np.nan_to_num(self._shift)
        centre = (self.count * shift + self._sum).sum(axis=axes, keepdims=True) / total
        # sum (x - centre)^2 per cell, from the sums around the cell's shift.
        away = shift - centre
        square = self._square + 2 * away * self._sum + self.count * away**2
        std = np.sqrt(np.maximum(square.sum(axis=axes, keepdims=True) / total, 0.0))
        std = np.where(std > _CONSTANT * np.abs(centre), std, 1.0)
        return centre.astype(np.float32), std.astype(np.float32)


def lift(spread: Floats, varies: NDArray[np.bool_]) -> None:
    """Raise small spreads, in place, to a tenth of the median where a channel varies.

    Shapes ``(C, Y, X)``. A cell that hardly varies would blow its noise up.
    """
    for own, moving in zip(spread, varies, strict=True):
        if moving.any():
            np.maximum(own, STD_FLOOR * np.median(own[moving]), out=own)


def rooted(values: FloatArray, channels: Sequence[int]) -> FloatArray:
    """Return a copy with the square root of some channels; negative counts as 0."""
    if not len(channels):
        return values
    out = values.copy()
    for channel in channels:
        out[:, channel] = np.sqrt(np.maximum(out[:, channel], 0.0))
    return out


def fill_nearest(field: FloatArray) -> FloatArray:
    """Fill NaN with the nearest finite cell, counted in grid cells.

    Shape ``(..., Y, X)``; all leading entries share the NaN pattern of the first. The
    field itself where nothing is finite.
    """
    missing = ~np.isfinite(field[(0,) * (field.ndim - 2)])
    if not missing.any() or missing.all():
        return field
    index = distance_transform_edt(missing, return_distances=False, return_indices=True)
    filled: FloatArray = field[..., index[0], index[1]]
    return filled


def fill_missing(
    values: FloatArray, mean: FloatArray, strategy: FillStrategy
) -> FloatArray:
    """Return ``values`` without NaN or infinity, themselves if nothing is missing.

    Parameters
    ----------
    values : ndarray
        Shape ``(T, C, Y, X)``.
    mean : ndarray
        Training mean, the neutral value. Shape ``(C, 1|Y, 1|X)``.
    strategy : {"zero", "mean", "interpolate"}
        ``zero``: the training mean, which is 0 once standardised. ``mean``: the mean of
        the day's other cells. ``interpolate``: the day's nearest cell. Both fall back
        to ``zero`` on a day without any value.
    """
    if strategy not in get_args(FillStrategy):
        check_choice("nan_fill_strategy", strategy, get_args(FillStrategy))
    finite = np.isfinite(values)
    if finite.all():
        return values

    neutral = np.broadcast_to(mean, values.shape[1:])
    out = np.where(finite, values, neutral).astype(np.float32)
    fields, known = out.reshape(-1, *out.shape[2:]), finite.reshape(-1, *out.shape[2:])
    gaps = np.flatnonzero(known.any(axis=(1, 2)) & ~known.all(axis=(1, 2)))
    if len(gaps) and strategy == "mean":
        _fill_with_mean(fields, known, gaps)
    elif len(gaps) and strategy == "interpolate":
        _fill_with_nearest(fields, known, gaps)
    return out


def _fill_with_mean(
    fields: FloatArray, known: NDArray[np.bool_], gaps: NDArray[np.int64]
) -> None:
    """Fill the fields ``gaps``, shape ``(N, Y, X)``, with their own means, in place."""
    for start in range(0, len(gaps), _FIELDS_PER_BLOCK):
        some = gaps[start : start + _FIELDS_PER_BLOCK]
        usable = known[some].reshape(len(some), -1)
        values = fields[some].reshape(len(some), -1)
        given = np.where(usable, values, 0.0).astype(np.float64)
        mean = (given.sum(axis=1) / usable.sum(axis=1)).astype(np.float32)
        filled = np.where(usable, values, mean[:, None])
        fields[some] = filled.reshape(-1, *fields.shape[1:])


def _fill_with_nearest(
    fields: FloatArray, known: NDArray[np.bool_], gaps: NDArray[np.int64]
) -> None:
    """Fill the fields ``gaps`` from their nearest cells, in place.

    Fields that miss the same cells share one search: gaps are mostly coasts and the
    ground below pressure levels, the same on many days.
    """
    packed = np.packbits(known[gaps].reshape(len(gaps), -1), axis=1)
    rows = np.ascontiguousarray(packed).view(f"V{packed.shape[1]}")[:, 0]
    _, first, pattern = np.unique(rows, return_index=True, return_inverse=True)
    order = np.argsort(pattern, kind="stable")
    ends = np.cumsum(np.bincount(pattern, minlength=len(first)))

    for start, member in zip(first, np.split(gaps[order], ends[:-1]), strict=True):
        missing = ~known[gaps[start]]
        index = distance_transform_edt(
            missing, return_distances=False, return_indices=True
        )
        at = np.nonzero(missing)
        source = index[0][at], index[1][at]
        fields[member[:, None], *at] = fields[member[:, None], *source]


# -- Whether variables change at all ---------------------------------------------------


class Variation:
    """Lowest and highest value of every channel and cell, NaN left out.

    ``variables`` are the C channels.
    """

    def __init__(self, variables: Sequence[Named], shape: tuple[int, ...]) -> None:
        self.variables = tuple(variables)
        self.low: Floats = np.full((len(self.variables), *shape), np.inf)
        self.high: Floats = np.full((len(self.variables), *shape), -np.inf)

    def add(self, values: FloatArray) -> None:
        """Add days. Shape ``(T, C, Y, X)``."""
        if len(values):
            self.low = np.fmin(self.low, np.fmin.reduce(values, axis=0))
            self.high = np.fmax(self.high, np.fmax.reduce(values, axis=0))

    def constant(self) -> list[str]:
        """Return the names of the variables that no cell sees change."""
        names = []
        for variable, low, high in zip(
            self.variables, self.low, self.high, strict=True
        ):
            known = high >= low
            change = (high - low)[known]
            if known.any() and (change <= _CONSTANT * np.abs(high[known])).all():
                names.append(variable.name)
        return names

    def dry(self) -> list[str]:
        """Return the names of precipitation variables without any wet day."""
        names = []
        for variable, high in zip(self.variables, self.high, strict=True):
            if high.max() >= _WET_DAY or variable.units != PRECIPITATION.units:
                continue
            if variable.row is not None and variable.row.quantity is PRECIPITATION:
                names.append(variable.name)
        return names


def warn_of_idle(predictors: Variation, targets: Variation, *, file: str) -> None:
    """Say which variables have nothing to teach, or nothing to learn."""
    for role, names in (
        ("predictors", predictors.constant()),
        ("targets", targets.constant()),
    ):
        if names:
            logger.warning(
                "%s: %s that never change in the training period: %s; look at the "
                "file, or leave them out",
                file or "the data",
                role,
                ", ".join(names),
            )

    if dry := targets.dry():
        logger.warning(
            "%s: no day of the training period is wet anywhere (%g mm day-1): %s; a "
            "model of it never makes rain",
            file or "the data",
            _WET_DAY,
            ", ".join(dry),
        )
