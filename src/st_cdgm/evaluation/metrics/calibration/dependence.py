"""Whether members depart from their mean together as the truth does.

The correlation of two departures of members (of two variables, of two days, of two
edges of the domain) is set against that of the truth's departures from the ensemble
mean. The mean of M members is itself uncertain: it adds the covariance of the members
over M to that of the errors, and this share is taken off, so that both are estimates
for an ensemble without end. What the ensemble mean is wrong by on all days, cell by
cell, is a bias and no dependence; it is taken off the errors as well.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.typing import Floats, Indices


class Side(NamedTuple):
    """One of two departures, times the root of the weights, on P points."""

    members: Floats  # minus their mean, (t, M, P)
    error: Floats  # truth minus ensemble mean, (t, P)


class Correlations(NamedTuple):
    """The two correlations, and members minus errors with its interval."""

    members: float
    errors: float
    difference: Measured


class Dependence:
    """Sums of products of two departures, day by day."""

    def __init__(self) -> None:
        self._series: list[Floats] = []
        self._ordinal: list[Indices] = []
        self._means = np.zeros(())
        self.members = 0

    def add(self, ordinal: Indices, one: Side, two: Side, root: Floats) -> None:
        """Take in days.

        Parameters
        ----------
        ordinal : ndarray
            Days counted from any origin. Shape ``(t,)``.
        one, two : Side
            What is set against each other; 0 where one of them is not counted.
        root : ndarray
            Root of the weights, 0 where not counted. Shape ``(t, P)``.
        """
        self.members = M = one.members.shape[1]
        products = []
        for a, b in ((one, two), (one, one), (two, two)):
            covariance = np.einsum("tmp,tmp->t", a.members, b.members) / max(M - 1, 1)
            products += [covariance, np.einsum("tp,tp->t", a.error, b.error)]
        self.add_sums(ordinal, np.stack(products), one.error, two.error, root)

    def add_sums(
        self, ordinal: Indices, products: Floats, one: Floats, two: Floats, root: Floats
    ) -> None:
        """Take in products that are at hand.

        ``products`` are, of one and two, of one alone and of two alone, the covariance
        of the members and the product of the errors, summed over points. Shape
        ``(6, t)``; the errors ``(t, P)``.
        """
        self._series.append(np.vstack([products, (root**2).sum(axis=-1)]))
        self._ordinal.append(ordinal)
        # For the mean errors of every point.
        parts = [(root * part).sum(axis=0) for part in (root, one, two)]
        self._means = self._means + np.stack(parts)

    def correlations(self) -> Correlations:
        """Return the two correlations; NaN for one member or a constant departure."""
        if not self._series or self.members < 2:
            return Correlations(math.nan, math.nan, Measured(math.nan))
        series = np.concatenate(self._series, axis=1)
        series[1:6:2] -= series[0:6:2] / self.members

        # Of each product of errors that of the mean errors, spread over the days.
        weight, *sums = self._means
        one, two = (part / np.where(weight > 0, weight, 1.0) for part in sums)
        share = series[6] / (series[6].sum() or 1.0)
        for row, product in ((1, one * two), (3, one**2), (5, two**2)):
            series[row] -= share * float((weight * product).sum())

        def gap(s: Floats) -> Floats:
            return _correlation(s[0:6:2]) - _correlation(s[1:6:2])

        total = series.sum(axis=1, keepdims=True)
        return Correlations(
            float(_correlation(total[0:6:2])[0]),
            float(_correlation(total[1:6:2])[0]),
            bootstrap(gap, series, block_length(np.concatenate(self._ordinal))),
        )


def _correlation(products: Floats) -> Floats:
    """Return ``xy / sqrt(xx yy)``, NaN unless both are positive. ``(3, R)`` to (R,)."""
    product, one, two = products
    positive = (one > 0) & (two > 0)
    root = np.sqrt(np.where(positive, one * two, 1.0))
    return np.where(positive, np.clip(product / root, -1.0, 1.0), np.nan)


class DependenceMetric(Metric):
    """A metric about one of the three numbers; ``which`` says of what."""

    which = ""
    units = "1"
    calibration = True

    def correlations(self, score: Any) -> Correlations:
        """Return the correlations of a complete score."""
        found: Correlations = score.value[self.which]
        return found


class MembersMetric(DependenceMetric):
    """Correlation of members' departures from their mean: it describes."""

    ideal = math.nan

    def value(self, score: Any) -> float:
        """Return the correlation."""
        return self.correlations(score).members


class ErrorsMetric(DependenceMetric):
    """Correlation of the truth's departures from the ensemble mean: it describes."""

    ideal = math.nan

    def value(self, score: Any) -> float:
        """Return the correlation."""
        return self.correlations(score).errors


class DifferenceMetric(DependenceMetric):
    """The members' correlation minus that of the errors."""

    ideal, tolerance, signed = 0.0, 0.1, True

    def measured(self, score: Any) -> Measured:
        """Return the difference with its interval."""
        return self.correlations(score).difference

    def value(self, score: Any) -> float:
        """Return the difference."""
        return self.measured(score).value
