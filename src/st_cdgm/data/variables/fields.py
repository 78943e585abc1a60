"""Predictors and targets by name: what they are and in which units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from st_cdgm.data.variables.table import Named


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
        keys = ("units", "standard_name", "long_name", "cell_methods")
        pairs = {key: getattr(self, key) for key in keys}
        return {key: value for key, value in pairs.items() if value is not None}
