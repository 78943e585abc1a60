"""Distributions of values: wet days, high quantiles, histograms.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`. Everything is
computed on the members, never on their mean, which is smoother than any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.base import Metric, PrecipitationMetric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, Pair, ratio, scored
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices

# mm day-1; what the scorecard calls a wet day.
WET_DAY = 1.0
# Values of one row block held at a time when quantiles need all days together.
QUANTILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Compared:
    """A number of the forecast beside that of the reference."""

    forecast: float
    reference: float

    @property
    def ratio(self) -> float:
        """Forecast over reference; NaN where the reference is not positive."""
        return ratio(self.forecast, self.reference)

    @property
    def difference(self) -> float:
        """Forecast minus reference."""
        return self.forecast - self.reference


class WetDayScore:
    """Weighted counts of wet days; see :func:`wet_day_frequency`."""

    def __init__(self, *, threshold: float = WET_DAY) -> None:
        self.threshold = threshold
        self._series: list[Floats] = []  # forecast, reference and weight of each day
        self._ordinal: list[Indices] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        share = (block.forecast >= self.threshold).mean(axis=1)
        wet = block.reference >= self.threshold
        parts = (block.weight * share, block.weight * wet, block.weight)
        self._series.append(np.stack([part.sum(axis=(1, 2)) for part in parts]))
        self._ordinal.append(block.ordinal)

    @property
    def value(self) -> Compared:
        """The two frequencies."""
        forecast, reference, weight = np.concatenate(self._series, axis=1).sum(axis=1)
        return Compared(ratio(forecast, weight), ratio(reference, weight))

    @property
    def difference(self) -> Measured:
        """Their difference with its interval over days."""
        series = np.concatenate(self._series, axis=1)
        block = block_length(np.concatenate(self._ordinal))
        return bootstrap(lambda s: (s[0] - s[1]) / s[2], series, block)


def wet_day_frequency(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    threshold: float = WET_DAY,
    **cells: Unpack[Cells],
) -> Compared:
    """Share of days and cells with at least ``threshold``, of members and reference.

    Parameters
    ----------
    threshold : float
        Smallest amount of a wet day, in the units of the variable (1 mm/day).
    """
    return scored(WetDayScore(threshold=threshold), forecast, reference, **cells).value


def quantile_change(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    q: float = 0.99,
    **cells: Unpack[Cells],
) -> Compared:
    """Area means of the cell-wise quantile of forecast and reference.

    At every cell the quantile is taken over the counted days, dry days included; the
    days of all members are pooled on the side of the forecast. The quantiles are then
    averaged over cells with the weights (times the cell's share of counted days).

    Parameters
    ----------
    q : float
        In (0, 1).
    """
    return scored(QuantileScore(q=q), forecast, reference, **cells).value


class QuantileScore:
    """A quantile in time of forecast and reference; see :func:`quantile_change`."""

    def __init__(self, *, q: float = 0.99) -> None:
        if not 0 < q < 1:
            raise InputError("The quantile must lie within 0 and 1.", found=q)
        self.q = q

    def read(self, pair: Pair) -> None:
        """Compute it in blocks of rows."""
        T, M, Y, X = pair.shape
        rows = max(1, QUANTILE_BYTES // max(1, 4 * T * M * X))
        sums = np.zeros(3)
        for start in range(0, Y, rows):
            sums += _quantile_rows(pair, slice(start, start + rows), self.q)
        self.value = Compared(ratio(sums[0], sums[2]), ratio(sums[1], sums[2]))


def _quantile_rows(pair: Pair, rows: slice, q: float) -> Floats:
    """Weighted sums of forecast and reference quantile, and of the weight."""
    parts: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = []
    for days in pair.slices():
        reference = pair.reference(days)
        counted = pair.counted(days, reference)
        truth = np.where(counted, reference, np.nan)[:, rows]
        parts.append((pair.forecast(days)[:, :, rows], truth))

    # Cells that count on every day are computed together, the others one by one.
    forecast = np.concatenate([f for f, _ in parts])  # (T, M, y, X)
    truth = np.concatenate([r for _, r in parts])  # (T, y, X)
    counted = np.isfinite(truth)
    share = counted.mean(axis=0) if len(truth) else np.zeros(truth.shape[1:])
    weight = pair.weights[rows] * share
    full = (share == 1) & (weight > 0)
    out = np.zeros(3)

    if full.any():
        w = weight[full]
        pooled = forecast[:, :, full].reshape(-1, w.size)
        out[0] = (w * np.quantile(pooled, q, axis=0)).sum()
        out[1] = (w * np.quantile(truth[:, full], q, axis=0)).sum()

    for j, i in zip(*np.nonzero((weight > 0) & ~full), strict=True):
        days_counted = counted[:, j, i]
        out[0] += weight[j, i] * np.quantile(forecast[days_counted, :, j, i], q)
        out[1] += weight[j, i] * np.quantile(truth[days_counted, j, i], q)
    out[2] = weight.sum()
    return out


def quantile_ratio(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    q: float = 0.99,
    **cells: Unpack[Cells],
) -> float:
    """Ratio of area-mean quantiles; 1 for the right tail. See :func:`quantile_change`.

    Only for quantities with a natural zero, such as precipitation; NaN where the area
    mean of the reference's quantile is not positive.
    """
    return quantile_change(forecast, reference, **cells, q=q).ratio


def histogram_distance(
    forecast: ArrayLike, reference: ArrayLike, *, bins: int = 50, **cells: Unpack[Cells]
) -> float:
    """Distance of the histograms of all values, ``sum |p - q| * width``.

    The bins span the joint range of members and reference; p and q are densities, so
    the distance lies between 0 (same) and 2 (no overlap).

    Parameters
    ----------
    bins : int
        Number of bins of equal width.
    """
    return scored(HistogramScore(bins=bins), forecast, reference, **cells).value


class HistogramScore:
    """The distance of the histograms; see :func:`histogram_distance`."""

    def __init__(self, *, bins: int = 50) -> None:
        if bins < 1:
            raise InputError("A histogram needs a bin.", found=bins, expected=">= 1")
        self.bins = bins

    def read(self, pair: Pair) -> None:
        """Find the range, then count."""
        low, high = np.inf, -np.inf
        for block in pair.blocks():
            counted = block.weight > 0
            members = block.forecast[
                np.broadcast_to(counted[:, None], block.forecast.shape)
            ]
            values = np.concatenate([members, block.reference[counted]])
            low = min(low, values.min(initial=np.inf))
            high = max(high, values.max(initial=-np.inf))
        if not low <= high:
            self.value = float("nan")
            return

        edges = low + np.array([-1, 1])
        if high > low:
            edges = np.linspace(low, high, self.bins + 1)
        counts = np.zeros((2, edges.size - 1))
        for block in pair.blocks():
            weight = np.broadcast_to(block.weight[:, None], block.forecast.shape)
            counts[0] += np.histogram(block.forecast, edges, weights=weight)[0]
            counts[1] += np.histogram(block.reference, edges, weights=block.weight)[0]
        shares = counts / counts.sum(axis=1, keepdims=True)
        self.value = float(np.abs(shares[0] - shares[1]).sum())


@register("metric", "p99_bias")
class P99BiasMetric(Metric):
    """High values: difference of the percentiles in time."""

    score = QuantileScore
    title, head = "bias of the 99th percentile", "99th percentile bias"
    ideal, place = 0.0, 90
    signed = True
    number = "value.difference"


@register("metric", "p99_ratio")
class P99RatioMetric(PrecipitationMetric):
    """Heavy precipitation: ratio of the percentiles in time."""

    score = QuantileScore
    title, head = "ratio of the 99th percentile", "99th percentile ratio"
    ideal, place = 1.0, 100
    units = "1"
    replaces = "p99_bias"
    number = "value.ratio"


@register("metric", "wet_day_frequency")
class WetDayMetric(PrecipitationMetric):
    """Share of days with at least 1 mm/day."""

    score = WetDayScore
    title = "share of wet days"
    ideal, place = math.nan, 110
    units = "1"
    number = "value.forecast"


@register("metric", "wet_day_frequency_truth")
class WetDayTruthMetric(WetDayMetric):
    """The same of the truth."""

    title, place = "share of wet days, truth", 120
    number = "value.reference"


@register("metric", "wet_day_frequency_bias")
class WetDayBiasMetric(WetDayMetric):
    """Difference of the shares of wet days."""

    title, head = "bias of the share of wet days", "wet-day frequency difference"
    ideal, place = 0.0, 130
    signed = True
    tolerance = 0.02
    number = "value.difference"

    def measured(self, score: WetDayScore) -> Measured:
        """Return the difference with its interval."""
        return score.difference


@register("metric", "histogram_distance")
class HistogramMetric(Metric):
    """Distance of the histograms; reads all data twice."""

    score = HistogramScore
    title, head = "distance of the histograms of all values", "histogram distance"
    ideal, place = 0.0, 200
    units = "1"
    standard = False
