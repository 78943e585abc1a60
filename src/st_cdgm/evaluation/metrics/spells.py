"""Sequences of wet and dry days, member by member.

A wet day has at least 1 mm. Days follow each other only where nothing lies between
them: a gap ends a spell, and so does the end of a year.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.evaluation.metrics.base import PrecipitationMetric, RatioMetric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, ratio, scored
from st_cdgm.evaluation.metrics.distribution import WET_DAY, Compared
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices

WET, DRY = "wet_wet", "dry_dry"
INDICES = ("cdd", "cwd", "rx1day", "rx5day")


class Transition(NamedTuple):
    """A probability of members beside that of the truth, and the difference."""

    compared: Compared
    difference: Measured


class TransitionScore:
    """Counts of wet and dry days and what follows; see :func:`transitions`."""

    def __init__(self, *, threshold: float = WET_DAY) -> None:
        self.threshold = threshold
        self._last: tuple[Any, ...] | None = None
        self._series: list[Floats] = []
        self._ordinal: list[Indices] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        days: tuple[Any, ...] = (
            block.ordinal,
            block.forecast >= self.threshold,
            (block.reference >= self.threshold)[:, None],
            block.weight,
        )
        if self._last is not None:
            days = tuple(
                np.concatenate([last, new])
                for last, new in zip(self._last, days, strict=True)
            )
        self._last = tuple(part[-1:].copy() for part in days)

        ordinal, *wet, weight = days
        follows = np.diff(ordinal) == 1
        both = np.minimum(weight[:-1], weight[1:]) * follows[:, None, None]
        series = []
        for flags in wet:
            # Of members or of the truth: pairs and their first days, wet then dry.
            for state in (flags, ~flags):
                first = state[:-1].mean(axis=1)
                again = (state[:-1] & state[1:]).mean(axis=1)
                series += [(both * x).sum(axis=(1, 2)) for x in (again, first)]
        self._series.append(np.stack(series))
        self._ordinal.append(ordinal[:-1])

    @cached_property
    def value(self) -> dict[str, Transition]:
        """The probabilities, once all days have been seen."""
        series = np.concatenate(self._series, axis=1)
        block = block_length(np.concatenate(self._ordinal))
        found = {}
        for name, rows in ((WET, (0, 1, 4, 5)), (DRY, (2, 3, 6, 7))):
            some = series[list(rows)]
            sums = some.sum(axis=1)
            compared = Compared(ratio(sums[0], sums[1]), ratio(sums[2], sums[3]))
            difference = bootstrap(lambda s: s[0] / s[1] - s[2] / s[3], some, block)
            found[name] = Transition(compared, difference)
        return found


def transitions(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    threshold: float = WET_DAY,
    **cells: Unpack[Cells],
) -> dict[str, Transition]:
    """Probability that a wet day follows a wet one, and a dry a dry one.

    Pairs of consecutive days of all cells, by their areas, and of all members as
    sequences.

    Parameters
    ----------
    threshold : float
        Smallest amount of a wet day, in the units of the variable (1 mm/day).

    Returns
    -------
    dict
        ``wet_wet`` and ``dry_dry``.
    """
    return scored(
        TransitionScore(threshold=threshold), forecast, reference, **cells
    ).value


class _Year:
    """The indices of one year of ``(N, Y, X)`` sequences, day by day."""

    def __init__(self, year: int, shape: tuple[int, ...]) -> None:
        self.year = year
        self.longest = np.zeros((2, *shape), np.int16)  # dry, wet
        self.largest = np.full((2, *shape), -np.inf, np.float32)  # 1 day, 5 days
        self.weight = np.zeros(shape[1:])
        self.begin()

    def begin(self) -> None:
        """Start anew after a gap."""
        self._run = np.zeros_like(self.longest)
        self._days: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[np.float32], weight: Floats) -> None:
        """Take in a day."""
        wet = values >= WET_DAY
        counted = weight > 0
        self._run += 1
        self._run *= np.stack([~wet, wet]) & counted
        np.maximum(self.longest, self._run, out=self.longest)

        # A cell that is not counted on a day has no sum over the five days with it.
        known = np.where(counted, values, -np.inf).astype(np.float32)
        self._days = [*self._days[-4:], known]
        np.maximum(self.largest[0], known, out=self.largest[0])
        if len(self._days) == 5:
            np.maximum(self.largest[1], sum(self._days), out=self.largest[1])
        self.weight += weight

    @property
    def sums(self) -> Floats:
        """Weighted sums of members' mean and truth, and weights. ``(4, 3)``."""
        found = []
        for values in (*self.longest, *self.largest):
            usable = np.isfinite(values).all(axis=0) & (self.weight > 0)
            w = np.where(usable, self.weight, 0.0)
            safe = np.where(usable, values, 0.0)
            parts = (w * safe[:-1].mean(axis=0), w * safe[-1], w)
            found.append([part.sum() for part in parts])
        return np.array(found)


class SpellScore:
    """Longest spells and largest amounts of every year; see :func:`spells`."""

    def __init__(self) -> None:
        self._year: _Year | None = None
        self._last = 0
        self._sums: list[Floats] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        sequences = np.concatenate([block.forecast, block.reference[:, None]], axis=1)
        fields = sequences.astype(np.float32)
        for day, year, values, weight in zip(
            block.ordinal, block.year, fields, block.weight, strict=True
        ):
            if self._year is None or self._year.year != year:
                self._close()
                self._year = _Year(int(year), values.shape)
            elif day - self._last != 1:
                self._year.begin()
            self._year.add(values, weight)
            self._last = int(day)

    def _close(self) -> None:
        if self._year is not None:
            self._sums.append(self._year.sums)
        self._year = None

    @cached_property
    def value(self) -> dict[str, Compared]:
        """Means over years and cells, once all days have been seen."""
        self._close()
        sums = np.sum(self._sums, axis=0)
        return {
            name: Compared(ratio(members, weight), ratio(truth, weight))
            for name, (members, truth, weight) in zip(INDICES, sums, strict=True)
        }


def spells(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> dict[str, Compared]:
    """Longest dry and wet spells and largest amounts, means over years and cells.

    Of every year, or of the part of it that is scored: ``cdd`` and ``cwd``, the most
    consecutive days below and from 1 mm on; ``rx1day`` and ``rx5day``, the largest
    amount of one day and of five consecutive days. Computed in every cell for every
    member, then averaged over members, cells by their areas, and years.

    References
    ----------
    Zhang et al. (2011), doi:10.1002/wcc.147, the indices of the ETCCDI.
    """
    return scored(SpellScore(), forecast, reference, **cells).value


class _Described(PrecipitationMetric):
    """A number of the members or of the truth; ``which`` says of what."""

    calibration = True
    ideal = float("nan")
    which = ""


class _TransitionMetric(_Described):
    score = TransitionScore
    units = "1"

    def value(self, score: TransitionScore) -> float:
        """Return the probability of the members."""
        return score.value[self.which].compared.forecast


class _TransitionTruthMetric(_TransitionMetric):
    def value(self, score: TransitionScore) -> float:
        """Return the probability of the truth."""
        return score.value[self.which].compared.reference


class _TransitionBiasMetric(_TransitionMetric):
    ideal, tolerance, signed = 0.0, 0.05, True

    def measured(self, score: TransitionScore) -> Measured:
        """Return the difference with its interval."""
        return score.value[self.which].difference


class _SpellMetric(_Described):
    score = SpellScore

    def value(self, score: SpellScore) -> float:
        """Return the mean of the members."""
        return score.value[self.which].forecast


class _SpellTruthMetric(_SpellMetric):
    def value(self, score: SpellScore) -> float:
        """Return the mean of the truth."""
        return score.value[self.which].reference


class _SpellRatioMetric(RatioMetric, _SpellMetric):
    tolerance = 0.1

    def value(self, score: SpellScore) -> float:
        """Return members over truth."""
        return score.value[self.which].ratio


_PROBABILITIES = {
    WET: "probability of a wet day after a wet one",
    DRY: "probability of a dry day after a dry one",
}
_AMOUNTS = {
    "cdd": ("longest dry spell of a year (CDD)", "d"),
    "cwd": ("longest wet spell of a year (CWD)", "d"),
    "rx1day": ("largest amount of a day in a year (Rx1day)", "mm"),
    "rx5day": ("largest amount of five days in a year (Rx5day)", "mm"),
}

for _number, (_name, _title) in enumerate(_PROBABILITIES.items()):

    @register("metric", _name)
    class _Transition(_TransitionMetric):
        which, title, place = _name, _title, 112 + 3 * _number

    @register("metric", f"{_name}_truth")
    class _TransitionTruth(_TransitionTruthMetric):
        which, title, place = _name, f"{_title}, truth", 113 + 3 * _number

    @register("metric", f"{_name}_bias")
    class _TransitionBias(_TransitionBiasMetric):
        which, title, place = _name, f"{_title}, difference", 114 + 3 * _number


for _number, (_name, (_title, _units)) in enumerate(_AMOUNTS.items()):

    @register("metric", _name)
    class _Spell(_SpellMetric):
        which, title, units, place = _name, _title, _units, 118 + 3 * _number

    @register("metric", f"{_name}_truth")
    class _SpellTruth(_SpellTruthMetric):
        which, units, place = _name, _units, 119 + 3 * _number
        title = f"{_title}, truth"

    @register("metric", f"{_name}_ratio")
    class _SpellRatio(_SpellRatioMetric):
        which, place = _name, 120 + 3 * _number
        title = f"{_title}, members over truth"
