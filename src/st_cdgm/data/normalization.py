"""Means and standard deviations that never meet a NaN or a zero."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from st_cdgm.errors import ConfigError, InputError

__all__ = [
    "FillStrategy",
    "Moments",
    "Scope",
    "check_choice",
    "fill_missing",
    "fill_nearest",
    "moments",
]

Scope = Literal["per_variable", "per_gridpoint"]
FillStrategy = Literal["zero", "mean", "interpolate"]
FloatArray = NDArray[np.float32]

# A cell that hardly varies would blow its noise up to unit variance.
STD_FLOOR = 0.1
# Below this share of the magnitude a spread is rounding, not variability.
_CONSTANT = 1.0e-6


class Moments:
    """Running mean and standard deviation of every channel and cell, NaN left out.

    Chunks of days are added one after the other, in float64 and around a shift, so
    that a large mean (geopotential) does not swallow a small spread.

    Parameters
    ----------
    shape : tuple of int
        ``(C, Y, X)``.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
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
        """Return mean and standard deviation.

        Parameters
        ----------
        scope : {"per_variable", "per_gridpoint"}
            One number per channel over all cells, or one per cell.

        Returns
        -------
        mean, std : ndarray
            Shape ``(C, 1, 1)`` or ``(C, Y, X)``, float32. Without any variation std is
            1; per cell it is at least a tenth of the channel's median; a cell that was
            never valid has mean 0 and std 1.
        """
        check_choice("normalization", scope, get_args(Scope))
        if scope == "per_variable":
            return self._pooled()
        known = self.count > 0
        count = np.maximum(self.count, 1)
        offset = self._sum / count
        mean = np.where(known, np.nan_to_num(self._shift) + offset, 0.0)
        std = np.sqrt(np.maximum(self._square / count - offset**2, 0.0))
        varies = known & (std > _CONSTANT * np.abs(mean))
        for channel, moving in enumerate(varies):
            if moving.any():
                floor = STD_FLOOR * np.median(std[channel][moving])
                std[channel] = np.maximum(std[channel], floor)
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


def moments(
    chunks: Iterable[FloatArray], shape: tuple[int, int, int], scope: Scope
) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of chunks of days; see :class:`Moments`."""
    running = Moments(shape)
    for chunk in chunks:
        running.add(chunk)
    return running.result(scope)


def fill_nearest(field: FloatArray) -> FloatArray:
    """Fill NaN with the nearest finite cell, counted in grid cells.

    Parameters
    ----------
    field : ndarray
        Shape ``(..., Y, X)``; all leading entries share the NaN pattern of the first.

    Returns
    -------
    ndarray
        Same shape. Unchanged where nothing is finite.
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
    """Return ``values`` without NaN or infinity.

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

    Returns
    -------
    ndarray
        Shape ``(T, C, Y, X)``; the input itself where nothing was missing.
    """
    check_choice("nan_fill_strategy", strategy, get_args(FillStrategy))
    finite = np.isfinite(values)
    if finite.all():
        return values
    neutral = np.broadcast_to(mean, values.shape[1:])
    out = np.where(finite, values, neutral).astype(np.float32)
    if strategy == "zero":
        return out
    some = finite.any(axis=(2, 3)) & ~finite.all(axis=(2, 3))
    for t, c in np.argwhere(some):
        known = finite[t, c]
        if strategy == "mean":
            out[t, c][~known] = values[t, c][known].mean()
        else:
            out[t, c] = fill_nearest(np.where(known, values[t, c], np.nan))
    return out


def check_choice(name: str, found: str, expected: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``found`` is one of ``expected``."""
    if found not in expected:
        raise ConfigError(
            f"unknown value of {name}",
            variable=f"data.{name}",
            found=found,
            expected=", ".join(expected),
        )


def check_known(values: FloatArray, names: tuple[str, ...], *, file: str) -> None:
    """Raise InputError where a channel has no finite value. Shape ``(T, C, Y, X)``."""
    empty = [not np.isfinite(values[:, c]).any() for c in range(values.shape[1])]
    if any(empty):
        raise InputError(
            "a variable has no value in the training period",
            file=file,
            variable=", ".join(n for n, e in zip(names, empty, strict=True) if e),
            found="only missing values",
            expected="finite values on some training days",
            remedy="leave the variable out or choose another training period",
        )
