"""Ridge regression: penalised normal equations, and a penalty by leaving days out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.typing import Floats

# Penalties tried, as a share of the number of training days (features have variance 1).
PENALTIES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# The penalty is chosen on at most this many cells.
PENALTY_CELLS = 2000


def solve_ridge(gram: Floats, cross: Floats, penalty: ArrayLike) -> Floats:
    """Return the coefficients ``(X^T X + diag(penalty))^-1 X^T Y``. Shape ``(K, P)``.

    ``gram`` is ``X^T X``, shape ``(K, K)``, ``cross`` is ``X^T Y``, shape ``(K, P)``.
    The penalty is that of all features, or of each: 0 for an intercept.
    """
    diagonal = np.broadcast_to(np.asarray(penalty, dtype=np.float64), len(gram))
    return np.asarray(np.linalg.solve(gram + np.diag(diagonal), cross))


def solve_penalised(gram: Floats, cross: Floats, penalty: float, days: int) -> Floats:
    """Return the coefficients for a penalty per day; the first, intercept, is free."""
    free = np.arange(len(gram)) == 0
    return solve_ridge(gram, cross, np.where(free, 0.0, penalty * days))


def choose_penalty(
    X: Floats, Y: NDArray[np.floating], folds: list[NDArray[np.int64]]
) -> float:
    """Return the penalty with the smallest held-out squared error.

    Cells are standardised, so that all variables count alike.
    """
    cells = np.unique(np.linspace(0, Y.shape[1] - 1, PENALTY_CELLS).astype(int))
    Y = Y[:, cells].astype(np.float64)
    deviation = Y.std(axis=0)
    Y = (Y - Y.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    errors = [
        float((held_out_residuals(X, Y, folds, penalty) ** 2).mean())
        for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(errors))]


def held_out_residuals(
    X: Floats, Y: NDArray[np.floating], folds: list[NDArray[np.int64]], penalty: float
) -> NDArray[np.float32]:
    """Truth minus the prediction of a regression that had not seen the fold.

    Returns
    -------
    ndarray
        Shape ``(T, P)``, float32.
    """
    gram, cross = X.T @ X, X.T @ Y
    out = np.empty(Y.shape, dtype=np.float32)
    for fold in folds:
        x, y = X[fold], Y[fold]
        rest = gram - x.T @ x, cross - x.T @ y
        out[fold] = y - x @ solve_penalised(*rest, penalty, len(X) - len(fold))
    return out
