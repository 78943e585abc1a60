"""Intervals over days: a moving-block bootstrap of sums of numbers per day."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.sparse import csr_array

from st_cdgm.typing import Floats, Indices

# Weather remembers some days; drawing single days would give too narrow an interval.
BLOCK_DAYS = 10
RESAMPLES = 2000
SEED = 0
# With fewer blocks an interval would be narrow by construction, not by knowledge.
MIN_BLOCKS = 5


class Measured(NamedTuple):
    """A number with its 95 % interval; bounds are NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


def block_length(ordinal: Indices) -> int:
    """Return how many scored days make about ten days, at least 1.

    Parameters
    ----------
    ordinal : ndarray
        Scored days, counted from any origin. Their median step is taken as the stride.
        Shape ``(T,)``.
    """
    stride = float(np.median(np.diff(ordinal))) if ordinal.size > 1 else 1.0
    return max(1, round(BLOCK_DAYS / stride))


def resampled_sums(values: Floats, block: int) -> Floats:
    """Sum series over resampled days, the same for all. ``(K, T)`` to ``(K, R)``.

    A resample is a row of blocks of ``block`` consecutive entries, cut to T; R is 2000.

    References
    ----------
    Kuensch (1989), doi:10.1214/aos/1176347265.
    """
    T = values.shape[-1]
    count, rest = divmod(T, block)

    def sums(length: int) -> Floats:
        """Sum of the ``length`` days from each start on, of all starts of a block."""
        windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)
        return np.asarray(windows.sum(axis=-1)[:, : T - block + 1])

    total = sums(block) @ _draws(T, block, last=False)
    if rest:
        total += sums(rest) @ _draws(T, block, last=True)
    return np.asarray(total)


@lru_cache(maxsize=32)
def _draws(T: int, block: int, *, last: bool) -> csr_array:
    """Return how often each resample holds each start. Shape ``(T - block + 1, R)``.

    Of its whole blocks, or of the last one, which is cut.
    """
    count, rest = divmod(T, block)
    size = (RESAMPLES, count + (rest > 0))
    starts = np.random.default_rng(SEED).integers(0, T - block + 1, size=size)
    chosen = starts[:, count:] if last else starts[:, :count]
    row = np.arange(0, chosen.size + 1, chosen.shape[1])
    drawn = (np.ones(chosen.size), chosen.ravel(), row)
    return csr_array(drawn, shape=(RESAMPLES, T - block + 1)).T


def enough(entries: int, block: int) -> bool:
    """Whether there are so many days (or windows) that an interval means something."""
    return entries >= MIN_BLOCKS * block


def bootstrap(
    statistic: Callable[[Floats], Floats], daily: Floats, block: int
) -> Measured:
    """Return a statistic of sums over days with its 95 % interval.

    Bias-corrected and accelerated (BCa) over moving blocks, at the level that makes a
    normal mean of so few blocks exact. The interval holds what the choice of days does,
    not what another training run would do.

    Parameters
    ----------
    statistic : callable
        From sums of shape ``(K, R)`` to R numbers.
    daily : ndarray
        What is summed, day by day (or window by window). Shape ``(K, T)``.
    block : int
        Block length in entries of ``daily``.

    Returns
    -------
    Measured
        The statistic of all days; the bounds are NaN with fewer entries than five
        blocks, or where a resample has no statistic.

    References
    ----------
    Efron (1987), doi:10.1080/01621459.1987.10478410; Hesterberg (2015),
    doi:10.1080/00031305.2015.1089789.
    """
    total = daily.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(total)[0])
        if not enough(daily.shape[-1], block):
            return Measured(value)
        samples = statistic(resampled_sums(daily, block))
        blocks = np.add.reduceat(daily, np.arange(0, daily.shape[-1], block), axis=-1)
        without = statistic(total - blocks)

    if not all(np.isfinite(part).all() for part in (value, samples, without)):
        return Measured(value)
    low, high = np.quantile(samples, _levels(value, samples, without))
    return Measured(value, float(low), float(high))


def _levels(value: float, samples: Floats, without: Floats) -> Floats:
    """Return the two BCa levels, from the statistic without each block. Shape (2,)."""
    n = without.size
    wide = math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1)
    below = np.mean(samples < value) + 0.5 * np.mean(samples == value)
    shift = stats.norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))

    influence = without.mean() - without
    square = float((influence**2).sum())
    skew = float((influence**3).sum()) / (6 * square**1.5) if square > 0 else 0.0
    z = shift + np.array([-wide, wide])
    return np.asarray(stats.norm.cdf(shift + z / np.maximum(1 - skew * z, 0.25)))
