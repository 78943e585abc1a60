"""A metric and a reference: what the evaluation may be given from outside."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block, ratio
from st_cdgm.references.base import Reference
from st_cdgm.registry import register


class LargestValues:
    """Daily maxima over the area, summed over days and members."""

    def __init__(self) -> None:
        self.forecast = self.truth = 0.0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        inside = block.weight > 0
        members = np.where(inside[:, None], block.forecast, -np.inf)
        truth = np.where(inside, block.reference, -np.inf).max(axis=(1, 2))
        known = np.isfinite(truth)
        self.forecast += float(members.max(axis=(2, 3)).mean(axis=1)[known].sum())
        self.truth += float(truth[known].sum())


@register("metric", "peak_ratio")
class PeakRatio(Metric):
    """Largest value of a day, forecast over truth."""

    score = LargestValues
    title, head = "ratio of the largest value of a day", "peak ratio"
    ideal, units = 1.0, "1"

    def value(self, score: LargestValues) -> float:
        """Return the ratio, NaN where the truth is not positive."""
        return ratio(score.forecast, score.truth)


@register("reference", "mean_day")
class MeanDay(Reference):
    """The mean of all training days, whatever the weather: one member."""

    def fit(self, train: FieldArrays, preprocessor: Preprocessor) -> Self:
        """Average the truth over the days that have one."""
        assert train.hr is not None
        known = np.isfinite(train.hr)
        total = np.where(known, train.hr, 0.0).sum(axis=0, dtype=np.float64)
        mean = total / np.maximum(known.sum(axis=0), 1)
        self.mean = np.where(preprocessor.valid, mean, np.nan).astype(np.float32)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the mean for every day. Shape ``(T, 1, C, Y, X)``."""
        return np.broadcast_to(self.mean, (len(days), 1, *self.mean.shape)).copy()
