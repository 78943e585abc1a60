"""Ridge regression of every fine cell, with resampled residual days."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.local.cells import CellRegressions
from st_cdgm.data.fit.local.features import LocalFeatures
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.base import Reference
from st_cdgm.references.days import training_days
from st_cdgm.references.encoded import EncodedCells
from st_cdgm.references.local.residuals import SIMILAR, ResidualDays
from st_cdgm.references.tuning import MEMBERS, choose
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray

_LOGGER = logging.getLogger(__name__)


@register("reference", "ridge")
@dataclass(kw_only=True, eq=False)
class LocalRidgeReference(Reference):
    """A linear regression per fine cell in encoded space plus whole residual fields.

    A cell sees the coarse channels of the day and of the day before, interpolated to it
    and multiplied by cosine and sine of the year, gradient and curvature of pressure
    and geopotential, and the leading principal components of both days; see
    :class:`~st_cdgm.data.fit.local.features.LocalFeatures`. The penalties are chosen
    by leaving out one year at a time. A member is the regression plus the residual
    field of a training day of the same season, and that residual comes from a
    regression that had not seen the day's year. Decoding keeps the guarantees of the
    codec (no negative rain, ordered temperatures).

    Attributes
    ----------
    components : int
        Number of principal components (60) of each of the two days.
    window : float
        Half width of the season in days (45) from which residuals are drawn.
    similar : int
        Number of its days that are drawn from, those predicted most alike; see
        :class:`~st_cdgm.references.local.residuals.ResidualDays`. Chosen on validation
        days where there are any (150).
    penalty : dict
        After :meth:`fit`: the penalties chosen, as shares of the number of days; see
        :func:`~st_cdgm.data.fit.local.equations.penalties`.

    References
    ----------
    Hoerl and Kennard (1970), doi:10.1080/00401706.1970.10488634, the regression;
    Hertig and Jacobeit (2013), doi:10.1007/s00382-012-1500-3, its use in downscaling.
    """

    components: int = 60
    window: float = 45.0
    similar: int = 150

    history = 2

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Choose the penalties, fit, and keep the cross-validated residuals."""
        days, truth = training_days(train, preprocessor)
        self._encoded = EncodedCells(preprocessor)
        encoded = self._encoded.encode(days, truth)
        features = LocalFeatures.fit(days, preprocessor, components=self.components)
        self._regressions = CellRegressions(
            features=features, cells=self._encoded.cells
        ).fit(days, encoded, year_folds(days.day))

        self._days = ResidualDays.of(days, encoded - self._regressions.residual)
        self.penalty = self._regressions.penalty
        self.candidates = self._regressions.candidates
        if validation is not None:
            self.similar = choose(SIMILAR, self._trial, validation, preprocessor)
            self.candidates += len(SIMILAR)

        _LOGGER.info("ridge: penalties %s, %d similar days", self.penalty, self.similar)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the regression plus the residuals of M training days for each day.

        Members 1-4 of 20 equal members 1-4 of 4.
        """
        mean = self._regressions.predict(days)
        return self._members(days, mean, self.similar, members=members, seed=seed)

    def _members(
        self,
        days: FieldArrays,
        mean: FloatArray,
        similar: int,
        *,
        members: int,
        seed: int,
    ) -> NDArray[np.float32]:
        """Return members around the regression ``mean``, shape ``(T, C, P)``."""
        residual = self._regressions.residual
        drawn = self._days.draw(
            days,
            mean,
            window=self.window,
            similar=similar,
            members=members,
            seed=seed,
        )
        return self._encoded.decode(
            len(days), members, lambda part: mean[part, None] + residual[drawn[part]]
        )

    def _trial(self, days: FieldArrays) -> Callable[[int], NDArray[np.float32]]:
        """Return what another number of similar days makes of some days."""
        mean = self._regressions.predict(days)
        members = min(MEMBERS, len(self._days.season))
        return partial(self._members, days, mean, members=members, seed=0)
