"""Ridge regressions with and without groups of features, from the same sums.

What a prediction loses without a group is only known once it has been learned anew
without it. With ``S`` the inverse of the penalised normal matrix and ``g`` the group,
the coefficients of all other features follow from the full fit, without another one::

    w(-g) = w - S[:, g] S[g, g]^-1 w[g]

References
----------
Hoerl & Kennard, Ridge regression, doi:10.1080/00401706.1970.10488634.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import linalg

from st_cdgm.typing import FloatArray, Floats, Indices

# Penalties per row of linear features, and the factors of those of squares; the last
# factor leaves squares out in effect.
LINEAR = (0.0003, 0.003, 0.03, 0.3, 3.0)
SQUARE = (1.0, 10.0, 1.0e6)
ROWS = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Products of F features and K targets, summed over rows.

    Attributes
    ----------
    rows : int
        How many.
    gram, cross, square : ndarray
        Shapes ``(F, F)``, ``(F, K)`` and ``(K,)``.
    """

    rows: int
    gram: Floats
    cross: Floats
    square: Floats

    @classmethod
    def of(cls, X: FloatArray, Y: FloatArray) -> Self:
        """Sum over rows; shapes ``(N, F)`` and ``(N, K)``."""
        gram = np.zeros((X.shape[1], X.shape[1]))
        cross = np.zeros((X.shape[1], Y.shape[1]))
        for start in range(0, len(X), ROWS):
            x, y = X[start : start + ROWS], Y[start : start + ROWS]
            gram += x.T @ x
            cross += x.T @ y
        square = np.einsum("nk,nk->k", Y, Y, dtype=np.float64)
        return cls(rows=len(X), gram=gram, cross=cross, square=square)

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            rows=self.rows + other.rows,
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            square=self.square + other.square,
        )

    def of_columns(self, columns: Indices, targets: Indices) -> Sums:
        """Keep these features and targets alone."""
        return Sums(
            rows=self.rows,
            gram=self.gram[np.ix_(columns, columns)],
            cross=self.cross[np.ix_(columns, targets)],
            square=self.square[targets],
        )

    def solve(self, penalty: Floats) -> Floats:
        """Return the coefficients under a penalty per feature and row. ``(F, K)``."""
        left = self.gram + np.diag(self.rows * penalty)
        factor = linalg.cho_factor(left, overwrite_a=True, check_finite=False)
        return np.asarray(linalg.cho_solve(factor, self.cross, check_finite=False))

    def error(self, weights: Floats) -> Floats:
        """Return the sum of squared errors of coefficients ``(F, K)``. ``(K,)``."""
        bent = self.gram @ weights - 2.0 * self.cross
        return np.asarray((weights * bent).sum(axis=0) + self.square)


def penalty(kind: Indices, stiff: Floats, candidate: tuple[float, float]) -> Floats:
    """Return the penalty of each feature: 0 free, 1 linear, 2 square. ``(F,)``."""
    linear, factor = candidate
    return np.array([1e-9, linear, linear * factor])[kind] * stiff


def choose_penalties(
    halves: tuple[Sums, Sums], kind: Indices, stiff: Floats
) -> list[tuple[tuple[float, float], Indices]]:
    """Choose the penalty of each target; each half is predicted from the other.

    Returns the chosen candidates, each with the targets that took it.
    """
    candidates = [(a, b) for a in LINEAR for b in SQUARE]
    if not (kind == 2).any():
        candidates = [(a, 1.0) for a in LINEAR]

    first, second = halves
    errors = [
        second.error(first.solve(weight)) + first.error(second.solve(weight))
        for weight in (penalty(kind, stiff, candidate) for candidate in candidates)
    ]
    best = np.argmin(errors, axis=0)
    return [(candidates[c], np.flatnonzero(best == c)) for c in np.unique(best)]


@dataclass(frozen=True, kw_only=True, eq=False)
class More:
    """Features that a regression has not seen, and what adds them to it.

    Attributes
    ----------
    cross, own, target : ndarray
        Training products with the known features ``(F, M)``, with themselves
        (penalised) ``(M, M)`` and with the targets ``(M, K)``.
    values : ndarray
        The new features of the rows to predict. Shape ``(N, M)``.
    """

    cross: Floats
    own: Floats
    target: Floats
    values: FloatArray


class NestedRidge:
    """A solved regression, its predictions with and without groups of features.

    Parameters
    ----------
    sums : Sums
        Of the training rows.
    weight : ndarray
        Penalty per feature and row. Shape ``(F,)``.
    X : ndarray
        Features of the N rows to predict. Shape ``(N, F)``, float32.

    Attributes
    ----------
    weights : ndarray
        Coefficients with all features. Shape ``(F, K)``.
    guess : ndarray
        Predictions with all features. Shape ``(N, K)``, float32.
    """

    def __init__(self, sums: Sums, weight: Floats, X: FloatArray) -> None:
        left = sums.gram + np.diag(sums.rows * weight)
        factor, _ = linalg.cho_factor(left, overwrite_a=True, check_finite=False)
        half, _ = linalg.lapack.dpotri(factor)
        self.inverse: Floats = np.triu(half) + np.triu(half, 1).T
        self.weights: Floats = self.inverse @ sums.cross
        self.guess: FloatArray = X @ self.weights.astype(np.float32)
        # Rows times the inverse: whatever is taken away changes predictions by these.
        self._reach = X @ self.inverse.astype(np.float32)

    def without(self, group: Indices) -> FloatArray:
        """Return the predictions of a fit without a group. ``(N, K)``."""
        inner = self.inverse[np.ix_(group, group)]
        taken = linalg.solve(inner, self.weights[group], assume_a="pos")
        return np.asarray(self.guess - self._reach[:, group] @ _single(taken))

    def replaced(self, group: Indices, more: More) -> FloatArray:
        """Return the predictions of a fit with other features in a group's place."""
        inner = self.inverse[np.ix_(group, group)]
        cross = more.cross.copy()
        cross[group] = 0.0
        bent = self.inverse @ cross  # (F, M)
        taken = linalg.solve(
            inner, np.hstack([self.weights[group], bent[group]]), assume_a="pos"
        )
        count = self.weights.shape[1]

        # The fit without the group, bordered by the new features.
        side = self.inverse[:, group]
        kept = self.weights - side @ taken[:, :count]
        bent -= side @ taken[:, count:]
        new = _border(more, cross, bent, kept)
        reach = self._reach @ _single(cross)
        reach -= self._reach[:, group] @ _single(taken[:, count:])
        left = self.guess - self._reach[:, group] @ _single(taken[:, :count])
        return np.asarray(left + (more.values - reach) @ _single(new))

    def bordered(self, more: More) -> Bordered:
        """Return the regression with more features."""
        bent = self.inverse @ more.cross
        reach = more.values - self._reach @ _single(more.cross)
        return Bordered(self, more, bent, reach)

    def columns(self, group: Indices) -> tuple[Floats, FloatArray]:
        """Return inverse and rows times inverse of a group."""
        return self.inverse[np.ix_(group, group)], self._reach[:, group]


class Bordered:
    """A regression with more features than it was solved with.

    Attributes
    ----------
    guess : ndarray
        Its predictions. Shape ``(N, K)``.
    """

    def __init__(
        self, ridge: NestedRidge, more: More, bent: Floats, reach: FloatArray
    ) -> None:
        self._ridge, self._bent, self._reach = ridge, bent, reach
        self._schur = more.own - more.cross.T @ bent
        right = more.target - more.cross.T @ ridge.weights
        self._new = linalg.solve(self._schur, right, assume_a="pos")
        self.guess: FloatArray = ridge.guess + reach @ _single(self._new)

    def without(self, group: Indices) -> FloatArray:
        """Return the predictions without a group of the first features."""
        inner, side = self._ridge.columns(group)
        met = linalg.solve(self._schur, self._bent[group].T, assume_a="pos")
        inner = inner + self._bent[group] @ met
        kept = self._ridge.weights[group] - self._bent[group] @ self._new
        taken = linalg.solve(inner, kept, assume_a="pos")
        side = side - self._reach @ _single(met)
        return np.asarray(self.guess - side @ _single(taken))


def _border(more: More, cross: Floats, bent: Floats, kept: Floats) -> Floats:
    """Return the coefficients of new features beside those of an old fit."""
    schur = more.own - cross.T @ bent
    right = more.target - cross.T @ kept
    return np.asarray(linalg.solve(schur, right, assume_a="pos"))


def _single(values: Floats) -> FloatArray:
    return values.astype(np.float32)
