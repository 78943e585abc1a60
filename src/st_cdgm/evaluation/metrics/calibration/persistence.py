"""Whether members keep what they are wrong by from one day to the next."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.evaluation.metrics.calibration.dependence import (
    Correlations,
    Dependence,
    DifferenceMetric,
    ErrorsMetric,
    MembersMetric,
    Side,
)
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices

WHICH = "lag1"


class _Days(NamedTuple):
    """Departures of consecutive blocks of days."""

    ordinal: Indices  # (t,)
    members: Floats  # (t, M, P)
    error: Floats  # (t, P)
    root: Floats  # (t, P)

    def picked(self, days: slice | NDArray[np.bool_]) -> _Days:
        """Return some of the days."""
        ordinal, members, error, root = self
        return _Days(ordinal[days], members[days], error[days], root[days])

    def side(self, root: Floats) -> Side:
        """Return the departures, 0 where the weight is another than here."""
        kept = root == self.root
        if kept.all():
            return Side(self.members, self.error)
        return Side(self.members * kept[:, None], self.error * kept)


class PersistenceScore:
    """Departures of two consecutive days; see :func:`lag_one`."""

    def __init__(self) -> None:
        self._pairs = Dependence()
        self._last: _Days | None = None

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        t, M = block.forecast.shape[:2]
        days = _Days(
            block.ordinal,
            block.deviation.reshape(t, M, -1),
            block.error.reshape(t, -1),
            block.root.reshape(t, -1),
        )
        if self._last is not None:
            self._add(self._last, days.picked(slice(0, 1)))
        self._add(days.picked(slice(None, -1)), days.picked(slice(1, None)))
        # A copy, so that the block is not held in memory.
        self._last = days.picked(np.arange(t) == t - 1)

    def _add(self, days: _Days, after: _Days) -> None:
        """Take in pairs of days, of those that follow each other."""
        follows = after.ordinal - days.ordinal == 1
        if not follows.all():
            days, after = days.picked(follows), after.picked(follows)
        if not days.ordinal.size:
            return

        # Cells that count on both days.
        root = np.minimum(days.root, after.root)
        self._pairs.add(days.ordinal, days.side(root), after.side(root), root)

    @cached_property
    def value(self) -> dict[str, Correlations]:
        """The correlations, once all days have been seen."""
        return {WHICH: self._pairs.correlations()}


def lag_one(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Correlations:
    """Lag-1 autocorrelation of members' departures, and of the errors.

    Every member is read as a sequence of days. Products of departures from the ensemble
    mean on two consecutive days are summed over cells, days and members and divided by
    the root of their summed squares on the first and on the second day; likewise the
    truth's, see :mod:`st_cdgm.evaluation.metrics.calibration.dependence`. Days are
    consecutive only where the block says so; a pair counts in the cells of both.
    """
    return scored(PersistenceScore(), forecast, reference, **cells).value[WHICH]


@register("metric", "lag1_members")
class LagMembersMetric(MembersMetric):
    """Autocorrelation of members' departures from their mean."""

    score, which, place = PersistenceScore, WHICH, 180
    title = "lag-1 autocorrelation of members' deviations"


@register("metric", "lag1_errors")
class LagErrorsMetric(ErrorsMetric):
    """Autocorrelation of the errors of the ensemble mean."""

    score, which, place = PersistenceScore, WHICH, 181
    title = "lag-1 autocorrelation of errors"


@register("metric", "lag1_difference")
class LagDifferenceMetric(DifferenceMetric):
    """The first minus the second."""

    score, which, place = PersistenceScore, WHICH, 182
    title = "lag-1 autocorrelation, members minus errors"
