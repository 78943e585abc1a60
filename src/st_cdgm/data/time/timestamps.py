"""Decoded time stamps as whole numbers, in any CF calendar."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple, cast

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.errors import InputError

logger = logging.getLogger(__name__)
Integers = NDArray[np.int64]
# First day on which the mixed and the proleptic Gregorian calendar agree for good.
GREGORIAN_REFORM = 15821015
DAY = 86400  # s
_SAME_CALENDAR = {
    "gregorian": "standard",
    "365_day": "noleap",
    "366_day": "all_leap",
}


class Numbers(NamedTuple):
    """Stamps as whole numbers, int64, shape ``(T,)`` each.

    Attributes
    ----------
    date : ndarray
        YYYYMMDD.
    number : ndarray
        Days since 1850-01-01 in the calendar of the stamps.
    second : ndarray
        Seconds since midnight.
    """

    date: Integers
    number: Integers
    second: Integers

    @property
    def total(self) -> Integers:
        """Seconds since 1850-01-01."""
        return self.number * DAY + self.second


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
    dated = np.issubdtype(time.dtype, np.datetime64) or (
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


def stamp_numbers(time: xr.DataArray, calendar: str) -> Numbers:
    """Return decoded stamps as whole numbers, rounded to the second."""
    if np.asarray(time.dt.microsecond).any():  # 1 h as a share of a day is not exact
        time = time.dt.round("s")
    names = ("year", "month", "day", "hour", "minute", "second")
    year, month, day, hour, minute, second = (
        np.asarray(getattr(time.dt, name).values, np.int64) for name in names
    )
    return Numbers(
        date=year * 10000 + month * 100 + day,
        number=_ordinal(year, month, day, calendar),
        second=hour * 3600 + minute * 60 + second,
    )


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
    if isinstance(stamp, cftime.datetime):
        text = str(stamp.isoformat())
    else:
        text = str(pd.Timestamp(stamp).isoformat())  # "NaT" where missing
    return text.removesuffix("T00:00:00")
