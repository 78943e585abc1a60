"""Analogs: training days on which the large-scale weather looked most alike."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.components import PrincipalComponents
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.base import Reference
from st_cdgm.references.days import (
    check_members,
    season_distance,
    season_pool,
    training_days,
)
from st_cdgm.references.tuning import MEMBERS, choose
from st_cdgm.registry import register
from st_cdgm.typing import Floats

_LOGGER = logging.getLogger(__name__)


# Numbers of components and weights of the day before that are compared on validation.
CANDIDATES = tuple(product((10, 20, 40), (0.0, 0.25, 0.5, 1.0)))


@register("reference", "analogs")
@dataclass(kw_only=True, eq=False)
class AnalogReference(Reference):
    """The M training days nearest in the space of predictor principal components.

    The squared distance of two days is that of their components, plus ``yesterday``
    times that of the components of the days before them.

    Attributes
    ----------
    components : int
        Largest number of components; chosen on validation days where there are any
        (20).
    yesterday : float
        Weight of the day before, chosen likewise (0.5).
    variance : float
        Fewer components are used where they explain this share of the variance (0.99).
    window : float
        Half width of the season in days (45) in which analogs are looked for.

    References
    ----------
    Lorenz (1969), doi:10.1175/1520-0469(1969)26<636:APARBN>2.0.CO;2; Zorita and von
    Storch (1999), doi:10.1175/1520-0442(1999)012<2474:TAMAAS>2.0.CO;2.
    """

    components: int = 20
    yesterday: float = 0.5
    variance: float = 0.99
    window: float = 45.0

    history = 2

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Keep the training fields and the components of their predictors."""
        days, self._truth = training_days(train, preprocessor)
        self._season = days.season
        most = max(self.components, *(number for number, _ in CANDIDATES))
        self._space = PrincipalComponents.fit(
            days.lr,
            area=preprocessor.lr_grid.area_weights(),
            limit=most,
            variance=self.variance,
        )
        self._scores = self._both(days)

        if validation is not None:
            self.components, self.yesterday = choose(
                CANDIDATES, self._trial, validation, preprocessor
            )
            self.candidates = len(CANDIDATES)
            _LOGGER.info(
                "analogs: %d components, weight %g of the day before",
                self.components,
                self.yesterday,
            )
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the M nearest training days, the nearest first.

        Nothing is drawn: the seed changes nothing.
        """
        del seed
        candidate = (self.components, self.yesterday)
        return self._nearest(days, self._both(days), candidate, members=members)

    def _nearest(
        self,
        days: FieldArrays,
        scores: Floats,
        candidate: tuple[int, float],
        *,
        members: int,
    ) -> NDArray[np.float32]:
        """Return the nearest days; the components of the days are ``(T, 2, K)``."""
        check_members(members, len(self._truth))
        components, yesterday = candidate
        shape = (len(days), members, *self._truth.shape[1:])
        out = np.empty(shape, dtype=np.float32)

        season = season_distance(days.season, self._season)
        weight = np.array([1.0, yesterday])
        for t, score in enumerate(scores):
            pool = season_pool(season[t], self.window, members)
            away = (self._scores[pool] - score)[:, :, :components]
            distance = np.square(away).sum(axis=2) @ weight
            out[t] = self._truth[pool[np.argsort(distance, kind="stable")[:members]]]
        return out

    def _both(self, days: FieldArrays) -> Floats:
        """Return the components of each day and of the day before. ``(T, 2, K)``."""
        both = (days.lr, days.lagged(1))
        return np.stack([self._space.transform(lr) for lr in both], axis=1)

    def _trial(
        self, days: FieldArrays
    ) -> Callable[[tuple[int, float]], NDArray[np.float32]]:
        """Return what another candidate makes of some days."""
        members = min(MEMBERS, len(self._truth))
        return partial(self._nearest, days, self._both(days), members=members)
