"""Sums over blocks of cells and over windows of consecutive days.

Windows do not overlap: they follow each other from the first day of every run of
consecutive days, and an incomplete one at its end is left out. Each day is then counted
once and nothing but one partial sum is carried from block to block of days. Blocks of
cells start at the first row and column; those at the other borders hold what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from st_cdgm.typing import Floats, Indices

# Cells a side; 0 is the whole domain.
BLOCKS = (1, 4, 16, 0)
# Days.
WINDOWS = (1, 7, 30)


class Scale(NamedTuple):
    """What is averaged before an ensemble is compared with the truth."""

    block: int  # cells a side, 0 for the domain
    days: int

    @property
    def suffix(self) -> str:
        """How names of metrics end: nothing for single cells and days."""
        if self == (1, 1):
            return ""
        return f"_{self.where.replace(' ', '')}_{self.days}d"

    @property
    def where(self) -> str:
        """The block in words."""
        if self.block == 0:
            return "domain"
        return f"{self.block} x {self.block}" if self.block > 1 else "cell"

    @property
    def words(self) -> str:
        """The scale in words."""
        place = {0: "the domain", 1: "a cell"}.get(self.block, f"{self.where} cells")
        return f"{place}, {self.days} day{'s' if self.days > 1 else ''}"


SCALES = tuple(Scale(block, days) for block in BLOCKS for days in WINDOWS)


class Sums(NamedTuple):
    """Weighted sums of an ensemble and of the truth, and their weights."""

    members: Floats  # (n, M, y, x)
    truth: Floats  # (n, y, x)
    weight: Floats  # (n, y, x)

    def over_cells(self, side: int) -> Sums:
        """Return the sums over blocks of ``side`` cells, or over all for 0."""
        if side == 1:
            return self
        return Sums(*(_block_sum(part, side) for part in self))

    def over_days(self, days: slice) -> Sums:
        """Return the sum over some days, with n = 1."""
        return Sums(*(part[days].sum(axis=0, keepdims=True) for part in self))

    def plus(self, other: Sums) -> Sums:
        """Return the sum of both."""
        return Sums(*(one + two for one, two in zip(self, other, strict=True)))

    def means(self) -> Sums:
        """Return the means, 0 where nothing is counted, with the same weights."""
        divisor = np.where(self.weight > 0, self.weight, 1.0)
        return Sums(self.members / divisor[:, None], self.truth / divisor, self.weight)


def _block_sum(values: Floats, side: int) -> Floats:
    """Return sums over blocks of the last two axes, which begin in the first cell."""
    if side == 0:
        return np.asarray(values.sum(axis=(-2, -1), keepdims=True))
    *outer, rows, columns = values.shape
    if rows % side or columns % side:
        edge = [(0, 0)] * len(outer) + [(0, -rows % side), (0, -columns % side)]
        values = np.pad(values, edge)

    wide = values.reshape(*outer, -1, side, values.shape[-1]).sum(axis=-2)
    return np.asarray(wide.reshape(*wide.shape[:-1], -1, side).sum(axis=-1))


class ConsecutiveSums:
    """Sums over windows of consecutive days, from blocks of days in time order."""

    def __init__(self, days: int) -> None:
        self.days = days
        self._held: Sums | None = None  # of the window that is being filled
        self._count = 0
        self._last: int | None = None

    def complete(self, ordinal: Indices, sums: Sums) -> list[Sums]:
        """Take in days, return the windows they complete, each with n = 1.

        Parameters
        ----------
        ordinal : ndarray
            Days counted from any origin. Shape ``(t,)``.
        sums : Sums
            Of each day, n = t.
        """
        found = []
        for days, begins in self._parts(ordinal):
            part = sums.over_days(days)
            if begins or self._held is None:
                self._held, self._count = part, 0
            else:
                self._held = self._held.plus(part)

            self._count += days.stop - days.start
            if self._count == self.days:
                found.append(self._held)
                self._held, self._count = None, 0
        return found

    def _parts(self, ordinal: Indices) -> Iterator[tuple[slice, bool]]:
        """Yield the days that go into one window, and whether they begin a run."""
        last = int(ordinal[0]) - 2 if self._last is None else self._last
        begins = np.diff(ordinal, prepend=last) != 1
        self._last = int(ordinal[-1])

        at = 0
        while at < ordinal.size:
            missing = self.days - (0 if begins[at] else self._count)
            stop = min(at + missing, ordinal.size)
            gaps = np.flatnonzero(begins[at + 1 : stop])
            stop = at + 1 + int(gaps[0]) if gaps.size else stop
            yield slice(at, stop), bool(begins[at])
            at = stop
