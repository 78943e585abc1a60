"""Records of a calendar with and one without leap days, paired by a stated rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.time.calendar import CalendarDays, Integers, shared_steps
from st_cdgm.errors import InputError

ALIGNMENTS = ("drop_leap_day", "day_of_year")
WITH_AND_WITHOUT = {"standard", "noleap"}
_LENGTHS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_BEFORE = np.concatenate([[0], np.cumsum(_LENGTHS)])  # days before each month


def aligned_steps(
    lr: CalendarDays, hr: CalendarDays, how: str | None, *, file: str
) -> tuple[Integers, Integers, CalendarDays]:
    """Return the steps that two records share; there may be none.

    Parameters
    ----------
    lr, hr : CalendarDays
        Predictors and targets.
    how : str or None
        One of `ALIGNMENTS`, for records of a calendar with and one without leap days.
        ``drop_leap_day`` pairs dates: 29 February has no partner. ``day_of_year`` pairs
        the days of the year by their number: 31 December of leap years has none.
    file : str
        Both files, for messages.

    Returns
    -------
    of_lr, of_hr : ndarray
        Indices in the two records. Shape ``(T,)``, int64.
    days : CalendarDays
        The steps, as days of the predictors' calendar where the two differ: a model is
        given predictors.

    Raises
    ------
    InputError
        The calendars differ and ``how`` is None, or is for other calendars.
    """
    if lr.calendar == hr.calendar:
        return shared_steps(lr, hr)
    known = {lr.calendar, hr.calendar} == WITH_AND_WITHOUT
    if how is None or not known:
        raise InputError(
            "predictors and targets have different calendars",
            file=file,
            found=f"{lr.calendar} and {hr.calendar}",
            expected="one calendar, since days are paired",
            remedy=(
                "set data.calendar_align: drop_leap_day (29 February is left out) or "
                "day_of_year, or convert one file"
                if known
                else "convert one file"
            )
            + " (xarray: Dataset.convert_calendar)",
        )

    # Dates of the targets in the predictors' calendar, then dates are paired.
    day = hr.day if how == "drop_leap_day" else _renamed(hr.day, hr, lr.calendar)
    named = replace(hr, day=day, calendar=lr.calendar)
    of_lr, of_hr, _ = shared_steps(lr, named)
    return of_lr, of_hr, lr.select(of_lr)


def _renamed(day: Integers, days: CalendarDays, calendar: str) -> Integers:
    """Return the date of another calendar with the same number in its year.

    A day that the other calendar's year does not have gets a negative key of its own.
    """
    year, month, date = day // 10000, day // 100 % 100, day % 100
    number = _BEFORE[month - 1] + date  # 1 for 1 January
    number += _leap(year, days.calendar) & (month > 2)

    # Back to a month and a date, with or without a leap day in between.
    late = _leap(year, calendar) & (number > 59)  # 29 February and later
    plain = number - late
    exists = plain <= _BEFORE[-1]
    at = np.searchsorted(_BEFORE, np.minimum(plain, _BEFORE[-1]), side="left")
    key = year * 10000 + at * 100 + plain - _BEFORE[at - 1]
    key = np.where(late & (number == 60), year * 10000 + 229, key)
    return np.where(exists, key, -1 - np.arange(len(day)))


def _leap(year: Integers, calendar: str) -> NDArray[np.bool_]:
    """Whether years have a 29 February."""
    found: NDArray[np.bool_] = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return found if calendar != "noleap" else np.zeros_like(found)
