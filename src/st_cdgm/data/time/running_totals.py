"""Amounts that a file counts up from the beginning of a day or run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.errors import InputError

FEWEST_STEPS = 4  # a day, from which its course can be told
FEWEST_WET, ALWAYS_RISING = 20, 0.95  # days and cells, and the share of them
ROUNDING = 1e-3  # of the largest amount: packing lets totals fall a little


def check_no_totals(
    da: xr.DataArray,
    name: str,
    days: list[NDArray[np.int64]],
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
