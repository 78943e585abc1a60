"""The coarse field, interpolated: what downscaling has to improve on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.baseline.contract import Baseline
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.references.days import mask_invalid


@dataclass(kw_only=True, eq=False)
class InterpolationReference:
    """The ``lr_interp`` baseline alone: one deterministic member."""

    name: ClassVar[str] = "lr_interp"

    def fit(self, train: FieldArrays, preprocessor: Preprocessor) -> Self:
        """Check that the baseline is an interpolation; nothing is learned.

        Raises
        ------
        InputError
            Another baseline is in use, for all targets or for some.
        """
        del train
        strategies = _strategies(preprocessor.baseline)
        if strategies != {self.name}:
            raise InputError(
                "lr_interp needs an interpolated baseline for every target.",
                found=", ".join(sorted(strategies)),
                expected=self.name,
                remedy="set baseline_strategy: lr_interp, or leave this reference out",
            )
        self._preprocessor = preprocessor
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the baseline. Shape ``(T, 1, C, Y, X)`` whatever ``members`` is."""
        del members, seed
        return mask_invalid(
            days.baseline[:, None].astype(np.float32), self._preprocessor
        )


def _strategies(baseline: Baseline) -> set[str]:
    parts = getattr(baseline, "parts", None)
    if parts is None:
        return {baseline.strategy}
    return {part.strategy for part, _ in parts}
