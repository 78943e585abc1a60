"""Regressions of all fine cells applied to days, one day after the other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.data.fit.local.features import HARMONICS, LocalFeatures, TwoDays
from st_cdgm.typing import FloatArray


class LinearMap:
    """Apply coefficients of :class:`LocalFeatures` to the weather of days.

    A day is computed by itself, so that it does not depend on its company, not even in
    its last digit.

    Parameters
    ----------
    features : LocalFeatures
        What the coefficients belong to.
    cells : ndarray
        Flat fine cells. Shape ``(P,)``.
    targets : int
        Number of targets C.
    """

    def __init__(
        self, features: LocalFeatures, cells: NDArray[np.int64], targets: int
    ) -> None:
        self.features = features.at(cells)
        self._shape = targets, len(cells)

    def predict(
        self, days: TwoDays, coefficients: Callable[[int], FloatArray]
    ) -> FloatArray:
        """Return the encoded targets. Shape ``(T, C, P)``, float32.

        ``coefficients`` gives those of the day at a position, ``(P, C, K + F)``.
        """
        out = np.empty((len(days.season), *self._shape), dtype=np.float32)
        both = days.lr, days.lagged(1)
        for t, season in enumerate(days.season):
            weights = coefficients(t)
            shared = self._shared([lr[t] for lr in both], season)
            own = self._own([lr[t] for lr in both], season)
            common, local = np.split(weights, [len(shared)], axis=-1)
            out[t] = np.einsum("k,pck->cp", shared, common)
            out[t] += np.einsum("pf,pcf->cp", own, local)

        return out

    def _shared(self, both: list[FloatArray], season: float) -> FloatArray:
        """Return what all cells share of a day. Shape ``(K,)``."""
        features = self.features
        waves = annual_harmonics(np.array([season]), HARMONICS)[0]
        scores = [features.space.transform(lr[None])[0] for lr in both]
        scaled = [score / features.width for score in scores]
        return np.concatenate([waves, *scaled], dtype=np.float32, casting="same_kind")

    def _own(self, both: list[FloatArray], season: float) -> FloatArray:
        """Return the cells' own features of a day. Shape ``(P, F)``."""
        waves = annual_harmonics(np.array([season]), 1)[0, 1:].astype(np.float32)
        parts = []

        for lr in both:
            flat = lr.reshape(len(lr), -1)
            for operator in self.features.operators:
                seen = (flat[operator.channels] - operator.mean) / operator.scale
                part = operator.matrix @ seen.T  # (P, R)
                parts.append(part)
                if len(operator.groups) > 1:
                    parts += [part * wave for wave in waves]
        return np.concatenate(parts, axis=1, dtype=np.float32)
