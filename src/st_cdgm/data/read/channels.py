"""Which variables and levels of a file are meant, as channels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import xarray as xr

from st_cdgm.data.variables.levels import (
    Fields,
    channel_name,
    level_in_name,
    split_levels,
)
from st_cdgm.data.variables.table import synonyms
from st_cdgm.errors import InputError, MissingVariableError

logger = logging.getLogger(__name__)


def select_channels(
    ds: xr.Dataset,
    available: Sequence[str],
    variables: Sequence[str] | None,
    *,
    file: str | None = None,
) -> Fields:
    """Channels meant by ``variables``, in that order, among the ``available`` fields.

    Variables (``q``: all levels) or channels (``q_850``); None takes all. A name that
    the file does not have is looked for under its synonyms (``t`` and ``ta``, ``q`` and
    ``hus``) and then keeps the name asked for.

    Raises
    ------
    MissingVariableError
        If one is absent; the message lists all channels of the file.
    InputError
        If the list is empty or names a channel twice.
    """
    if variables is None:
        return split_levels(ds, available, file=file)
    wanted = as_list(variables)
    if not wanted:
        raise InputError(
            "an empty list of variables",
            file=file,
            expected="names of variables or channels, or none at all to take every one",
            remedy=f"choose from: {', '.join(available)}",
        )

    matches = {name: _matching(ds, available, name, file=file) for name in wanted}
    absent = [name for name, found in matches.items() if not found]
    if absent:
        shown = [channel.name for channel, _ in _splittable(ds, available)]
        check_available(absent, (), shown, file=file)
    chosen: Fields = [pair for name in wanted for pair in matches[name]]
    check_unique(
        [channel.name for channel, _ in chosen],
        "a channel is asked for twice",
        "name either the variable (all levels) or single channels",
        file=file,
    )
    return chosen


def _matching(
    ds: xr.Dataset, available: Sequence[str], name: str, *, file: str | None
) -> Fields:
    if name in available:
        return split_levels(ds, [name], file=file)
    every = _splittable(ds, available)
    found = [pair for pair in every if pair[0].name == name]
    found = found or [pair for pair in every if pair[0].variable == name]
    return found or _by_synonym(every, name, file=file)


def _splittable(ds: xr.Dataset, available: Sequence[str]) -> Fields:
    """Channels of all variables, leaving out those whose levels make no sense."""
    every: Fields = []
    for name in available:
        try:
            every += split_levels(ds, [name])
        except InputError as error:
            logger.debug("%s left out of the search: %s", name, error)
    return every


def _by_synonym(every: Fields, name: str, *, file: str | None) -> Fields:
    base, level = level_in_name(name)
    group = synonyms(base)
    found = [
        (channel, da)
        for channel, da in every
        if channel.variable.lower() in group
        and (level is None or channel.level == level)
    ]
    if len({channel.variable for channel, _ in found}) != 1:
        return []
    if len(found) > 1 and level is None and any(c.level is None for c, _ in found):
        return []

    logger.warning("%s: %s is taken from %s", file, name, found[0][0].variable)
    return [
        (replace(one, name=channel_name(base, one.level), variable=base), da)
        for one, da in found
    ]


def as_list(variables: Sequence[str]) -> list[str]:
    """Return a list of names from any sequence, or from a single name."""
    return [variables] if isinstance(variables, str) else [str(v) for v in variables]


def check_available(
    names: Sequence[str],
    available: Sequence[str],
    shown: Sequence[str],
    *,
    file: str | None,
) -> None:
    """Raise MissingVariableError, listing ``shown``, unless all names are available."""
    absent = [name for name in names if name not in available]
    if absent:
        raise MissingVariableError(
            "the file does not have a variable or level that is asked for",
            file=file,
            variable=", ".join(absent),
            found=", ".join(shown) or "no fields",
            expected=", ".join(names),
            remedy="choose from those found, or add the missing one to the file",
        )


def check_unique(
    names: Sequence[str], problem: str, remedy: str, *, file: str | None
) -> None:
    """Raise InputError with this problem and remedy if a channel comes twice."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            problem,
            file=file,
            variable=", ".join(twice),
            found=", ".join(names),
            expected="each channel once",
            remedy=remedy,
        )
