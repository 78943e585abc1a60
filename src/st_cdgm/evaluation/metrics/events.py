"""Scores of events: fractions skill score and F1 of extremes, member by member.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.blocks import pair_of, ratio


def fss(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    threshold: float,
    window: int = 9,
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> float:
    """Fractions skill score of the event "at least ``threshold``".

    ``1 - sum (P_f - P_o)^2 / (sum P_f^2 + sum P_o^2)`` over days, members and cells; P
    is the share of event cells among the counted cells of a square window. Windows at
    the border or the coast shrink to what is counted there: no padding with zeros.

    Parameters
    ----------
    forecast, reference, weights, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`.
    threshold : float
        In the units of the variable.
    window : int
        Odd side of the window in cells.

    Returns
    -------
    float
        In [0, 1]; NaN when neither side has an event.

    Raises
    ------
    InputError
        An even or non-positive window, which would shift the fields.

    References
    ----------
    Roberts and Lean (2008), doi:10.1175/2007MWR2123.1.
    """
    if window < 1 or window % 2 == 0:
        raise InputError("The window must be odd and positive.", found=window)
    difference = power = 0.0
    for block in pair_of(forecast, reference, weights=weights, mask=mask).blocks():
        counted = block.weight > 0
        area = _window_sum(counted, window)
        share_o = _share(block.reference >= threshold, counted, area, window)
        for member in np.moveaxis(block.forecast, 1, 0):
            share_f = _share(member >= threshold, counted, area, window)
            difference += float((block.weight * (share_f - share_o) ** 2).sum())
            power += float((block.weight * (share_f**2 + share_o**2)).sum())
    return 1 - ratio(difference, power)


def _window_sum(flags: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    size = (1, window, window)
    mean = ndimage.uniform_filter(flags.astype(np.float64), size, mode="constant")
    # Counts are whole numbers: rounding takes away what the running sums leave behind.
    return np.asarray(np.rint(mean * window**2))


def _share(
    event: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    area: NDArray[np.float64],
    window: int,
) -> NDArray[np.float64]:
    return _window_sum(event & counted, window) / np.maximum(area, 1)


def f1_extremes(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    percentiles: Sequence[float] = (95.0, 99.0),
    weights: ArrayLike | None = None,
    mask: ArrayLike | None = None,
) -> dict[str, float]:
    """F1 score of exceeding a percentile of the reference, hits counted on all members.

    The threshold is the percentile of all counted reference values; only values
    strictly above it are events, so that a threshold of 0 in dry data does not turn
    every dry cell into a hit.

    Parameters
    ----------
    forecast, reference, weights, mask : array_like
        See :mod:`st_cdgm.evaluation.metrics.blocks`.
    percentiles : sequence of float
        In (0, 100).

    Returns
    -------
    dict
        ``{"p95": ..., "p99.9": ...}``; NaN where neither side has an event.
    """
    pair = pair_of(forecast, reference, weights=weights, mask=mask)
    values = np.concatenate(
        [b.reference[b.weight > 0] for b in pair.blocks()] or [np.empty(0)]
    )
    if values.size == 0:
        return {f"p{p:.12g}": float("nan") for p in percentiles}
    thresholds = np.percentile(values, percentiles)
    counts = np.zeros((len(percentiles), 2))  # hits; all events on either side
    for block in pair.blocks():
        for n, threshold in enumerate(thresholds):
            f, o = block.forecast > threshold, block.reference[:, None] > threshold
            weight = block.weight[:, None]
            counts[n, 0] += 2 * (weight * (f & o)).sum()
            counts[n, 1] += (weight * f).sum() + (weight * o).sum() * f.shape[1]
    return {
        f"p{p:.12g}": ratio(hits, events)
        for p, (hits, events) in zip(percentiles, counts, strict=True)
    }
