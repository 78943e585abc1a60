"""Which days and cells are scored, and what is left out, where.

A rule says what happens where forecasts and truth do not have the same variables, rows,
columns, days and values:

``common``
    What the truth and all sources have is scored; one line says what is left out.
``truth``
    All that the truth has must be predicted, else the first gap is an error. What
    forecasts have besides is left out.
``strict``
    Forecasts must, besides, not have more than the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import key_text
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.metrics.blocks import day_slices
from st_cdgm.evaluation.source import Source
from st_cdgm.typing import Floats, Indices

MaskRule = Literal["common", "truth", "strict"]
RULES: tuple[str, ...] = get_args(MaskRule)


def check_rule(rule: str) -> None:
    """Raise ConfigError unless ``rule`` is known."""
    if rule not in RULES:
        raise ConfigError(
            "unknown rule for what is scored",
            variable="mask",
            found=rule,
            expected=" | ".join(RULES),
        )


# -- Days ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DaysLeftOut:
    """Days of one data set that are not scored."""

    source: str  # truth, or the forecast that has the days
    days: int  # how many are left out
    of: int  # how many it has
    period: str  # from the first left out to the last

    def __str__(self) -> str:
        return f"{self.days} of {self.of} days of {self.source} ({self.period})"


def shared_days(
    truth: Source, sources: Sequence[Source], rule: str
) -> tuple[Indices, list[DaysLeftOut]]:
    """Return the scored days as YYYYMMDD, and those left out.

    Raises
    ------
    InputError
        There is no common day, or the rule does not allow that one is left out.
    """
    keys = truth.days.day
    for source in sources:
        common = np.intersect1d(keys, source.days.day)
        if common.size == 0:
            raise InputError(
                "Forecast and truth have no day in common.",
                file=source.file,
                found=f"{source.name}: {source.days.period()}",
                expected=f"truth (and earlier sources): {truth.days.period()}",
                remedy="evaluate on a period that both cover",
            )
        keys = common

    left = [out for one in (truth, *sources) if (out := _days_left(one, keys))]
    if rule != "common":
        _refuse_days(truth, sources, strict=rule == "strict")
    return keys, left


def _days_left(source: Source, keys: Indices) -> DaysLeftOut | None:
    lost = np.setdiff1d(source.days.day, keys)
    if not lost.size:
        return None
    return DaysLeftOut(
        source=source.name,
        days=int(lost.size),
        of=len(source.days),
        period=f"{key_text(lost[0])}..{key_text(lost[-1])}",
    )


def _refuse_days(truth: Source, sources: Sequence[Source], *, strict: bool) -> None:
    """Raise InputError for a day with truth that is not predicted, or the reverse."""
    for source in sources:
        pairs = [(truth, source), *([(source, truth)] if strict else [])]
        for has, lacks in pairs:
            lost = np.setdiff1d(has.days.day, lacks.days.day)
            if lost.size:
                raise InputError(
                    f"A day of {has.name} is not in {lacks.name}.",
                    file=lacks.file,
                    variable="time",
                    found=f"no {key_text(lost[0])} (the first of {lost.size} days)",
                    expected=f"all days of {has.name}: {has.days.period()}",
                    remedy="cut both to one period, or score what both have: "
                    "--mask common",
                )


# -- Cells -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CellsLeftOut:
    """What of a variable's truth is not scored on the scored days."""

    variable: str
    cells: int  # cells with truth
    cells_lost: int  # those of them that are never scored
    region: list[float] | None  # their south, north, west and east, degrees
    values_lost: int  # single values (a cell on a day) of other cells
    missing_in: list[str]  # sources that lack something
    without_truth: int  # cells that a source predicts and that never have a truth

    def __str__(self) -> str:
        parts = [f"{self.cells - self.cells_lost} of {self.cells} cells with truth"]
        if self.region is not None:
            south, north, west, east = self.region
            parts.append(
                f"left out {self.cells_lost} within {south:.4g}..{north:.4g} N, "
                f"{west:.4g}..{east:.4g} E"
            )

        if self.values_lost:
            parts.append(f"left out {self.values_lost} single values of other cells")
        if self.missing_in:
            parts[-1] += f", missing in {', '.join(self.missing_in)}"
        if self.without_truth:
            parts.append(f"{self.without_truth} predicted cells have no truth")
        return "; ".join(parts)


class _Tally:
    """What is counted while the days pass by, arrays of shape ``(Y, X)``."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.known = np.zeros(shape, bool)  # truth on some day
        self.scored = np.zeros(shape, bool)  # truth and all sources on some day
        self.predicted = np.zeros(shape, bool)  # some source on some day
        self.values_lost = np.zeros(shape, np.int64)
        self.missing: dict[str, int] = {}  # source -> member values
        self.first: tuple[Source, int, int, int] | None = None  # day, row, column


def hide_unshared(
    truth: Source, sources: Sequence[Source], variable: str, rule: str
) -> tuple[NDArray[np.uint8] | None, CellsLeftOut]:
    """Look at all scored days of a variable.

    Returns
    -------
    hidden : ndarray or None
        See :attr:`Source.hidden`; None where nothing has to be hidden.
    left_out : CellsLeftOut
        What that is.

    Raises
    ------
    InputError
        The truth has no values, nothing is shared, or the rule does not allow a gap.
    """
    shape = truth.grid.shape
    having = [source for source in sources if variable in source.fields]
    tally = _Tally(shape)
    most = max(source.members for source in (truth, *having))
    packed = [
        _look(truth, having, variable, days, tally, strict=rule == "strict")
        for days in day_slices((len(truth.index), most, *shape))
    ]

    # What makes any score impossible, or is against the rule.
    if not tally.known.any():
        raise InputError(
            "The truth has no values on the scored days.",
            file=truth.file,
            variable=variable,
            found="missing everywhere",
            expected="finite values on some cells",
            remedy="check fill value, mask and period of the truth file",
        )
    if tally.first is not None and rule != "common":
        raise _gap(tally, truth, variable)
    if not tally.scored.any():
        raise InputError(
            "Forecast and truth have no value in common on the scored days.",
            file=having[0].file,
            variable=variable,
            found=f"nothing where {truth.file} has values",
            expected="values on some cells of the truth",
            remedy="check the masks of both files",
        )

    hidden = np.concatenate(packed) if tally.values_lost.any() else None
    return hidden, _left_out(tally, variable, truth.grid)


def _look(
    truth: Source,
    sources: Sequence[Source],
    variable: str,
    days: slice,
    tally: _Tally,
    *,
    strict: bool,
) -> NDArray[np.uint8]:
    """Count some days; return where the truth is to be hidden, as packed bits."""
    known = np.isfinite(truth.read(variable, days)[:, 0])  # (t, Y, X)
    shared = known.copy()

    for source in sources:
        finite = np.isfinite(source.read(variable, days))  # (t, M, Y, X)
        there = finite.all(axis=1)
        gaps = known & ~there
        wrong = gaps | (finite.any(axis=1) & ~known) if strict else gaps
        if gaps.any():
            count = int((known[:, None] & ~finite).sum())
            tally.missing[source.name] = tally.missing.get(source.name, 0) + count

        if tally.first is None and wrong.any():
            day, row, column = (int(i[0]) for i in np.nonzero(wrong))
            tally.first = (source, days.start + day, row, column)
        shared &= there
        tally.predicted |= there.any(axis=0)

    lost = known & ~shared
    tally.known |= known.any(axis=0)
    tally.scored |= shared.any(axis=0)
    tally.values_lost += lost.sum(axis=0)
    return np.packbits(lost.reshape(len(lost), -1), axis=1)


def _left_out(tally: _Tally, variable: str, grid: Grid) -> CellsLeftOut:
    never = tally.known & ~tally.scored
    return CellsLeftOut(
        variable=variable,
        cells=int(tally.known.sum()),
        cells_lost=int(never.sum()),
        region=region(grid.lat2d[never], grid.lon2d[never]) if never.any() else None,
        values_lost=int(tally.values_lost[~never].sum()),
        missing_in=list(tally.missing),
        without_truth=int((tally.predicted & ~tally.known).sum()),
    )


def region(lat: Floats, lon: Floats) -> list[float]:
    """Return south, north, west and east of some cells, degrees."""
    sides = (lat.min(), lat.max(), lon.min(), lon.max())
    return [round(float(side), 4) for side in sides]


# -- What is refused -------------------------------------------------------------------


def _gap(tally: _Tally, truth: Source, variable: str) -> InputError:
    """Return the error about the first cell that the rule does not allow."""
    assert tally.first is not None
    source, day, row, column = tally.first
    grid = truth.grid
    place = (
        f"the first on {truth.days.select(truth.index[[day]]).iso()[0]} at "
        f"{grid.lat2d[row, column]:.6g} N, {grid.lon2d[row, column]:.6g} E"
    )

    problem, found = "The forecast has values where the truth has none.", place
    missing = tally.missing.get(source.name, 0)
    if missing:
        problem = "The forecast is not finite where the truth has values."
        found = f"{missing} values missing (all members and days), {place}"

    return InputError(
        problem,
        file=source.file,
        variable=f"{variable} of {source.name}",
        found=found,
        expected="a forecast on every cell and day of the truth"
        + ("" if missing else ", and on no other"),
        remedy="check the mask of the forecast, or score what both have: --mask common",
    )


# -- What is said ----------------------------------------------------------------------


def summary(
    rule: str,
    days: int,
    left: Sequence[DaysLeftOut],
    cells: Sequence[CellsLeftOut],
    **others: Sequence[str],
) -> dict[str, Any]:
    """Return rule, text and numbers of what is scored, as the scorecard keeps them.

    ``others`` says what else is left out.
    """
    parts = [f"{days} days"]
    if left:
        parts[0] += f", left out {', '.join(map(str, left))}"

    parts += [f"{name}: {'; '.join(said)}" for name, said in others.items() if said]

    # What is the same of several variables is said once.
    alike: dict[str, list[str]] = {}
    for one in cells:
        alike.setdefault(str(one), []).append(one.variable)
    parts += [f"{', '.join(names)}: {text}" for text, names in alike.items()]
    return {
        "rule": rule,
        "text": f"scored (mask {rule}): " + " | ".join(parts),
        "days_left_out": [asdict(one) for one in left],
        "cells_left_out": [asdict(one) for one in cells],
        **{f"{name}_left_out": list(said) for name, said in others.items()},
    }
