"""Whole residual days, drawn from the season among days that were predicted alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.days import (
    check_members,
    draw_days,
    season_distance,
    season_pool,
)
from st_cdgm.typing import FloatArray, Floats

# Numbers of similar days that are compared on validation days; the last is all.
SIMILAR = (60, 150, 400, 10**6)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidualDays:
    """Training days as what is left over of a prediction is drawn from them.

    Errors depend on the weather: on a day without any rain in sight there is little to
    err about. So the days of the season count whose predicted targets, averaged over
    the domain, come nearest to those of the day.

    Attributes
    ----------
    season : ndarray
        Of the training days. Shape ``(T,)``.
    state : ndarray
        Domain means of what was predicted for them without their own fold, in units
        of their deviation over the days. Shape ``(T, C)``.
    scale : ndarray
        These deviations. Shape ``(C,)``.
    """

    season: NDArray[np.floating]
    state: Floats
    scale: Floats

    @classmethod
    def of(cls, days: FieldArrays, predicted: FloatArray) -> Self:
        """Keep the days of a held-out prediction ``(T, C, P)``."""
        state = predicted.mean(axis=-1, dtype=np.float64)
        deviation = state.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1.0)
        return cls(season=days.season, state=state / scale, scale=scale)

    def draw(
        self,
        days: FieldArrays,
        predicted: FloatArray,
        *,
        window: float,
        similar: int,
        members: int,
        seed: int,
    ) -> NDArray[np.int64]:
        """Draw M training days for each day without replacement. Shape ``(T, M)``.

        Parameters
        ----------
        days : FieldArrays
            The days to draw for.
        predicted : ndarray
            Their prediction. Shape ``(T, C, P)``.
        window : float
            Half width of the season in days.
        similar : int
            So many of its days, those predicted most alike, are drawn from; M of them
            at least.
        members, seed : int
            The same first days are drawn for any M up to ``similar``.

        Raises
        ------
        InputError
            More members than training days, or none.
        """
        check_members(members, len(self.season))
        state = predicted.mean(axis=-1, dtype=np.float64) / self.scale
        apart = season_distance(days.season, self.season)
        drawn = np.empty((len(days), members), dtype=np.int64)
        for t, day in enumerate(days.day):
            pool = season_pool(apart[t], window, members)
            distance = np.square(self.state[pool] - state[t]).sum(axis=1)
            nearest = np.argsort(distance, kind="stable")[: max(similar, members)]
            drawn[t] = draw_days(
                pool[nearest], members=members, seed=seed, day=int(day)
            )
        return drawn
