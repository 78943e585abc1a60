"""Gridded records and plain series in which lagged links are sought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.discovery.anomalies import inner_cells
from st_cdgm.errors import InputError
from st_cdgm.typing import Floats, Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Fields of several variables on one grid, step by step.

    Attributes
    ----------
    fields : mapping of str to ndarray
        One entry per variable, any units. Shape ``(T, C, y, x)``; C may differ. A cell
        that is missing at times is left out, a step that is missing everywhere is a
        gap. Grids under 3 x 3 are taken cell by cell.
    year, season : ndarray
        Year, and elapsed fraction of it in [0, 1), of each step. Shape ``(T,)``.
    ordinal : ndarray, optional
        Number of each step, so that a gap shows; consecutive steps when absent.
        Shape ``(T,)``, int64.
    channels : mapping of str to sequence of str, optional
        Names of a variable's channels, of those that have more than one.
    known : ndarray, optional
        Drivers from outside, observed confounders such as an index of ENSO: every
        prediction may use them. Finite. Shape ``(T, P)``.
    """

    fields: Mapping[str, NDArray[np.floating]]
    year: Indices
    season: Floats
    ordinal: Indices | None = None
    channels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    known: Floats | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The variables."""
        return tuple(self.fields)

    @property
    def number(self) -> Indices:
        """Number of each step. Shape ``(T,)``, int64."""
        if self.ordinal is None:
            return np.arange(len(self.year))
        return np.asarray(self.ordinal, np.int64)

    def check(self) -> None:
        """Raise InputError unless the fields fit together and have values."""
        shapes = {name: np.shape(values) for name, values in self.fields.items()}
        grids = {(s[0], *s[2:]) for s in shapes.values() if len(s) == 4}
        flat = any(len(s) != 4 for s in shapes.values())
        if len(shapes) < 2 or len(grids) != 1 or flat:
            raise InputError(
                "links are sought between two or more variables on one grid",
                found=", ".join(f"{n} {s}" for n, s in shapes.items()),
                expected="(T, C, y, x), equal but for C",
            )

        # The calendar, and what comes from outside.
        steps = next(iter(grids))[0]
        known = steps if self.known is None else len(self.known)
        lengths = len(self.year), len(self.season), len(self.number), known
        if set(lengths) != {steps}:
            raise InputError(
                "the calendar or the known drivers do not fit the fields",
                found="{} years, {} seasons, {} numbers, {} drivers".format(*lengths),
                expected=f"{steps} each",
            )
        if np.any(np.diff(self.number) <= 0):
            raise InputError(
                "the steps of a record are not in order",
                found="a step that is not later than the one before",
                expected="increasing numbers",
            )
        self._check_values()

    def _check_values(self) -> None:
        if self.known is not None and not np.isfinite(self.known).all():
            raise InputError(
                "a driver from outside has missing values",
                found=f"{int((~np.isfinite(self.known)).sum())} values",
                expected="none",
                remedy="fill them, or cut the record to the steps that it covers",
            )

        if not len(self.cells(1)):
            raise InputError(
                "no cell has values of all variables",
                found=", ".join(
                    f"{name} {np.isfinite(values).mean():.0%} present"
                    for name, values in self.fields.items()
                ),
                expected="a cell (with its neighbours) present at the same steps",
                remedy="fill gaps, or leave the variable out",
            )

    def cells(self, most: int) -> Indices:
        """Return flat indices of at most so many cells that have all neighbours.

        Evenly spread over those whose neighbourhood is there whenever anything is.
        """
        rows, columns = next(iter(self.fields.values())).shape[2:]
        grid = min(rows, columns) >= 3
        inner = inner_cells((rows, columns)) if grid else np.arange(rows * columns)
        whole = np.ones((rows, columns), bool)
        for values in self.fields.values():
            there = np.isfinite(values)
            steps = there.any(axis=(1, 2, 3))
            whole &= there[steps].all(axis=(0, 1)) & steps.any()

        if grid:
            wide = np.pad(whole, 1)
            parts = [
                wide[i : i + rows, j : j + columns] for i in range(3) for j in range(3)
            ]
            whole = np.logical_and.reduce(parts)
        inner = inner[whole.ravel()[inner]]
        if len(inner) <= most:
            return inner
        some = np.linspace(0, len(inner) - 1, most).round().astype(int)
        return np.asarray(inner[some])

    def present(self) -> NDArray[np.bool_]:
        """Mark the steps at which all variables are there. Shape ``(T,)``."""
        cells, out = self.cells(10**9), np.ones(len(self.year), bool)
        for values in self.fields.values():
            flat = values.reshape(*values.shape[:2], -1)[:, :, cells]
            out &= np.isfinite(flat).all(axis=(1, 2))
        return out

    def select(self, steps: NDArray[Any]) -> Record:
        """Return some steps; their numbers stay, so that a gap shows."""
        return replace(
            self,
            fields={name: values[steps] for name, values in self.fields.items()},
            year=self.year[steps],
            season=self.season[steps],
            ordinal=self.number[steps],
            known=None if self.known is None else self.known[steps],
        )

    def channel_names(self) -> list[tuple[str, str]]:
        """Return variable and name of every channel, in order."""
        out: list[tuple[str, str]] = []
        for name, values in self.fields.items():
            count = values.shape[1]
            plain = [name] if count == 1 else [f"{name}.{c}" for c in range(count)]
            out += [(name, channel) for channel in self.channels.get(name, plain)]
        return out


def window_ends(ordinal: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Mark the days that end ``length`` consecutive days. Shape ``(T,)``."""
    ends = np.zeros(len(ordinal), dtype=bool)
    span = ordinal[length - 1 :] - ordinal[: len(ends) - length + 1]
    ends[length - 1 :] = span == length - 1
    return ends
