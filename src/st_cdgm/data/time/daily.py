"""Which value of a day follows from those of its steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from st_cdgm.data.variables.table import PRECIPITATION, quantity_of, variable_of
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import InputError

DailyMethod = Literal["mean", "sum", "maximum", "minimum"]
_METHODS: dict[str, DailyMethod] = {
    "mean": "mean",
    "average": "mean",
    "sum": "sum",
    "maximum": "maximum",
    "max": "maximum",
    "minimum": "minimum",
    "min": "minimum",
}
# A snow amount on the ground or a soil moisture is a state, not a sum.
_SUMMED = re.compile(
    r"^integral_wrt_time_of_|^duration_of_|"
    r"(precipitation|rainfall|snowfall|runoff|evaporation|transpiration)_amount$"
)


def daily_method(
    name: str,
    attrs: Mapping[Any, Any],
    *,
    time: str = "time",
    file: str | Path | None = None,
) -> DailyMethod:
    """Return how the steps of a day make the day's value.

    The method that ``cell_methods`` names for time counts first. Without one, or with
    ``point``: the maximum of ``tasmax``, the minimum of ``tasmin``, the sum of amounts
    and other integrals over time, else the mean.

    Raises
    ------
    InputError
        If the value of a day does not follow from those of its steps (a range, a
        standard deviation, a direction).
    """
    standard_name = str(attrs.get("standard_name", "")).split(" ")[0]
    word = _time_method(attrs, time)
    unknown = word not in (None, "point", *_METHODS)
    if unknown or "_direction" in standard_name:
        raise InputError(
            "no daily value follows from the steps of a day",
            file=file,
            variable=name,
            found=f"cell_methods {attrs.get('cell_methods')!r}, standard_name "
            f"{standard_name or None!r}",
            expected=f"a time method of {', '.join(_METHODS)} or point, no direction",
            remedy="set data.time_step to native, make daily values first, or leave "
            "the variable out",
        )
    if word in _METHODS:
        return _METHODS[str(word)]

    row = variable_of(name, attrs)
    if row is not None and row.daily != "mean":
        return row.daily
    energy = units_factor(str(attrs.get("units", "")), "J m-2") is not None
    amount = amount_units(name, attrs) is not None
    return "sum" if amount or energy or _SUMMED.search(standard_name) else "mean"


def _time_method(attrs: Mapping[Any, Any], time: str) -> str | None:
    """Return the first method over time, such as ``maximum`` of ``time: maximum``."""
    names = "|".join({"time", re.escape(time)})
    pattern = rf"(?:^|\s)(?:{names}):(?:\s*\w+:)*\s*(\w+)"
    found = re.search(pattern, str(attrs.get("cell_methods", "")))
    return found.group(1).lower() if found else None


def amount_units(name: str, attrs: Mapping[Any, Any]) -> float | None:
    """Millimetres per unit of an amount of precipitation; None if it is no amount."""
    if quantity_of(name, attrs) is not PRECIPITATION:
        return None
    for base in ("mm", "kg m-2"):
        factor = units_factor(str(attrs.get("units", "")), base)
        if factor is not None:
            return factor[0]
    return None


def daily_attrs(
    given: xr.DataArray, method: DailyMethod, made: xr.DataArray
) -> dict[str, Any]:
    """Return the attributes of the daily field; a method of the file is kept."""
    time = str(given.dims[0])
    word = _time_method(given.attrs, time)
    known = given.attrs.get("cell_methods") if word in _METHODS else None
    return {**made.attrs, "cell_methods": known or f"{time}: {method}"}


# Accumulated in float64; NaN wherever one step is NaN.
REDUCTIONS: dict[DailyMethod, Callable[..., Any]] = {
    "mean": partial(np.mean, dtype=np.float64),
    "sum": partial(np.sum, dtype=np.float64),
    "maximum": np.max,
    "minimum": np.min,
}
