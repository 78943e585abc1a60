"""Pressure levels: from variable names, attributes and coordinates to hPa."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from cf_xarray.accessor import CFDataArrayAccessor
from numpy.typing import NDArray

from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.table import is_surface
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import InputError

# Levels of reanalyses and CMIP; a bare suffix (ta850) counts only if it is one of them.
STANDARD_LEVELS = frozenset(
    [1, 2, 3, 5, 7, 10, 20, 30, 50, 70, 100, 125, 150, 175, 200, 225, 250, 300, 350]
    + [400, 450, 500, 550, 600, 650, 700, 750, 775, 800, 825, 850, 875, 900, 925, 950]
    + [975, 1000]
)
LOWEST_PRESSURE, HIGHEST_PRESSURE = 0.1, 1100.0  # hPa
_WITH_LEVEL = re.compile(r"^([A-Za-z][A-Za-z_]*?)(_?)(\d{1,4})(?:hPa|hpa|mb)?$")
Fields = list[tuple[Channel, xr.DataArray]]
_VERTICAL_NAMES = frozenset(
    ["plev", "level", "lev", "pressure", "pressure_level", "isobaricinhpa"]
    + ["isobaric", "pfull", "pres"]
)


def channel_name(variable: str, level: float | None) -> str:
    """Name of a channel: ``q_850`` on a level, ``psl`` without."""
    return variable if level is None else f"{variable}_{level:g}"


def channel_of(da: xr.DataArray, variable: str, level: float | None) -> Channel:
    """Label a field, in the units that it has."""
    standard_name = da.attrs.get("standard_name")
    return Channel(
        name=channel_name(variable, level),
        variable=variable,
        level=level,
        units=str(da.attrs.get("units", "1")),
        standard_name=None if standard_name is None else str(standard_name),
    )


def level_of(name: str, da: xr.DataArray) -> tuple[str, float | None]:
    """Split a variable into its name without level and its pressure level, hPa.

    The level comes from the attribute ``pressure_level_hPa``, a scalar pressure
    coordinate, or the name: ``q_850``, ``q850``, ``ta850``, ``t_500hPa``; else it is
    None.
    """
    base, named = level_in_name(name)
    attribute = da.attrs.get("pressure_level_hPa")
    if attribute is not None:
        return (base if named == float(attribute) else name), float(attribute)
    for coordinate in da.coords.values():
        if coordinate.ndim == 0 and is_pressure(coordinate):
            level = float(level_values(coordinate)[0])
            return (base if named == level else name), level
    return base, named


def level_in_name(name: str) -> tuple[str, float | None]:
    """Split ``q_850`` or ``ta850`` into variable and level, None without a level."""
    match = _WITH_LEVEL.match(name)
    if match is None or is_surface(name):
        return name, None
    base, underscore, digits = match.groups()
    level = float(digits)
    marked = bool(underscore) or not name[-1].isdigit()
    plausible = (
        LOWEST_PRESSURE <= level <= HIGHEST_PRESSURE
        if marked
        else level in STANDARD_LEVELS and level >= 100
    )
    if is_surface(base) or not plausible:
        return name, None
    return base, level


def vertical_name(da: xr.DataArray) -> str | None:
    """Name of the vertical dimension of a field, by CF attributes or usual names."""
    found = CFDataArrayAccessor(da)
    named = found.coordinates.get("vertical", []) + found.axes.get("Z", [])
    named += [d for d in da.dims if str(d).lower() in _VERTICAL_NAMES]
    named += [d for d in da.dims if d in da.coords and is_pressure(da[d])]
    return next((str(n) for n in named if n in da.dims), None)


def is_pressure(coordinate: xr.DataArray) -> bool:
    """Whether a coordinate holds pressures, by its units or else its name."""
    units = str(coordinate.attrs.get("units", ""))
    if not units:
        return str(coordinate.name).lower() in _VERTICAL_NAMES
    return units_factor(units, "hPa") is not None


def level_values(
    coordinate: xr.DataArray, *, file: str | Path | None = None
) -> NDArray[np.float64]:
    """Pressures of a vertical coordinate in hPa. Shape ``(L,)``.

    Raises
    ------
    InputError
        If the coordinate is not a pressure, or has no units and could be several.
    """
    values = np.atleast_1d(np.asarray(coordinate.values, np.float64))
    units = str(coordinate.attrs.get("units", ""))
    converted = units_factor(units, "hPa") if units else _unlabelled(values)
    if converted is not None:
        levels = np.round(values * converted[0], 6)
        inside = (levels >= LOWEST_PRESSURE) & (levels <= HIGHEST_PRESSURE)
        if inside.all() and len(np.unique(levels)) == len(levels):
            return levels

    raise InputError(
        "the vertical coordinate is not a set of pressure levels",
        file=file,
        variable=str(coordinate.name),
        found=f"units {units!r}, values {np.array2string(values, threshold=8)}",
        expected=f"distinct pressures of {LOWEST_PRESSURE:g}..{HIGHEST_PRESSURE:g} hPa",
        remedy="set the units (hPa or Pa); interpolate model levels to pressure levels "
        "(cdo ml2pl), heights to single-level variables",
    )


def _unlabelled(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Without units: hPa or Pa if all values are standard levels in exactly one."""
    for factor in (1.0, 0.01):
        if all(v in STANDARD_LEVELS for v in values * factor) and values.max() >= 100:
            return factor, 0.0
    return None


# -- Fields, level by level ------------------------------------------------------------


def split_levels(
    ds: xr.Dataset, variables: Sequence[str], *, file: str | None = None
) -> Fields:
    """Turn variables into channels, one per (variable, level).

    In the order of ``variables``, levels in the order of the file. The channel carries
    the units of the file.

    Raises
    ------
    InputError
        If a vertical axis is not made of pressures, or two channels get one name.
    """
    found: Fields = []
    for name in variables:
        found += _split_one(ds[name], name, file=file)
    seen: dict[str, str] = {}
    for channel, da in found:
        if channel.name in seen:
            raise InputError(
                "two variables give the same channel",
                file=file,
                variable=channel.name,
                found=f"{seen[channel.name]} and {da.name}",
                expected="one source per variable and level",
                remedy="name only one of them in the list of variables",
            )
        seen[channel.name] = str(da.name)

    return found


def _split_one(da: xr.DataArray, name: str, *, file: str | None) -> Fields:
    vertical = vertical_name(da)
    named = vertical in da.coords and is_pressure(da[vertical])
    if vertical is not None and da.sizes[vertical] == 1 and not named:
        # One height (2 m): a single-level field.
        da, vertical = da.isel({vertical: 0}, drop=True), None
    if vertical is None:
        return [(channel_of(da, *level_of(name, da)), da)]
    if vertical not in da.coords:
        raise InputError(
            "a vertical dimension has no coordinate",
            file=file,
            variable=name,
            found=f"dimension {vertical} of {da.sizes[vertical]}",
            expected="a coordinate with the pressures",
            remedy=f"add the coordinate {vertical} with units hPa or Pa",
        )

    pressures = level_values(da[vertical], file=file)
    split = []
    for i, level in enumerate(pressures.tolist()):
        one = da.isel({vertical: i}, drop=True)
        split.append((channel_of(one, name, level), one))
    return split
