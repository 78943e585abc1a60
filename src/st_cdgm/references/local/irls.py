"""Logistic and Gamma regression of many cells at once, by penalised Fisher scoring."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import expit

from st_cdgm.typing import FloatArray, Floats, Indices

ROUNDS = 25
# Rounds from the fit to all days towards the one without a fold: its curvature is known
# then, and each round leaves some hundredths of what was missing.
HELD_OUT_ROUNDS = 3
# No round moves a linear predictor by more than this, and none leaves its range.
_LONGEST = 3.0
_SETTLED = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class CellFit:
    """Coefficients of p cells and their held-out predictions.

    Attributes
    ----------
    coefficients : ndarray
        Shape ``(p, K)``.
    held_out : ndarray
        Mean of every day by a fit that had not seen its fold. Shape ``(p, T)``.
    """

    coefficients: Floats
    held_out: Floats


class Family(ABC):
    """A distribution of the exponential family with its link.

    The weight of a day in Fisher's information is a function of its mean, and the
    score is this weight times how far the working response is away.
    """

    largest: ClassVar[float]  # of the linear predictor, in absolute value
    constant: ClassVar[bool] = False  # whether all means have one weight

    @abstractmethod
    def mean(self, eta: Floats) -> Floats:
        """Return the mean of a linear predictor."""

    @abstractmethod
    def weight(self, mean: Floats) -> Floats:
        """Return what a day adds to the information, per squared feature."""

    @abstractmethod
    def score(self, mean: Floats, y: Floats) -> Floats:
        """Return the derivative of the log-likelihood by the linear predictor."""

    @abstractmethod
    def loss(self, mean: Floats, y: Floats) -> Floats:
        """Return the negative log-likelihood, constants left out."""

    @abstractmethod
    def link(self, mean: Floats) -> Floats:
        """Return the linear predictor of a mean."""


class Bernoulli(Family):
    """Whether it rains, with the logistic link."""

    largest = 15.0

    def mean(self, eta: Floats) -> Floats:
        """Return a probability."""
        return np.asarray(expit(eta))

    def weight(self, mean: Floats) -> Floats:
        """Return the variance; a cell that is always dry keeps a little."""
        return np.maximum(mean * (1.0 - mean), 1e-6)

    def score(self, mean: Floats, y: Floats) -> Floats:
        """Return the error."""
        return y - mean

    def loss(self, mean: Floats, y: Floats) -> Floats:
        """Return the logarithmic score."""
        return -np.log(np.maximum(np.where(y > 0, mean, 1.0 - mean), 1e-12))

    def link(self, mean: Floats) -> Floats:
        """Return the logarithm of the odds."""
        return np.log(mean) - np.log1p(-mean)


class Gamma(Family):
    """How much it rains, with the logarithmic link."""

    largest = 5.5
    constant = True

    def mean(self, eta: Floats) -> Floats:
        """Return an amount."""
        return np.exp(eta)

    def weight(self, mean: Floats) -> Floats:
        """Return 1: the coefficient of variation is the same for all amounts."""
        return np.ones_like(mean)

    def score(self, mean: Floats, y: Floats) -> Floats:
        """Return the relative error."""
        return y / mean - 1.0

    def loss(self, mean: Floats, y: Floats) -> Floats:
        """Return half the deviance, a function of y left out."""
        return y / mean + np.log(mean)

    def link(self, mean: Floats) -> Floats:
        """Return the logarithm."""
        return np.log(mean)


def fit_cells(
    family: Family,
    X: FloatArray,
    y: Floats,
    counts: Floats,
    *,
    start: Floats,
    penalty: Floats,
    folds: Sequence[Indices],
) -> CellFit:
    r"""Maximise the penalised likelihood of every cell, and without each fold.

    .. math:: \sum_t c_t\, \ell(x_t^T \beta; y_t)
              - \tfrac{n}{2} \sum_k \lambda_k (\beta_k - \beta^0_k)^2

    with :math:`n = \sum_t c_t` and :math:`\beta^0` the intercept of ``start``. The
    penalty and a limit on every step keep it finite where wet and dry days can be
    separated, or where all are dry.

    Parameters
    ----------
    family : Family
        Distribution and link.
    X : ndarray
        Features, the intercept first. Shape ``(p, T, K)``, float32.
    y : ndarray
        Shape ``(p, T)``.
    counts : ndarray
        1 for the days that count, else 0. Shape ``(p, T)``.
    start : ndarray
        Mean without any feature. Shape ``(p,)``.
    penalty : ndarray
        Of every feature, per day. Shape ``(K,)``.
    folds : sequence of ndarray
        Positions of the days of each fold; together every day once.

    References
    ----------
    McCullagh and Nelder (1989), Generalized Linear Models, section 2.5.
    """
    task = _Task(family=family, X=X, y=y, penalty=penalty, start=start)
    beta = np.zeros((len(X), X.shape[-1]))
    beta[:, 0] = family.link(start)
    eta = np.repeat(beta[:, :1], X.shape[1], axis=1)

    # All days, until nothing moves.
    grams = task.information(eta, counts, folds)
    for _ in range(ROUNDS):
        beta, eta, moved = task.improved(beta, eta, grams.sum(axis=0), counts)
        if moved < _SETTLED:
            break
        if not family.constant:
            grams = task.information(eta, counts, folds)

    # Without each fold, from there.
    held_out = np.empty(y.shape)
    for fold, own in zip(folds, grams, strict=True):
        rest = counts.copy()
        rest[:, fold] = 0.0
        gram, state = grams.sum(axis=0) - own, (beta, eta)
        for _ in range(HELD_OUT_ROUNDS):
            state = task.improved(*state, gram, rest)[:2]
        held_out[:, fold] = family.mean(state[1][:, fold])

    return CellFit(coefficients=beta, held_out=held_out)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """What stays the same while the coefficients improve; see :func:`fit_cells`."""

    family: Family
    X: FloatArray
    y: Floats
    penalty: Floats
    start: Floats

    def information(
        self, eta: Floats, counts: Floats, folds: Sequence[Indices]
    ) -> FloatArray:
        """Return Fisher's information of each fold. Shape ``(folds, p, K, K)``."""
        weight = self.family.weight(self.family.mean(eta)) * counts
        root = np.sqrt(weight).astype(np.float32)[..., None]
        parts = []
        for fold in folds:
            x = self.X[:, fold] * root[:, fold]
            parts.append(x.transpose(0, 2, 1) @ x)
        return np.stack(parts)

    def improved(
        self, beta: Floats, eta: Floats, gram: FloatArray, counts: Floats
    ) -> tuple[Floats, Floats, float]:
        """Return coefficients and linear predictor after a round, and how far it moved.

        Shapes ``(p, K)`` and ``(p, T)``.
        """
        away = beta.copy()
        away[:, 0] -= self.family.link(self.start)
        weight = np.maximum(counts.sum(axis=1), 1.0)[:, None] * self.penalty  # (p, K)
        score = self.family.score(self.family.mean(eta), self.y) * counts
        slope = _products(score.astype(np.float32), self.X) - weight * away

        wide = gram.astype(np.float64)
        diagonal = np.arange(wide.shape[-1])
        wide[:, diagonal, diagonal] += weight
        step = np.linalg.solve(wide, slope[..., None])[..., 0]
        change = _products(step.astype(np.float32), self.X.transpose(0, 2, 1))
        reach = np.abs(change).max(axis=1)
        factor = np.minimum(1.0, _LONGEST / np.maximum(reach, 1e-30))[:, None]

        limit = self.family.largest
        moved = np.clip(eta + factor * change, -limit, limit)
        far = float(np.abs(moved - eta).max())
        return beta + factor * step, moved, far


def _products(vectors: FloatArray, matrices: FloatArray) -> FloatArray:
    """Return ``v @ M`` of every cell, one call of the library each."""
    made = [v @ one for v, one in zip(vectors, matrices, strict=True)]
    return np.stack(made)
