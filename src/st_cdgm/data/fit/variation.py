"""Whether variables change at all in the training period."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from st_cdgm.data.variables.table import PRECIPITATION, Named
from st_cdgm.typing import FloatArray, Floats

logger = logging.getLogger(__name__)
# Below this share of the magnitude a change is rounding.
_ROUNDING = 1e-6
_WET_DAY = 0.1  # mm day-1


class Variation:
    """Lowest and highest value of every channel and cell, NaN left out.

    ``variables`` are the C channels.
    """

    def __init__(self, variables: Sequence[Named], shape: tuple[int, ...]) -> None:
        self.variables = tuple(variables)
        self.low: Floats = np.full((len(self.variables), *shape), np.inf)
        self.high: Floats = np.full((len(self.variables), *shape), -np.inf)

    def add(self, values: FloatArray) -> None:
        """Add days. Shape ``(T, C, Y, X)``."""
        if len(values):
            self.low = np.fmin(self.low, np.fmin.reduce(values, axis=0))
            self.high = np.fmax(self.high, np.fmax.reduce(values, axis=0))

    def constant(self) -> list[str]:
        """Return the names of the variables that no cell sees change."""
        names = []
        for variable, low, high in zip(
            self.variables, self.low, self.high, strict=True
        ):
            known = high >= low
            change = (high - low)[known]
            if known.any() and (change <= _ROUNDING * np.abs(high[known])).all():
                names.append(variable.name)
        return names

    def dry(self) -> list[str]:
        """Return the names of precipitation variables without any wet day."""
        names = []
        for variable, high in zip(self.variables, self.high, strict=True):
            rain = variable.row is not None and variable.row.quantity is PRECIPITATION
            if rain and variable.units == PRECIPITATION.units and high.max() < _WET_DAY:
                names.append(variable.name)
        return names


def warn_of_idle(predictors: Variation, targets: Variation, *, file: str) -> None:
    """Say which variables have nothing to teach, or nothing to learn."""
    for role, names in (
        ("predictors", predictors.constant()),
        ("targets", targets.constant()),
    ):
        if names:
            logger.warning(
                "%s: %s that never change in the training period: %s; look at the "
                "file, or leave them out",
                file or "the data",
                role,
                ", ".join(names),
            )

    if dry := targets.dry():
        logger.warning(
            "%s: no day of the training period is wet anywhere (%g mm day-1): %s; a "
            "model of it never makes rain",
            file or "the data",
            _WET_DAY,
            ", ".join(dry),
        )
