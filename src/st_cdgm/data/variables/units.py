"""Units: one canonical unit per quantity, converted with pint."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.variables.table import (
    PRECIPITATION,
    TEMPERATURE,
    Quantity,
    quantity_of,
)
from st_cdgm.errors import InputError

logger = logging.getLogger(__name__)
Role = Literal["lr", "hr", "static"]
STANDARD_GRAVITY = 9.80665  # m s-2, WMO definition of the geopotential metre
MM_PER_KG = 1.0  # mm of liquid water for 1 kg m-2, at 1000 kg m-3
SECONDS_PER_DAY = 86400.0
# Written in files, unknown to pint or meaning something else there.
_ALIASES = {
    text: units
    for units, texts in {
        "1": ("", "-", "(0 - 1)", "0-1", "fraction", "none", "unitless"),
        "degC": ("c", "deg c", "deg_c", "degrees c", "degrees celsius", "celsius")
        + ("degree celsius",),
        "degF": ("f",),
        "K": ("deg k", "degk", "degrees k", "degree_kelvin", "kelvin", "k"),
        "millibar": ("mb", "mbs"),
        "m": ("gpm", "geopotential meters", "m of water equivalent", "m of water"),
        "mm day-1": ("mm d^-1", "mm per day"),
        "Pa": ("pascal", "pascals"),
        "knot": ("knot", "kts"),
    }.items()
    for text in texts
}
# An amount per so many hours: mm/6h, mm (6h)-1, kg m-2 / 3 hours.
_PER_HOURS = re.compile(
    r"(mm|kg m-2|kg/m2|m) ?(?=/|per |.*-1$)(?:/ ?|per )?"
    r"\(? ?([1-9]\d?) ?(?:h|hr|hrs|hours?) ?\)?(?:\^?-1)?",
    re.IGNORECASE,
)


def canonical_units(name: str, attrs: Mapping[Any, Any], role: Role = "lr") -> str:
    """Units in which a variable is used here, as UDUNITS text.

    Temperatures are K among predictors, degC among targets. A quantity that is not
    known here keeps the units of the file.
    """
    return _canonical(quantity_of(name, attrs), attrs, role)


def _canonical(quantity: Quantity | None, attrs: Mapping[Any, Any], role: Role) -> str:
    if quantity is None:
        return str(attrs.get("units", "1")) or "1"
    return "degC" if quantity is TEMPERATURE and role == "hr" else quantity.units


def to_canonical(
    da: xr.DataArray,
    *,
    file: str | Path | None = None,
    role: Role = "lr",
    name: str | None = None,
    quantity: Quantity | None = None,
) -> xr.DataArray:
    """Convert a field to its canonical units, lazily, and say so in its attributes.

    Parameters
    ----------
    da : xarray.DataArray
        Any field with a ``units`` attribute.
    file : str or Path, optional
        For error messages.
    role : {"lr", "hr", "static"}
        See :func:`canonical_units`.
    name : str, optional
        Variable name to go by, default ``da.name``.
    quantity : Quantity, optional
        What the field is, where that has been found; else it is asked for by name.

    Raises
    ------
    InputError
        If the units are unknown, of another dimension, or missing where the values
        could be in more than one unit.
    """
    label = name or str(da.name)
    quantity = quantity or quantity_of(label, da.attrs)
    wanted = _canonical(quantity, da.attrs, role)
    if quantity is None:
        if not str(da.attrs.get("units", "")):
            logger.warning("%s: %s has no units; taken as '1'", file, label)
        return da.assign_attrs(units=wanted)

    given = da.attrs.get("units")
    if given is None or str(given).strip() in ("", "unknown"):
        given = _infer(da, quantity, label, file=file)

    # Factor and offset, by the units alone or with the help of a constant.
    given = str(given)
    found = units_factor(given, wanted) or _by_physics(given, quantity)
    if found is None:
        raise InputError(
            "the units are not understood or do not fit the variable",
            file=file,
            variable=label,
            found=repr(given),
            expected=f"units that convert to {wanted!r} ({quantity.key})",
            remedy=f"correct the attribute: ncatted -a units,{label},o,c,{wanted!r} "
            "FILE",
        )

    amounts = (units_factor(given, base) for base in ("mm", "kg m-2"))
    if quantity is PRECIPITATION and any(amounts):  # they lack the "per time"
        _check_daily(given, da, label, file=file)
    factor, offset = found
    converted = da if (factor, offset) == (1.0, 0.0) else da * factor + offset
    attrs = {**da.attrs, "units": wanted}
    return converted.assign_attrs(_consistent_names(attrs, quantity))


def check_plausible(
    values: NDArray[Any],
    name: str,
    attrs: Mapping[Any, Any],
    *,
    file: str | Path | None = None,
    quantity: Quantity | None = None,
) -> None:
    """Raise where values contradict their (canonical) units: a wrong label in the file.

    Raises
    ------
    InputError
        If the mean of the finite values is physically impossible.
    """
    quantity = quantity or quantity_of(name, attrs)
    if quantity is None or quantity.mean is None:
        return
    finite = values[np.isfinite(values)]
    if not finite.size:
        return

    low, high = quantity.mean
    if attrs.get("units") == "degC":
        low, high = low - 273.15, high - 273.15

    mean = float(finite.mean(dtype=np.float64))
    if not low <= mean <= high:
        raise InputError(
            "the values contradict their units",
            file=file,
            variable=name,
            found=f"mean {mean:.4g} {attrs.get('units')} after conversion",
            expected=f"{low:.4g}..{high:.4g} {attrs.get('units')}",
            remedy="correct the units attribute (ncatted -a units,...); an anomaly "
            "needs a standard_name such as air_temperature_anomaly",
        )


@functools.lru_cache(maxsize=1024)
def units_factor(given: str, wanted: str) -> tuple[float, float] | None:
    """Factor and offset with ``wanted = factor * given + offset``.

    Returns None where the units differ in dimension or one is not known.
    """
    if given == wanted:
        return 1.0, 0.0

    per_hours = _PER_HOURS.fullmatch(given.strip())
    if per_hours:  # to pint, mm/6h is a sixth of a millimetre times an hour
        hourly = units_factor(f"{per_hours[1]} hour-1", wanted)
        return hourly and (hourly[0] / int(per_hours[2]), hourly[1])

    registry = _registry()
    try:
        source, target = registry.Unit(_clean(given)), registry.Unit(_clean(wanted))
        zero = registry.Quantity(0.0, source).to(target).magnitude
        one = registry.Quantity(1.0, source).to(target).magnitude
    except Exception:  # pint raises a dozen kinds, some not its own
        return None

    factor = float(f"{one - zero:.12g}")  # 274.15 - 273.15 is not 1 in binary
    return factor, float(zero)


@functools.cache
def _registry() -> Any:
    # pint takes a moment to import, and reports each unit that CF defines anew.
    pint_log = logging.getLogger("pint.util")
    before = pint_log.level
    pint_log.setLevel(logging.ERROR)
    try:
        from cf_xarray.units import units
    finally:
        pint_log.setLevel(before)
    return units


def _clean(text: str) -> str:
    stripped = " ".join(str(text).split())
    return _ALIASES.get(stripped.lower(), stripped)


def conversion(given: str, quantity: Quantity) -> tuple[float, float] | None:
    """Factor and offset to the canonical units of a quantity, None if there is none."""
    return units_factor(given, quantity.units) or _by_physics(given, quantity)


def _by_physics(given: str, quantity: Quantity) -> tuple[float, float] | None:
    """Factors that need a constant: density of water, gravity, length of a day."""
    bridges: dict[str, tuple[tuple[str, float], ...]] = {
        "precipitation": (
            ("kg m-2 s-1", SECONDS_PER_DAY * MM_PER_KG),
            ("kg m-2", MM_PER_KG),
            ("mm", 1.0),
        ),
        "geopotential": (("m", STANDARD_GRAVITY),),
        "geopotential_height": (("m2 s-2", 1.0 / STANDARD_GRAVITY),),
    }
    for base, scale in bridges.get(quantity.key, ()):
        found = units_factor(given, base)
        if found is not None:
            return found[0] * scale, found[1] * scale
    return None


def _check_daily(
    given: str, da: xr.DataArray, name: str, *, file: str | Path | None
) -> None:
    """Accept an amount as a daily rate only if there is one value per day."""
    for dim in da.dims:
        if dim not in da.coords or da.sizes[dim] < 2 or da[dim].dtype != object:
            continue

        steps = np.diff(da[dim].values)
        days = (
            float(np.median([step.total_seconds() for step in steps])) / SECONDS_PER_DAY
        )
        if abs(days - 1.0) > 1e-3:
            raise InputError(
                "an accumulated amount over steps that are not one day",
                file=file,
                variable=name,
                found=f"{given!r} every {days:g} days",
                expected="a rate (mm day-1, kg m-2 s-1), or an amount per day",
                remedy="make daily sums first (cdo daysum), or give a rate",
            )


def _infer(
    da: xr.DataArray, quantity: Quantity, name: str, *, file: str | Path | None
) -> str:
    """Units of a field without any, from its extreme values if these leave no doubt."""
    smallest, largest = float(da.min()), float(da.max())
    fitting = [
        units
        for units, fits in quantity.ranges.items()
        if np.isfinite(largest) and fits(smallest, largest)
    ]

    # Values that fit one unit alone leave no doubt.
    if len(fitting) == 1:
        logger.warning(
            "%s: %s has no units; values %.4g..%.4g taken as %s",
            file,
            name,
            smallest,
            largest,
            fitting[0],
        )
        return fitting[0]

    raise InputError(
        "the units are missing and the values could be in several",
        file=file,
        variable=name,
        found=f"no units attribute, values {smallest:.4g}..{largest:.4g}",
        expected=f"units that convert to {quantity.units!r}",
        remedy=f"add it: ncatted -a units,{name},c,c,{quantity.units!r} FILE",
    )


def _consistent_names(attrs: dict[Any, Any], quantity: Quantity) -> dict[Any, Any]:
    """Replace a standard name that CF ties to the units left behind."""
    given = str(attrs.get("standard_name", ""))
    if quantity.key == "precipitation" and given in (
        "precipitation_flux",
        "precipitation_amount",
        "lwe_thickness_of_precipitation_amount",
    ):
        attrs["standard_name"] = "lwe_precipitation_rate"
    if quantity.key.startswith("geopotential") and given:
        attrs["standard_name"] = quantity.key
    return attrs
