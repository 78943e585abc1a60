"""Values that no place on Earth has, in the units of a file."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr

from st_cdgm.data.variables.levels import level_of
from st_cdgm.data.variables.quantities import Quantity, quantity_of
from st_cdgm.data.variables.units import canonical_conversion, units_factor

# Canonical units; margins are left beyond the records, for models.
_LIMITS = {
    "temperature": (140.0, 360.0),
    "geopotential": (-1e4, 6e5),
    "geopotential_height": (-1e3, 6e4),
    "wind": (-150.0, 150.0),
    "humidity": (-1e-3, 0.06),
    "relative_humidity": (-10.0, 200.0),
    "altitude": (-1.2e4, 9e3),
    "area_fraction": (-1e-3, 1.0 + 1e-3),
}
# -89 to 57 degC were measured 2 m above ground.
_NEAR_SURFACE = (170.0, 340.0)
_SURFACE_NAMES = frozenset(
    [
        "tas",
        "tasmin",
        "tasmax",
        "tg",
        "tn",
        "tx",
        "t2m",
        "tmin",
        "tmax",
        "tmean",
        "mn2t",
        "mx2t",
    ]
)
_SEA_LEVEL = (8.3e4, 1.11e5)  # 870 and 1085 hPa were measured
_SEA_LEVEL_NAMES = frozenset(["psl", "slp", "msl", "mslp", "prmsl"])
_SURFACE_PRESSURE = (2.5e4, 1.11e5)
NEGATIVE_RAIN = -1e-2  # mm day-1; models leave tiny negative amounts
# Envelope of observed point rainfall, 422 D^0.475 mm in D hours (Jennings, 1950,
# Mon. Wea. Rev. 78, 4-5, doi:10.1175/1520-0493(1950)078<0004:WGOPR>2.0.CO;2).
_RAIN_FACTOR, _RAIN_POWER = 450.0, 0.475


def physical_limits(
    da: xr.DataArray,
    step_hours: float | None,
    *,
    quantity: Quantity | None | Literal["ask"] = "ask",
) -> tuple[float, float] | None:
    """Return the lowest and highest value that can be true, in the units of the file.

    Parameters
    ----------
    da : xarray.DataArray
        A field with its attributes; its values are not read.
    step_hours : float or None
        Length of a time step; 24 where it is not known.
    quantity : Quantity or None, optional
        What the field is, where that has been found; else it is asked for by name.

    Returns
    -------
    (float, float) or None
        None for a quantity that is not known, or units that do not fit it.
    """
    name = str(da.name)
    if quantity == "ask":
        quantity = quantity_of(name, da.attrs)
    if quantity is None:
        return None
    if quantity.key == "precipitation":
        return _rain_limits(da, quantity, step_hours or 24.0)
    low, high = _LIMITS.get(quantity.key, (-np.inf, np.inf))
    if quantity.key == "temperature" and name.lower() in _SURFACE_NAMES:
        low, high = _NEAR_SURFACE
    if quantity.key == "pressure":
        at_sea_level = name.lower() in _SEA_LEVEL_NAMES
        low, high = _SEA_LEVEL if at_sea_level else _SURFACE_PRESSURE
        if level_of(name, da)[1] is not None:
            return None
    return _in_file_units(da, quantity, low, high)


def _rain_limits(
    da: xr.DataArray, quantity: Quantity, hours: float
) -> tuple[float, float] | None:
    """Limits of a rate, or of an amount that fell in one step."""
    depth = _RAIN_FACTOR * hours**_RAIN_POWER
    units = str(da.attrs.get("units", ""))
    amount = units_factor("mm", units) or units_factor("kg m-2", units)
    if amount is not None:
        return NEGATIVE_RAIN * amount[0], depth * amount[0]
    return _in_file_units(da, quantity, NEGATIVE_RAIN, depth * 24.0 / hours)


def _in_file_units(
    da: xr.DataArray, quantity: Quantity, low: float, high: float
) -> tuple[float, float] | None:
    units = str(da.attrs.get("units", ""))
    if units == quantity.units:
        return low, high
    found = canonical_conversion(units, quantity) if units.strip() else None
    if found is None:
        return None
    factor, offset = found
    return (low - offset) / factor, (high - offset) / factor
