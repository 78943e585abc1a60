"""Days of any CF calendar as plain integers that can be compared and counted."""

from __future__ import annotations

import datetime
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.errors import InputError

__all__ = ["CalendarDays", "canonical_calendar", "day_keys", "modern_calendar"]

logger = logging.getLogger(__name__)

# First day on which the mixed and the proleptic Gregorian calendar agree for good.
GREGORIAN_REFORM = 15821015
ORIGIN = "days since 1850-01-01"

_SAME_CALENDAR = {
    "gregorian": "standard",
    "365_day": "noleap",
    "366_day": "all_leap",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CalendarDays:
    """Days in strictly increasing order.

    Attributes
    ----------
    day : ndarray
        YYYYMMDD, comparable between data sets of one calendar. Shape ``(T,)``, int64.
    ordinal : ndarray
        Days since 1850-01-01 counted in the data's own calendar, so that consecutive
        days differ by exactly 1. Shape ``(T,)``, int64.
    season : ndarray
        Fraction of the year elapsed, in [0, 1). Shape ``(T,)``, float32.
    calendar : str
        CF calendar; ``standard`` also for the Gregorian calendars, which agree on all
        dates met here.
    """

    day: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    season: NDArray[np.float32]
    calendar: str

    def __len__(self) -> int:
        return len(self.day)

    def period(self) -> str:
        """First and last day as ``1991-01-01..2005-12-31``."""
        return f"{_iso(self.day[0])}..{_iso(self.day[-1])}"

    def gaps(self) -> list[tuple[str, str]]:
        """Pairs of days that follow each other with days missing between them."""
        breaks = np.flatnonzero(np.diff(self.ordinal) > 1)
        return [(_iso(self.day[i]), _iso(self.day[i + 1])) for i in breaks]

    def select(self, index: NDArray[Any] | slice) -> CalendarDays:
        """Return the days at ``index``."""
        return CalendarDays(
            day=self.day[index],
            ordinal=self.ordinal[index],
            season=self.season[index],
            calendar=self.calendar,
        )


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


def day_keys(
    time: xr.DataArray,
    *,
    bounds: xr.DataArray | None = None,
    file: str | Path | None = None,
) -> CalendarDays:
    """Turn time stamps into days; the hour of the stamp (00, 12) does not matter.

    Parameters
    ----------
    time : xarray.DataArray
        Decoded stamps (cftime or datetime64), one per day, increasing. Shape ``(T,)``.
    bounds : xarray.DataArray, optional
        Decoded beginning and end of each step. Shape ``(T, 2)``. A one-day step that
        is stamped at its end belongs to the day on which it began.
    file : str or Path, optional
        For error messages.

    Raises
    ------
    InputError
        If the axis is empty, not decoded, has missing stamps, runs backwards, or has
        two stamps on one day.
    """
    _check_decoded(time, file=file)
    stamps = _day_begun(time, bounds, file=file).dt
    calendar = modern_calendar(time)
    year, month, day = (
        np.asarray(part.values, np.int64)
        for part in (stamps.year, stamps.month, stamps.day)
    )
    keys = year * 10000 + month * 100 + day
    ordinal = _ordinal(year, month, day, calendar)
    _check_order(time, keys, ordinal, file=file)
    return CalendarDays(
        day=keys,
        ordinal=ordinal,
        season=_season(year, ordinal, calendar),
        calendar=calendar,
    )


def _check_decoded(time: xr.DataArray, *, file: str | Path | None) -> None:
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
    decoded = np.issubdtype(time.dtype, np.datetime64) or (
        time.dtype == object
        and all(isinstance(stamp, cftime.datetime) for stamp in time.values.flat)
    )
    if time.ndim != 1 or not decoded or bool(time.isnull().any()):
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


def _day_begun(
    time: xr.DataArray, bounds: xr.DataArray | None, *, file: str | Path | None
) -> xr.DataArray:
    if bounds is None or bounds.shape != (time.size, 2) or bounds.dtype != object:
        return time
    if _folded(bounds) != _folded(time):  # a conversion forgot the bounds
        logger.warning(
            "%s: the bounds of %s are not used: their calendar is %s, not %s",
            file,
            time.name,
            bounds.dt.calendar,
            time.dt.calendar,
        )
        return time
    begin, end = bounds.values[:, 0], bounds.values[:, 1]
    one_day = datetime.timedelta(days=1)
    if not all(
        stamp.isoformat() == last.isoformat() and last - first == one_day
        for stamp, first, last in zip(time.values, begin, end, strict=True)
    ):
        return time
    logger.info("%s: days are stamped at their end; the day they began counts", file)
    return time.copy(data=begin)


def _folded(time: xr.DataArray) -> str:
    """Return the calendar, one name for all Gregorian ones."""
    calendar = canonical_calendar(str(time.dt.calendar))
    return "standard" if calendar == "proleptic_gregorian" else calendar


def _ordinal(
    year: NDArray[np.int64],
    month: NDArray[np.int64],
    day: NDArray[np.int64],
    calendar: str,
) -> NDArray[np.int64]:
    dates = [
        cftime.datetime(y, m, d, calendar=calendar)
        for y, m, d in zip(year.tolist(), month.tolist(), day.tolist(), strict=True)
    ]
    number = np.asarray(cftime.date2num(dates, ORIGIN, calendar=calendar), np.float64)
    return cast(NDArray[np.int64], np.floor(number + 0.5).astype(np.int64))


def _season(
    year: NDArray[np.int64], ordinal: NDArray[np.int64], calendar: str
) -> NDArray[np.float32]:
    years, member = np.unique(year, return_inverse=True)
    one = np.ones_like(years)
    start = _ordinal(years, one, one, calendar)
    length = _ordinal(years + 1, one, one, calendar) - start
    share = (ordinal - start[member]) / length[member]
    return cast(NDArray[np.float32], share.astype(np.float32))


def _check_order(
    time: xr.DataArray,
    keys: NDArray[np.int64],
    ordinal: NDArray[np.int64],
    *,
    file: str | Path | None,
) -> None:
    step = np.diff(ordinal)
    if (step > 0).all():
        return
    at = int(np.flatnonzero(step <= 0)[0])
    first, second = (str(stamp) for stamp in time.values[at : at + 2])
    shared = len(keys) - len(np.unique(keys))
    if shared:
        problem = "several time stamps fall on one day"
        found = f"{shared} repeated days, the first {_iso(_repeated(keys))}"
        remedy = "remove duplicates, or make daily means (cdo daymean) or sums (daysum)"
    else:
        problem = "the days are not in order"
        found = f"{first} followed by {second}"
        remedy = "sort the file by time (xarray: ds.sortby('time'))"
    raise InputError(
        problem,
        file=file,
        variable=str(time.name),
        found=found,
        expected="one stamp per day, increasing",
        remedy=remedy,
    )


def _repeated(keys: NDArray[np.int64]) -> int:
    unique, count = np.unique(keys, return_counts=True)
    return int(unique[count > 1][0])


def _iso(key: int | np.int64) -> str:
    text = f"{int(key):08d}"
    return f"{text[:-4]}-{text[-4:-2]}-{text[-2:]}"
