"""From held-out losses to p-values: blocks, Student's t, false discovery rate.

References
----------
Diebold & Mariano, Comparing predictive accuracy, doi:10.1080/07350015.1995.10524599.
Benjamini & Hochberg, Controlling the false discovery rate,
doi:10.1111/j.2517-6161.1995.tb02031.x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from st_cdgm.typing import Floats, Indices

TINY = 1e-12
SLOW_STEPS = (7, 14, 28)


def block_means(values: Floats, number: Indices, block: int) -> tuple[Floats, Indices]:
    """Average over blocks of steps; a block counts when half of its steps are there.

    Parameters
    ----------
    values : ndarray
        Shape ``(D, ...)``.
    number : ndarray
        Number of each step, so that gaps are gaps. Shape ``(D,)``.
    block : int
        Steps of a block.

    Returns
    -------
    tuple of ndarray
        Means ``(B, ...)``, and the first step of each block ``(B,)``.
    """
    which, inverse, count = np.unique(
        number // block, return_inverse=True, return_counts=True
    )
    sums = np.zeros((len(which), *values.shape[1:]))
    np.add.at(sums, inverse, values)
    enough = 2 * count >= block
    means = sums / count.reshape(-1, *[1] * (values.ndim - 1))
    return means[enough], (which * block)[enough]


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanTest:
    """Mean of block means, its standard error, t and one-sided p-value, any shape."""

    mean: Floats
    error: Floats
    t: Floats
    p: Floats
    blocks: int

    def interval(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Return the two-sided confidence interval of the mean."""
        half = stats.t.ppf(0.5 + level / 2, self.blocks - 1) * self.error
        return self.mean - half, self.mean + half


def mean_test(blocks: Floats, weights: Floats | None = None) -> MeanTest:
    """Test whether the mean of blocks ``(B, ...)`` exceeds 0.

    The variance of the mean takes the covariance of neighbouring blocks with it
    (Bartlett weights, one lag) where that makes it larger. ``weights`` say how often
    each block counts in a resample; neighbours mean nothing there.
    """
    if weights is not None:
        blocks = np.repeat(blocks, weights.astype(int), axis=0)
    count = len(blocks)
    mean = blocks.mean(axis=0)
    left = blocks - mean
    variance = np.square(left).sum(axis=0) / (count - 1)

    if weights is None:
        following = (left[1:] * left[:-1]).sum(axis=0) / (count - 1)
        variance = np.maximum(variance, variance + following)
    error = np.sqrt(variance / count)
    t = mean / np.maximum(error, TINY)
    return MeanTest(
        mean=mean, error=error, t=t, p=stats.t.sf(t, count - 1), blocks=count
    )


def q_values(p: Floats) -> Floats:
    """Return Benjamini-Hochberg q-values of p-values ``(m,)``."""
    order = np.argsort(p)
    ranked = p[order] * len(p) / np.arange(1, len(p) + 1)
    falling = np.minimum.accumulate(ranked[::-1])[::-1]
    out = np.empty(len(p))
    out[order] = np.minimum(falling, 1.0)
    return out


def slow_likeness(a: Floats, b: Floats, number: Indices) -> Floats:
    """Compare the correlation of two residuals in means over blocks and in steps.

    Of white residuals both are the same. The difference of their Fisher transforms, in
    the direction of the correlation of steps, is returned over its standard error, as
    the mean over blocks of 7, 14 and 28 steps.

    Parameters
    ----------
    a, b : ndarray
        Channels of two variables. Shapes ``(D, K)`` and ``(D, L)``.
    number : ndarray
        Number of each step. Shape ``(D,)``.

    Returns
    -------
    ndarray
        z-values. Shape ``(K, L)``.
    """
    steps, found = _correlation(a, b), []
    for block in SLOW_STEPS:
        long_a, _ = block_means(a, number, block)
        long_b, _ = block_means(b, number, block)
        means = _correlation(long_a, long_b)
        difference = (np.arctanh(means) - np.arctanh(steps)) * np.sign(steps)
        found.append(difference * np.sqrt(max(len(long_a) - 3, 1)))
    return np.asarray(np.mean(found, axis=0))


def _correlation(a: Floats, b: Floats) -> Floats:
    """Correlate columns, within the open interval; 0 with a constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt(np.outer(np.square(a).sum(axis=0), np.square(b).sum(axis=0)))
    return np.asarray(np.clip(a.T @ b / np.maximum(size, TINY), -0.999, 0.999))
