"""Days and shorter time steps of any CF calendar as whole numbers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.time.timestamps import (
    DAY,
    Integers,
    Numbers,
    bounds_usable,
    check_decoded,
    modern_calendar,
    season,
    stamp_numbers,
)
from st_cdgm.errors import ConfigError, InputError

logger = logging.getLogger(__name__)
TimeStep = Literal["daily", "native"]
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


@dataclass(frozen=True, kw_only=True, eq=False)
class StepAxis:
    """The time axis of a file in whole numbers, not yet checked for order.

    Attributes
    ----------
    date : ndarray
        YYYYMMDD of each step. Shape ``(T,)``, int64.
    number : ndarray
        Days since 1850-01-01 in the calendar of the data. Shape ``(T,)``, int64.
    second : ndarray
        Seconds since midnight. Shape ``(T,)``, int64.
    calendar : str
        CF calendar.
    stamps : xarray.DataArray
        As they are in the file, for messages.
    bounded : bool
        Whether the numbers are where the steps begin, by the bounds in the file;
        otherwise they are the stamps.
    overlapping : bool
        Whether steps shorter than a day overlap by their bounds, as running totals do.
    file : str or Path, optional
        For messages.
    """

    date: Integers
    number: Integers
    second: Integers
    calendar: str
    stamps: xr.DataArray
    bounded: bool = False
    overlapping: bool = False
    file: str | Path | None = None

    @cached_property
    def total(self) -> Integers:
        """Seconds since 1850-01-01. Shape ``(T,)``, int64."""
        return self.number * DAY + self.second

    @cached_property
    def step_seconds(self) -> int:
        """The most frequent step, s; 86400 where there is only one stamp."""
        if len(self.total) < 2:
            return DAY
        steps, count = np.unique(np.diff(self.total), return_counts=True)
        return int(steps[count.argmax()])

    @property
    def several_per_day(self) -> bool:
        """Whether two steps fall on one day."""
        return len(np.unique(self.number)) < len(self.number)

    def days(self) -> CalendarDays:
        """Return the days of an axis with one stamp per day, whatever its hour.

        Raises
        ------
        InputError
            If two stamps fall on one day, or the days are not in order.
        """
        if (np.diff(self.number) <= 0).any():
            raise _disorder(self, self.number, "fall on one day")
        return self.days_of(slice(None))

    def days_of(self, index: Integers | slice) -> CalendarDays:
        """Return the days of some steps, one per day."""
        date, number = self.date[index], self.number[index]
        midnight = np.zeros_like(number)
        return CalendarDays(
            day=date,
            ordinal=number,
            season=season(date, number, midnight, self.calendar),
            calendar=self.calendar,
        )

    def steps(self) -> CalendarDays:
        """Return the steps themselves; whole steps that are missing are gaps.

        Raises
        ------
        InputError
            If :meth:`check_regular` does.
        """
        self.check_regular()
        return CalendarDays(
            day=self.date,
            ordinal=self.total // self.step_seconds,
            season=season(self.date, self.number, self.second, self.calendar),
            calendar=self.calendar,
            second=self.second,
            step_seconds=self.step_seconds,
        )

    def check_regular(self) -> None:
        """Raise InputError unless the axis rises by multiples of its frequent step."""
        between, step = np.diff(self.total), self.step_seconds
        if (between <= 0).any():
            raise _disorder(self, self.total, "are the same")
        odd = np.flatnonzero(between % step)
        if not odd.size:
            return
        at = int(odd[0])
        first, second = self.stamps.values[at : at + 2]
        raise InputError(
            "the time steps are irregular",
            file=self.file,
            variable=str(self.stamps.name),
            found=f"mostly {duration(step)}, but {duration(int(between[at]))} from "
            f"{first} to {second}",
            expected="one constant step (missing steps leave gaps)",
            remedy="keep the stamps of one step, or make daily means (cdo daymean) or "
            "sums (daysum)",
        )


def check_time_step(time_step: str) -> None:
    """Raise ConfigError unless ``time_step`` is ``daily`` or ``native``."""
    if time_step not in get_args(TimeStep):
        raise ConfigError(
            "unknown time step",
            variable="data.time_step",
            found=time_step,
            expected=" or ".join(get_args(TimeStep)),
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
    return cftime.datetime(
        day // 10000,
        day // 100 % 100,
        day % 100,
        clock // 10000,
        clock // 100 % 100,
        clock % 100,
        calendar=calendar,
    )


def duration(seconds: int) -> str:
    """Return a length of time in the largest unit that divides it."""
    for unit, name in ((DAY, "d"), (3600, "h"), (60, "min")):
        if seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"


def day_keys(
    time: xr.DataArray,
    *,
    bounds: xr.DataArray | None = None,
    file: str | Path | None = None,
    time_step: str = "daily",
) -> CalendarDays:
    """Turn time stamps into days; the hour of the stamp (00, 12) does not matter.

    Parameters
    ----------
    time : xarray.DataArray
        Decoded stamps (cftime or datetime64), increasing; one per day, or at a constant
        step with ``native``. Shape ``(T,)``.
    bounds : xarray.DataArray, optional
        Decoded beginning and end of each step. Shape ``(T, 2)``. A one-day step that
        is stamped at its end belongs to the day on which it began; so does a shorter
        step, wherever it is stamped.
    file : str or Path, optional
        For error messages.
    time_step : {"daily", "native"}
        ``native`` lets several stamps fall on one day, provided that they are at a
        constant step; whole steps that are missing are gaps.

    Raises
    ------
    InputError
        If the axis is empty, not decoded, has missing or repeated stamps, runs
        backwards, or has several stamps on one day (``native``: an irregular step).
    """
    check_time_step(time_step)
    axis = step_axis(time, bounds=bounds, file=file)
    if time_step == "native" and axis.several_per_day:
        return axis.steps()
    return axis.days()


def step_axis(
    time: xr.DataArray,
    *,
    bounds: xr.DataArray | None = None,
    file: str | Path | None = None,
) -> StepAxis:
    """Read a time axis as whole numbers, to the second; parameters as `day_keys`.

    Raises
    ------
    InputError
        If the axis is empty, not decoded or has missing stamps.
    """
    check_decoded(time, file=file)
    calendar = modern_calendar(time)
    stamps = stamp_numbers(time, calendar)
    axis = _axis(stamps, time, calendar, file)
    if bounds is None or not bounds_usable(bounds, time, file=file):
        return axis
    first = stamp_numbers(bounds[:, 0], calendar)
    begun = replace(_axis(first, time, calendar, file), bounded=True)
    end = stamp_numbers(bounds[:, 1], calendar).total
    length = end - first.total
    if (length == DAY).all() and (end == stamps.total).all():
        logger.info("%s: days are stamped at their end; the day they began", file)
        return begun
    if not axis.several_per_day and not begun.several_per_day:
        return axis
    overlapping = bool((end[:-1] > first.total[1:]).any())
    if (length == length[0]).all() and not overlapping:
        return begun
    logger.warning(
        "%s: the bounds of %s are not used: steps overlap or differ in length",
        file,
        time.name,
    )
    return replace(axis, overlapping=overlapping)


def _axis(
    numbers: Numbers, time: xr.DataArray, calendar: str, file: str | Path | None
) -> StepAxis:
    return StepAxis(**numbers._asdict(), stamps=time, calendar=calendar, file=file)


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


def _disorder(axis: StepAxis, number: Integers, several: str) -> InputError:
    """Return the error for steps that repeat or run backwards."""
    at = int(np.flatnonzero(np.diff(number) <= 0)[0])
    stamps = axis.stamps.values
    unique, first, count = np.unique(number, return_index=True, return_counts=True)
    repeated = len(number) - len(unique)
    if repeated:
        problem = f"several time stamps {several}"
        daily = number is axis.number
        twice = int(first[count > 1][0])
        shown = key_text(axis.date[twice]) if daily else stamps[twice]
        found = (
            f"{repeated} repeated {'days' if daily else 'stamps'}, the first {shown}"
        )
        remedy = "remove duplicates, or make daily means (cdo daymean) or sums (daysum)"
    else:
        problem = "the days are not in order"
        found = f"{stamps[at]} followed by {stamps[at + 1]}"
        remedy = "sort the file by time (xarray: ds.sortby('time'))"
    return InputError(
        problem,
        file=axis.file,
        variable=str(axis.stamps.name),
        found=found,
        expected="one stamp per day or per constant step, increasing",
        remedy=remedy,
    )
