"""Quantiles of all values up to the 99.9th percentile, members beside the truth.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.evaluation.metrics.base import Metric, PrecipitationMetric, RatioMetric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.registry import register
from st_cdgm.typing import Floats

LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999)
# Bits of a float32 that tell bins apart: sign, exponent and 8 of the mantissa, so that
# a bin is at most 0.4 % wide, whatever the range of the values.
_BITS = 1 + 8 + 8
_SHIFT = 32 - _BITS
# Bins of negative values.
_HALF = 2 ** (_BITS - 1)


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Quantiles at `LEVELS`. Shape ``(L,)`` each."""

    forecast: Floats
    reference: Floats


class QuantilesScore:
    """Weighted histograms with bins of 0.4 % of the value; see :func:`quantiles`."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, 2**_BITS))

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        M = block.forecast.shape[1]
        weight = np.broadcast_to(block.weight[:, None], block.forecast.shape)
        self._counts[0] += _histogram(block.forecast, weight) / M
        self._counts[1] += _histogram(block.reference, block.weight)

    @cached_property
    def value(self) -> Quantiles:
        """The quantiles, once all days have been seen."""
        forecast, reference = (_quantiles(counts) for counts in self._counts)
        return Quantiles(forecast=forecast, reference=reference)


def _histogram(values: Floats, weight: Floats) -> Floats:
    """Return the weights of the values in every bin, in the order of the values."""
    # + 0 makes a negative zero positive.
    bits = (values.ravel().astype(np.float32) + np.float32(0)).view(np.int32)
    keys = bits >> _SHIFT
    # Negative numbers, which have the sign bit set, grow away from zero: turned round.
    keys ^= (keys >> 31) & (_HALF - 1)
    counts = np.bincount(keys + _HALF, weight.ravel(), 2**_BITS)
    return counts.astype(np.float64, copy=False)


def _edges(keys: NDArray[np.int64]) -> Floats:
    """Return the smallest value of bins."""
    size = np.abs(keys - _HALF).astype(np.int32)
    value = (size << _SHIFT).view(np.float32).astype(np.float64)
    return np.asarray(np.where(keys >= _HALF, value, -value))


def _quantiles(counts: Floats) -> Floats:
    """Return the quantiles of a histogram, linear inside a bin. Shape ``(L,)``."""
    total = counts.sum()
    if not total > 0:
        return np.full(len(LEVELS), math.nan)
    used = np.flatnonzero(counts)
    reached = np.cumsum(counts[used])
    wanted = np.array(LEVELS) * total
    at = np.minimum(np.searchsorted(reached, wanted), len(used) - 1)

    low, high = _edges(used[at]), _edges(used[at] + 1)
    inside = 1 - (reached[at] - wanted) / counts[used[at]]
    # Many values are exactly 0, not spread over the bin that begins there.
    zero = used[at] == _HALF
    return np.where(zero, 0.0, low + np.clip(inside, 0, 1) * (high - low))


def quantiles(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Quantiles:
    """Quantiles of all values together, from the 0.1st to the 99.9th percentile.

    Cells, by their areas, days and members are pooled. Values are binned by the first
    8 bits of their mantissa and taken as evenly spread inside a bin, so that no range
    has to be known beforehand: a quantile is right to 0.4 % of itself.
    """
    return scored(QuantilesScore(), forecast, reference, **cells).value


@register("metric", "p999_bias")
class P999BiasMetric(Metric):
    """The highest values: difference of the percentiles of all values."""

    score = QuantilesScore
    title = "bias of the 99.9th percentile of all values"
    ideal, place = 0.0, 101
    signed = True
    calibration = True

    def value(self, score: QuantilesScore) -> float:
        """Return members minus truth."""
        return float(score.value.forecast[-1] - score.value.reference[-1])


@register("metric", "p999")
class P999Metric(PrecipitationMetric):
    """The heaviest precipitation: the percentile of the members."""

    score = QuantilesScore
    title = "99.9th percentile of all values"
    ideal, place = math.nan, 102
    calibration = True

    def value(self, score: QuantilesScore) -> float:
        """Return that of the members."""
        return float(score.value.forecast[-1])


@register("metric", "p999_truth")
class P999TruthMetric(P999Metric):
    """The same of the truth."""

    title, place = "99.9th percentile of all values, truth", 103

    def value(self, score: QuantilesScore) -> float:
        """Return that of the truth."""
        return float(score.value.reference[-1])


@register("metric", "p999_ratio")
class P999RatioMetric(RatioMetric, PrecipitationMetric):
    """The heaviest precipitation: ratio of the percentiles of all values."""

    score = QuantilesScore
    title = "ratio of the 99.9th percentile of all values"
    place, tolerance = 104, 0.1
    calibration = True

    def value(self, score: QuantilesScore) -> float:
        """Return members over truth."""
        reference = float(score.value.reference[-1])
        return (
            float(score.value.forecast[-1]) / reference if reference > 0 else math.nan
        )
