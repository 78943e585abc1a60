"""Precipitation of every fine cell: whether it rains, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaincinv

from st_cdgm.data.fit.local.cells import FeatureTable
from st_cdgm.data.fit.local.equations import penalties
from st_cdgm.data.fit.local.features import LocalFeatures
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.randomness import member_day_rng
from st_cdgm.references.local.irls import Bernoulli, CellFit, Family, Gamma, fit_cells
from st_cdgm.typing import FloatArray, Floats, Indices

# Penalties per day, and how much larger those of the day before are.
CANDIDATES = tuple(product((0.003, 0.01, 0.03, 0.1, 0.3), (1.0, 10.0)))
PENALTY_CELLS = 16
# Cells with fewer wet days take the dispersion of the domain.
FEW_DAYS = 30
_SHAPES = (0.1, 20.0)
# Weight of the intercept without any feature, in days.
_PSEUDO_DAYS = 1.0
# Quantiles u are looked up in a table, in steps of -log(1 - u) up to this.
_DEEPEST, _STEPS = 12.0, 600


@dataclass(kw_only=True, eq=False)
class RainRegressions:
    """Logistic regression of wet days and Gamma regression of wet amounts, per cell.

    Attributes
    ----------
    features : LocalFeatures
        What they see.
    cells : ndarray
        Flat fine cells. Shape ``(P,)``.
    threshold : float
        Smallest wet amount; the Gamma distribution is that of the excess.
    penalty : tuple
        After :meth:`fit`: of occurrence and amount, each one of ``CANDIDATES``.
    quantile : ndarray
        After :meth:`fit`: randomised quantile residuals, uniform in [0, 1] where the
        regressions are right, of fits that had not seen the fold of the day. The
        random part of a dry day is one number for all its cells. Shape ``(T, P)``.

    References
    ----------
    Dunn and Smyth (1996), doi:10.1080/10618600.1996.10474708, the residuals.
    """

    features: LocalFeatures
    cells: NDArray[np.int64]
    threshold: float
    penalty: tuple[tuple[float, float], ...] = field(init=False)
    quantile: FloatArray = field(init=False)
    _occurrence: FloatArray = field(init=False)
    _amount: FloatArray = field(init=False)
    _shape: Floats = field(init=False)
    _ratios: Floats = field(init=False)  # quantile over mean, (P, _STEPS + 1)

    def fit(
        self, days: FieldArrays, truth: FloatArray, folds: Sequence[Indices]
    ) -> Self:
        """Choose the penalties by leaving out folds, then fit every cell.

        The truth is in target units, complete, shape ``(T, P)``.
        """
        table = FeatureTable(self.features, days, self.cells)
        wet = (truth >= self.threshold).T
        excess = np.maximum(truth.T - self.threshold, 0.0)
        # A cell without a wet day has the domain's mean.
        common = float(excess[wet].mean()) if wet.any() else 1.0
        total = (excess * wet).sum(axis=1) + common
        parts = _Parts(
            wet=wet.astype(np.float64),
            excess=excess.astype(np.float64),
            rate=(wet.sum(axis=1) + 0.5) / (len(truth) + 1.0),
            amount=np.maximum(total / (wet.sum(axis=1) + 1.0), 1e-2),
            folds=folds,
        )
        self._choose(table, parts)

        # All cells.
        size = (len(self.cells), len(self.features.groups()[0]))
        self._occurrence, self._amount = np.empty(size, "f4"), np.empty(size, "f4")
        chance, mean = np.empty(wet.shape), np.empty(wet.shape)
        weights = [self._weights(one, len(truth)) for one in self.penalty]
        for at, X in table.chunks(np.arange(len(self.cells))):
            first = parts.occurrence(at, X, weights[0])
            second = parts.amounts(at, X, weights[1])
            self._occurrence[at], chance[at] = first.coefficients, first.held_out
            self._amount[at], mean[at] = second.coefficients, second.held_out

        self._shape = _shapes(excess / mean, wet)
        depth = -np.expm1(-np.linspace(0.0, _DEEPEST, _STEPS + 1))
        self._ratios = gammaincinv(self._shape[:, None], depth) / self._shape[:, None]
        self.quantile = self._quantiles(days, parts, chance, mean)
        return self

    def predict(self, days: FieldArrays) -> tuple[FloatArray, FloatArray]:
        """Return probability of a wet day and mean excess. Shapes ``(T, P)``."""
        table = FeatureTable(self.features, days, self.cells)
        chance, mean = (np.empty((len(days), len(self.cells)), "f4") for _ in range(2))
        for at, X in table.chunks(np.arange(len(self.cells))):
            wide = X.astype(np.float64)
            for out, family, beta in (
                (chance, Bernoulli(), self._occurrence[at]),
                (mean, Gamma(), self._amount[at]),
            ):
                eta = (wide @ beta[..., None])[..., 0]
                out[:, at] = family.mean(eta.clip(-family.largest, family.largest)).T
        return chance, mean

    def amounts(
        self, quantile: FloatArray, chance: FloatArray, mean: FloatArray
    ) -> FloatArray:
        """Return the amounts of quantiles, all of shape ``(..., P)``."""
        share = (quantile - (1.0 - chance)) / np.maximum(chance, 1e-9)
        at = -np.log1p(-share.clip(0.0, 1.0 - 1e-6)) * (_STEPS / _DEEPEST)
        below = np.minimum(at.astype(np.int64), _STEPS - 1)
        cell = np.arange(len(self.cells))
        low, high = self._ratios[cell, below], self._ratios[cell, below + 1]
        ratio = low + (high - low) * np.minimum(at - below, 1.0)
        wet = self.threshold + ratio * mean
        return np.where(share > 0, wet, 0.0).astype(np.float32)

    def _choose(self, table: FeatureTable, parts: _Parts) -> None:
        """Choose the penalties by the held-out likelihood on some cells."""
        count = min(PENALTY_CELLS, len(self.cells))
        some = np.linspace(0, len(self.cells) - 1, count).astype(int)
        losses = np.zeros((2, len(CANDIDATES)))

        for at, X in table.chunks(some):
            for k, candidate in enumerate(CANDIDATES):
                weights = self._weights(candidate, X.shape[1])
                first = parts.occurrence(at, X, weights).held_out
                second = parts.amounts(at, X, weights).held_out
                losses[0, k] += Bernoulli().loss(first, parts.wet[at]).sum()
                loss = Gamma().loss(second, parts.excess[at])
                losses[1, k] += (loss * parts.wet[at]).sum()

        self.penalty = tuple(CANDIDATES[int(loss.argmin())] for loss in losses)

    def _weights(self, candidate: tuple[float, float], days: int) -> Floats:
        one, yesterday = candidate
        groups = ("components", "own", "modulated", "derivatives")
        out = penalties(
            self.features, dict.fromkeys(groups, one) | {"yesterday": yesterday}
        )
        out[0] = _PSEUDO_DAYS / days
        return out

    def _quantiles(
        self, days: FieldArrays, parts: _Parts, chance: Floats, mean: Floats
    ) -> FloatArray:
        """Return the randomised quantile residuals. Shape ``(T, P)``."""
        draw = np.array([member_day_rng(0, 0, int(day)).random() for day in days.day])
        shape = self._shape[:, None]
        inside = gammainc(shape, shape * parts.excess / mean)
        wet = (1.0 - chance) + chance * inside
        out = np.where(parts.wet > 0, wet, draw * (1.0 - chance))
        return np.ascontiguousarray(out.T, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """Training amounts: ``wet`` and ``excess`` (P, T), ``rate`` and ``amount`` (P,)."""

    wet: Floats
    excess: Floats
    rate: Floats
    amount: Floats
    folds: Sequence[Indices]

    def occurrence(self, at: Indices, X: FloatArray, penalty: Floats) -> CellFit:
        """Fit the wet days of some cells."""
        every = np.ones_like(self.wet[at])
        return self._fit(Bernoulli(), X, self.wet[at], every, self.rate[at], penalty)

    def amounts(self, at: Indices, X: FloatArray, penalty: Floats) -> CellFit:
        """Fit the excess on wet days of some cells."""
        days = self.wet[at]
        return self._fit(Gamma(), X, self.excess[at], days, self.amount[at], penalty)

    def _fit(
        self,
        family: Family,
        X: FloatArray,
        y: Floats,
        counts: Floats,
        start: Floats,
        penalty: Floats,
    ) -> CellFit:
        return fit_cells(
            family, X, y, counts, start=start, penalty=penalty, folds=self.folds
        )


def _shapes(ratio: Floats, wet: NDArray[np.bool_]) -> Floats:
    """Return the Gamma shape of each cell from truth over mean, by moments. (P,).

    The reciprocal of the mean squared relative error of held-out predictions.
    """
    square = np.where(wet, np.square(ratio - 1.0), 0.0)
    days = wet.sum(axis=1)
    common = square.sum() / max(int(days.sum()), 1) if days.any() else 1.0
    dispersion = np.where(
        days >= FEW_DAYS, square.sum(axis=1) / np.maximum(days, 1), common
    )
    return np.asarray((1.0 / np.maximum(dispersion, 1e-6)).clip(*_SHAPES))
