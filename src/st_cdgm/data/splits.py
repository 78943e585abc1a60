"""Split a record into training, validation and test periods."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import ConfigError, InputError

if TYPE_CHECKING:
    from st_cdgm.data.calendars import CalendarDays

__all__ = ["SPLITS", "SplitConfig", "check_period", "period_days", "split_days"]

SPLITS = ("train", "validation", "test")
Indices = NDArray[np.int64]

_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?(?:[T ].*)?")


@dataclass(kw_only=True)
class SplitConfig:
    """Periods of the three splits.

    Attributes
    ----------
    train, validation, test : list of str
        ``[start, end]``, both included, as ``YYYY-MM-DD`` (or ``YYYY-MM``, ``YYYY``).
        An empty list leaves the split out; ``train`` is needed.
    embargo_days : int
        Days kept free between two splits. They are taken from the training period
        before the validation period, and never from the test period.
    """

    train: list[str] = field(default_factory=list)
    validation: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    embargo_days: int = 0

    def check(self) -> None:
        """Raise ConfigError unless the periods are dates, in order and disjoint."""
        if not self.train:
            raise ConfigError(
                "the training period is missing",
                variable="data.splits.train",
                expected="[start, end], e.g. [1991-01-01, 1999-12-31]",
            )
        if self.embargo_days < 0:
            raise ConfigError(
                "a negative embargo",
                variable="data.splits.embargo_days",
                found=self.embargo_days,
                expected="0 or more days",
            )
        periods = self.periods()
        bounds = sorted((*_bounds(n, p), n) for n, p in periods.items())
        for (_, end, name), (start, _, other) in pairwise(bounds):
            if start <= end:
                raise ConfigError(
                    "two splits share days",
                    variable=f"data.splits.{other}",
                    found=f"{name} {periods[name]}, {other} {periods[other]}",
                    expected="periods without a common day",
                )

    def periods(self) -> dict[str, list[str]]:
        """Return ``[start, end]`` of every split that has one."""
        named = {name: [str(d) for d in getattr(self, name)] for name in SPLITS}
        return {name: period for name, period in named.items() if period}


def check_period(start: str | None, end: str | None) -> tuple[int, int]:
    """Return ``[start, end]`` as YYYYMMDD; None leaves a side open.

    Raises
    ------
    ConfigError
        If a bound is no date, or the period ends before it starts.
    """
    first = 0 if start is None else _key(start, "start", last=False)
    last = 99999999 if end is None else _key(end, "end", last=True)
    if last < first:
        raise ConfigError(
            "the period ends before it starts",
            variable="start, end",
            found=f"start {start}, end {end}",
            expected="start on or before end",
            remedy="exchange the two dates",
        )
    return first, last


def period_days(
    day: Indices, start: str | None, end: str | None, *, file: str | None = None
) -> Indices:
    """Return the indices of the days in ``[start, end]``.

    Parameters
    ----------
    day : ndarray
        YYYYMMDD, increasing. Shape ``(T,)``, int64.
    start, end : str or None
        ISO dates, both included; None leaves that side open. A day that the calendar
        does not have (30 February) is a bound like any other.

    Raises
    ------
    ConfigError
        If a bound is no date, or the period ends before it starts.
    InputError
        If no day lies in the period; it says which period the file covers.
    """
    first, last = check_period(start, end)
    index = np.flatnonzero((day >= first) & (day <= last)).astype(np.int64)
    if not len(index):
        raise InputError(
            "no day lies in the period asked for",
            file=file,
            found=_record(day, first, last),
            expected=f"days from {start or 'the beginning'} to {end or 'the end'}",
            remedy="choose a period of which the file has days",
        )
    return index


def _record(day: Indices, first: int, last: int) -> str:
    """Describe a record without a day in ``[first, last]``."""
    if not len(day):
        return "no day"
    before, after = day[day < first], day[day > last]
    text = f"days from {_iso(day[0])} to {_iso(day[-1])}"
    if len(before) and len(after):
        text += f", but none between {_iso(before[-1])} and {_iso(after[0])}"
    return text


def split_days(
    days: CalendarDays, config: SplitConfig, *, file: str | None = None
) -> dict[str, Indices]:
    """Return the indices of the days of each split.

    Parameters
    ----------
    days : CalendarDays
        The record.
    config : SplitConfig
        Periods and embargo.
    file : str, optional
        Named in errors.

    Returns
    -------
    dict
        ``train``, ``validation`` and ``test`` to int64 indices; empty for a split
        without a period.

    Raises
    ------
    ConfigError
        If the periods overlap or are no dates.
    InputError
        If a period has no day in the record, or the embargo leaves none.
    """
    config.check()
    out = {name: np.empty(0, dtype=np.int64) for name in SPLITS}
    for name, (start, end) in config.periods().items():
        out[name] = period_days(days.day, start, end, file=file)
    # The later name of the pair is the one that keeps its days.
    for i, name in enumerate(SPLITS):
        for other in SPLITS[i + 1 :]:
            out[name] = _keep_away(days, out, name, other, config.embargo_days)
    for name in config.periods():
        if not len(out[name]):
            raise InputError(
                f"the embargo leaves no day in {name}",
                file=file,
                found=f"embargo of {config.embargo_days} days",
                remedy="shorten data.splits.embargo_days or lengthen the period",
            )
    return out


def _keep_away(
    days: CalendarDays, index: dict[str, Indices], name: str, other: str, embargo: int
) -> Indices:
    """Drop the days of ``name`` within ``embargo`` days of the period of ``other``."""
    if not len(index[other]) or not len(index[name]):
        return index[name]
    ordinal = days.ordinal[index[name]]
    first, last = days.ordinal[index[other][[0, -1]]]
    free = (ordinal < first - embargo) | (ordinal > last + embargo)
    return cast(Indices, index[name][free])


def _bounds(name: str, period: list[str]) -> tuple[int, int]:
    """Return a period as two YYYYMMDD numbers."""
    if len(period) != 2:
        raise ConfigError(
            "a period needs a start and an end",
            variable=f"data.splits.{name}",
            found=period,
            expected="[start, end]",
        )
    key = f"data.splits.{name}"
    start, end = _key(period[0], key, last=False), _key(period[1], key, last=True)
    if end < start:
        raise ConfigError(
            "a period ends before it starts",
            variable=f"data.splits.{name}",
            found=period,
            expected="[start, end]",
        )
    return start, end


def _key(text: str, variable: str, *, last: bool) -> int:
    """Return a date as YYYYMMDD; a missing month or day means the first or last."""
    match = _DATE.fullmatch(str(text).strip())
    year, month, day = match.groups() if match else (None, None, None)
    if year is None or not (1 <= int(month or 1) <= 12 and 1 <= int(day or 1) <= 31):
        raise ConfigError(
            "not a date",
            variable=variable,
            found=text,
            expected="YYYY-MM-DD, such as 2003-12-31",
        )
    month = month or ("12" if last else "01")
    return int(year) * 10000 + int(month) * 100 + int(day or ("31" if last else "01"))


def _iso(day: int) -> str:
    text = f"{int(day):08d}"
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
