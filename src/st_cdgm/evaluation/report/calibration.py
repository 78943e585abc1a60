"""What a scorecard says of the calibration, as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from st_cdgm.evaluation.metrics.base import metric_of
from st_cdgm.evaluation.metrics.calibration.windows import BLOCKS, WINDOWS, Scale
from st_cdgm.evaluation.report.scores import Scores
from st_cdgm.evaluation.report.text import number, spaced

# What is compared: members, truth or errors, and the comparison.
_COMPARED = {
    "wet days": ("wet_day_frequency", "_truth", "_bias"),
    "wet day after a wet one": ("wet_wet", "_truth", "_bias"),
    "dry day after a dry one": ("dry_dry", "_truth", "_bias"),
    "longest dry spell of a year (d)": ("cdd", "_truth", "_ratio"),
    "longest wet spell of a year (d)": ("cwd", "_truth", "_ratio"),
    "largest day of a year (mm)": ("rx1day", "_truth", "_ratio"),
    "largest five days of a year (mm)": ("rx5day", "_truth", "_ratio"),
    "99.9th percentile of all values": ("p999", "_truth", "_ratio"),
}
_DEPENDENCE = {
    "one day and the next": "lag1",
    "ends of rows": "edges_rows",
    "ends of columns": "edges_columns",
    "two variables": "variables",
}
_SMALL = ("small_scale_power", "small_scale_variogram")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A number of a calibration table, ready to print."""

    text: str
    interval: str = ""
    off: str = ""  # how it misses its ideal by more than the tolerance


@dataclass(frozen=True, kw_only=True)
class CalibrationTable:
    """A table of the calibration of the model."""

    title: str
    columns: list[str]
    rows: list[tuple[str, str, list[Entry]]]  # (variable, what, entries)


def calibration_tables(scores: Scores) -> list[CalibrationTable]:
    """Return the tables about the model; those without any number are left out."""
    if not scores.sources:
        return []

    # One after the other: space and time, dependence, sequences, small scales.
    tables = [
        CalibrationTable(
            title="Spread over error of means over blocks of cells and days",
            columns=[f"{days} day{'s' if days > 1 else ''}" for days in WINDOWS],
            rows=_scale_rows(scores),
        ),
        CalibrationTable(
            title="Dependence: correlations of departures from the ensemble mean",
            columns=["members", "truth", "members minus truth"],
            rows=_dependence_rows(scores),
        ),
        CalibrationTable(
            title="Sequences and extremes of precipitation",
            columns=["members", "truth", "difference or ratio"],
            rows=_sequence_rows(scores),
        ),
        CalibrationTable(
            title="Small scales: members against truth",
            columns=["dB"],
            rows=_small_rows(scores),
        ),
    ]
    return [table for table in tables if table.rows]


def _scale_rows(scores: Scores) -> list[tuple[str, str, list[Entry]]]:
    rows = []
    for variable in scores.variables:
        for block in BLOCKS:
            names = [f"spread_skill{Scale(block, days).suffix}" for days in WINDOWS]
            entries = [_entry(scores, variable, name) for name in names]
            where = "cells" if block == 1 else Scale(block, 1).where
            rows.append((variable, where, entries))
    return _some(rows)


def _dependence_rows(scores: Scores) -> list[tuple[str, str, list[Entry]]]:
    variables = dict.fromkeys(variable for _, variable, _ in scores.values)
    rows = []
    for what, name in _DEPENDENCE.items():
        for variable in variables:
            names = (f"{name}{end}" for end in ("_members", "_errors", "_difference"))
            rows.append((variable, what, [_entry(scores, variable, n) for n in names]))
    return _some(rows)


def _sequence_rows(scores: Scores) -> list[tuple[str, str, list[Entry]]]:
    return _some(
        [
            (variable, what, [_entry(scores, variable, n) for n in (a, a + b, a + c)])
            for variable in scores.variables
            for what, (a, b, c) in _COMPARED.items()
        ]
    )


def _small_rows(scores: Scores) -> list[tuple[str, str, list[Entry]]]:
    return _some(
        [
            (variable, metric_of(name).title, [_entry(scores, variable, name)])
            for variable in scores.variables
            for name in _SMALL
        ]
    )


def _some(
    rows: list[tuple[str, str, list[Entry]]],
) -> list[tuple[str, str, list[Entry]]]:
    """Return the rows that have a number."""
    nothing = Entry(text=number(math.nan))
    return [row for row in rows if any(entry != nothing for entry in row[2])]


def _entry(scores: Scores, variable: str, name: str) -> Entry:
    """Return a number of the model with its interval and how it is off."""
    key = (scores.sources[0], variable, name)
    value, metric = scores.get(*key), metric_of(name)
    off = ""
    if not math.isnan(metric.tolerance) and math.isfinite(value):
        far = value - metric.ideal
        off = "" if abs(far) <= metric.tolerance else "low" if far < 0 else "high"
    low, high = scores.bounds.get(key, (math.nan, math.nan))
    return Entry(text=number(value), interval=spaced(low, high), off=off)


@dataclass(frozen=True, kw_only=True)
class Outside:
    """How many scores miss their ideal by more than their tolerance, and which."""

    count: int
    of: int
    sure: int  # of which the whole interval does
    rows: list[tuple[str, str, str, str, str]]  # variable, what, value, interval, ideal

    @property
    def summary(self) -> str:
        """The counts in words."""
        return (
            f"{self.count} of {self.of} scores miss their ideal by more than their "
            f"tolerance, {self.sure} of them with their whole interval."
        )


def outside(judged: pd.DataFrame) -> Outside | None:
    """Return what is outside its tolerance, the weakest first; None without a score."""
    if judged.empty:
        return None
    off = judged[judged["distance"] > 1]
    return Outside(
        count=len(off),
        of=len(judged),
        sure=int((off["sure"] > 1).sum()),
        rows=[_outside_row(row) for row in off.to_dict(orient="records")],
    )


def _outside_row(row: Mapping[Any, Any]) -> tuple[str, str, str, str, str]:
    metric = metric_of(row["metric"])
    return (
        row["variable"],
        metric.title,
        number(row["value"]),
        spaced(row["low"], row["high"]) or "none",
        f"{metric.ideal:g} \N{PLUS-MINUS SIGN} {metric.tolerance:g}",
    )
