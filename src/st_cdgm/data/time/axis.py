"""The time axis of a file as whole numbers, in any CF calendar."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.time.calendar import DAY, CalendarDays, Integers, duration, key_text
from st_cdgm.errors import InputError, check_choice

logger = logging.getLogger(__name__)
# First day on which the mixed and the proleptic Gregorian calendar agree for good.
GREGORIAN_REFORM = 15821015
TimeStep = Literal["daily", "native"]
_SAME_CALENDAR = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}


def canonical_calendar(calendar: str) -> str:
    """CF calendar name with its synonyms folded (``365_day`` is ``noleap``)."""
    name = calendar.lower()
    return _SAME_CALENDAR.get(name, name)


def modern_calendar(time: xr.DataArray) -> str:
    """Calendar of decoded stamps; all Gregorian ones are ``standard`` after 1582."""
    calendar = canonical_calendar(str(time.dt.calendar))
    first = time.min().dt
    key = int(first.year) * 10000 + int(first.month) * 100 + int(first.day)
    if calendar == "proleptic_gregorian" and key >= GREGORIAN_REFORM:
        return "standard"
    return calendar


def check_decoded(time: xr.DataArray, *, file: str | Path | None) -> None:
    """Raise InputError unless ``time`` is an axis of dates without a missing one."""
    name = str(time.name)
    if time.size == 0:
        raise InputError(
            "the time axis is empty",
            file=file,
            variable=name,
            found="0 time stamps",
            expected="at least one day",
            remedy="check how the file was cut or downloaded",
        )

    if time.ndim != 1 or not _decoded(time):
        raise InputError(
            "the time axis cannot be read as dates",
            file=file,
            variable=name,
            found=f"units {time.attrs.get('units', 'none')!r}, first value "
            f"{time.values.flat[0]!r}",
            expected="numbers with CF units such as 'days since 1990-01-01' and a "
            "calendar",
            remedy="set the time units (cdo settaxis, or ncatted on the time variable)",
        )


def _decoded(time: xr.DataArray) -> bool:
    dated = time.dtype.kind == "M" or (
        time.dtype == object
        and all(isinstance(stamp, cftime.datetime) for stamp in time.values.flat)
    )
    return dated and not bool(time.isnull().any())


def bounds_usable(
    bounds: xr.DataArray, time: xr.DataArray, *, file: str | Path | None
) -> bool:
    """Whether bounds are dates of the same calendar as the stamps."""
    if bounds.shape != (time.size, 2) or not _decoded(bounds):
        return False
    if _folded(bounds) == _folded(time):
        return True
    logger.warning(  # a conversion forgot the bounds
        "%s: the bounds of %s are not used: their calendar is %s, not %s",
        file,
        time.name,
        bounds.dt.calendar,
        time.dt.calendar,
    )
    return False


def _folded(time: xr.DataArray) -> str:
    """Return the calendar, one name for all Gregorian ones."""
    calendar = canonical_calendar(str(time.dt.calendar))
    return "standard" if calendar == "proleptic_gregorian" else calendar


def _numbers(time: xr.DataArray, calendar: str) -> dict[str, Any]:
    """Return decoded stamps as the numbers of a `StepAxis`, rounded to the second."""
    if np.asarray(time.dt.microsecond).any():  # 1 h as a share of a day is not exact
        time = time.dt.round("s")
    names = ("year", "month", "day", "hour", "minute", "second")
    year, month, day, hour, minute, second = (
        np.asarray(getattr(time.dt, name).values, np.int64) for name in names
    )
    return {
        "date": year * 10000 + month * 100 + day,
        "number": _ordinal(year, month, day, calendar),
        "second": hour * 3600 + minute * 60 + second,
    }


def _ordinal(year: Integers, month: Integers, day: Integers, calendar: str) -> Integers:
    """Return days since 1850-01-01, counted in whole numbers."""
    dates = np.stack([year, month, day], axis=1)  # (T, 3)
    unique, member = np.unique(dates, axis=0, return_inverse=True)
    origin = cftime.datetime(1850, 1, 1, calendar=calendar).toordinal()
    number = [
        cftime.datetime(*date, calendar=calendar).toordinal() - origin
        for date in unique.tolist()
    ]
    return np.asarray(number, np.int64)[member.reshape(-1)]


def season(
    date: Integers, number: Integers, second: Integers, calendar: str
) -> NDArray[np.float32]:
    """Return the fraction of the year elapsed, in [0, 1). Shape ``(T,)``."""
    years, member = np.unique(date // 10000, return_inverse=True)
    one = np.ones_like(years)
    start = _ordinal(years, one, one, calendar)
    length = _ordinal(years + 1, one, one, calendar) - start
    share = (number - start[member] + second / DAY) / length[member]
    # The last second of a year is 1 in single precision.
    below = np.nextafter(np.float32(1.0), np.float32(0.0))
    return cast("NDArray[np.float32]", np.minimum(share.astype(np.float32), below))


def iso(stamp: Any) -> str:
    """ISO 8601 text of a date of any kind; the time of day only where it is not 0."""
    date = stamp if isinstance(stamp, cftime.datetime) else pd.Timestamp(stamp)
    return str(date.isoformat()).removesuffix("T00:00:00")  # "NaT" where missing


# -- The axis of a file ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class StepAxis:
    """The time axis of a file in whole numbers, not yet checked for order.

    Attributes
    ----------
    date, number, second : ndarray
        YYYYMMDD, days since 1850-01-01 in the calendar of the stamps, and seconds since
        midnight. Shape ``(T,)``, int64.
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

    @property
    def total(self) -> Integers:
        """Seconds since 1850-01-01."""
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
        Decoded stamps (cftime or datetime64), increasing. Shape ``(T,)``.
    bounds : xarray.DataArray, optional
        Decoded beginning and end of each step. Shape ``(T, 2)``. A one-day step that
        is stamped at its end belongs to the day on which it began; so does a shorter
        step, wherever it is stamped.
    file : str or Path, optional
        For error messages.
    time_step : {"daily", "native"}
        ``daily``: one stamp per day; ``native`` lets several fall on one day, at a
        constant step, and missing steps are gaps.

    Raises
    ------
    InputError
        If the axis is empty, not decoded, has missing or repeated stamps, runs
        backwards, or has several stamps on one day (``native``: an irregular step).
    """
    if time_step not in get_args(TimeStep):
        check_choice("time_step", time_step, get_args(TimeStep))
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
    stamps = _numbers(time, calendar)
    axis = StepAxis(**stamps, stamps=time, calendar=calendar, file=file)
    if bounds is None or not bounds_usable(bounds, time, file=file):
        return axis

    # Bounds count where they move whole days, or tell the steps of a day apart.
    begun = replace(axis, **_numbers(bounds[:, 0], calendar), bounded=True)
    end = replace(axis, **_numbers(bounds[:, 1], calendar)).total
    length = end - begun.total
    if (length == DAY).all() and (end == axis.total).all():
        logger.info("%s: days are stamped at their end; the day they began", file)
        return begun
    if not axis.several_per_day and not begun.several_per_day:
        return axis

    overlapping = bool((end[:-1] > begun.total[1:]).any())
    if (length == length[0]).all() and not overlapping:
        return begun
    logger.warning(
        "%s: the bounds of %s are not used: steps overlap or differ in length",
        file,
        time.name,
    )
    return replace(axis, overlapping=overlapping)


def _disorder(axis: StepAxis, number: Integers, several: str) -> InputError:
    """Return the error for steps that repeat or run backwards."""
    at = int(np.flatnonzero(np.diff(number) <= 0)[0])
    stamps = axis.stamps.values
    problem = "the days are not in order"
    found = f"{stamps[at]} followed by {stamps[at + 1]}"
    remedy = "sort the file by time (xarray: ds.sortby('time'))"
    unique, first, count = np.unique(number, return_index=True, return_counts=True)
    repeated = len(number) - len(unique)

    if repeated:
        problem = f"several time stamps {several}"
        twice = int(first[count > 1][0])
        what, shown = "stamps", stamps[twice]
        if number is axis.number:
            what, shown = "days", key_text(axis.date[twice])
        found = f"{repeated} repeated {what}, the first {shown}"
        remedy = "remove duplicates, or make daily means (cdo daymean) or sums (daysum)"

    return InputError(
        problem,
        file=axis.file,
        variable=str(axis.stamps.name),
        found=found,
        expected="one stamp per day or per constant step, increasing",
        remedy=remedy,
    )
