"""Generalised linear models: the standard of statistical downscaling."""

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
from st_cdgm.data.variables.table import precipitation_channels
from st_cdgm.references.base import Reference
from st_cdgm.references.days import training_days
from st_cdgm.references.encoded import EncodedCells
from st_cdgm.references.local.rain import CANDIDATES, RainRegressions
from st_cdgm.references.local.residuals import SIMILAR, ResidualDays
from st_cdgm.references.tuning import MEMBERS, choose
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray

_LOGGER = logging.getLogger(__name__)
WET = 0.1  # mm day-1, where the codec names no threshold
# All targets in encoded space; of precipitation, chance and mean excess.
_Predicted = tuple[FloatArray, dict[int, tuple[FloatArray, FloatArray]]]


@register("reference", "glm")
@dataclass(kw_only=True, eq=False)
class GlmReference(Reference):
    """Bernoulli-Gamma regression of precipitation, Gaussian of all else, per cell.

    Whether a day is wet is a logistic regression, the amount above the threshold of a
    wet day a Gamma regression with logarithmic link; every other target is a Gaussian
    regression in encoded space. All see the coarse channels of the day and of the day
    before, interpolated to the cell, gradient and curvature of pressure and
    geopotential, the leading components of both days and harmonics of the year.

    A regression alone draws every cell for itself, which makes noise of a rain field.
    So a member takes a training day of the season, among those predicted most alike,
    and in every cell the quantile that the truth of that day had in a prediction made
    without its year: whole fields of randomised quantile residuals, the same day for
    all variables. Members keep the observed coherence in space and between variables.

    Attributes
    ----------
    components : int
        Number of principal components (20) of each of the two days.
    window : float
        Half width of the season in days (45).
    similar : int
        Number of its days that are drawn from, those predicted most alike; see
        :class:`~st_cdgm.references.local.residuals.ResidualDays`. Chosen on validation
        days where there are any (150).

    References
    ----------
    Maraun et al. (2015), doi:10.1002/2014EF000259, and Gutierrez et al. (2019),
    doi:10.1002/joc.5462, the VALUE experiments; Chandler and Wheater (2002),
    doi:10.1029/2001WR000906, the model.
    """

    components: int = 20
    window: float = 45.0
    similar: int = 150

    history = 2

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Fit all regressions and keep what they left over of each training day."""
        days, truth = training_days(train, preprocessor)
        self._encoded = EncodedCells(preprocessor)
        encoded = self._encoded.encode(days, truth)
        features = LocalFeatures.fit(
            days, preprocessor, components=self.components, modulated=False
        )
        folds, cells = year_folds(days.day), self._encoded.cells

        # All targets are regressed in encoded space: this says which days are alike.
        self._linear = CellRegressions(features=features, cells=cells)
        self._linear.fit(days, encoded, folds)
        self._days = ResidualDays.of(days, encoded - self._linear.residual)
        self.candidates = self._linear.candidates

        # Precipitation anew, by its own distribution.
        self._rain: dict[int, RainRegressions] = {}
        whole = np.where(preprocessor.valid, truth, days.baseline)
        flat = whole.reshape(*whole.shape[:2], -1)[:, :, cells]
        thresholds = preprocessor.codec.wet_thresholds
        for channel in precipitation_channels(preprocessor.targets):
            rain = RainRegressions(
                features=features, cells=cells, threshold=thresholds.get(channel, WET)
            )
            self._rain[channel] = rain.fit(days, flat[:, channel], folds)
            self.candidates += len(CANDIDATES)
            _LOGGER.info("glm: penalties of occurrence and amount %s", rain.penalty)

        if validation is not None:
            self.similar = choose(SIMILAR, self._trial, validation, preprocessor)
            self.candidates += len(SIMILAR)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the members of M residual days for each day.

        Members 1-4 of 20 equal members 1-4 of 4.
        """
        made = self._predicted(days)
        return self._members(days, made, self.similar, members=members, seed=seed)

    def _predicted(self, days: FieldArrays) -> _Predicted:
        rain = {channel: one.predict(days) for channel, one in self._rain.items()}
        return self._linear.predict(days), rain

    def _members(
        self,
        days: FieldArrays,
        predicted: _Predicted,
        similar: int,
        *,
        members: int,
        seed: int,
    ) -> NDArray[np.float32]:
        """Return members around what all regressions predict."""
        mean, amounts = predicted
        residual = self._linear.residual
        drawn = self._days.draw(
            days,
            mean,
            window=self.window,
            similar=similar,
            members=members,
            seed=seed,
        )
        out = self._encoded.decode(
            len(days), members, lambda part: mean[part, None] + residual[drawn[part]]
        )

        # The regressions of precipitation take the place of the linear one.
        flat = out.reshape(*out.shape[:3], -1)
        for channel, (chance, amount) in amounts.items():
            rain, valid = self._rain[channel], self._encoded.valid[channel]
            for t, positions in enumerate(drawn):
                made = rain.amounts(rain.quantile[positions], chance[t], amount[t])
                made = np.where(valid, made, np.float32(np.nan))
                flat[t, :, channel, self._encoded.cells] = made.T
        return out

    def _trial(self, days: FieldArrays) -> Callable[[int], NDArray[np.float32]]:
        """Return what another number of similar days makes of some days."""
        members = min(MEMBERS, len(self._days.season))
        predicted = self._predicted(days)
        return partial(self._members, days, predicted, members=members, seed=0)
