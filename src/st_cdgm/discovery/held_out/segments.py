"""Which part of a record judges, and which days may stand in for which.

A record is cut into segments: its years, or equal parts of a short record. Every
segment is held out once; a shadow of a day comes from another segment of the same side,
at the same season.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import InputError
from st_cdgm.typing import Floats, Indices

FEWEST_YEARS = 4
SHORT_SEGMENTS = 10
FEWEST_STEPS = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """Segments of a record.

    Attributes
    ----------
    number : ndarray
        Segment of each step, counted from 0. Shape ``(T,)``, int64.
    place : ndarray
        Fraction of the year, or of the segment where the record is short.
        Shape ``(T,)``.
    yearly : bool
        Segments are years.
    """

    number: Indices
    place: Floats
    yearly: bool

    @classmethod
    def of(cls, year: Indices, season: NDArray[np.floating]) -> Self:
        """Cut into years; a record under four years into ten equal parts.

        Raises
        ------
        InputError
            Fewer than 100 steps.
        """
        steps = len(year)
        if steps < FEWEST_STEPS:
            raise InputError(
                "too few steps to learn from some and judge by others",
                found=f"{steps} steps",
                expected=f">= {FEWEST_STEPS}",
            )

        years, number = np.unique(year, return_inverse=True)
        if len(years) >= FEWEST_YEARS:
            place = np.asarray(season, np.float64)
            return cls(number=number.astype(np.int64), place=place, yearly=True)

        at = np.arange(steps) * SHORT_SEGMENTS
        return cls(number=at // steps, place=at % steps / steps, yearly=False)

    def folds(self, most: int) -> list[NDArray[np.bool_]]:
        """Mark the training days of each fit: all but every so-many-th segment."""
        count = max(2, min(most, int(self.number.max()) + 1))
        return [self.number % count != fold for fold in range(count)]

    def shadows(self, train: NDArray[np.bool_]) -> Indices:
        """Return for every day the day that stands in for it. Shape ``(T,)``.

        The same place in another segment: of training days in training; a held-out day
        may take any, since only what is fed to the fit changes.
        """
        every = shadow_days(self.number, self.place, np.ones_like(train))
        return np.where(train, shadow_days(self.number, self.place, train), every)


def shadow_days(
    segment: Indices, place: NDArray[np.floating], allowed: NDArray[np.bool_]
) -> Indices:
    """Return for every day the same place in another allowed segment.

    Parameters
    ----------
    segment, place, allowed : ndarray
        Segment of each day, where in it (or in the year) the day is, and whether it may
        be asked for and given. Shape ``(T,)``.

    Returns
    -------
    ndarray
        Index of the day in the next allowed segment (the last one takes the first)
        whose place is nearest; -1 on days not allowed. Shape ``(T,)``, int64.

    Raises
    ------
    InputError
        The allowed days lie in a single segment.
    """
    there = np.unique(segment[allowed])
    if len(there) < 2:
        raise InputError(
            "shadows need days of two or more years",
            found=f"{len(there)} year(s)",
            expected=">= 2 in the training and in the held-out period each",
        )

    out = np.full(len(segment), -1, dtype=np.int64)
    for mine, others in zip(there, np.roll(there, -1), strict=True):
        at = np.flatnonzero(allowed & (segment == mine))
        other = np.flatnonzero(allowed & (segment == others))
        distance = np.abs(place[other] - place[at][:, None])
        out[at] = other[distance.argmin(axis=1)]
    return out
