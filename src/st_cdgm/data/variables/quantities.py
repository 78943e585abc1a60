"""Physical quantities: what they are called, their canonical units, their ranges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What a physical quantity is called and how its units are recognised.

    Attributes
    ----------
    key : str
        Name of the quantity.
    units : str
        Canonical units.
    standard_names, names : frozenset of str
        CF standard names and common variable names (lower case, without level).
    ranges : dict
        Units -> (lowest, highest) extreme values over a record. Missing units are
        taken from the only range that fits.
    """

    key: str
    units: str
    standard_names: frozenset[str]
    names: frozenset[str]
    ranges: Mapping[str, Callable[[float, float], bool]]

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the key alone to other processes."""
        return _by_key, (self.key,)


def _within(low: float, high: float) -> Callable[[float, float], bool]:
    return lambda smallest, largest: low <= smallest and largest <= high


def _peak(low: float, high: float) -> Callable[[float, float], bool]:
    """Test the largest value (the smallest is near 0 in any unit)."""
    return lambda smallest, largest: (
        smallest > -0.01 * largest and low <= largest <= high
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Ranges leave room between units, so that a record that could be either is refused.
QUANTITIES = (
    Quantity(
        key="temperature",
        units="K",
        standard_names=_words(
            "air_temperature surface_temperature sea_surface_temperature "
            "dew_point_temperature air_potential_temperature soil_temperature "
            "wet_bulb_temperature sea_surface_skin_temperature"
        ),
        names=_words(
            "t ta tas tasmin tasmax tmin tmax tmean tg tn tx temp t2m ts sst tos "
            "skt tdps td2m d2m mn2t mx2t air trefht"
        ),
        ranges={"K": _within(150.0, 350.0), "degC": _within(-95.0, 60.0)},
    ),
    Quantity(
        key="precipitation",
        units="mm day-1",
        standard_names=_words(
            "precipitation_flux lwe_precipitation_rate rainfall_flux rainfall_rate "
            "precipitation_amount lwe_thickness_of_precipitation_amount "
            "convective_precipitation_flux snowfall_flux thickness_of_rainfall_amount "
            "lwe_thickness_of_convective_precipitation_amount rainfall_amount"
        ),
        names=_words(
            "pr precip precipitation prcp tp rr rainfall prc prsn ppt prect prectot "
            "mtpr avg_tprate tprate precipitationcal"
        ),
        ranges={"kg m-2 s-1": _peak(1e-5, 5e-3), "mm day-1": _peak(5.0, 2000.0)},
    ),
    Quantity(
        key="pressure",
        units="Pa",
        standard_names=_words(
            "air_pressure_at_mean_sea_level surface_air_pressure air_pressure "
            "air_pressure_at_sea_level"
        ),
        names=_words("psl ps slp msl mslp sp prmsl"),
        ranges={"Pa": _within(3e4, 1.2e5), "hPa": _within(300.0, 1200.0)},
    ),
    Quantity(
        key="geopotential",
        units="m2 s-2",
        standard_names=_words("geopotential"),
        names=_words("z phi"),
        ranges={"m2 s-2": _within(3.5e4, 6e5)},
    ),
    Quantity(
        key="geopotential_height",
        units="m",
        standard_names=_words("geopotential_height"),
        names=_words("zg gh hgt"),
        ranges={"m": _within(-1000.0, 25000.0)},
    ),
    Quantity(
        key="wind",
        units="m s-1",
        standard_names=_words(
            "eastward_wind northward_wind x_wind y_wind wind_speed "
            "grid_eastward_wind grid_northward_wind geostrophic_eastward_wind "
            "geostrophic_northward_wind wind_speed_of_gust"
        ),
        names=_words("u v ua va uas vas u10 v10 sfcwind ug vg uwnd vwnd"),
        ranges={"m s-1": _within(-150.0, 150.0)},
    ),
    Quantity(
        key="humidity",
        units="kg kg-1",
        standard_names=_words("specific_humidity humidity_mixing_ratio"),
        names=_words("q hus huss shum"),
        ranges={"kg kg-1": _peak(1e-6, 0.05), "g kg-1": _peak(0.5, 50.0)},
    ),
    Quantity(
        key="relative_humidity",
        units="%",
        standard_names=_words("relative_humidity"),
        names=_words("hur hurs rh rhum r"),
        ranges={"%": _peak(10.0, 200.0), "1": _peak(0.1, 1.6)},
    ),
    Quantity(
        key="altitude",
        units="m",
        standard_names=_words("surface_altitude height_above_reference_ellipsoid"),
        names=_words("orog topo elevation altitude elev dem"),
        ranges={"m": _within(-500.0, 9000.0)},
    ),
    Quantity(
        key="area_fraction",
        units="1",
        standard_names=_words("land_area_fraction area_fraction"),
        names=_words("sftlf lsm"),
        ranges={"1": _peak(0.0, 1.0), "%": _peak(10.0, 100.0)},
    ),
)
_LEVEL = re.compile(r"_?\d{1,4}(hpa|mb)?$")


def quantity_of(name: str, attrs: Mapping[Any, Any]) -> Quantity | None:
    """Recognise a quantity by its variable name (``z`` first), then standard name.

    A variable called ``z`` is a geopotential, one called ``zg`` a height, whichever of
    the two the file gives: a model finds the units it was trained with.
    Differences (ranges, anomalies, standard deviations) are no quantity of the table:
    an offset between units must not be applied to them.
    """
    standard_name = str(attrs.get("standard_name", "")).split(" ")[0]
    base = _LEVEL.sub("", name.lower())
    methods = str(attrs.get("cell_methods", ""))
    if any(word in methods for word in ("range", "deviation", "variance")):
        return None
    if name.lower().endswith(("_std", "_sd", "_var", "_anom", "_range")):
        return None
    if standard_name in ("", "geopotential", "geopotential_height"):
        for key in ("geopotential", "geopotential_height"):
            if base in _by_key(key).names:
                return _by_key(key)
    for quantity in QUANTITIES:
        if standard_name in quantity.standard_names:
            return quantity
    if standard_name:
        return None
    known = (name.lower(), base)
    return next((q for q in QUANTITIES if q.names & set(known)), None)


def _by_key(key: str) -> Quantity:
    return next(q for q in QUANTITIES if q.key == key)
