"""Medians and quartile ranges of days that come block by block."""

from __future__ import annotations

from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.moments import Moments, Scope, lift
from st_cdgm.errors import check_choice
from st_cdgm.typing import FloatArray, Floats

# Quartile range of a normal distribution, in standard deviations.
NORMAL_IQR = 1.349
MEMORY = 128 * 2**20
_QUARTILES = np.array([0.25, 0.5, 0.75])
# The sketch counts |x - shift| in bins that grow by 3 %, from a hundredth of the spread
# of the days seen first to twenty times that spread, on either side.
_GROWTH = 1.03
_SMALLEST, _LARGEST = 0.01, 20.0
_SIDE = int(np.ceil(np.log(_LARGEST / _SMALLEST) / np.log(_GROWTH))) + 1
_BISECTIONS = 48


class RobustMoments:
    r"""Running median and quartile range / 1.349 of every channel and cell.

    Exact while all days fit into ``memory``. Beyond that, every cell keeps counts in
    519 bins around the median :math:`m` of the days seen so far, with bounds
    :math:`m \pm 0.01\, s\, 1.03^{i}` for their spread :math:`s`, so that outliers cost
    no resolution. A quantile :math:`q` is then off by at most 3 % of :math:`|q - m|` or
    0.02 :math:`s`, whichever is larger, if it lies within :math:`m \pm 20 s`.
    (Bins as in Masson et al. 2019, "DDSketch", doi:10.14778/3352063.3352135.)

    Parameters
    ----------
    shape : tuple of int
        ``(C, Y, X)``.
    memory : int
        Bytes of days kept for the exact result.
    """

    def __init__(self, shape: tuple[int, int, int], *, memory: int = MEMORY) -> None:
        self.shape = shape
        self._moments = Moments(shape)
        self._kept: list[FloatArray] = []
        self._room = memory
        self._sketch: _Sketch | None = None

    @property
    def count(self) -> NDArray[np.int64]:
        """Valid days of every cell. Shape ``(C, Y, X)``."""
        return self._moments.count

    def add(self, values: FloatArray) -> None:
        """Add days. Shape ``(T, C, Y, X)``; NaN and infinity count as missing."""
        if not len(values):
            return
        self._moments.add(values)
        days = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
        days = days.reshape(len(days), -1)
        if self._sketch is not None:
            self._sketch.add(days)
            return

        self._kept.append(days)
        self._room -= days.nbytes
        if self._room < 0:
            first = np.concatenate(self._kept)
            spread = self._moments.result("per_gridpoint")[1].astype(np.float64)
            self._sketch = _Sketch(first, spread.ravel())
            self._sketch.add(first)
            self._kept = []

    def result(self, scope: Scope) -> tuple[FloatArray, FloatArray]:
        """Return median and scale; shapes and floors as for :meth:`Moments.result`.

        The scale is the quartile range over 1.349; where that is 0 although values vary
        (rain in a dry climate) the standard deviation; without any variation 1.
        """
        check_choice("normalization", scope, get_args(Scope))
        lower, median, upper = self._quartiles(scope)
        mean, std = self._moments.result(scope)
        scale = (upper - lower) / NORMAL_IQR
        # Moments give 1 for a constant, a floor for a cell that hardly varies.
        flat = ~(scale > 1e-6 * np.maximum(np.abs(median), std))
        scale = np.where(flat, std, scale)
        if scope == "per_gridpoint":
            lift(scale, ~flat)
            scale = np.where(self.count > 0, scale, 1.0)
        return np.nan_to_num(median).astype(np.float32), scale.astype(np.float32)

    def _quartiles(self, scope: Scope) -> Floats:
        """Return the quartiles. Shape ``(3, C, Y | 1, X | 1)``, NaN without values."""
        channels = self.shape[0]
        if self._sketch is not None:
            if scope == "per_gridpoint":
                return self._sketch.quantiles().reshape(3, *self.shape)
            return self._sketch.pooled(channels).reshape(3, channels, 1, 1)

        nothing = np.full((1, self.count.size), np.nan, dtype=np.float32)
        days = np.concatenate(self._kept or [nothing])
        if scope == "per_gridpoint":
            return _sorted_quantiles(days).reshape(3, *self.shape)
        pool = days.reshape(len(days), channels, -1).transpose(0, 2, 1)
        return _sorted_quantiles(pool.reshape(-1, channels))[:, :, None, None]


class _Sketch:
    """Counts in bins that grow away from a centre, per cell (P of them)."""

    def __init__(self, first: FloatArray, spread: Floats) -> None:
        lower, median, upper = _sorted_quantiles(first)
        self.shift = np.nan_to_num(median)
        width = (upper - lower) / NORMAL_IQR
        self.scale = np.where(width > 0, width, spread)
        self.counts = np.zeros((len(spread), 2 * _SIDE + 1), dtype=np.uint32)

    def add(self, days: FloatArray) -> None:
        """Add days. Shape ``(T, P)``."""
        cells = np.arange(len(self.counts))
        for day in days:
            known = np.isfinite(day)
            index = self._bin(day)[known]
            self.counts[cells[known], index] += 1

    def quantiles(self) -> Floats:
        """Return the quartiles of every cell, NaN without values. Shape ``(3, P)``."""
        total = np.cumsum(self.counts, axis=1, dtype=np.float64)  # (P, bins)
        cells = np.arange(len(total))
        out = np.full((3, len(total)), np.nan)

        for row, level in enumerate(_QUARTILES):
            rank = level * total[:, -1]
            index = (total < rank[:, None]).sum(axis=1).clip(max=2 * _SIDE)
            before = np.where(index > 0, total[cells, index - 1], 0.0)
            inside = np.maximum(self.counts[cells, index], 1)
            share = np.clip((rank - before) / inside, 0.0, 1.0)
            low, high = _EDGES[index], _EDGES[index + 1]
            out[row] = self.shift + self.scale * (low + share * (high - low))

        out[:, total[:, -1] == 0] = np.nan
        return out

    def pooled(self, channels: int) -> Floats:
        """Return the quartiles of each channel over its cells. Shape ``(3, C)``."""
        total = np.cumsum(self.counts, axis=1, dtype=np.float64)
        start = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
        valid = total[:, -1].reshape(channels, -1).sum(axis=1)
        reach = _EDGES[-1] * self.scale
        bounds = [(self.shift + sign * reach).reshape(channels, -1) for sign in (-1, 1)]
        out = np.empty((3, channels))

        for row, level in enumerate(_QUARTILES):
            low, high = bounds[0].min(axis=1), bounds[1].max(axis=1)
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                below = self._below(start, np.repeat(middle, len(total) // channels))
                short = below.reshape(channels, -1).sum(axis=1) < level * valid
                low, high = np.where(short, middle, low), np.where(short, high, middle)
            out[row] = 0.5 * (low + high)

        out[:, valid == 0] = np.nan
        return out

    def _bin(self, values: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the bin of one value per cell. Shape ``(P,)``."""
        away = (np.nan_to_num(values) - self.shift) / self.scale
        steps = np.maximum(np.abs(away) / _SMALLEST, 1.0)
        side = np.floor(np.log(steps) / np.log(_GROWTH)) + 1
        side = np.where(np.abs(away) < _SMALLEST, 0, np.minimum(side, _SIDE))
        return cast(
            "NDArray[np.int64]", (_SIDE + np.sign(away) * side).astype(np.int64)
        )

    def _below(self, start: Floats, values: Floats) -> Floats:
        """Return how many values of each cell lie below one value. Shape ``(P,)``."""
        cells, index = np.arange(len(values)), self._bin(values)
        away = (values - self.shift) / self.scale
        low, high = _EDGES[index], _EDGES[index + 1]
        share = np.clip((away - low) / (high - low), 0.0, 1.0)
        return cast("Floats", start[cells, index] + share * self.counts[cells, index])


# Bounds of the bins around shift 0 for scale 1: the middle one holds |x| < 0.01.
_POWERS = _SMALLEST * _GROWTH ** np.arange(_SIDE + 1)
_EDGES = np.concatenate([-_POWERS[::-1], _POWERS])


def _sorted_quantiles(values: NDArray[np.floating]) -> Floats:
    """Return the quartiles of each column, NaN left out. Shape ``(3, P)``."""
    ordered = np.sort(values, axis=0)  # NaN come last
    count = np.isfinite(ordered).sum(axis=0)
    last = np.maximum(count - 1, 0)

    position = _QUARTILES[:, None] * last  # (3, P)
    lower = np.floor(position).astype(np.int64)
    low, high = (
        np.take_along_axis(ordered, at, axis=0).astype(np.float64)
        for at in (lower, np.minimum(lower + 1, last))
    )
    return np.where(count > 0, low + (position - lower) * (high - low), np.nan)
