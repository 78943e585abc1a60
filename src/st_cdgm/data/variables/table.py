"""The table of variables: what each is called, and what follows from what it is.

Units, codec, order, daily reduction, physical limits, synonyms and colours are asked of
it alone. A row is a `Variable`; rows of one physical `Quantity` share its units.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

_LOGGER = logging.getLogger(__name__)
Limits = tuple[float, float]
Colours = Literal["precipitation", "temperature", "other"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantity:
    """A physical quantity: what all variables of one kind share.

    Attributes
    ----------
    key : str
        Name of the quantity.
    units : str
        Canonical units.
    ranges : dict
        Units -> test of the (lowest, highest) values over a record. Missing units are
        taken from the only range that fits.
    mean : (float, float), optional
        Between what the mean of a few days lies everywhere on Earth, canonical units.
    limits : (float, float), optional
        Between what every value lies, with margins for models, canonical units.
    codec : str
        How a target is encoded where the configuration does not say.
    colours : {"precipitation", "temperature", "other"}
        How it is drawn.
    smooth : bool
        Whether neighbouring cells are alike.
    weather : bool
        Whether it changes from day to day.
    """

    key: str
    units: str
    ranges: Mapping[str, Callable[[float, float], bool]]
    mean: Limits | None = None
    limits: Limits | None = None
    codec: str = "identity"
    colours: Colours = "other"
    smooth: bool = False
    weather: bool = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the key alone to other processes, so that there is one of each."""
        return _by_key, (self.key,)


@dataclass(frozen=True, kw_only=True, eq=False)
class Variable:
    """A row of the table.

    Attributes
    ----------
    names : tuple of str
        Under which archives (CMIP, ECMWF, NCEP, E-OBS, gridMET, CESM, WRF ...) file it,
        lower case and without level: case never counts. All are synonyms.
    quantity : Quantity or None
        What it is; None where only the names are known.
    standard_names : tuple of str
        CF standard names that mean it where the name says nothing.
    surface : bool
        Whether it has no pressure levels: digits in its name are no level.
    rank : {0, 1, 2}, optional
        Daily minimum, mean or maximum of one temperature, which are ordered.
    component : {"u", "v"}, optional
        Eastward or northward component of wind.
    own_limits : (float, float), optional
        Narrower than those of the quantity.
    """

    names: tuple[str, ...]
    quantity: Quantity | None
    standard_names: tuple[str, ...] = ()
    surface: bool = False
    rank: int | None = None
    component: Literal["u", "v"] | None = None
    own_limits: Limits | None = None

    @property
    def daily(self) -> Literal["minimum", "mean", "maximum"]:
        """What makes a day of shorter steps; amounts, by their units, are summed."""
        return "mean" if self.rank is None else _STATISTICS[self.rank]


def _within(low: float, high: float) -> Callable[[float, float], bool]:
    return lambda smallest, largest: low <= smallest and largest <= high


def _peak(low: float, high: float) -> Callable[[float, float], bool]:
    """Test the largest value (the smallest is near 0 in any unit)."""
    return lambda smallest, largest: (
        smallest > -0.01 * largest and low <= largest <= high
    )


def _row(names: str, quantity: Quantity | None, cf: str = "", **more: Any) -> Variable:
    return Variable(
        names=tuple(names.split()),
        quantity=quantity,
        standard_names=tuple(cf.split()),
        **more,
    )


# -- Quantities ------------------------------------------------------------------------
# Ranges leave room between units, so that a record that could be either is refused.

TEMPERATURE = Quantity(
    key="temperature",
    units="K",
    ranges={"K": _within(150.0, 350.0), "degC": _within(-95.0, 60.0)},
    mean=(150.0, 350.0),
    limits=(140.0, 360.0),
    colours="temperature",
    smooth=True,
)
PRECIPITATION = Quantity(  # its limits depend on the time step: see ``limits``
    key="precipitation",
    units="mm day-1",
    ranges={"kg m-2 s-1": _peak(1e-5, 5e-3), "mm day-1": _peak(5.0, 2000.0)},
    mean=(-0.1, 300.0),
    codec="precipitation",
    colours="precipitation",
)
PRESSURE = Quantity(
    key="pressure",
    units="Pa",
    ranges={"Pa": _within(3e4, 1.2e5), "hPa": _within(300.0, 1200.0)},
    mean=(2e4, 1.2e5),
    limits=(2.5e4, 1.11e5),  # at the surface
    smooth=True,
)
GEOPOTENTIAL = Quantity(
    key="geopotential",
    units="m2 s-2",
    ranges={"m2 s-2": _within(3.5e4, 6e5)},
    limits=(-1e4, 6e5),
    smooth=True,
)
HEIGHT = Quantity(
    key="geopotential_height",
    units="m",
    ranges={"m": _within(-1000.0, 25000.0)},
    limits=(-1e3, 6e4),
    smooth=True,
)
WIND = Quantity(
    key="wind",
    units="m s-1",
    ranges={"m s-1": _within(-150.0, 150.0)},
    mean=(-150.0, 150.0),
    limits=(-150.0, 150.0),
)
HUMIDITY = Quantity(
    key="humidity",
    units="kg kg-1",
    ranges={"kg kg-1": _peak(1e-6, 0.05), "g kg-1": _peak(0.5, 50.0)},
    mean=(-1e-3, 0.1),
    limits=(-1e-3, 0.06),
)
RELATIVE_HUMIDITY = Quantity(
    key="relative_humidity",
    units="%",
    ranges={"%": _peak(10.0, 200.0), "1": _peak(0.1, 1.6)},
    limits=(-10.0, 200.0),
)
ALTITUDE = Quantity(
    key="altitude",
    units="m",
    ranges={"m": _within(-500.0, 9000.0)},
    limits=(-1.2e4, 9e3),
    weather=False,
)
AREA_FRACTION = Quantity(
    key="area_fraction",
    units="1",
    ranges={"1": _peak(0.0, 1.0), "%": _peak(10.0, 100.0)},
    limits=(-1e-3, 1.0 + 1e-3),
    weather=False,
)
QUANTITIES = (
    *(TEMPERATURE, PRECIPITATION, PRESSURE, GEOPOTENTIAL, HEIGHT, WIND, HUMIDITY),
    *(RELATIVE_HUMIDITY, ALTITUDE, AREA_FRACTION),
)

# -- Rows ------------------------------------------------------------------------------
# The first row of a quantity with a standard name is what that name alone means.

_NEAR_SURFACE = (170.0, 340.0)  # -89 to 57 degC were measured 2 m above ground
_SEA_LEVEL = (8.3e4, 1.11e5)  # 870 and 1085 hPa were measured
_STATISTICS: tuple[Literal["minimum", "mean", "maximum"], ...]
_STATISTICS = ("minimum", "mean", "maximum")
_2M: dict[str, Any] = {"surface": True, "own_limits": _NEAR_SURFACE}
_SURFACE: dict[str, Any] = {"surface": True}
VARIABLES = (
    _row(
        "ta t temp temperature air tmp",
        TEMPERATURE,
        "air_temperature air_potential_temperature wet_bulb_temperature",
    ),
    _row("tasmin tmin tn mn2t tmmn trefhtmn t2min", TEMPERATURE, rank=0, **_2M),
    _row("tas t2m 2t t2 tg tmean tavg trefht tmp2m", TEMPERATURE, rank=1, **_2M),
    _row("tasmax tmax tx mx2t tmmx trefhtmx t2max", TEMPERATURE, rank=2, **_2M),
    _row("ts skt", TEMPERATURE, "surface_temperature soil_temperature", **_SURFACE),
    _row(
        "tos sst",
        TEMPERATURE,
        "sea_surface_temperature sea_surface_skin_temperature",
        **_SURFACE,
    ),
    _row("tdps td2m d2m", TEMPERATURE, "dew_point_temperature", **_SURFACE),
    _row(
        "pr prcp precip precipitation total_precipitation tp ppt pcp pcpn apcp rr rain "
        "rainfall prect prectot prectotcorr rainnc mtpr avg_tprate tprate "
        "precipitationcal",
        PRECIPITATION,
        "precipitation_flux lwe_precipitation_rate precipitation_amount "
        "lwe_thickness_of_precipitation_amount rainfall_flux rainfall_rate "
        "rainfall_amount thickness_of_rainfall_amount",
        **_SURFACE,
    ),
    _row(
        "prc precc rainc",
        PRECIPITATION,
        "convective_precipitation_flux "
        "lwe_thickness_of_convective_precipitation_amount",
        **_SURFACE,
    ),
    _row("prsn", PRECIPITATION, "snowfall_flux", **_SURFACE),
    _row(
        "psl msl slp mslp prmsl",
        PRESSURE,
        "air_pressure_at_mean_sea_level air_pressure_at_sea_level",
        own_limits=_SEA_LEVEL,
        **_SURFACE,
    ),
    _row("ps sp pres_sfc", PRESSURE, "surface_air_pressure air_pressure", **_SURFACE),
    _row("z phi", GEOPOTENTIAL, "geopotential"),
    _row("zg gh hgt", HEIGHT, "geopotential_height"),
    _row(
        "ua u uwnd ugrd", WIND, "eastward_wind x_wind grid_eastward_wind", component="u"
    ),
    _row(
        "va v vwnd vgrd",
        WIND,
        "northward_wind y_wind grid_northward_wind",
        component="v",
    ),
    _row("uas u10 10u u10m", WIND, component="u", **_SURFACE),
    _row("vas v10 10v v10m", WIND, component="v", **_SURFACE),
    _row("u100 100u", WIND, component="u", **_SURFACE),
    _row("v100 100v", WIND, component="v", **_SURFACE),
    _row("ug", WIND, "geostrophic_eastward_wind", component="u"),
    _row("vg", WIND, "geostrophic_northward_wind", component="v"),
    _row("ws", WIND, "wind_speed"),
    _row("sfcwind ws10 si10", WIND, **_SURFACE),
    _row("ws100", WIND, **_SURFACE),
    _row("sfcwindmax wsgsmax fg10 i10fg", WIND, "wind_speed_of_gust", **_SURFACE),
    _row("hus q shum", HUMIDITY, "specific_humidity humidity_mixing_ratio"),
    _row("huss q2 q2m", HUMIDITY, **_SURFACE),
    _row("hur r rh rhum", RELATIVE_HUMIDITY, "relative_humidity"),
    _row("hurs rh2m", RELATIVE_HUMIDITY, **_SURFACE),
    _row("wap omega", None, "lagrangian_tendency_of_air_pressure"),
    _row(
        "orog topo elevation altitude elev dem",
        ALTITUDE,
        "surface_altitude height_above_reference_ellipsoid",
        **_SURFACE,
    ),
    _row("sftlf lsm", AREA_FRACTION, "land_area_fraction area_fraction", **_SURFACE),
)
_BY_NAME = {name: row for row in VARIABLES for name in row.names}
_BY_STANDARD_NAME = {cf: row for row in VARIABLES for cf in row.standard_names}
_LEVEL = re.compile(r"_?\d{1,4}(hpa|mb)?$")
_NO_VALUE = re.compile(r"range|deviation|variance")
_CHANGE = re.compile(r"anomaly|tendency|change|derivative|difference|range|deviation")


# -- Questions -------------------------------------------------------------------------


def variable_of(name: str, attrs: Mapping[Any, Any]) -> Variable | None:
    """Return the row of a variable, by its CF standard name and its name.

    The standard name says what it is, the name which of several it is: ``tx`` with
    ``air_temperature`` is a daily maximum. A variable called ``z`` is a geopotential,
    one called ``zg`` a height, whichever of the two the file says: a model finds the
    units it was trained with. A standard name that the table lacks leaves the name to
    decide, unless it tells of a change or the name is a single letter.

    Differences (ranges, anomalies, standard deviations) have no row: an offset between
    units must not be applied to them, nor are they ordered or positive.
    """
    if _NO_VALUE.search(str(attrs.get("cell_methods") or "")):
        return None
    if name.lower().endswith(("_std", "_sd", "_var", "_anom", "_range")):
        return None

    named = _by_name(name)
    standard_name = str(attrs.get("standard_name") or "").split(" ")[0].lower()
    if not standard_name:
        return named
    declared = _BY_STANDARD_NAME.get(standard_name) or _BY_NAME.get(standard_name)
    if declared is None:
        word = name if name.lower() in _BY_NAME else _LEVEL.sub("", name)
        return None if _CHANGE.search(standard_name) or len(word) < 2 else named

    return named if named is not None and _agree(named, declared) else declared


class Named:
    """What predictors and targets share: a name, and what it stands for."""

    name: str
    units: str
    standard_name: str | None
    cell_methods: str | None = None

    @cached_property
    def row(self) -> Variable | None:
        """Its row of the table; a reader sets it, by all attributes of the file."""
        attrs = {"standard_name": self.standard_name, "cell_methods": self.cell_methods}
        return variable_of(self.name, attrs)

    @property
    def quantity(self) -> Quantity | None:
        """The physical quantity, None if not known."""
        return None if self.row is None else self.row.quantity

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the row: there is one in every process."""
        return {key: value for key, value in vars(self).items() if key != "row"}


def quantity_of(name: str, attrs: Mapping[Any, Any]) -> Quantity | None:
    """Return the physical quantity of a variable; see :func:`variable_of`."""
    found = variable_of(name, attrs)
    return None if found is None else found.quantity


def synonyms(name: str) -> frozenset[str]:
    """Return the names of a variable in all archives, lower case, its own included."""
    row = _BY_NAME.get(name.lower())
    if row is None:
        return frozenset([name.lower()])
    both = (GEOPOTENTIAL, HEIGHT)  # either is made from the other
    alike = [r for r in VARIABLES if row.quantity in both and r.quantity in both]
    return frozenset(known for one in alike or [row] for known in one.names)


def is_surface(name: str) -> bool:
    """Whether a name, without or with digits, is of a variable without levels."""
    row = _BY_NAME.get(name.lower())
    return row is not None and row.surface


def is_precipitation(name: str, standard_name: str | None) -> bool:
    """Whether a variable is precipitation, which is never negative."""
    return quantity_of(name, {"standard_name": standard_name}) is PRECIPITATION


def precipitation_channels(variables: Sequence[Named]) -> tuple[int, ...]:
    """Return the indices of targets or predictors that are precipitation."""
    return tuple(
        i for i, v in enumerate(variables) if is_precipitation(v.name, v.standard_name)
    )


def temperature_rank(target: Named) -> int | None:
    """Return 0, 1 or 2 for a daily minimum, mean or maximum temperature, else None.

    The name decides between minimum and maximum. Where it names neither, the statistic
    over time in ``cell_methods`` does; without one, ``tas`` and its synonyms are means.
    """
    row = target.row
    if row is None or row.quantity is not TEMPERATURE or row.rank in (0, 2):
        return None if row is None else row.rank
    if row.rank is None and target.standard_name != "air_temperature":
        return None

    over_time = re.search(r"\btime: (\w+)", target.cell_methods or "")
    if over_time and over_time[1] in _STATISTICS:
        return _STATISTICS.index(over_time[1])
    return row.rank


def ordered_temperatures(targets: Sequence[Named]) -> tuple[int, ...]:
    """Return the channels of ordered temperatures, coldest first, or nothing.

    Two or three of daily minimum, mean and maximum, in the same units.
    """
    found = [
        (r, i) for i, t in enumerate(targets) if (r := temperature_rank(t)) is not None
    ]
    ranks = [rank for rank, _ in found]
    if len(found) < 2:
        return ()
    units = {targets[i].units for _, i in found}
    if len(set(ranks)) < len(ranks) or len(units) > 1:
        names = ", ".join(targets[i].name for _, i in found)
        _LOGGER.warning(
            "temperatures %s are not ordered: same statistic or units differ", names
        )
        return ()
    return tuple(i for _, i in sorted(found))


def _by_name(name: str) -> Variable | None:
    lower = name.lower()
    return _BY_NAME.get(lower) or _BY_NAME.get(_LEVEL.sub("", lower))


def _agree(named: Variable, declared: Variable) -> bool:
    """Whether a name can say more of what a standard name declares."""
    if {named.quantity, declared.quantity} == {GEOPOTENTIAL, HEIGHT}:
        return True
    same = named.quantity is not None and named.quantity is declared.quantity
    return same and named.component == declared.component


def _by_key(key: str) -> Quantity:
    return next(quantity for quantity in QUANTITIES if quantity.key == key)
