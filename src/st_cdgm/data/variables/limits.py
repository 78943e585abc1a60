"""Values that no place on Earth has, in the units of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import xarray as xr

from st_cdgm.data.variables.levels import level_of
from st_cdgm.data.variables.table import (
    PRECIPITATION,
    PRESSURE,
    Quantity,
    Variable,
    variable_of,
)
from st_cdgm.data.variables.units import conversion, units_factor

NEGATIVE_RAIN = -1e-2  # mm day-1; models leave tiny negative amounts
# Envelope of observed point rainfall, 422 D^0.475 mm in D hours (Jennings, 1950,
# Mon. Wea. Rev. 78, 4-5, doi:10.1175/1520-0493(1950)078<0004:WGOPR>2.0.CO;2).
_RAIN_FACTOR, _RAIN_POWER = 450.0, 0.475


def physical_limits(
    da: xr.DataArray,
    step_hours: float | None,
    *,
    row: Variable | None | Literal["ask"] = "ask",
) -> tuple[float, float] | None:
    """Return the lowest and highest value that can be true, in the units of the file.

    None for a quantity that is not known, or units that do not fit it.

    Parameters
    ----------
    da : xarray.DataArray
        A field with its attributes; its values are not read.
    step_hours : float or None
        Length of a time step; 24 where it is not known.
    row : Variable or None, optional
        What the field is, where that has been found; else it is asked for by name.
    """
    name = str(da.name)
    if row == "ask":
        row = variable_of(name, da.attrs)
    if row is None or row.quantity is None:
        return None
    if row.quantity is PRECIPITATION:
        return _rain_limits(da, step_hours or 24.0)
    if row.quantity is PRESSURE and level_of(name, da)[1] is not None:
        return None

    low, high = row.own_limits or row.quantity.limits or (-np.inf, np.inf)
    return _in_file_units(da.attrs, row.quantity, low, high)


def _rain_limits(da: xr.DataArray, hours: float) -> tuple[float, float] | None:
    """Limits of a rate, or of an amount that fell in one step."""
    depth = _RAIN_FACTOR * hours**_RAIN_POWER
    units = str(da.attrs.get("units", ""))
    amount = units_factor("mm", units) or units_factor("kg m-2", units)
    if amount is not None:
        return NEGATIVE_RAIN * amount[0], depth * amount[0]
    per_day = depth * 24.0 / hours
    return _in_file_units(da.attrs, PRECIPITATION, NEGATIVE_RAIN, per_day)


def _in_file_units(
    attrs: Mapping[Any, Any], quantity: Quantity, low: float, high: float
) -> tuple[float, float] | None:
    units = str(attrs.get("units", "")).strip()
    if units == quantity.units:
        return low, high
    found = conversion(units, quantity) if units else None
    if found is None:
        return None
    factor, offset = found
    return (low - offset) / factor, (high - offset) / factor
