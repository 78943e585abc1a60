"""What is changed, and where: ``GP850.q += 1 sd`` over a box or a pattern.

``NODE.CHANNEL (=|+=) NUMBER (sd|UNIT)``. An ``sd`` is a standard deviation of the
channel's anomalies over training days and cells. ``=`` sets a channel, whatever would
have acted on it; all other channels of the level answer as the level does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.space.grid import SAME_DEG, Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import ConfigError, GridMismatchError, InputError, MissingFileError
from st_cdgm.typing import Floats

FORM = re.compile(
    r"\s*(?P<node>[^.\s]+)\.(?P<channel>[^\s=+]+)\s*(?P<sign>\+?=)\s*"
    r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)\s*(?P<unit>\S.*?)\s*"
)
GRAMMAR = "NODE.CHANNEL (=|+=) NUMBER (sd|UNIT), such as GP850.q += 1 sd"
SD = "sd"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A change of one channel.

    Attributes
    ----------
    text : str
        As it was written.
    node : str
        Level that the channel belongs to.
    channel : int
        Its number among all channels.
    replaces : bool
        ``=``, else ``+=``.
    value : float
        In standard deviations, or in the canonical units of the channel.
    physical : bool
        Whether the value is in units.
    """

    text: str
    node: str
    channel: int
    replaces: bool
    value: float
    physical: bool

    @classmethod
    def parse(cls, text: str, channels: Sequence[Channel]) -> Self:
        """Read an edit of one of these channels.

        Raises
        ------
        ConfigError
            The text has another form; there is no such node or channel, with those
            that there are; units that are not the channel's.
        """
        match = FORM.fullmatch(text)
        if match is None:
            raise ConfigError(
                "an edit cannot be read", variable="do", found=text, expected=GRAMMAR
            )
        number = _channel(match["node"], match["channel"], channels)
        channel, replaces = channels[number], match["sign"] == "="
        value, unit = float(match["number"]), match["unit"]

        # Units of the file, or any that convert to them; a shift has no offset.
        if physical := unit != SD:
            found = units_factor(unit, channel.units)
            if found is None:
                raise ConfigError(
                    "the units of an edit do not fit the channel",
                    variable=f"{channel.group}.{channel.variable}",
                    found=unit,
                    expected=f"{SD}, or what converts to {channel.units}",
                )
            value = value * found[0] + (found[1] if replaces else 0.0)
        return cls(
            text=" ".join(text.split()),
            node=channel.group,
            channel=number,
            replaces=replaces,
            value=value,
            physical=physical,
        )

    def applied(
        self, field: NDArray[np.floating], pattern: Floats
    ) -> NDArray[np.floating]:
        """Return a field ``(y, x)`` as it is to be.

        The value times the pattern is added, or set wherever the pattern is not NaN.
        """
        change = self.value * pattern
        if self.replaces:
            return np.where(np.isnan(change), field, change)
        return field + np.nan_to_num(change)

    def touched(self, pattern: Floats) -> NDArray[np.bool_]:
        """Return the cells that it acts on. Shape ``(y, x)``."""
        there = ~np.isnan(pattern)
        return there if self.replaces else there & (self.value * pattern != 0)


def _channel(node: str, name: str, channels: Sequence[Channel]) -> int:
    """Return the number of ``GP850.q``, also written ``GP850.q_850``."""
    for number, channel in enumerate(channels):
        if channel.group == node and name in (channel.variable, channel.name):
            if channel.derived:
                break
            return number

    known = [f"{c.group}.{c.variable}" for c in channels if not c.derived]
    derived = [f"{c.group}.{c.variable}" for c in channels if c.derived]
    remedy = f"edit what {', '.join(derived)} are computed from" if derived else None
    raise ConfigError(
        "there is no such channel that could be edited",
        variable="do",
        found=f"{node}.{name}",
        expected=", ".join(known),
        remedy=remedy,
    )


def box_pattern(text: str, grid: Grid) -> Floats:
    """Return 1 within ``LAT0,LAT1,LON0,LON1`` (degrees), NaN elsewhere. ``(y, x)``.

    Raises
    ------
    ConfigError
        No four numbers, or no cell within.
    """
    try:
        south, north, west, east = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            "a box cannot be read",
            variable="box",
            found=text,
            expected="LAT0,LAT1,LON0,LON1, such as 40,50,-5,5",
        ) from error

    # Longitudes count eastwards from the first.
    eastwards = np.mod(grid.lon2d - west, 360.0)
    inside = (grid.lat2d >= south) & (grid.lat2d <= north)
    inside &= (eastwards <= np.mod(east - west, 360.0)) | (east - west >= 360.0)
    if not inside.any():
        raise ConfigError(
            "the centre of no coarse cell lies in the box",
            variable="box",
            found=text,
            expected=str(grid),
        )
    return np.where(inside, 1.0, np.nan)


def file_pattern(file: Path, grid: Grid) -> Floats:
    """Return the one two-dimensional field of a file on the coarse grid. ``(y, x)``.

    Raises
    ------
    MissingFileError
        There is no such file.
    InputError
        It has not just one such field, or no value.
    GridMismatchError
        Its axes are others than the grid's.
    """
    if not file.is_file():
        raise MissingFileError("there is no such pattern", file=file)
    with xr.open_dataset(file, decode_times=False) as opened:
        ds = opened.load()
    fields = [name for name in ds.data_vars if ds[name].squeeze().ndim == 2]
    if len(fields) != 1:
        raise InputError(
            "the file does not hold one pattern",
            file=file,
            found=", ".join(map(str, fields)) or "no field of two dimensions",
            expected=f"one field on the grid {grid}",
        )

    # The same rows and columns, in the same order.
    found = ds[fields[0]].squeeze()
    same = found.shape == grid.shape and all(
        np.allclose(found[dim].values, axis, atol=SAME_DEG)
        for dim, axis in zip(found.dims, _axes(grid), strict=False)
        if dim in found.coords
    )
    if not same or not np.isfinite(found.values).any():
        raise GridMismatchError(
            "the pattern does not lie on the model's coarse grid",
            file=file,
            variable=str(fields[0]),
            found=", ".join(f"{d} {n}" for d, n in found.sizes.items()),
            expected=str(grid),
        )
    return np.asarray(found.values, np.float64)


def _axes(grid: Grid) -> list[Floats]:
    """Return the coordinates of rows and columns."""
    if grid.regular:
        return [grid.lat, grid.lon]
    return [axis for axis in (grid.y, grid.x) if axis is not None]
