"""What a scorecard says: which source is best in which score, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from st_cdgm.evaluation.gains import Gain, percent
from st_cdgm.evaluation.metrics.base import ALL, JointMetric, metric_of
from st_cdgm.evaluation.report.plots import pretty_units
from st_cdgm.evaluation.report.text import number, weakest
from st_cdgm.evaluation.resampling import BLOCK_DAYS, RESAMPLES
from st_cdgm.evaluation.scorecard import BOUNDS, COLUMNS, Scorecard

# How the verdict goes on after the wins, in this order.
_SAID = {
    "ties": "a tie in",
    "unclear": "no clear difference in",
    "loses": "it loses in",
    "unknown": "scores are missing for",
}
# Differences smaller than this share are called equal, they round away anyway.
_TIE = 5e-4


class Scores:
    """All rows of a scorecard, looked up by source, variable and metric.

    Attributes
    ----------
    sources : list of str
        The model first, then the references.
    variables, metrics : list of str
        In the order of the scorecard; rows about several variables are not listed.
    values : dict
        ``(source, variable, metric)`` to value.
    bounds : dict
        The same to the bounds of the interval; only where there is one.
    units : dict
        ``(variable, metric)`` to units; ``"1"`` and ``""`` are dimensionless.
    gains : dict
        Variable to the gain in CRPS with its interval; empty where none was stored.
    joint : list of Gain
        Gains in scores of all variables together.
    judged : DataFrame
        The calibration of the model, the weakest first.
    """

    def __init__(self, card: Scorecard) -> None:
        self.sources, variables, self.metrics = (
            list(dict.fromkeys(card.rows[name]))
            for name in ("source", "variable", "metric")
        )
        single = [m for m in self.metrics if not isinstance(metric_of(m), JointMetric)]
        known = set(card.rows["variable"][card.rows["metric"].isin(single)])
        self.variables = [name for name in variables if name in known]

        self.values: dict[tuple[str, str, str], float] = {}
        self.bounds: dict[tuple[str, str, str], tuple[float, float]] = {}
        self.units: dict[tuple[str, str], str] = {}
        for row in card.rows.to_dict(orient="records"):
            source, variable, metric = (row[name] for name in COLUMNS[:3])
            self.values[source, variable, metric] = float(row["value"])
            self.units[variable, metric] = row["units"] or ""
            low, high = (float(row.get(name, math.nan)) for name in BOUNDS)
            if math.isfinite(low) and math.isfinite(high):
                self.bounds[source, variable, metric] = (low, high)

        self.gains = {g.variable: g for g in card.gains if g.metric == "crps"}
        self.joint = [gain for gain in card.gains if gain.metric != "crps"]
        self.judged = card.calibration()

    def get(self, source: str, variable: str, metric: str) -> float:
        """Return a value, NaN where the scorecard has none."""
        return self.values.get((source, variable, metric), math.nan)

    def best(self, variable: str, metric: str) -> set[str]:
        """Return the sources nearest to the ideal value; several for a tie."""
        losses = {
            source: abs(self.get(source, variable, metric) - metric_of(metric).ideal)
            for source in self.sources
        }
        known = {source: loss for source, loss in losses.items() if loss < math.inf}
        smallest = min(known.values(), default=math.nan)
        return {source for source, loss in known.items() if loss == smallest}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The model against the best reference in one variable."""

    variable: str
    metric: str
    units: str
    model: float
    reference: float
    reference_name: str
    gain: float  # 1 - model / reference; NaN without a reference
    measured: Gain | None = None  # the same with its interval over days

    @property
    def outcome(self) -> str:
        """``wins``, ``loses``, or one of three that decide nothing.

        ``ties``: the interval contains 0, or equal numbers on a scorecard without
        intervals; ``unclear``: there are too few days for an interval; ``unknown``.
        """
        if not math.isfinite(self.gain):
            return "unknown"
        if self.measured is not None:
            return self.measured.outcome
        if abs(self.gain) < _TIE:
            return "ties"
        return "wins" if self.gain > 0 else "loses"

    @property
    def sentence(self) -> str:
        """The comparison in words, with both values."""
        if self.outcome == "unknown":
            return "cannot be compared: a score is missing"
        units = f" {pretty_units(self.units)}" if self.units not in ("", "1") else ""
        against = (
            f"{number(self.model)}{units} against {number(self.reference)}{units} of "
            f"{self.reference_name}, the best reference"
        )
        if self.measured is not None:
            return f"{self.measured.words}: {against}"

        words = {
            "wins": f"{percent(self.gain)} better",
            "loses": f"{percent(self.gain)} worse",
            "ties": "equal",
        }
        return f"{words[self.outcome]}: {against}"


def compare(scores: Scores) -> list[Comparison]:
    """Compare the model with the best reference, per variable, by the headline score.

    A variable without any headline score is left out; one whose scores are missing is
    kept with a gain of NaN.
    """
    if len(scores.sources) < 2:
        return []
    model, *references = scores.sources
    found = []

    for variable in scores.variables:
        metric = headline_metric(scores, variable)
        if metric is None:
            continue
        values = {
            name: scores.get(name, variable, metric)
            for name in references
            if math.isfinite(scores.get(name, variable, metric))
        }
        best = min(values, key=lambda name: values[name], default="")

        # An interval counts only if it is of this metric and this reference.
        own = scores.get(model, variable, metric)
        reference = values.get(best, math.nan)
        measured = scores.gains.get(variable) if metric == "crps" else None
        if measured is not None and measured.reference != best:
            measured = None

        found.append(
            Comparison(
                variable=variable,
                metric=metric,
                units=scores.units.get((variable, metric), ""),
                model=own,
                reference=reference,
                reference_name=best,
                gain=1.0 - own / reference if reference > 0 else math.nan,
                measured=measured,
            )
        )
    return found


def headline_metric(scores: Scores, variable: str) -> str | None:
    """Return the score that decides, of those that the variable has."""
    known = {metric for _, name, metric in scores.values if name == variable}
    ranks = {metric: metric_of(metric).headline for metric in known}
    return min((m for m in ranks if ranks[m] > 0), key=ranks.__getitem__, default=None)


def verdict(scores: Scores) -> str:
    """Say in which variables the model beats the best reference, and what is weakest.

    Returns
    -------
    str
        Names every variable, the size of the difference and the reference; says so
        plainly where the model loses or ties, and where nothing can be compared. Then
        the scores of all variables together, and the weakest calibration.
    """
    if not scores.sources:
        return "The scorecard is empty, so nothing can be said about skill."
    parts = (_skill(scores), _joint_skill(scores), weakest(scores.judged))
    return " ".join(part for part in parts if part)


def _skill(scores: Scores) -> str:
    """Say in one sentence how the model compares with the references."""
    model = scores.sources[0]
    pairs = compare(scores)
    if not pairs:
        return (
            f"No reference method was scored beside {model}, so nothing can be said "
            "about its skill."
        )

    # The wins first, then the other outcomes that there are.
    groups = {
        outcome: [pair for pair in pairs if pair.outcome == outcome]
        for outcome in ("wins", *_SAID)
    }
    metrics = " / ".join(dict.fromkeys(metric_of(pair.metric).title for pair in pairs))
    won = groups.pop("wins")
    share = _count(len(won), len(pairs))
    parts = [f"Judged by {metrics}, {model} beats the best reference in {share}"]
    if won:
        parts[0] += f": {_listing(won)}"

    for outcome, group in groups.items():
        names = ", ".join(pair.variable for pair in group)
        which = _listing(group) if outcome == "loses" else names
        if group:
            parts.append(f"{_SAID[outcome]} {len(group)}: {which}")
    return "; ".join(parts) + "."


def _joint_skill(scores: Scores) -> str:
    """Say in one sentence how it compares in all variables together."""
    parts = [
        f"{gain.words} than {gain.reference} in the {metric_of(gain.metric).title}"
        if gain.outcome in ("wins", "loses")
        else f"{gain.words} with {gain.reference} in the {metric_of(gain.metric).title}"
        for gain in scores.joint
        if gain.outcome != "unknown"
    ]
    return f"In all variables together: {'; '.join(parts)}." if parts else ""


def _count(part: int, total: int) -> str:
    if total == 1:
        return "the only variable" if part else "no variable"
    if part == total:
        return f"all {total} variables"
    return f"{part} of {total} variables" if part else f"none of the {total} variables"


def _listing(pairs: Sequence[Comparison]) -> str:
    return ", ".join(
        f"{pair.variable} by {percent(pair.gain)} ({pair.reference_name}"
        + (f"; {pair.measured.interval})" if pair.measured else ")")
        for pair in pairs
    )


def interval_note(scores: Scores) -> str:
    """Say what the intervals of the headline are, or that there are none."""
    measured = [pair.measured for pair in compare(scores) if pair.measured]
    if not measured:
        return (
            "This scorecard was written without intervals: a small difference, or one "
            "from few days, may be chance. Evaluate again to get them."
        )

    gain = measured[0]
    size = f"{gain.block} scored day{'s' if gain.block > 1 else ''}"
    return (
        f"Intervals: 95 %, from a moving-block bootstrap over the {gain.days} scored "
        f"days (blocks of {size}, about {BLOCK_DAYS} days; {RESAMPLES} resamples; the "
        "same days for the model and the reference, which stays the best one over all "
        "days). They cover the choice of days, not another training run. A tie: the "
        "interval contains 0."
    )


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One variable's scores, ready to print."""

    variable: str
    # (label, note) per score; the note gives units and which side is better.
    columns: list[tuple[str, str]]
    # (source, is_model, cells); a cell is (text, is_best).
    rows: list[tuple[str, bool, list[tuple[str, bool]]]] = field(default_factory=list)


def score_tables(scores: Scores, *, full: bool = False) -> list[ScoreTable]:
    """Return one table per variable: the chief scores, or with ``full`` all of them.

    A last one has the scores of all variables together.
    """
    tables = []
    for variable in [*scores.variables, ALL]:
        metrics = _columns_of(scores, variable, full=full)
        if not metrics:
            continue

        best = {metric: scores.best(variable, metric) for metric in metrics}
        rows = []
        for source in scores.sources:
            values = [(m, scores.get(source, variable, m)) for m in metrics]
            if all(math.isnan(value) for _, value in values):
                continue
            cells = [(number(value), source in best[m]) for m, value in values]
            rows.append((source, source == scores.sources[0], cells))

        columns = [
            (
                metric_of(m).title if full else metric_of(m).head or metric_of(m).title,
                _note(m, scores.units.get((variable, m), "")),
            )
            for m in metrics
        ]
        tables.append(ScoreTable(variable=variable, columns=columns, rows=rows))
    return tables


def _columns_of(scores: Scores, variable: str, *, full: bool) -> list[str]:
    """Return the scores to print that at least one source has for the variable."""
    present = [
        metric
        for metric in scores.metrics
        if not metric_of(metric).calibration
        and any(math.isfinite(scores.get(s, variable, metric)) for s in scores.sources)
    ]
    described = {name: metric_of(name) for name in present}
    dropped = {metric.replaces for metric in described.values()}
    main = [n for n, metric in described.items() if metric.head and n not in dropped]
    main.sort(key=lambda name: (described[name].place, name))
    return present if full or not main else main


def _note(metric: str, units: str) -> str:
    goal, signed = metric_of(metric).ideal, metric_of(metric).signed
    if math.isnan(goal):
        side = "description only"
    elif goal == 0.0 and not signed:
        side = "lower is better"
    else:
        side = f"ideal {goal:g}"
    shown = "" if units in ("", "1") else pretty_units(units)
    return ", ".join(part for part in (shown, side) if part)
