"""Ridge regression on principal components, with resampled residual days."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.components import PrincipalComponents
from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.fit.ridge import (
    PENALTIES,
    choose_penalty,
    held_out_residuals,
    solve_penalised,
)
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.base import Reference
from st_cdgm.references.days import draw_in_season, training_days
from st_cdgm.references.encoded import EncodedCells
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, Floats

_LOGGER = logging.getLogger(__name__)


@register("reference", "ridge_pc")
@dataclass(kw_only=True, eq=False)
class ComponentRidgeReference(Reference):
    """A linear regression in encoded target space plus whole residual fields.

    Predictors are the leading principal components (scaled to unit variance) and
    harmonics of the year. The penalty is chosen by leaving out one year at a time. A
    member is the regression plus the residual field of a training day of the same
    season, and that residual comes from a regression that had not seen the day's year.
    Decoding keeps the guarantees of the codec (no negative rain, ordered temperatures).

    Attributes
    ----------
    components : int
        Number of principal components (40).
    harmonics : int
        Number of annual harmonics (2), each a sine and a cosine.
    window : float
        Half width of the season in days (45) from which residuals are drawn.
    penalty : float
        After :meth:`fit`: the penalty chosen, as a share of the number of days.
    """

    components: int = 40
    harmonics: int = 2
    window: float = 45.0

    candidates = len(PENALTIES)

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Choose the penalty, fit, and keep the cross-validated residuals."""
        days, truth = training_days(train, preprocessor)
        self._season = days.season
        self._space = PrincipalComponents.fit(
            days.lr, area=preprocessor.lr_grid.area_weights(), limit=self.components
        )
        self._width = self._space.transform(days.lr).std(axis=0)

        X = self._features(days)  # (T, K), the intercept first
        self._encoded = EncodedCells(preprocessor)
        Y = self._encoded.encode(days, truth).reshape(len(days), -1)  # (T, C * P)

        folds = year_folds(days.day)
        self.penalty = choose_penalty(X, Y, folds)
        _LOGGER.info("ridge_pc: penalty %g of the number of days", self.penalty)
        self._coefficients = solve_penalised(X.T @ X, X.T @ Y, self.penalty, len(X))
        self._residual = held_out_residuals(X, Y, folds, self.penalty)
        return self

    def _features(self, days: FieldArrays) -> Floats:
        waves = annual_harmonics(days.season, self.harmonics)
        scores = self._space.transform(days.lr) / self._width
        return np.column_stack([waves, scores])

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the regression plus the residuals of M training days for each day.

        Members 1-4 of 20 equal members 1-4 of 4.
        """
        drawn = draw_in_season(
            days, self._season, window=self.window, members=members, seed=seed
        )
        mean = (self._features(days) @ self._coefficients).astype(np.float32)

        def members_of(part: slice) -> FloatArray:
            both = mean[part, None] + self._residual[drawn[part]]
            return both.reshape(*both.shape[:2], -1, self._encoded.cells.size)

        return self._encoded.decode(len(days), members, members_of)
