"""Periods as users write them, and the days of a record that lie in them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import cftime
import numpy as np

from st_cdgm.data.time.calendar import CLOCK, CalendarDays, key_text
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.typing import Indices

STEP_KEYS = 100 * CLOCK  # keys from here on are YYYYMMDDhhmmss
_DATE = re.compile(
    r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2})"
    r"(?:[T ](\d{1,2})(?::(\d{2})(?::(\d{2}))?)?.*)?)?)?"
)


def check_period(start: str | None, end: str | None) -> tuple[int, int]:
    """Return ``[start, end]`` as YYYYMMDD; None leaves a side open.

    Raises
    ------
    ConfigError
        If a bound is no date, or the period ends before it starts.
    """
    first, last = parse_period(start, end)
    return first // CLOCK, last // CLOCK


def check_dates(
    dates: Mapping[str, str | None], calendar: str, *, file: str | None = None
) -> None:
    """Refuse days that do not exist; months and years, and None, are left alone.

    A day of the ordinary calendar is a bound in any: 31 December for data of 360 days a
    year, 29 February for data without leap days. 30 February exists with 360 days only.
    ``dates`` holds what each date is called in the message, and the date.

    Raises
    ------
    ConfigError
        Neither the calendar of the data nor the ordinary one has a day.
    """
    for name, text in dates.items():
        match = _DATE.fullmatch(str(text).strip())
        if match is None or match[3] is None:
            continue

        year, month, day = (int(match[i]) for i in (1, 2, 3))
        if not any(
            _exists(year, month, day, one) for one in (calendar, "proleptic_gregorian")
        ):
            raise ConfigError(
                "this day does not exist in the calendar of the data",
                file=file,
                variable=name,
                found=text,
                expected=f"a day of the calendar {calendar}",
                remedy=f"name the month alone for all of it: {year:04d}-{month:02d}",
            )


def _exists(year: int, month: int, day: int, calendar: str) -> bool:
    try:
        cftime.datetime(year, month, day, calendar=calendar)
    except ValueError:
        return False
    return True


def period_days(
    day: Indices,
    start: str | None,
    end: str | None,
    *,
    file: str | None = None,
    calendar: str | None = None,
    variable: str | None = None,
) -> Indices:
    """Return the indices of the days in ``[start, end]``.

    Parameters
    ----------
    day : ndarray
        ``CalendarDays.key``, increasing. Shape ``(T,)``, int64.
    start, end : str or None
        ISO dates, both included; None leaves that side open. The hour counts for steps
        shorter than a day only.
    file, variable : str, optional
        Named in errors.
    calendar : str, optional
        With it, days are refused that it does not have, see :func:`check_dates`.

    Raises
    ------
    ConfigError
        If a bound is no date, or the period ends before it starts.
    InputError
        If no day lies in the period; it says which period the file covers.
    """
    for name, date in (("start", start), ("end", end)):
        if calendar is not None:
            check_dates({variable or name: date}, calendar, file=file)

    first, last = parse_period(start, end)
    if not len(day) or day[0] < STEP_KEYS:
        first, last = first // CLOCK, last // CLOCK

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


def described_periods(
    days: CalendarDays, indices: Mapping[str, Indices]
) -> dict[str, list[str]]:
    """Return first and last day of every stretch of each split.

    A stretch ends where the record has days that are not in the split; a gap in the
    record itself does not end it. ``indices`` holds the days of each split, increasing.
    The result is ``[start, end, start, end, ...]``, ISO; empty splits are left out.
    """
    out: dict[str, list[str]] = {}
    for name, index in indices.items():
        if len(index):
            parts = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
            ends = days.key[[at for part in parts for at in (part[0], part[-1])]]
            out[name] = [key_text(key) for key in ends]
    return out


def _record(day: Indices, first: int, last: int) -> str:
    """Describe a record without a day in ``[first, last]``."""
    if not len(day):
        return "no day"
    before, after = day[day < first], day[day > last]
    text = f"days from {key_text(day[0])} to {key_text(day[-1])}"
    if len(before) and len(after):
        text += f", but none between {key_text(before[-1])} and {key_text(after[0])}"
    return text


def parse_period(
    start: str | None, end: str | None, *, variable: str | None = None
) -> tuple[int, int]:
    """Return a period with open sides as two YYYYMMDDhhmmss numbers.

    Raises
    ------
    ConfigError
        If a bound is no date, or the period ends before it starts.
    """
    first, last = 0, STEP_KEYS * CLOCK - 1
    if start is not None:
        first = parse_date(start, variable or "start", last=False)
    if end is not None:
        last = parse_date(end, variable or "end", last=True)
    if last < first:
        raise ConfigError(
            "the period ends before it starts",
            variable=variable or "start, end",
            found=f"start {start}, end {end}",
            expected="start on or before end",
            remedy="exchange the two dates",
        )
    return first, last


# Least and greatest month, day, hour, minute and second.
_LEAST, _GREATEST = (1, 1, 0, 0, 0), (12, 31, 23, 59, 59)
_SHORT_MONTHS = (2, 4, 6, 9, 11)  # 30 days at most, whatever the calendar


def parse_date(text: str, variable: str, *, last: bool) -> int:
    """Return a date as YYYYMMDDhhmmss; a missing part means its first or last."""
    match = _DATE.fullmatch(str(text).strip())
    year, *parts = match.groups() if match else (None,)
    missing = _GREATEST if last else _LEAST
    given = [int(p or m) for p, m in zip(parts, missing, strict=False)]
    limits = zip(_LEAST, given, _GREATEST, strict=False)

    if year is None or not all(low <= n <= high for low, n, high in limits):
        raise ConfigError(
            "not a date",
            variable=variable,
            found=text,
            expected="YYYY-MM-DD, such as 2003-12-31",
        )
    if parts[1] is not None and given[0] in _SHORT_MONTHS and given[1] > 30:
        raise ConfigError(
            "this day does not exist in any calendar",
            variable=variable,
            found=text,
            expected="a day of the month, such as 30",
        )

    key = int(year)
    for part in given:
        key = key * 100 + part
    return key
