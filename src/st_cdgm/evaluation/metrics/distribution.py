"""Distributions of values: wet days, high quantiles, histograms, Wasserstein.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`. Everything is
computed on the members, never on their mean, which is smoother than any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.blocks import Block, Pair, accumulate, pair_of, ratio

# Values of one row block held at a time when quantiles need all days together.
QUANTILE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class WetDays:
    """Share of wet days among all counted days and cells, each in [0, 1]."""

    forecast: float
    reference: float

    @property
    def difference(self) -> float:
        """Forecast minus reference."""
        return self.forecast - self.reference


class WetDayScore:
    """Weighted counts of wet days; see :func:`wet_day_frequency`."""

    def __init__(self, *, threshold: float = 1.0) -> None:
        self.threshold = threshold
        self._forecast = self._reference = self._weight = 0.0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        share = (block.forecast >= self.threshold).mean(axis=1)
        wet = block.reference >= self.threshold
        self._forecast += float((block.weight * share).sum())
        self._reference += float((block.weight * wet).sum())
        self._weight += float(block.weight.sum())

    @property
    def value(self) -> WetDays:
        """The two frequencies."""
        return WetDays(
            ratio(self._forecast, self._weight), ratio(self._reference, self._weight)
        )


def wet_day_frequency(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    threshold: float = 1.0,
) -> WetDays:
    """Share of days with at least ``threshold``, of all members and of the reference.

    Parameters
    ----------
    forecast, reference, weights, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`.
    threshold : float
        Smallest amount of a wet day, in the units of the variable (1 mm/day).
    """
    score = WetDayScore(threshold=threshold)
    accumulate(pair_of(forecast, reference, weights=weights, mask=mask), score)
    return score.value


@dataclass(frozen=True)
class QuantileChange:
    """Area means of a quantile in time, in the units of the variable."""

    forecast: float
    reference: float

    @property
    def ratio(self) -> float:
        """Forecast over reference; NaN where the reference is not positive."""
        return ratio(self.forecast, self.reference)

    @property
    def difference(self) -> float:
        """Forecast minus reference."""
        return self.forecast - self.reference


def quantile_change(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    q: float = 0.99,
) -> QuantileChange:
    """Area means of the cell-wise quantile of forecast and reference.

    At every cell the quantile is taken over the counted days, dry days included; the
    days of all members are pooled on the side of the forecast. The quantiles are then
    averaged over cells with the weights (times the cell's share of counted days).

    Parameters
    ----------
    forecast, reference, weights, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`.
    q : float
        In (0, 1).
    """
    pair = pair_of(forecast, reference, weights=weights, mask=mask)
    return quantile_change_of(pair, q=q)


def quantile_change_of(pair: Pair, *, q: float = 0.99) -> QuantileChange:
    """Compute :func:`quantile_change` for a pair of readers, in blocks of rows."""
    if not 0 < q < 1:
        raise InputError("The quantile must lie within 0 and 1.", found=q)
    T, M, Y, X = pair.shape
    rows = max(1, QUANTILE_BYTES // max(1, 4 * T * M * X))
    sums = np.zeros(3)
    for start in range(0, Y, rows):
        sums += _quantile_rows(pair, slice(start, start + rows), q)
    return QuantileChange(ratio(sums[0], sums[2]), ratio(sums[1], sums[2]))


def _quantile_rows(pair: Pair, rows: slice, q: float) -> NDArray[np.float64]:
    """Weighted sums of forecast and reference quantile, and of the weight."""
    parts: list[tuple[NDArray[np.floating], NDArray[np.floating]]] = []
    for days in pair.slices():
        reference = pair.reference(days)
        counted = pair.counted(days, reference)
        truth = np.where(counted, reference, np.nan)[:, rows]
        parts.append((pair.forecast(days)[:, :, rows], truth))
    forecast = np.concatenate([f for f, _ in parts])  # (T, M, y, X)
    truth = np.concatenate([r for _, r in parts])  # (T, y, X)
    counted = np.isfinite(truth)
    share = counted.mean(axis=0) if len(truth) else np.zeros(truth.shape[1:])
    weight = pair.weights[rows] * share
    full = (share == 1) & (weight > 0)
    out = np.zeros(3)
    if full.any():
        w = weight[full]
        pooled = forecast[:, :, full].reshape(-1, w.size)
        out[0] = (w * np.quantile(pooled, q, axis=0)).sum()
        out[1] = (w * np.quantile(truth[:, full], q, axis=0)).sum()
    for j, i in zip(*np.nonzero((weight > 0) & ~full), strict=True):
        days_counted = counted[:, j, i]
        out[0] += weight[j, i] * np.quantile(forecast[days_counted, :, j, i], q)
        out[1] += weight[j, i] * np.quantile(truth[days_counted, j, i], q)
    out[2] = weight.sum()
    return out


def quantile_ratio(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    q: float = 0.99,
) -> float:
    """Ratio of area-mean quantiles; 1 for the right tail. See :func:`quantile_change`.

    Only for quantities with a natural zero, such as precipitation; NaN where the area
    mean of the reference's quantile is not positive.
    """
    return quantile_change(forecast, reference, weights=weights, mask=mask, q=q).ratio


def histogram_distance(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    bins: int = 50,
) -> float:
    """Distance of the histograms of all values, ``sum |p - q| * width``.

    The bins span the joint range of members and reference; p and q are densities, so
    the distance lies between 0 (same) and 2 (no overlap).

    Parameters
    ----------
    forecast, reference, weights, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`.
    bins : int
        Number of bins of equal width.
    """
    if bins < 1:
        raise InputError("A histogram needs a bin.", found=bins, expected=">= 1")
    pair = pair_of(forecast, reference, weights=weights, mask=mask)
    low, high = np.inf, -np.inf
    for block in pair.blocks():
        counted = block.weight > 0
        members = block.forecast[
            np.broadcast_to(counted[:, None], block.forecast.shape)
        ]
        values = np.concatenate([members, block.reference[counted]])
        low = min(low, values.min(initial=np.inf))
        high = max(high, values.max(initial=-np.inf))
    if not low <= high:
        return float("nan")
    edges = np.linspace(low, high, bins + 1) if high > low else low + np.array([-1, 1])
    counts = np.zeros((2, edges.size - 1))
    for block in pair.blocks():
        weight = np.broadcast_to(block.weight[:, None], block.forecast.shape)
        counts[0] += _counts(block.forecast, edges, weight)
        counts[1] += _counts(block.reference, edges, block.weight)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares[0] - shares[1]).sum())


def _counts(
    values: NDArray[np.float64],
    edges: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    counts, _ = np.histogram(values.ravel(), edges, weights=weight.ravel())
    return np.asarray(counts, dtype=np.float64)


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
    p: list[NDArray[np.float64]] = []
    q: list[NDArray[np.float64]] = []
    for block in pair.blocks():
        inside = _windows(block.weight > 0, patch).all(axis=(-2, -1))  # (t, y, x)
        members = np.moveaxis(block.forecast, 1, 0)
        p += [_windows(m, patch)[inside].reshape(-1, patch**2) @ theta for m in members]
        q.append(_windows(block.reference, patch)[inside].reshape(-1, patch**2) @ theta)
    level = (np.arange(quantiles) + 0.5) / quantiles
    first, second = np.concatenate(p), np.concatenate(q)
    if first.size == 0:
        return float("nan")
    gap = np.quantile(first, level, axis=0) - np.quantile(second, level, axis=0)
    return float(np.sqrt((gap**2).mean()))


def _windows(fields: NDArray[Any], patch: int) -> NDArray[Any]:
    view = np.lib.stride_tricks.sliding_window_view(fields, (patch, patch), axis=(1, 2))
    return np.asarray(view)
