"""Which targets and predictors are precipitation, and how temperatures are ordered."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import (
    PRECIPITATION,
    STATISTICS,
    TEMPERATURE,
    Variable,
    variable_of,
)

_LOGGER = logging.getLogger(__name__)


def row_of(variable: TargetVariable | Channel) -> Variable | None:
    """Return the row of a target or predictor; see :func:`variable_of`."""
    methods = getattr(variable, "cell_methods", None) or ""
    attrs = {"standard_name": variable.standard_name, "cell_methods": methods}
    return variable_of(variable.name, attrs)


def precipitation_channels(
    variables: Sequence[TargetVariable | Channel],
) -> tuple[int, ...]:
    """Return the indices of targets or predictors that are precipitation."""
    return tuple(i for i, v in enumerate(variables) if v.quantity is PRECIPITATION)


def temperature_rank(target: TargetVariable) -> int | None:
    """Return 0, 1 or 2 for a daily minimum, mean or maximum temperature, else None.

    The name decides between minimum and maximum. Where it names neither, the statistic
    over time in ``cell_methods`` does; without one, ``tas`` and its synonyms are means.
    """
    row = row_of(target)
    if row is None or row.quantity is not TEMPERATURE or row.rank in (0, 2):
        return None if row is None else row.rank
    if row.rank is None and target.standard_name != "air_temperature":
        return None

    over_time = re.search(r"\btime: (\w+)", target.cell_methods or "")
    if over_time and over_time[1] in STATISTICS:
        return STATISTICS.index(over_time[1])
    return row.rank


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
