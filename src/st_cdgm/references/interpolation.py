"""The coarse field, interpolated: what downscaling has to improve on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.references.base import Reference
from st_cdgm.references.days import mask_invalid
from st_cdgm.registry import register

STRATEGY = "lr_interp"


@register("reference", "lr_interp")
@dataclass(kw_only=True, eq=False)
class InterpolationReference(Reference):
    """The ``lr_interp`` baseline alone: one deterministic member."""

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Check that the baseline is an interpolation; nothing is learned.

        Raises
        ------
        InputError
            Another baseline is in use, for all targets or for some.
        """
        del train, validation
        baseline = preprocessor.baseline
        parts = getattr(baseline, "parts", [(baseline, None)])
        strategies = {part.strategy for part, _ in parts}
        if strategies != {STRATEGY}:
            raise InputError(
                "lr_interp needs an interpolated baseline for every target.",
                found=", ".join(sorted(strategies)),
                expected=STRATEGY,
                remedy="set baseline_strategy: lr_interp, or leave this reference out",
            )
        self._preprocessor = preprocessor
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the baseline. Shape ``(T, 1, C, Y, X)`` whatever ``members`` is."""
        del members, seed
        fields = days.baseline[:, None].astype(np.float32)
        return mask_invalid(fields, self._preprocessor)
