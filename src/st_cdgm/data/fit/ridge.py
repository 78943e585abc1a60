"""The penalised normal equations of a ridge regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from st_cdgm.typing import Floats


def solve_ridge(gram: Floats, cross: Floats, penalty: ArrayLike) -> Floats:
    """Return the coefficients ``(X^T X + diag(penalty))^-1 X^T Y``. Shape ``(K, P)``.

    ``gram`` is ``X^T X``, shape ``(K, K)``, ``cross`` is ``X^T Y``, shape ``(K, P)``.
    The penalty is that of all features, or of each: 0 for an intercept.
    """
    diagonal = np.broadcast_to(np.asarray(penalty, dtype=np.float64), len(gram))
    return np.asarray(np.linalg.solve(gram + np.diag(diagonal), cross))
