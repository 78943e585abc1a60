"""Scores of events: fractions skill score and F1 of extremes, member by member.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.base import Metric, PrecipitationMetric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, Pair, ratio, scored
from st_cdgm.registry import register
from st_cdgm.typing import Floats

# Of the truth; the scorecard can have the F1 of exceeding each.
PERCENTILES = (90.0, 95.0, 98.0, 99.0, 99.9)


def fss(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    threshold: float,
    window: int = 9,
    **cells: Unpack[Cells],
) -> float:
    """Fractions skill score of the event "at least ``threshold``".

    ``1 - sum (P_f - P_o)^2 / (sum P_f^2 + sum P_o^2)`` over days, members and cells; P
    is the share of event cells among the counted cells of a square window. Windows at
    the border or the coast shrink to what is counted there: no padding with zeros.

    Parameters
    ----------
    threshold : float
        In the units of the variable.
    window : int
        Odd side of the window in cells.

    Returns
    -------
    float
        In [0, 1]; NaN when neither side has an event.

    Raises
    ------
    InputError
        An even or non-positive window, which would shift the fields.

    References
    ----------
    Roberts and Lean (2008), doi:10.1175/2007MWR2123.1.
    """
    return scored(
        FssScore(threshold=threshold, window=window), forecast, reference, **cells
    ).value


class FssScore:
    """Squared differences and squares of the fractions; see :func:`fss`."""

    def __init__(self, *, threshold: float = 1.0, window: int = 9) -> None:
        if window < 1 or window % 2 == 0:
            raise InputError("The window must be odd and positive.", found=window)
        self.threshold, self.window = threshold, window
        self._difference = self._power = 0.0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        counted = block.weight > 0
        area = _window_sum(counted, self.window)
        share_o = self._share(block.reference, counted, area)
        for member in np.moveaxis(block.forecast, 1, 0):
            share_f = self._share(member, counted, area)
            self._difference += float((block.weight * (share_f - share_o) ** 2).sum())
            self._power += float((block.weight * (share_f**2 + share_o**2)).sum())

    def _share(self, field: Floats, counted: NDArray[np.bool_], area: Floats) -> Floats:
        events = (field >= self.threshold) & counted
        return _window_sum(events, self.window) / np.maximum(area, 1)

    @property
    def value(self) -> float:
        """The skill score."""
        return 1 - ratio(self._difference, self._power)


def _window_sum(flags: NDArray[np.bool_], window: int) -> Floats:
    size = (1, window, window)
    mean = ndimage.uniform_filter(flags.astype(np.float64), size, mode="constant")
    # Counts are whole numbers: rounding takes away what the running sums leave behind.
    return np.asarray(np.rint(mean * window**2))


def f1_extremes(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    percentiles: Sequence[float] = (95.0, 99.0),
    **cells: Unpack[Cells],
) -> dict[str, float]:
    """F1 score of exceeding a percentile of the reference, hits counted on all members.

    The threshold is the percentile of all counted reference values; only values
    strictly above it are events, so that a threshold of 0 in dry data does not turn
    every dry cell into a hit.

    Parameters
    ----------
    percentiles : sequence of float
        In (0, 100).

    Returns
    -------
    dict
        ``{"p95": ..., "p99.9": ...}``; NaN where neither side has an event.
    """
    return scored(ExtremesScore(percentiles), forecast, reference, **cells).value


class ExtremesScore:
    """Hits and events above percentiles; see :func:`f1_extremes`.

    The counted values of the reference are held at once, the forecast never.
    """

    def __init__(self, percentiles: Sequence[float] = PERCENTILES) -> None:
        self.percentiles = percentiles

    def read(self, pair: Pair) -> None:
        """Find the thresholds, then count hits."""
        values = np.concatenate(
            [b.reference[b.weight > 0] for b in pair.blocks()] or [np.empty(0)]
        )
        if values.size == 0:
            self.value = {f"p{p:.12g}": float("nan") for p in self.percentiles}
            return

        thresholds = np.percentile(values, self.percentiles)
        counts = np.zeros((len(self.percentiles), 2))  # hits; all events on either side
        for block in pair.blocks():
            for n, threshold in enumerate(thresholds):
                f, o = block.forecast > threshold, block.reference[:, None] > threshold
                weight = block.weight[:, None]
                counts[n, 0] += 2 * (weight * (f & o)).sum()
                counts[n, 1] += (weight * f).sum() + (weight * o).sum() * f.shape[1]
        self.value = {
            f"p{p:.12g}": ratio(hits, events)
            for p, (hits, events) in zip(self.percentiles, counts, strict=True)
        }


@register("metric", "fss")
class FssMetric(PrecipitationMetric):
    """Where it rains: at least 1 mm/day, within 9 cells."""

    score: type[FssScore] = FssScore
    title, head = "fractions skill score of wet days, 9 x 9 cells", "FSS, wet days"
    ideal, place = 1.0, 220
    units = "1"
    standard = False


class HeavyFssScore(FssScore):
    """Fractions skill of 10 mm/day."""

    def __init__(self) -> None:
        super().__init__(threshold=10.0)


@register("metric", "fss_10mm")
class HeavyFssMetric(FssMetric):
    """Where it pours: at least 10 mm/day, within 9 cells."""

    score, place = HeavyFssScore, 230
    title, head = "fractions skill score of 10 mm/day, 9 x 9 cells", "FSS, 10 mm/day"


@register("metric", "f1_p95")
class F1P95Metric(Metric):
    """Hits of high values, cell by cell and member by member."""

    score, percentile = ExtremesScore, "p95"
    title, head = "F1 of days above the truth's 95th percentile", "F1 above p95"
    ideal, place = 1.0, 240
    units = "1"
    standard = False

    def value(self, score: ExtremesScore) -> float:
        """Return the score, 0 to 1."""
        return score.value[self.percentile]


@register("metric", "f1_p99")
class F1P99Metric(F1P95Metric):
    """Hits of extreme values."""

    percentile, place = "p99", 250
    title, head = "F1 of days above the truth's 99th percentile", "F1 above p99"


@register("metric", "f1_p90")
class F1P90Metric(F1P95Metric):
    """Hits of the highest tenth."""

    percentile, place = "p90", 239
    title, head = "F1 of days above the truth's 90th percentile", "F1 above p90"


@register("metric", "f1_p98")
class F1P98Metric(F1P95Metric):
    """Hits of the highest fiftieth."""

    percentile, place = "p98", 245
    title, head = "F1 of days above the truth's 98th percentile", "F1 above p98"


@register("metric", "f1_p99.9")
class F1P999Metric(F1P95Metric):
    """Hits of the highest thousandth."""

    percentile, place = "p99.9", 255
    title, head = "F1 of days above the truth's 99.9th percentile", "F1 above p99.9"
