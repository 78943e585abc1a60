"""Normal equations of some fine cells, and the penalties that they are solved with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy import linalg

from st_cdgm.data.fit.local.features import GROUPS, LocalFeatures
from st_cdgm.typing import FloatArray, Floats, Indices

# Penalties per day that are compared, of each group of features; and the factor by
# which those of the day before are larger.
LADDERS = {
    "components": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    "own": (0.0003, 0.001, 0.003, 0.01),
    "modulated": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "derivatives": (0.001, 0.003, 0.01, 0.03, 0.1),
    "yesterday": (0.3, 1.0, 3.0, 10.0, 100.0, 1000.0),
}
START = {
    "components": 0.3,
    "own": 0.003,
    "modulated": 0.01,
    "derivatives": 0.01,
    "yesterday": 1.0,
}
# Keeps harmonics finite that the record does not tell apart, as in winters alone.
_HARMONICS = 1e-4
Penalty = dict[str, float]


def penalties(features: LocalFeatures, penalty: Penalty) -> Floats:
    """Return the penalty of each feature, per day; the intercept is free.

    Shape ``(K + F,)``, shared features first.
    """
    group, yesterday = features.groups()
    each = np.array([penalty.get(name, _HARMONICS) for name in GROUPS])
    out = each[group] * np.where(yesterday, penalty["yesterday"], 1.0)
    out[0] = 0.0
    return np.asarray(out)


def search(error: Callable[[Penalty], Floats]) -> tuple[Penalty, int]:
    """Return the penalty with the smallest error, and how many were tried.

    One group after the other, twice through all. ``error`` gives that of each target,
    shape ``(C,)``; relative to that of ``START`` all targets count alike.
    """
    tried: dict[tuple[float, ...], float] = {}
    unit = np.maximum(error(START), 1e-30)

    def score(penalty: Penalty) -> float:
        key = tuple(penalty.values())
        if key not in tried:
            tried[key] = float((error(penalty) / unit).mean())
        return tried[key]

    best = START
    for _ in range(2):
        for name, ladder in LADDERS.items():
            best = min(({**best, name: value} for value in ladder), key=score)
    return best, len(tried)


@dataclass(frozen=True, kw_only=True, eq=False)
class NormalEquations:
    """Products of features and targets of p cells, those of each fold apart.

    The first feature is the intercept, 1 on the days that count: a day whose features
    and targets are all 0 takes no part, cell by cell.

    Attributes
    ----------
    days : ndarray
        Number of days that count of each fold. Shape ``(folds, p)``.
    gram : ndarray
        Shape ``(folds, p, K, K)``, float32.
    cross : ndarray
        Shape ``(folds, p, K, C)``, float32.
    square : ndarray
        Of the targets. Shape ``(folds, p, C)``.
    whole : tuple of ndarray
        ``gram`` and ``cross`` of all folds. Shapes ``(p, K, K)`` and ``(p, K, C)``.
    """

    days: Floats
    gram: FloatArray
    cross: FloatArray
    square: FloatArray
    whole: tuple[Floats, Floats]

    @classmethod
    def of(cls, X: FloatArray, Y: FloatArray, folds: Sequence[Indices]) -> Self:
        """Sum over the days. Shapes ``(p, T, K)`` and ``(p, T, C)``."""
        gram, cross, square = [], [], []
        for fold in folds:
            x, y = X[:, fold], Y[:, fold]
            turned = x.transpose(0, 2, 1)
            gram.append(turned @ x)
            cross.append(turned @ y)
            square.append(np.square(y).sum(axis=1))

        first, second = np.stack(gram), np.stack(cross)
        return cls(
            days=first[..., 0, 0].astype(np.float64),
            gram=first,
            cross=second,
            square=np.stack(square),
            whole=(first.sum(axis=0, dtype="f8"), second.sum(axis=0, dtype="f8")),
        )

    def solve(self, penalty: Floats, without: int | None = None) -> Floats:
        """Return the coefficients ``(p, K, C)`` of all days but those of a fold.

        The penalty is that of each feature, per day.
        """
        gram, cross = self.whole
        days = self.days.sum(axis=0)
        if without is None:
            gram = gram.copy()
        else:
            gram, cross = gram - self.gram[without], cross - self.cross[without]
            days = days - self.days[without]

        diagonal = np.arange(gram.shape[-1])
        gram[:, diagonal, diagonal] += np.maximum(days, 1.0)[:, None] * penalty
        gram[:, 0, 0] = np.maximum(gram[:, 0, 0], 1.0)  # where no day counts
        out = np.empty(cross.shape)
        for one, left, right in zip(out, gram, cross, strict=True):
            factor = linalg.cho_factor(left, overwrite_a=True, check_finite=False)
            one[:] = linalg.cho_solve(factor, right, check_finite=False)
        return out

    def held_out_error(self, penalty: Floats) -> Floats:
        """Return the squared error per target, each fold by a fit without it. ``(C,)``.

        It follows from the sums alone.
        """
        total = np.zeros(self.square.shape[-1])
        for fold in range(len(self.days)):
            b = self.solve(penalty, without=fold)
            bent = self.gram[fold] @ b - 2.0 * self.cross[fold]
            total += (b * bent).sum(axis=(0, 1)) + self.square[fold].sum(axis=0)
        return total
