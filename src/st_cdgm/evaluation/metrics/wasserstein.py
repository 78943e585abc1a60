"""Sliced Wasserstein distance between the patches of forecast and truth.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`. Computed on
the members, never on their mean, which is smoother than any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Pair, pair_of
from st_cdgm.registry import register
from st_cdgm.typing import Floats

# Values of patches (3 x 3 cells) that the scorecard's Wasserstein distance looks at.
WASSERSTEIN_VALUES = 2**24


def sliced_wasserstein(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    rng: np.random.Generator,
    mask: ArrayLike | None = None,
    patch: int = 3,
    projections: int = 50,
    quantiles: int = 1024,
) -> float:
    r"""Sliced Wasserstein-2 distance between the patches of forecast and reference.

    :math:`\sqrt{E_\theta W_2^2(\theta_\# P, \theta_\# Q)}`, P and Q being all
    ``patch x patch`` squares of counted cells over all days (and members), and theta
    random directions. In one dimension W2 is the root mean square difference of the
    quantile functions, here at ``quantiles`` mid-points.

    Parameters
    ----------
    forecast, reference, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`. Points have no area weights.
    rng : Generator
        Draws the directions.
    patch : int
        Side of a patch in cells; 1 compares values alone.
    projections, quantiles : int
        Number of directions and of quantile levels.

    Returns
    -------
    float
        In the units of the variable; 0 for equal distributions; NaN without any patch.

    References
    ----------
    Bonneel et al. (2015), doi:10.1007/s10851-014-0506-3.
    """
    if min(patch, projections, quantiles) < 1:
        raise InputError("patch, projections and quantiles must be at least 1.")
    pair = pair_of(forecast, reference, mask=mask)
    if patch > min(pair.shape[2:]):
        return float("nan")
    theta = rng.standard_normal((patch * patch, projections))
    theta /= np.linalg.norm(theta, axis=0)

    # All patches as points of a space of patch * patch axes.
    p: list[Floats] = []
    q: list[Floats] = []
    for block in pair.blocks():
        inside = _windows(block.weight > 0, patch).all(axis=(-2, -1))  # (t, y, x)
        members = np.moveaxis(block.forecast, 1, 0)
        p += [_windows(m, patch)[inside].reshape(-1, patch**2) for m in members]
        q.append(_windows(block.reference, patch)[inside].reshape(-1, patch**2))
    first, second = np.concatenate(p), np.concatenate(q)
    if first.size == 0:
        return float("nan")

    # One direction at a time: all of them together would be much larger.
    level = (np.arange(quantiles) + 0.5) / quantiles
    gap = [
        np.quantile(first @ axis, level) - np.quantile(second @ axis, level)
        for axis in theta.T
    ]
    return float(np.sqrt(np.square(gap).mean()))


def _windows(fields: NDArray[Any], patch: int) -> NDArray[Any]:
    view = np.lib.stride_tricks.sliding_window_view(fields, (patch, patch), axis=(1, 2))
    return np.asarray(view)


class WassersteinScore:
    """The sliced Wasserstein distance on evenly spaced days.

    So many days as make `WASSERSTEIN_VALUES` values of patches, all members counted;
    the directions are the same in every evaluation.
    """

    def read(self, pair: Pair) -> None:
        """Read the chosen days."""
        T, M, Y, X = pair.shape
        step = -(-T * 9 * M * Y * X // WASSERSTEIN_VALUES)
        days = slice(0, T, max(1, step))
        reference = pair.reference(days)
        counted = pair.counted(days, reference)
        self.value = sliced_wasserstein(
            pair.forecast(days),
            np.where(counted, reference, np.nan),
            rng=np.random.default_rng(0),
        )


@register("metric", "sliced_wasserstein")
class WassersteinMetric(Metric):
    """Sliced Wasserstein distance on a sample of days; slow."""

    score = WassersteinScore
    title, head = (
        "sliced Wasserstein distance of 3 x 3 patches, sample of days",
        "sliced Wasserstein distance",
    )
    ideal, place = 0.0, 210
    standard = False
