"""Principal components of the predictors: the weather of a day in few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg


@dataclass(frozen=True, kw_only=True, eq=False)
class PrincipalComponents:
    """Leading empirical orthogonal functions of standardised predictors.

    Each channel is scaled to unit variance over all its cells and training days, so
    that the units of the predictors do not matter; cells count by their area.

    Attributes
    ----------
    mean : ndarray
        Training mean, after scaling. Shape ``(F,)`` with F = C_lr * y * x.
    scale : ndarray
        Factor of every feature. Shape ``(F,)``.
    axes : ndarray
        Orthonormal directions, the largest variance first. Shape ``(F, K)``.
    explained : ndarray
        Share of the variance of each. Shape ``(K,)``.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    explained: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        lr: NDArray[np.floating],
        *,
        area: NDArray[np.floating],
        limit: int,
        variance: float = 1.0,
    ) -> Self:
        """Fit on training days.

        Parameters
        ----------
        lr : ndarray
            Shape ``(T, C_lr, y, x)``.
        area : ndarray
            Cell areas. Shape ``(y, x)``.
        limit : int
            Largest number of components.
        variance : float
            Fewer are kept where they already explain this share of the variance.
        """
        T, C = lr.shape[:2]
        spread = lr.std(axis=0, dtype=np.float64)  # (C, y, x)
        channel = np.sqrt((spread**2).mean(axis=(1, 2)))
        channel = np.where(channel > 0, channel, 1.0)
        scale = (np.sqrt(area)[None] / channel[:, None, None]).reshape(-1)
        X = lr.reshape(T, -1) * scale
        mean = X.mean(axis=0)
        X -= mean
        # The smaller of the two Gram matrices has the same non-zero eigenvalues.
        wide = X.shape[1] > T
        gram = X @ X.T if wide else X.T @ X
        count = min(limit, len(gram), T - 1 or 1)
        last = len(gram) - 1
        power, vectors = linalg.eigh(gram, subset_by_index=[last - count + 1, last])
        power, vectors = power[::-1].clip(min=0), vectors[:, ::-1]

        # As many as explain the share asked for, and none without variance.
        total = float(np.trace(gram))
        explained = power / total if total > 0 else np.zeros_like(power)
        keep = min(count, int(np.searchsorted(explained.cumsum(), variance) + 1))
        keep = max(1, min(keep, int((explained > 1e-12).sum())))
        axes = vectors[:, :keep]

        if wide:
            axes = X.T @ axes
            axes /= np.maximum(np.linalg.norm(axes, axis=0), 1e-300)

        return cls(mean=mean, scale=scale, axes=axes, explained=explained[:keep])

    def transform(self, lr: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the components of each day. Shape ``(T, K)``."""
        return np.asarray(
            (lr.reshape(len(lr), -1) * self.scale - self.mean) @ self.axes
        )
