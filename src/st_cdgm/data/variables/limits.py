"""Values that no place on Earth has, in the units of a file."""

from __future__ import annotations

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
    da: xr.DataArray, step_hours: float | None
) -> tuple[float, float] | None:
    """Return the lowest and highest value of a field that can be true.

    See :func:`limits_of`; only the name and the attributes of the field are read.
    """
    name, units = str(da.name), str(da.attrs.get("units", ""))
    row = variable_of(name, da.attrs)
    pressure = row is not None and row.quantity is PRESSURE
    on_level = pressure and level_of(name, da)[1] is not None
    return limits_of(row, units, step_hours or 24.0, on_level=on_level)


def limits_of(
    row: Variable | None, units: str, step_hours: float, *, on_level: bool
) -> tuple[float, float] | None:
    """Return the lowest and highest value that can be true, in the units given.

    None for a quantity that is not known, or units that do not fit it. ``on_level``:
    whether the field is on a pressure level; ``step_hours``: length of a time step.
    """
    if row is None or row.quantity is None:
        return None
    if row.quantity is PRECIPITATION:
        return _rain_limits(units, step_hours)
    if row.quantity is PRESSURE and on_level:
        return None

    low, high = row.own_limits or row.quantity.limits or (-np.inf, np.inf)
    return _in_file_units(units, row.quantity, low, high)


def _rain_limits(units: str, hours: float) -> tuple[float, float] | None:
    """Limits of a rate, or of an amount that fell in one step."""
    depth = _RAIN_FACTOR * hours**_RAIN_POWER
    amount = units_factor("mm", units) or units_factor("kg m-2", units)
    if amount is not None:
        return NEGATIVE_RAIN * amount[0], depth * amount[0]
    return _in_file_units(units, PRECIPITATION, NEGATIVE_RAIN, depth * 24.0 / hours)


def _in_file_units(
    units: str, quantity: Quantity, low: float, high: float
) -> tuple[float, float] | None:
    if units.strip() == quantity.units:
        return low, high
    found = conversion(units.strip(), quantity) if units.strip() else None
    if found is None:
        return None
    factor, offset = found
    return (low - offset) / factor, (high - offset) / factor
