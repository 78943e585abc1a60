"""Kinds of variables: precipitation, daily temperatures in their order."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from st_cdgm.data.variables.fields import Channel, TargetVariable

_LOGGER = logging.getLogger(__name__)
_PRECIPITATION_NAMES = {"pr", "rr", "tp", "precip", "precipitation"}
_PRECIPITATION_STANDARD_NAMES = {
    "precipitation_flux",
    "precipitation_amount",
    "lwe_precipitation_rate",
    "lwe_thickness_of_precipitation_amount",
    "rainfall_flux",
    "rainfall_rate",
    "rainfall_amount",
}
_TEMPERATURE_RANKS = {"tasmin": 0, "tn": 0, "tas": 1, "tg": 1, "tasmax": 2, "tx": 2}
_METHOD_RANKS = {"minimum": 0, "mean": 1, "maximum": 2}


def is_precipitation(name: str, standard_name: str | None) -> bool:
    """Say whether a variable is precipitation, by its CF standard name or its name."""
    return (
        standard_name in _PRECIPITATION_STANDARD_NAMES
        or name.lower() in _PRECIPITATION_NAMES
    )


def temperature_rank(target: TargetVariable) -> int | None:
    """Return 0, 1 or 2 for a daily minimum, mean or maximum temperature, else None.

    The name decides; failing that, the standard name ``air_temperature`` together with
    the statistic over time in ``cell_methods``.
    """
    rank = _TEMPERATURE_RANKS.get(target.name.lower())
    if rank is not None or target.standard_name != "air_temperature":
        return rank
    over_time = re.search(r"\btime: (\w+)", target.cell_methods or "")
    return _METHOD_RANKS.get(over_time[1]) if over_time else None


def precipitation_channels(
    variables: Sequence[TargetVariable | Channel],
) -> tuple[int, ...]:
    """Return the indices of targets or predictors that are precipitation."""
    return tuple(
        i for i, v in enumerate(variables) if is_precipitation(v.name, v.standard_name)
    )


def ordered_temperatures(targets: Sequence[TargetVariable]) -> tuple[int, ...]:
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
