"""The climatological ensemble: what happened at this time of the year."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.base import Reference
from st_cdgm.references.days import draw_in_season, training_days
from st_cdgm.registry import register


@register("reference", "climatology")
@dataclass(kw_only=True, eq=False)
class ClimatologyReference(Reference):
    """Whole fields of training days of the same season, drawn at random.

    Attributes
    ----------
    window : float
        Half width of the season in days (10): training days of all years whose day of
        the year is at most this far away. Where these are fewer than the members, the
        days nearest in season serve.
    """

    window: float = 10.0

    history = 0

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Keep the training fields and their seasons."""
        days, self._truth = training_days(train, preprocessor)
        self._season = days.season
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Draw M training days without replacement for each day.

        Members 1-4 of 20 equal members 1-4 of 4.
        """
        drawn = draw_in_season(
            days, self._season, window=self.window, members=members, seed=seed
        )
        return self._truth[drawn]
