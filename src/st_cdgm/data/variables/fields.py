"""Named arrays between xarray and tensors: channels, and a period in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.variables.quantities import Quantity, quantity_of


class Named:
    """What predictors and targets share: a name, and what it stands for."""

    name: str
    standard_name: str | None

    @cached_property
    def quantity(self) -> Quantity | None:
        """The physical quantity, by standard name or name; None if not known."""
        return quantity_of(self.name, {"standard_name": self.standard_name or ""})


@dataclass(frozen=True, kw_only=True)
class Channel(Named):
    """One predictor channel.

    Attributes
    ----------
    name : str
        Unique name, ``q_850`` for a variable on a level, ``psl`` without.
    variable : str
        Variable name without level, ``q``.
    level : float or None
        Pressure in hPa; None for a field without level.
    units : str
        Canonical units of the values.
    standard_name : str or None
        CF standard name, where the file gives one.
    derived : bool
        True for a quantity computed here from others.
    """

    name: str
    variable: str
    level: float | None
    units: str
    standard_name: str | None = None
    derived: bool = False

    @property
    def group(self) -> str:
        """Node type of the channel: ``GP850`` for 850 hPa, ``SURF`` without level."""
        return "SURF" if self.level is None else f"GP{self.level:g}"


@dataclass(frozen=True, kw_only=True)
class TargetVariable(Named):
    """One fine-grid target variable, with the attributes its output will carry."""

    name: str
    units: str
    standard_name: str | None = None
    long_name: str | None = None
    cell_methods: str | None = None

    def attrs(self) -> dict[str, Any]:
        """Return the CF attributes that are known."""
        pairs = {
            "units": self.units,
            "standard_name": self.standard_name,
            "long_name": self.long_name,
            "cell_methods": self.cell_methods,
        }
        return {key: value for key, value in pairs.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class FieldArrays:
    """Days in memory, in time order, as the model and the references see them.

    Attributes
    ----------
    day : ndarray
        YYYYMMDD as int64, or YYYYMMDDhhmmss where steps are shorter than a day;
        strictly increasing. Shape ``(T,)``.
    ordinal : ndarray
        Days, or steps, since a fixed origin in the data's own calendar, so that
        consecutive ones differ by exactly 1 and a gap by more. Shape ``(T,)``, int64.
    season : ndarray
        Fraction of the year elapsed, in [0, 1). Shape ``(T,)``, float32.
    lr : ndarray
        Standardised predictors without NaN. Shape ``(T, C_lr, y, x)``, float32.
    baseline : ndarray
        First guess in target units, no NaN. Shape ``(T, C, Y, X)``, float32.
    hr : ndarray or None
        Truth in target units, NaN where there is none. Shape ``(T, C, Y, X)``, float32.
    calendar : str
        CF calendar of the days.
    """

    day: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    season: NDArray[np.float32]
    lr: NDArray[np.float32]
    baseline: NDArray[np.float32]
    hr: NDArray[np.float32] | None
    calendar: str

    def __len__(self) -> int:
        return len(self.day)

    def select(self, index: NDArray[Any] | slice) -> FieldArrays:
        """Return the days at ``index``."""
        return FieldArrays(
            day=self.day[index],
            ordinal=self.ordinal[index],
            season=self.season[index],
            lr=self.lr[index],
            baseline=self.baseline[index],
            hr=None if self.hr is None else self.hr[index],
            calendar=self.calendar,
        )
