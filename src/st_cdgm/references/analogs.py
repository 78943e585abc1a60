"""Analogs: training days on which the large-scale weather looked most alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.base import Reference
from st_cdgm.references.components import PrincipalComponents
from st_cdgm.references.days import (
    check_members,
    season_distance,
    season_pool,
    training_days,
)
from st_cdgm.registry import register


@register("reference", "analogs")
@dataclass(kw_only=True, eq=False)
class AnalogReference(Reference):
    """The M training days nearest in the space of predictor principal components.

    Attributes
    ----------
    components : int
        Largest number of components (20).
    variance : float
        Fewer are used where they explain this share of the variance (0.95).
    window : float
        Half width of the season in days (45) in which analogs are looked for.

    References
    ----------
    Lorenz (1969), doi:10.1175/1520-0469(1969)26<636:APARBN>2.0.CO;2; Zorita and von
    Storch (1999), doi:10.1175/1520-0442(1999)012<2474:TAMAAS>2.0.CO;2.
    """

    components: int = 20
    variance: float = 0.95
    window: float = 45.0

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Keep the training fields and the components of their predictors."""
        days, self._truth = training_days(train, preprocessor)
        self._season = days.season
        self._space = PrincipalComponents.fit(
            days.lr,
            area=preprocessor.lr_grid.area_weights(),
            limit=self.components,
            variance=self.variance,
        )
        self._scores = self._space.transform(days.lr)  # (T, K)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the M nearest training days, the nearest first.

        Nothing is drawn: the seed changes nothing.
        """
        del seed
        check_members(members, len(self._truth))
        shape = (len(days), members, *self._truth.shape[1:])
        out = np.empty(shape, dtype=np.float32)
        season = season_distance(days.season, self._season)
        for t, score in enumerate(self._space.transform(days.lr)):
            pool = season_pool(season[t], self.window, members)
            distance = ((self._scores[pool] - score) ** 2).sum(axis=1)
            out[t] = self._truth[pool[np.argsort(distance, kind="stable")[:members]]]
        return out
