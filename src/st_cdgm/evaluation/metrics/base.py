"""What a metric of the scorecard is: one number per source and variable.

A class becomes a metric by ``@register("metric", name)`` in its own file, here or in a
plugin. Scorecard, terminal and report take columns, labels and goals from it::

    class WarmDays:                                 # the sum over days
        def __init__(self) -> None:
            self.total = self.weight = 0.0

        def update(self, block: Block) -> None:
            warm = (block.forecast > 25).mean(axis=1)
            self.total += float((block.weight * warm).sum())
            self.weight += float(block.weight.sum())

    @register("metric", "warm_days")
    class WarmDaysMetric(Metric):                   # the column
        title, ideal, units = "share of warm days", math.nan, "1"
        score = WarmDays

        def value(self, score: WarmDays) -> float:
            return ratio(score.total, score.weight)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import is_precipitation
from st_cdgm.evaluation.metrics.blocks import JointScore, PairScore, Score
from st_cdgm.evaluation.resampling import Measured
from st_cdgm.registry import get, names

# The variable of a row about all variables.
ALL = "all variables"


class Metric:
    """One column of the scorecard: what it needs, what it is called, what is good.

    Attributes
    ----------
    score : type
        Class of what goes through the data, made anew for every source and variable,
        without arguments: with ``update(block)`` it is given every block of days in
        time order, with ``read(pair)`` forecast and truth at once, for what needs all
        days together (see :mod:`st_cdgm.evaluation.metrics.blocks`). Metrics of the
        same class share one object.
    number : str
        Attribute of a complete score that is the value, dots included; or override
        :meth:`value`.
    title : str
        Name in words: ``fair CRPS``.
    head : str
        Column head in the report's main table; empty: only in the full table.
    ideal : float
        The value of a perfect forecast; of two values the nearer one is better. NaN
        for a number that only describes.
    signed : bool
        Whether an ideal of 0 may be missed on both sides, as by a bias.
    units : str
        Units; those of the variable when empty.
    standard : bool
        Part of every scorecard; else only where ``evaluation.metrics`` names it.
    place : int
        Order of the columns, the smallest first.
    headline : int
        Which metric decides who wins: of those a variable has, the smallest number
        above 0. Such a metric is positive and better low.
    replaces : str
        Metric that need not stand beside it in the main table.
    tolerance : float
        How far from the ideal is still good. Metrics that have one are compared by
        their :meth:`distance` in such units; the verdict names the largest.
    calibration : bool
        Stands in the calibration tables, not in those of the scores; is optional.
    optional : bool
        Has no row where it is not defined; else the row has a missing value.
    """

    score: type[Score] | type[PairScore] | type[JointScore]
    title: str
    ideal: float
    number = "value"
    head = ""
    signed = False
    units = ""
    standard = True
    place = 1000
    headline = 0
    replaces = ""
    tolerance = math.nan
    calibration = False
    optional = False

    def suits(self, target: TargetVariable) -> bool:
        """Whether the metric has a meaning for a variable; for all by default."""
        del target
        return True

    def value(self, score: Any) -> float:
        """Return the number, NaN where it is not defined, from a complete `score`."""
        return float(attrgetter(self.number)(score))

    def measured(self, score: Any) -> Measured:
        """Return the number with its interval over days; without one by default."""
        return Measured(float(self.value(score)))

    def distance(self, value: float) -> float:
        """Return how many tolerances a value is from the ideal."""
        return abs(value - self.ideal) / self.tolerance


class JointMetric(Metric):
    """A metric that sees all variables of a source at once.

    Its `score` is made once per source and has ``update(blocks)``: a mapping of every
    variable to its block of the same days. Its numbers stand in rows of their own,
    whose variable is what :meth:`rows` calls it: ``pr & tas``, `ALL`.
    """

    score: type[JointScore]

    def rows(self, score: Any) -> Mapping[str, Measured]:
        """Return the numbers, by the variable of their row."""
        raise NotImplementedError


class RatioMetric(Metric):
    """A metric of ideal 1 that is as bad when it is half as when it is double."""

    ideal, units = 1.0, "1"

    def distance(self, value: float) -> float:
        """Return the distance of the logarithms; infinite for 0."""
        if value <= 0:
            return math.inf
        return abs(math.log(value)) / math.log1p(self.tolerance)


class PrecipitationMetric(Metric):
    """A metric that has a meaning for precipitation alone."""

    def suits(self, target: TargetVariable) -> bool:
        """Whether the variable is precipitation."""
        return is_precipitation(target.name, target.standard_name)


class _Unknown(Metric):
    """A metric of a file that another version, or a plugin not loaded, has written."""

    ideal = math.nan

    def __init__(self, name: str) -> None:
        self.title = name.replace("_", " ")


def metric_of(name: str) -> Metric:
    """Return a metric by name; one that is not registered has no goal."""
    if name not in names("metric"):
        return _Unknown(name)
    metric: Metric = get("metric", name)()
    return metric


def metrics_of(more: Sequence[str] = ()) -> dict[str, Metric]:
    """Return the standard metrics and those named, in the order of the columns.

    Raises
    ------
    ConfigError
        There is no metric of a name.
    """
    found: dict[str, Metric] = {
        name: get("metric", name)() for name in (*names("metric"), *more)
    }
    chosen = {n: m for n, m in found.items() if m.standard or n in more}
    return dict(sorted(chosen.items(), key=lambda item: (item[1].place, item[0])))
