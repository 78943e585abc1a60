"""Append predictors that are computed from others to a cube."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, cast

import dask.array
import numpy as np

from st_cdgm import registry
from st_cdgm.data.read.channels import check_unique
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.derived.contract import Derived
from st_cdgm.data.read.readers import labelled, read_channels
from st_cdgm.data.read.regrid import coarsen_cube
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.levels import channel_name
from st_cdgm.data.variables.table import synonyms, variable_of
from st_cdgm.errors import MissingVariableError


def add_derived(
    cube: ChannelCube, names: Sequence[str], *, source: ChannelCube | None = None
) -> ChannelCube:
    """Append predictors computed from others, lazily.

    Such as ``ug_850`` (geostrophic wind), ``thickness_1000_500``, ``ws_850`` (wind
    speed) and ``hur_850`` (relative humidity); see
    :class:`st_cdgm.data.read.derived.contract.Derived` for others.
    Without a level (``ug``) a name means every level that has the inputs. They are
    taken from ``source``, on the same grid and days, where it is not ``cube`` itself.
    The derived channels come last, marked ``derived``; a value is missing where an
    input is.

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
    check_unique(
        [*cube.names, *(recipe.channel.name for recipe in made)],
        "a derived predictor is there already",
        "leave it out of data.lr_derived, or out of data.lr_variables",
        file=cube.file,
    )
    _check_grid(made, origin)

    # Their fields, behind those of the cube.
    fields = [recipe.compute(origin) for recipe in made]
    array: Any = dask.array
    values = array.concatenate(
        [array.asarray(cube.values.data), array.stack(fields, axis=1)], axis=1
    )
    channels = (*cube.channels, *(recipe.channel for recipe in made))
    names = [channel.name for channel in channels]
    return replace(cube, channels=channels, values=labelled(values, "channel", names))


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
        Block side, see :func:`coarsen_cube`.
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
        part, levels = _parsed(name, ())
        for level in levels or (None,):
            found += [channel_name(variable, level) for variable in part.inputs]
    wanted = list(dict.fromkeys(found))
    # All levels of z include z_850, which must not be asked for twice.
    return [n for n in wanted if "_" not in n or n.split("_")[0] not in wanted]


def derivable(channels: Sequence[Channel]) -> list[str]:
    """Return the names that :func:`add_derived` can make from channels."""
    given = {c.level for c in channels if c.level is not None and not c.derived}
    levels = sorted(given, reverse=True)
    return [
        _name(name, chosen)
        for name, part in _parts().items()
        for chosen in combinations(levels, part.levels)
        if _inputs(part, chosen, channels) is not None
    ]


def long_name(channel: Channel) -> str:
    """Return a name for people: ``Eastward geostrophic wind at 850 hPa``."""
    title, levels = channel.variable, [channel.level] if channel.level else []
    if channel.derived:
        part, levels = _parsed(channel.name, ())
        title = part.title
    if len(levels) == 2:
        return f"{title} {levels[0]:g} to {levels[1]:g} hPa"
    return f"{title} at {levels[0]:g} hPa" if levels else title


# -- Names and inputs ------------------------------------------------------------------


@dataclass(frozen=True)
class _Recipe:
    """A channel to be made from the channels at ``inputs``."""

    part: Derived
    channel: Channel
    inputs: tuple[int, ...]

    def compute(self, cube: ChannelCube) -> Any:
        """Return the lazy field. Shape ``(time, y, x)``."""
        array: Any = dask.array
        every = array.asarray(cube.values.data)
        fields = [every[:, i].rechunk({1: -1, 2: -1}) for i in self.inputs]
        given = tuple(cube.channels[i] for i in self.inputs)
        plane = self.part.function(cube.grid, given)
        empty = np.empty((0, 0, 0), np.float32)
        return array.map_blocks(plane, *fields, dtype=np.float32, meta=empty)


def _parts() -> dict[str, Derived]:
    """Return what is registered, by name."""
    return {entry.name: entry.part() for entry in registry.entries("derived")}


def _name(name: str, levels: Sequence[float]) -> str:
    return "_".join([name, *(f"{level:g}" for level in levels)])


def _parsed(name: str, known: Sequence[str]) -> tuple[Derived, list[float]]:
    """Return what makes a derived predictor, and its levels; none may mean all."""
    for own, part in _parts().items():
        if not re.fullmatch(rf"{re.escape(own)}(_\d+(\.\d+)?)*", name):
            continue
        levels = [float(text) for text in name[len(own) :].split("_")[1:]]
        every = part.levels == 1 and not levels
        if every or part.levels == len(set(levels)) == len(levels):
            return part, levels

    pair = (1000, 500)
    examples = [_name(own, pair[2 - p.levels :]) for own, p in _parts().items()]
    raise MissingVariableError(
        "not a predictor that can be derived",
        variable=name,
        found=", ".join(known) or None,
        expected=f"such as {', '.join(examples)}; ug means all levels",
        remedy="correct the name in data.lr_derived",
    )


def _recipes(name: str, cube: ChannelCube) -> list[_Recipe]:
    """Return what a name means for the channels of a cube."""
    known = derivable(cube.channels)
    part, levels = _parsed(name, known)
    chosen = [tuple(levels)]
    if len(levels) < part.levels:  # no level: all that have the inputs
        every = [n for n in known if n.startswith(f"{name}_")]
        chosen = [(float(n.removeprefix(f"{name}_")),) for n in every]

    found = [(at, _inputs(part, at, cube.channels)) for at in chosen]
    if not found or any(indices is None for _, indices in found):
        raise MissingVariableError(
            "the inputs of a derived predictor are absent",
            file=cube.file,
            variable=name,
            found=", ".join(cube.names),
            expected=", ".join(known) or "inputs such as z_850, or u_850 and v_850",
            remedy="derive one of those expected, or add the inputs to the file",
        )
    own = registry.name_of("derived", type(part))
    return [_Recipe(part, _labelled(part, own, at), i) for at, i in found if i]


def _labelled(part: Derived, own: str, levels: tuple[float, ...]) -> Channel:
    on_level = len(levels) == 1
    return Channel(
        name=_name(own, levels),
        variable=own if on_level else _name(own, levels),
        level=levels[0] if on_level else None,
        units=part.units,
        standard_name=part.standard_name,
        derived=True,
    )


def _inputs(
    part: Derived, levels: Sequence[float], channels: Sequence[Channel]
) -> tuple[int, ...] | None:
    """Return the channels that a derived predictor is made from, if all are there."""
    wanted = [(v, level) for level in levels or (None,) for v in part.inputs]
    found = [_channel(variable, level, channels) for variable, level in wanted]
    return None if None in found else cast("tuple[int, ...]", tuple(found))


def _channel(
    variable: str, level: float | None, channels: Sequence[Channel]
) -> int | None:
    """Return the first channel that holds a variable under any of its names."""
    names = synonyms(variable)
    for i, channel in enumerate(channels):
        if channel.level != level or channel.derived:
            continue
        if channel.standard_name == "humidity_mixing_ratio":  # not that per moist air
            continue
        row = variable_of(channel.variable, {"standard_name": channel.standard_name})
        if (channel.variable.lower() if row is None else row.names[0]) in names:
            return i
    return None


def _check_grid(recipes: Sequence[_Recipe], cube: ChannelCube) -> None:
    """Let every kind of predictor look at the grid once."""
    names: dict[Any, list[str]] = {}
    for recipe in recipes:
        names.setdefault(recipe.part.check, []).append(recipe.channel.name)
    for check, made in names.items():
        check(cube.grid, made, cube.file)
