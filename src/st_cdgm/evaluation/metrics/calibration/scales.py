"""Spread against error, and ranks, of means over blocks of cells and of days.

An ensemble can be right in every cell and day and wrong in the mean of a valley or of a
week: then its members depend on each other more or less than the truth does.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike

from st_cdgm.evaluation.metrics.base import Metric, RatioMetric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.evaluation.metrics.calibration.windows import (
    BLOCKS,
    SCALES,
    WINDOWS,
    ConsecutiveSums,
    Scale,
    Sums,
)
from st_cdgm.evaluation.metrics.probabilistic import reliability_index
from st_cdgm.evaluation.resampling import (
    MIN_BLOCKS,
    Measured,
    block_length,
    bootstrap,
    enough,
    resampled_sums,
)
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices


class Ranks(NamedTuple):
    """A rank histogram with the 95 % intervals of its bins. Shapes ``(M + 1,)``.

    The intervals hold for all bins together (Bonferroni).
    """

    share: Floats
    low: Floats
    high: Floats

    @property
    def worst(self) -> Measured:
        """Largest departure of a bin from uniform, as a share of uniform.

        The lower bound is the largest departure that the interval of a bin leaves no
        doubt of, the upper one the largest that an interval reaches.
        """
        if self.share.size < 3:
            return Measured(math.nan)
        uniform = 1 / self.share.size
        share, low, high = (np.asarray(part) / uniform - 1 for part in self)
        sure = np.maximum(np.maximum(low, -high), 0.0)
        reach = np.maximum(np.abs(low), np.abs(high))
        return Measured(*(float(x.max()) for x in (np.abs(share), sure, reach)))


class Level:
    """What is counted at one scale, window by window."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []

    def add(self, means: Sums) -> None:
        """Take in windows: the ensemble, the truth and the weights."""
        centre = means.members.mean(axis=1)
        root = np.sqrt(means.weight)
        deviation = (means.members - centre[:, None]) * root[:, None]
        self.add_parts(means, deviation, (means.truth - centre) * root)

    def add_parts(self, means: Sums, deviation: Floats, error: Floats) -> None:
        """Take in windows of which the departures, times root weight, are at hand."""
        n, M = means.members.shape[:2]
        variance = _squares(deviation) / max(M - 1, 1)
        ranks = _rank_counts(means)
        self._parts.append(np.vstack([variance, _squares(error), ranks.T]))

    @property
    def series(self) -> Floats:
        """Sums of variance, squared error and rank counts. Shape ``(M + 3, n)``."""
        return np.concatenate(self._parts, axis=1) if self._parts else np.zeros((3, 0))

    def spread_skill(self, block: int) -> Measured:
        """Return the ratio of spread to error with its interval."""
        M = len(self.series) - 3
        if M < 2:
            return Measured(math.nan)

        def ratio(sums: Floats) -> Floats:
            return np.asarray(np.sqrt((M + 1) / M * sums[0] / sums[1]))

        return bootstrap(ratio, self.series[:2], block)

    def ranks(self, block: int) -> Ranks:
        """Return the rank histogram; bounds are NaN with too few windows.

        A bin that hardly any window reaches says nothing: its interval holds uniform.
        """
        counts = self.series[2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = counts.sum(axis=1) / counts.sum()
            if not enough(counts.shape[1], block):
                nothing = np.full_like(share, np.nan)
                return Ranks(share, nothing, nothing)
            drawn = resampled_sums(counts, block)
            tail = 0.025 / share.size
            low, high = np.quantile(drawn / drawn.sum(axis=0), [tail, 1 - tail], axis=1)

        rare = (counts > 0).sum(axis=1) < MIN_BLOCKS
        low[rare] = np.minimum(low[rare], 1 / share.size)
        high[rare] = np.maximum(high[rare], 1 / share.size)
        return Ranks(share, low, high)


class Calibrated(NamedTuple):
    """The results at one scale."""

    spread_skill: Measured
    ranks: Ranks


class ScaleScore:
    """Spread, error and ranks at every scale of `SCALES`; see :func:`calibration`."""

    def __init__(self) -> None:
        self._levels = {scale: Level() for scale in SCALES}
        self._windows = {
            scale: ConsecutiveSums(scale.days) for scale in SCALES if scale.days > 1
        }
        self._ordinal: list[Indices] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        self._ordinal.append(block.ordinal)
        sums = Sums(
            block.forecast * block.weight[:, None],
            block.reference * block.weight,
            block.weight,
        )
        # Of single cells all is at hand; larger blocks are made of smaller ones.
        means, before = Sums(block.forecast, block.reference, block.weight), 1
        for side in BLOCKS:
            if side == 1:
                level = self._levels[Scale(1, 1)]
                level.add_parts(means, block.deviation, block.error)
            else:
                sums, before = sums.over_cells(side // before), side
                self._levels[Scale(side, 1)].add(sums.means())

            for days in WINDOWS[1:]:
                scale = Scale(side, days)
                for window in self._windows[scale].complete(block.ordinal, sums):
                    self._levels[scale].add(window.means())

    @cached_property
    def value(self) -> dict[Scale, Calibrated]:
        """The results, once all days have been seen."""
        days = block_length(np.concatenate(self._ordinal))
        found = {}
        for scale, level in self._levels.items():
            block = -(-days // scale.days)
            found[scale] = Calibrated(level.spread_skill(block), level.ranks(block))
        return found


def calibration(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> dict[Scale, Calibrated]:
    """Spread-skill ratios and rank histograms of means over blocks of cells and days.

    Means over blocks of 1, 4 and 16 cells a side and over the domain, and over 1, 7 and
    30 consecutive days, weighted by cell area; a block at the border, or with cells
    that are not counted, by the cells it has. Windows of days follow each other without
    overlap, see :mod:`st_cdgm.evaluation.metrics.calibration.windows`. The ratio is
    ``sqrt((M + 1) / M * mean variance) / RMSE of the ensemble mean``.

    Intervals: moving-block bootstrap over about ten days, of windows of 7 days over two
    of them, of 30 days over single ones.

    References
    ----------
    Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1, for the ratio; Hamill (2001),
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2, for the ranks.
    """
    return scored(ScaleScore(), forecast, reference, **cells).value


def _squares(values: Floats) -> Floats:
    """Return the sum of squares of each window. Shape ``(n,)``."""
    flat = values.reshape(len(values), -1)
    return np.asarray(np.einsum("ni,ni->n", flat, flat))


def _rank_counts(means: Sums) -> Floats:
    """Return weighted counts of the rank of the truth. Shape ``(n, M + 1)``.

    A truth that equals some members is shared among the ranks it could take.
    """
    n, M = means.members.shape[:2]
    truth = means.truth[:, None]
    lower = (means.members < truth).sum(axis=1)
    equal = (means.members == truth).sum(axis=1)
    share = means.weight / (equal + 1)

    # Each share goes to ranks lower ... lower + equal: a step up and a step down.
    first = np.arange(n)[:, None, None] * (M + 2)
    size = n * (M + 2)
    up = np.bincount((first + lower).ravel(), share.ravel(), size)
    down = np.bincount((first + lower + equal + 1).ravel(), share.ravel(), size)
    return np.cumsum((up - down).reshape(n, M + 2), axis=1)[:, :-1]


class _AtScale(Metric):
    """A metric of one scale."""

    score = ScaleScore
    units = "1"
    calibration = True
    scale = Scale(1, 1)

    def value(self, score: ScaleScore) -> float:
        """Return the number."""
        return self.measured(score).value


class SpreadSkillMetric(RatioMetric, _AtScale):
    """Spread of the ensemble over the error of its mean."""

    tolerance = 0.1

    def measured(self, score: ScaleScore) -> Measured:
        """Return the ratio with its interval."""
        return score.value[self.scale].spread_skill


class WorstBinMetric(_AtScale):
    """Largest departure of a bin of the rank histogram from uniform."""

    ideal, tolerance = 0.0, 0.2

    def measured(self, score: ScaleScore) -> Measured:
        """Return the departure with its interval."""
        return score.value[self.scale].ranks.worst

    def distance(self, value: float) -> float:
        """Return the distance of the logarithms, as of a ratio."""
        return math.log1p(value) / math.log1p(self.tolerance)


@register("metric", "rank_histogram_distance")
class RankHistogramMetric(_AtScale):
    """Distance of the rank histogram from flat, single cells and days."""

    title, head = "distance of the rank histogram from flat", "rank histogram distance"
    ideal, place = 0.0, 80
    calibration = False

    def measured(self, score: ScaleScore) -> Measured:
        """Return the reliability index, NaN for one member."""
        share = score.value[self.scale].ranks.share
        return Measured(reliability_index(share) if share.size > 2 else math.nan)


@register("metric", "spread_skill")
class CellSpreadSkillMetric(SpreadSkillMetric):
    """The same ratio in single cells and days: a column of the main table."""

    title, head = "spread-skill ratio", "spread / skill"
    place = 70
    calibration = False


for _number, _scale in enumerate(SCALES):

    @register("metric", f"rank_worst_bin{_scale.suffix}")
    class _WorstBinMetric(WorstBinMetric):
        scale, place = _scale, 165 + _number
        title = f"worst bin of the rank histogram, {_scale.words}"

    if not _scale.suffix:
        continue

    @register("metric", f"spread_skill{_scale.suffix}")
    class _SpreadSkillMetric(SpreadSkillMetric):
        scale, place = _scale, 150 + _number
        title = f"spread-skill ratio, {_scale.words}"
