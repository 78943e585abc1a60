"""Days and shorter time steps of any CF calendar as whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import cftime
import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import InputError

Integers = NDArray[np.int64]
DAY = 86400  # s
ORIGIN = "days since 1850-01-01"
CLOCK = 10**6  # keys of steps are YYYYMMDD times this plus hhmmss


@dataclass(frozen=True, kw_only=True, eq=False)
class CalendarDays:
    """Days, or time steps shorter than a day, in strictly increasing order.

    Attributes
    ----------
    day : ndarray
        YYYYMMDD, comparable between data sets of one calendar; steps shorter than a day
        share it, see :attr:`key`. Shape ``(T,)``, int64.
    ordinal : ndarray
        Steps since 1850-01-01 counted in the data's own calendar, so that consecutive
        steps differ by exactly 1. Shape ``(T,)``, int64.
    season : ndarray
        Fraction of the year elapsed, in [0, 1). Shape ``(T,)``, float32.
    calendar : str
        CF calendar; ``standard`` also for the Gregorian calendars, which agree on all
        dates met here.
    second : ndarray or None
        Seconds since midnight, of steps shorter than a day. Shape ``(T,)``, int64.
    step_seconds : int
        Length of a step, s; 86400 for days.
    """

    day: Integers
    ordinal: Integers
    season: NDArray[np.float32]
    calendar: str
    second: Integers | None = None
    step_seconds: int = DAY

    def __len__(self) -> int:
        return len(self.day)

    @cached_property
    def key(self) -> Integers:
        """What names a step in all data sets of one calendar. Shape ``(T,)``, int64.

        The day itself for daily data, YYYYMMDDhhmmss for shorter steps.
        """
        if self.second is None:
            return self.day
        minute = self.second // 60
        clock = minute // 60 * 10000 + minute % 60 * 100 + self.second % 60
        return self.day * CLOCK + clock

    def iso(self) -> list[str]:
        """Return every step as ``2003-01-31`` or ``2010-08-26T00:05:00``."""
        return [key_text(key) for key in self.key]

    def dates(self) -> list[cftime.datetime]:
        """Return every step as a date of the calendar; days are at 00:00."""
        return [key_date(key, self.calendar) for key in self.key]

    def period(self) -> str:
        """First and last step as ``1991-01-01..2005-12-31``."""
        return f"{key_text(self.key[0])}..{key_text(self.key[-1])}"

    def gaps(self) -> list[tuple[str, str]]:
        """Pairs of steps that follow each other with steps missing between them."""
        key, breaks = self.key, np.flatnonzero(np.diff(self.ordinal) > 1)
        return [(key_text(key[i]), key_text(key[i + 1])) for i in breaks]

    def select(self, index: NDArray[Any] | slice) -> CalendarDays:
        """Return the steps at ``index``."""
        return replace(
            self,
            day=self.day[index],
            ordinal=self.ordinal[index],
            season=self.season[index],
            second=None if self.second is None else self.second[index],
        )


def key_text(key: int | np.int64) -> str:
    """Return a key as ``2003-01-31`` or ``2010-08-26T00:05:00``."""
    if key < 100 * CLOCK:
        text = f"{int(key):08d}"
        return f"{text[:-4]}-{text[-4:-2]}-{text[-2:]}"
    day, clock = divmod(int(key), CLOCK)
    text = f"{clock:06d}"
    return f"{key_text(day)}T{text[:2]}:{text[2:4]}:{text[4:]}"


def key_date(key: int | np.int64, calendar: str) -> cftime.datetime:
    """Return a key as a date of the calendar, a day at 00:00."""
    day, clock = divmod(int(key), CLOCK) if key >= 100 * CLOCK else (int(key), 0)
    date = (day // 10000, day // 100 % 100, day % 100)
    time = (clock // 10000, clock // 100 % 100, clock % 100)
    return cftime.datetime(*date, *time, calendar=calendar)


def with_earlier_keys(
    keys: Integers, count: int, *, calendar: str, step_seconds: int = DAY
) -> Integers:
    """Return each key followed by those of ``count`` steps before. ``(T, count + 1)``.

    By the calendar alone, whether there are data or not.
    """
    step = timedelta(seconds=step_seconds)
    rows = []
    for key in keys:
        date = key_date(key, calendar)
        earlier = [date - lag * step for lag in range(count + 1)]
        rows.append([_date_key(d, clock=key >= 100 * CLOCK) for d in earlier])
    return np.array(rows, dtype=np.int64).reshape(len(keys), count + 1)


def _date_key(date: cftime.datetime, *, clock: bool) -> int:
    day = date.year * 10000 + date.month * 100 + date.day
    seconds = date.hour * 10000 + date.minute * 100 + date.second
    return int(day * CLOCK + seconds) if clock else int(day)


def duration(seconds: int) -> str:
    """Return a length of time in the largest unit that divides it."""
    for unit, name in ((DAY, "d"), (3600, "h"), (60, "min")):
        if seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def shared_steps(
    first: CalendarDays, second: CalendarDays
) -> tuple[Integers, Integers, CalendarDays]:
    """Return the steps that two records of one calendar share.

    Returns
    -------
    of_first, of_second : ndarray
        Their indices in the two records. Shape ``(T,)``, int64.
    steps : CalendarDays
        The shared steps, counted in the longer of the two steps. It may be empty.

    Raises
    ------
    InputError
        If one record is daily and the other has shorter steps.
    """
    if (first.second is None) != (second.second is None):
        raise InputError(
            "two records have days and shorter steps",
            found=f"steps of {duration(first.step_seconds)} and "
            f"{duration(second.step_seconds)}",
            expected="the same kind of step in both",
            remedy="set data.time_step to daily, which makes days of the shorter steps",
        )
    _, of_first, of_second = np.intersect1d(
        first.key, second.key, assume_unique=True, return_indices=True
    )
    if first.step_seconds > second.step_seconds:
        return of_first, of_second, first.select(of_first)
    return of_first, of_second, second.select(of_second)
