"""Predictors computed from others: geostrophic wind, thickness, speed, humidity."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.read.coarsen import coarsen_cube
from st_cdgm.data.read.readers import ChannelCube, read_channels
from st_cdgm.data.space.gradients import (
    EQUATOR_DEG,
    ZERO_CELSIUS,
    geostrophic_wind,
    relative_humidity,
)
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.levels import channel_name
from st_cdgm.data.variables.quantities import quantity_of
from st_cdgm.data.variables.units import STANDARD_GRAVITY
from st_cdgm.errors import InputError, MissingVariableError

logger = logging.getLogger(__name__)
_ON_LEVEL = re.compile(r"^(ug|vg|ws|hur)(?:_(\d+(?:\.\d+)?))?$")
_THICKNESS = re.compile(r"^thickness_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)$")
_SORTS = {
    "ug": ("m s-1", "geostrophic_eastward_wind", "Eastward geostrophic wind"),
    "vg": ("m s-1", "geostrophic_northward_wind", "Northward geostrophic wind"),
    "ws": ("m s-1", "wind_speed", "Wind speed"),
    "hur": ("%", "relative_humidity", "Relative humidity over water"),
}
_INPUTS = {"ug": ("z",), "vg": ("z",), "ws": ("u", "v"), "hur": ("q", "t")}
# Components of the wind, by variable name and by CF standard name.
_WINDS = {
    "u": {"u", "ua", "uwnd", "eastward_wind", "x_wind", "grid_eastward_wind"},
    "v": {"v", "va", "vwnd", "northward_wind", "y_wind", "grid_northward_wind"},
}
_KINDS = {
    "geopotential": "z",
    "geopotential_height": "z",
    "temperature": "t",
    "humidity": "q",
}
Array = Any  # a dask array; its stubs do not help
Plane = Callable[..., NDArray[np.float32]]


def add_derived(
    cube: ChannelCube, names: Sequence[str], *, source: ChannelCube | None = None
) -> ChannelCube:
    """Append predictors computed from others, lazily.

    ========================  ==========================================================
    ``ug_850``, ``vg_850``    geostrophic wind, eastward and northward, m s-1; missing
                              within 5 degrees of the equator, which a warning says
    ``thickness_1000_500``    geopotential height difference of two levels, m
    ``ws_850``                speed of the wind (u, v), m s-1
    ``hur_850``               relative humidity over water from q, t and the level, %
    ========================  ==========================================================

    Without a level (``ug``) a name means every level that has the inputs.

    Parameters
    ----------
    cube : ChannelCube
        Predictors in canonical units.
    names : sequence of str
        What to append, in this order.
    source : ChannelCube, optional
        Where the inputs are, on the same grid and days; ``cube`` itself if None.

    Returns
    -------
    ChannelCube
        The channels of ``cube``, then the derived ones, marked ``derived``. A value is
        missing where an input is.

    Raises
    ------
    MissingVariableError
        If a name is unknown or an input is absent; the message lists what can be
        derived.
    InputError
        If a channel would come twice, or the grid does not allow it.
    """
    if not names:
        return cube
    origin = cube if source is None else source
    made = [recipe for name in names for recipe in _recipes(name, origin)]
    _check_unique([*cube.names, *(r.channel.name for r in made)], file=cube.file)
    _check_grid(made, origin)
    fields = [recipe.compute(origin) for recipe in made]
    array: Any = dask.array
    values = array.concatenate(
        [array.asarray(cube.values.data), array.stack(fields, axis=1)], axis=1
    )
    channels = (*cube.channels, *(recipe.channel for recipe in made))
    return replace(
        cube,
        channels=channels,
        values=xr.DataArray(
            values,
            dims=("time", "channel", "y", "x"),
            coords={"channel": [channel.name for channel in channels]},
        ),
    )


def read_with_derived(
    paths: Any,
    *,
    variables: Sequence[str] | None = None,
    derived: Sequence[str] = (),
    coarsen: int = 1,
    place: Callable[[ChannelCube], ChannelCube] | None = None,
    **options: Any,
) -> ChannelCube:
    """Read predictors and append derived ones, whose inputs need not be predictors.

    Parameters
    ----------
    paths, variables, **options
        See :func:`st_cdgm.data.read.readers.read_channels`.
    derived : sequence of str
        See :func:`add_derived`; made on the coarse grid.
    coarsen : int
        Block side over which the fields of the file are averaged first; see
        :func:`st_cdgm.data.read.coarsen.coarsen_cube`.
    place : callable, optional
        What brings the fields of the file to the coarse grid instead.
    """

    def read(names: Sequence[str] | None) -> ChannelCube:
        cube = read_channels(paths, variables=names, **options)
        return coarsen_cube(cube, coarsen) if place is None else place(cube)

    if not derived:
        return read(variables)
    source = read(required_inputs(derived))
    if variables is not None and not len(variables):
        made = add_derived(source, derived)
        first = len(source.channels)
        return replace(
            made, channels=made.channels[first:], values=made.values[:, first:]
        )
    return add_derived(read(variables), derived, source=source)


def required_inputs(names: Sequence[str]) -> list[str]:
    """Return the predictors from which ``names`` are derived: ``z_850`` for ``ug_850``.

    Raises
    ------
    MissingVariableError
        If a name cannot be derived at all.
    """
    found: list[str] = []
    for name in names:
        sort, levels = _parsed(name, ())
        inputs = ("z",) if sort == "thickness" else _INPUTS[sort]
        for variable in inputs:
            found += [channel_name(variable, level) for level in levels or (None,)]
    wanted = list(dict.fromkeys(found))
    # All levels of z include z_850, which must not be asked for twice.
    return [n for n in wanted if "_" not in n or n.split("_")[0] not in wanted]


def derivable(channels: Sequence[Channel]) -> list[str]:
    """Return the names that :func:`add_derived` can make from channels."""
    inputs = _inputs(channels)
    levels = sorted({level for _, level in inputs}, reverse=True)
    names = [
        channel_name(sort, level)
        for sort, needed in _INPUTS.items()
        for level in levels
        if all((variable, level) in inputs for variable in needed)
    ]
    heights = [level for level in levels if ("z", level) in inputs]
    return names + [f"thickness_{a:g}_{b:g}" for a, b in combinations(heights, 2)]


def long_name(channel: Channel) -> str:
    """Return a name for people: ``Eastward geostrophic wind at 850 hPa``."""
    thickness = _THICKNESS.match(channel.name)
    if thickness:
        return f"Thickness of the layer {thickness[1]} to {thickness[2]} hPa"
    title = _SORTS[channel.variable][2] if channel.derived else channel.variable
    return title if channel.level is None else f"{title} at {channel.level:g} hPa"


# -- Names and inputs ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """A channel to be made from the channels at ``inputs``."""

    channel: Channel
    inputs: tuple[int, ...]
    function: Callable[[ChannelCube, tuple[Channel, ...]], Plane]

    def compute(self, cube: ChannelCube) -> Array:
        """Return the lazy field. Shape ``(time, y, x)``."""
        array: Any = dask.array
        every = array.asarray(cube.values.data)
        fields = [every[:, i].rechunk({1: -1, 2: -1}) for i in self.inputs]
        plane = self.function(cube, tuple(cube.channels[i] for i in self.inputs))
        empty = np.empty((0, 0, 0), np.float32)
        return array.map_blocks(plane, *fields, dtype=np.float32, meta=empty)


def _parsed(name: str, known: Sequence[str]) -> tuple[str, list[float]]:
    """Return the sort of a derived name and its levels, none meaning all of them."""
    on_level, thickness = _ON_LEVEL.match(name), _THICKNESS.match(name)
    if on_level:
        return on_level[1], [float(on_level[2])] if on_level[2] else []
    if thickness and thickness[1] != thickness[2]:
        return "thickness", [float(thickness[1]), float(thickness[2])]
    raise MissingVariableError(
        "not a predictor that can be derived",
        variable=name,
        found=", ".join(known) or None,
        expected="ug, vg, ws, hur, with a level (ug_850) or for all, or "
        "thickness_1000_500",
        remedy="correct the name in data.lr_derived",
    )


def _recipes(name: str, cube: ChannelCube) -> list[_Recipe]:
    """Return what a name means for the channels of a cube."""
    known = derivable(cube.channels)
    sort, levels = _parsed(name, known)
    inputs = _inputs(cube.channels)
    if sort == "thickness":
        wanted = [("z", level) for level in levels]
        made = [(name, [inputs.get(key) for key in wanted])]
    else:
        if not levels:
            levels = [float(n.split("_")[1]) for n in known if n.startswith(f"{sort}_")]
        made = [
            (
                channel_name(sort, level),
                [inputs.get((variable, level)) for variable in _INPUTS[sort]],
            )
            for level in levels
        ]
    if not made or any(None in indices for _, indices in made):
        raise MissingVariableError(
            "the inputs of a derived predictor are absent",
            file=cube.file,
            variable=name,
            found=", ".join(cube.names),
            expected=", ".join(known) or "inputs such as z_850, or u_850 and v_850",
            remedy="derive one of those expected, or add the inputs to the file",
        )
    return [
        _recipe(label, sort, cast("tuple[int, ...]", tuple(indices)))
        for label, indices in made
    ]


def _recipe(name: str, sort: str, indices: tuple[int, ...]) -> _Recipe:
    if sort == "thickness":
        channel = Channel(name=name, variable=name, level=None, units="m", derived=True)
        return _Recipe(channel=channel, inputs=indices, function=_thickness)
    units, standard_name, _ = _SORTS[sort]
    channel = Channel(
        name=name,
        variable=sort,
        level=float(name.split("_")[1]),
        units=units,
        standard_name=standard_name,
        derived=True,
    )
    return _Recipe(channel=channel, inputs=indices, function=_FUNCTIONS[sort])


def _inputs(channels: Sequence[Channel]) -> dict[tuple[str, float], int]:
    """Return the channels that others are derived from, by variable and level."""
    found: dict[tuple[str, float], int] = {}
    for i, channel in enumerate(channels):
        if channel.level is None or channel.derived:
            continue
        variable = _variable(channel)
        if variable is not None:
            found.setdefault((variable, channel.level), i)
    return found


def _variable(channel: Channel) -> str | None:
    """Return ``z``, ``t``, ``q``, ``u`` or ``v``, or None for anything else."""
    names = {channel.variable.lower(), channel.standard_name}
    for wind, known in _WINDS.items():
        if names & known:
            return wind
    if channel.standard_name == "humidity_mixing_ratio":
        return None
    quantity = quantity_of(channel.name, {"standard_name": channel.standard_name or ""})
    return None if quantity is None else _KINDS.get(quantity.key)


def _check_unique(names: Sequence[str], *, file: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            "a derived predictor is there already",
            file=file,
            variable=", ".join(twice),
            found=", ".join(names),
            expected="each channel once",
            remedy="leave it out of data.lr_derived, or out of data.lr_variables",
        )


# -- Fields ----------------------------------------------------------------------------


def _humidity(cube: ChannelCube, channels: tuple[Channel, ...]) -> Plane:
    pressure = cast("float", channels[0].level)
    to_kelvin = ZERO_CELSIUS if channels[1].units == "degC" else 0.0

    def plane(q: NDArray[Any], t: NDArray[Any]) -> NDArray[np.float32]:
        return relative_humidity(q, t + to_kelvin, pressure).astype(np.float32)

    return plane


def _speed(cube: ChannelCube, channels: tuple[Channel, ...]) -> Plane:
    def plane(u: NDArray[Any], v: NDArray[Any]) -> NDArray[np.float32]:
        speed: NDArray[np.float32] = np.hypot(u, v).astype(np.float32)
        return speed

    return plane


def _thickness(cube: ChannelCube, channels: tuple[Channel, ...]) -> Plane:
    first, second = (_geopotential(channel) / STANDARD_GRAVITY for channel in channels)
    # The order of the names does not matter: the layer is never upside down.
    levels = [channel.level or 0.0 for channel in channels]
    sign = 1.0 if levels[0] > levels[1] else -1.0

    def plane(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32]:
        rise = b.astype(np.float64) * second - a.astype(np.float64) * first
        return (sign * rise).astype(np.float32)

    return plane


def _eastward(cube: ChannelCube, channels: tuple[Channel, ...]) -> Plane:
    return _geostrophic(cube.grid, channels[0], component=0)


def _northward(cube: ChannelCube, channels: tuple[Channel, ...]) -> Plane:
    return _geostrophic(cube.grid, channels[0], component=1)


def _geostrophic(grid: Grid, channel: Channel, *, component: int) -> Plane:
    wind, factor = geostrophic_wind(grid), _geopotential(channel)

    def plane(field: NDArray[Any]) -> NDArray[np.float32]:
        return wind(field.astype(np.float64) * factor)[component].astype(np.float32)

    return plane


def _geopotential(channel: Channel) -> float:
    """Return the factor to m2 s-2 from a geopotential or from its height in m."""
    return STANDARD_GRAVITY if channel.units == "m" else 1.0


def _check_grid(recipes: Sequence[_Recipe], cube: ChannelCube) -> None:
    """Warn of, or refuse, a region at the equator for geostrophic wind."""
    winds = [r.channel.name for r in recipes if r.channel.variable in ("ug", "vg")]
    if not winds:
        return
    near = np.abs(cube.grid.lat2d) < EQUATOR_DEG
    if near.all():
        raise InputError(
            "no geostrophic wind at the equator",
            file=cube.file,
            variable=", ".join(winds),
            found=str(cube.grid),
            expected=f"latitudes beyond {EQUATOR_DEG:g} degrees",
            remedy="use the wind itself (u, v)",
        )
    if near.any():
        logger.warning(
            "%s: %s are missing within %g degrees of the equator (%.0f %% of the grid)",
            cube.file,
            ", ".join(winds),
            EQUATOR_DEG,
            100 * float(near.mean()),
        )


_FUNCTIONS = {"ug": _eastward, "vg": _northward, "ws": _speed, "hur": _humidity}
