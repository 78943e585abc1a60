"""The days of a file with shorter steps: made of them, or the steps themselves."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import dask.array
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.time.axis import StepAxis, TimeStep, bounds_usable, step_axis
from st_cdgm.data.time.calendar import DAY, CalendarDays, Integers, duration, key_text
from st_cdgm.data.time.daily import (
    REDUCTIONS,
    DailyMethod,
    amount_units,
    daily_attrs,
    daily_method,
)
from st_cdgm.data.variables.table import PRECIPITATION, quantity_of
from st_cdgm.errors import InputError, check_choice

logger = logging.getLogger(__name__)
SHOWN = 5  # days in a message
RATE = "mm day-1"
LONGEST_DAY = 1.5  # days; time bounds are sometimes an hour off
MONTH_DAYS = 27  # stamps always this far apart are months, not days with gaps
FEWEST_STEPS = 4  # a day, from which running totals can be told from amounts
FEWEST_WET, ALWAYS_RISING = 20, 0.95  # days and cells, and the share of them
ROUNDING = 1e-3  # of the largest amount: packing lets totals fall a little


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeSteps:
    """What becomes of the time axis of a file, and of the fields on it.

    Attributes
    ----------
    days : CalendarDays
        The axis of the fields after :meth:`apply`.
    time : str
        Name of the time dimension.
    step_seconds : int
        Step of the file, s.
    per_day : int
        Steps that make one day; 1 where steps stay as they are.
    index : ndarray or None
        Steps of complete days, in order; None for all. Shape ``(D * per_day,)``.
    overlapping : bool
        Whether the steps overlap, so that amounts must not be added up.
    by_stamp : bool
        Whether the steps belong to the day of their stamp for want of bounds.
    file : str or Path, optional
        For messages.
    """

    days: CalendarDays
    time: str
    step_seconds: int = DAY
    per_day: int = 1
    index: Integers | None = None
    overlapping: bool = False
    by_stamp: bool = False
    file: str | Path | None = None

    def apply(self, da: xr.DataArray, name: str) -> xr.DataArray:
        """Bring a field ``(time, ...)`` to the steps of ``days``, lazily.

        Amounts of precipitation over a step become rates in mm day-1, whose daily mean
        is the daily sum. A cell that misses one step of a day misses the day. Running
        totals are told from amounts by their bounds only.

        Raises
        ------
        InputError
            If no daily value can be made: a range, a direction, overlapping amounts.
        """
        if self.step_seconds >= DAY:
            return da
        given = da
        da = self._as_rate(da, name)
        if self.per_day == 1:
            return da

        method = self._method(given, name)
        logger.info("%s: the daily %s of %s is used", self.file, method, name)
        kept = da if self.index is None else da.isel({self.time: self.index})
        array: Any = dask.array  # its stubs leave these untyped
        values = array.asarray(kept.data)
        per_block = max(values.chunksize[0] // self.per_day, 1) * self.per_day
        blocks = values.rechunk({0: per_block})
        daily = array.coarsen(REDUCTIONS[method], blocks, {0: self.per_day})
        return xr.DataArray(
            daily.astype(np.float64),
            dims=da.dims,
            name=da.name,
            attrs=daily_attrs(given, method, da),
        )

    def _as_rate(self, da: xr.DataArray, name: str) -> xr.DataArray:
        per_step = amount_units(name, da.attrs)
        if per_step is None:
            self._check_units(da, name)
            return da
        self._check_apart(name)
        self._check_no_totals(da, name)
        factor = per_step * DAY / self.step_seconds
        attrs = {**da.attrs, "units": RATE, "cell_methods": f"{self.time}: mean"}
        return (da * factor).assign_attrs(attrs)

    def _method(self, da: xr.DataArray, name: str) -> DailyMethod:
        method = daily_method(name, da.attrs, time=self.time, file=self.file)
        if quantity_of(name, da.attrs) is PRECIPITATION:
            return "mean" if method == "sum" else method
        if method == "sum":
            self._check_apart(name)
        return method

    def _check_units(self, da: xr.DataArray, name: str) -> None:
        """Refuse precipitation without units: it could be a rate or an amount."""
        given = str(da.attrs.get("units", "")).strip()
        if given or quantity_of(name, da.attrs) is not PRECIPITATION:
            return
        raise InputError(
            "the units of precipitation over steps shorter than a day are missing",
            file=self.file,
            variable=name,
            found="no units attribute",
            expected="an amount per step (mm, kg m-2) or a rate (mm day-1, kg m-2 s-1)",
            remedy=f"add it: ncatted -a units,{name},c,c,mm FILE",
        )

    def _check_no_totals(self, da: xr.DataArray, name: str) -> None:
        if self.per_day == 1:
            return
        if self.by_stamp:
            logger.warning(
                "%s: amounts of %s are added up by the day of their stamps, as there "
                "are no bounds; if a stamp ends its step, the first of each day "
                "belongs to the day before",
                self.file,
                name,
            )
        index = np.arange(len(da)) if self.index is None else self.index
        of_day = index.reshape(-1, self.per_day)
        days = [of_day[i] for i in sorted({0, len(of_day) // 2, len(of_day) - 1})]
        check_no_totals(da, name, days, file=self.file)

    def _check_apart(self, name: str) -> None:
        if self.overlapping:
            raise InputError(
                "amounts over time steps that overlap",
                file=self.file,
                variable=name,
                found="bounds of a step begin before the step before has ended",
                expected="amounts of one step each, not running totals",
                remedy="take differences first (cdo deltat), and mend the time bounds",
            )


def time_steps(
    time: xr.DataArray,
    *,
    bounds: xr.DataArray | None = None,
    time_step: str = "daily",
    ends: bool = False,
    file: str | Path | None = None,
) -> TimeSteps:
    """Decide what becomes of a time axis.

    Steps of a day or more stay as they are. With ``daily``, shorter ones make days: by
    the bounds, a step belongs to the day on which it begins. Without bounds it belongs
    to the day of its stamp, except where the axis runs from one step after midnight to
    midnight: such stamps end their steps. Days without all their steps are left out.

    Parameters and errors as for :func:`st_cdgm.data.time.axis.day_keys`; ``ends``:
    whether stamps without bounds are known to be where their steps end.

    Raises
    ------
    InputError
        With ``daily``, if no day is complete or the step does not divide a day.
    """
    if time_step not in get_args(TimeStep):
        check_choice("time_step", time_step, get_args(TimeStep))
    axis = step_axis(time, bounds=bounds, file=file)
    _check_not_monthly(axis, bounds)
    _warn_of_wide_steps(axis)
    name = str(time.dims[0])
    several = axis.several_per_day
    if not several or (time_step == "daily" and axis.step_seconds >= DAY):
        return TimeSteps(days=axis.days(), time=name, file=file)

    # Shorter steps stay as they are, or those of whole days make days.
    shift = 0
    if time_step == "native":
        days, per_day, index = axis.steps(), 1, None
    else:
        axis.check_regular()
        shift = axis.step_seconds if ends and not axis.bounded else _shift(axis)
        days, per_day, index = _complete_days(axis, shift)

    return TimeSteps(
        days=days,
        time=name,
        step_seconds=axis.step_seconds,
        per_day=per_day,
        index=index,
        overlapping=axis.overlapping,
        by_stamp=not axis.bounded and not shift,
        file=file,
    )


def _check_not_monthly(axis: StepAxis, bounds: xr.DataArray | None) -> None:
    """Refuse means of weeks, months or years: they are no days."""
    if bounds is not None and bounds_usable(bounds, axis.stamps, file=axis.file):
        begin, end = bounds.values[0]
        length = pd.Timedelta(end - begin) / pd.Timedelta(days=1)
    elif len(axis.number) > 1:
        seconds = axis.number * DAY + axis.second
        length = float(np.diff(seconds).min()) / DAY
        length = length if length >= MONTH_DAYS else 1.0
    else:
        return

    if length > LONGEST_DAY:
        raise InputError(
            "the time steps are longer than a day",
            file=axis.file,
            variable=str(axis.stamps.name),
            found=f"steps of {length:g} days",
            expected="daily or shorter steps",
            remedy="give daily data: means of months cannot be made into days",
        )


def _warn_of_wide_steps(axis: StepAxis) -> None:
    """Say that stamps which are always days apart may stand for more than a day."""
    apart = np.unique(np.diff(axis.number))
    if len(axis.number) > 2 and len(apart) == 1 and apart[0] > 1:
        logger.warning(
            "%s: all stamps are %d days apart; each is taken as one day with a gap "
            "behind it: means of several days must not be used so",
            axis.file,
            apart[0],
        )


def check_no_totals(
    da: xr.DataArray,
    name: str,
    days: list[Integers],
    *,
    file: str | Path | None,
) -> None:
    """Raise InputError where amounts only grow in the course of every day.

    ERA5-Land and many model outputs count precipitation up from midnight or from the
    start of the run. Added up as if they were amounts of one step each, hours would
    give a dozen times the rain. ``da`` has its steps on the first axis, ``days`` the
    steps of each day to look at.
    """
    wet = rising = 0
    for steps in days:
        if len(steps) < FEWEST_STEPS:
            continue
        # The first stamp of a day may hold the total of the day before.
        values = np.asarray(da.isel({da.dims[0]: steps[1:]}).values, np.float64)
        falls = np.diff(values, axis=0) < -ROUNDING * np.abs(values).max(axis=0)
        changing = values.max(axis=0) > values.min(axis=0)
        wet += int(changing.sum())
        rising += int((changing & ~falls.any(axis=0)).sum())
    if wet >= FEWEST_WET and rising >= ALWAYS_RISING * wet:
        raise InputError(
            "amounts that only grow in the course of a day: running totals",
            file=file,
            variable=name,
            found=f"no fall in {rising} of the {wet} wet days and cells looked at",
            expected="amounts of one step each",
            remedy="take differences within each day first (ERA5-Land: each step minus "
            "the one before, from 01 h on), or use daily totals",
        )


# -- Complete days ---------------------------------------------------------------------


def _complete_days(
    axis: StepAxis, shift: int
) -> tuple[CalendarDays, int, Integers | None]:
    """Return the days with all their steps, the steps per day, and those steps.

    ``shift`` is how long after their beginning the steps are stamped, s.
    """
    step = axis.step_seconds
    if DAY % step:
        raise InputError(
            "the time step does not divide a day",
            file=axis.file,
            variable=str(axis.stamps.name),
            found=f"steps of {duration(step)}",
            expected="a whole number of steps per day",
            remedy="set data.time_step to native, or bring the file to another step",
        )

    per_day = DAY // step
    number = (axis.total - shift) // DAY
    _, first, count = np.unique(number, return_index=True, return_counts=True)
    full = count == per_day
    dates = axis.date[first]
    if not full.any():
        raise _no_complete_day(axis, dates, count, per_day)
    if full.all():
        return axis.days_of(first), per_day, None

    _warn_of_incomplete(axis, dates[~full], count[~full], per_day, inner=full)
    kept = first[full]
    index = (kept[:, None] + np.arange(per_day)).reshape(-1)
    return axis.days_of(kept), per_day, index


def _shift(axis: StepAxis) -> int:
    """Seconds by which the stamps come after the beginning of their steps."""
    if axis.bounded:
        return 0
    step = axis.step_seconds
    if axis.second[0] == step and axis.second[-1] == 0:
        logger.warning(
            "%s: the stamps run from %s after midnight to midnight: each is taken as "
            "the end of its step, as there are no bounds",
            axis.file,
            duration(step),
        )
        return step
    logger.info("%s: without bounds a step belongs to the day of its stamp", axis.file)
    return 0


def _no_complete_day(
    axis: StepAxis, dates: Integers, count: Integers, per_day: int
) -> InputError:
    most = int(count.argmax())
    return InputError(
        "no day has all its time steps: an incomplete day",
        file=axis.file,
        variable=str(axis.stamps.name),
        found=f"{count[most]} of {per_day} steps on {key_text(dates[most])}"
        + (f", fewer on {len(dates) - 1} other days" if len(dates) > 1 else ""),
        expected=f"{per_day} steps of {duration(axis.step_seconds)} on a day",
        remedy="set data.time_step to native, to work with the steps themselves",
    )


def _warn_of_incomplete(
    axis: StepAxis,
    dates: Integers,
    count: Integers,
    per_day: int,
    *,
    inner: NDArray[np.bool_],
) -> None:
    """Name the days that are left out; inside the record they are gaps."""
    complete = np.flatnonzero(inner)
    inside = int((~inner[complete[0] : complete[-1]]).sum())
    named = [
        f"{key_text(date)} ({n} of {per_day})"
        for date, n in zip(dates[:SHOWN], count[:SHOWN], strict=True)
    ]

    logger.warning(
        "%s: days without all their steps are left out: %s%s; %d of %d inside the "
        "record, where they are gaps",
        axis.file,
        ", ".join(named),
        ", ..." if len(dates) > SHOWN else "",
        inside,
        len(dates),
    )
