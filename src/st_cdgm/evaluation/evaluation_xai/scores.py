"""Scores of a few fields in memory.

Fields are ``(Y, X)``, ``(C, Y, X)`` or ``(B, C, Y, X)``: tensors, arrays or draws of a
decoder; NaN in the target leaves a cell out. Every score is the mean over channels, of
which each has its own thresholds and ranges. An empty ensemble, or nothing to count,
gives NaN. All raise GridMismatchError where sample and target differ in shape, and
InputError for a sample with a hole where the target has a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from st_cdgm.evaluation.evaluation_xai.fields import FieldPair, array_of
from st_cdgm.evaluation.metrics.deterministic import correlation, mae, mse
from st_cdgm.evaluation.metrics.distribution import histogram_distance
from st_cdgm.evaluation.metrics.events import f1_extremes, fss
from st_cdgm.evaluation.metrics.probabilistic import crps, energy_score
from st_cdgm.evaluation.metrics.spectra import power_spectrum, spectrum_distance
from st_cdgm.evaluation.metrics.wasserstein import sliced_wasserstein
from st_cdgm.typing import Floats

PERCENTILES = (95.0, 99.0)


def compute_mse(pred: Any, target: Any) -> float:
    """Mean squared error, in squared units."""
    return channel_mean(mse, [pred], target)


def compute_rmse(pred: Any, target: Any) -> float:
    """Root of the mean squared error of each channel, mean over channels."""
    return channel_mean(lambda f, r: float(np.sqrt(mse(f, r))), [pred], target)


def compute_mae(pred: Any, target: Any) -> float:
    """Mean absolute error."""
    return channel_mean(mae, [pred], target)


def compute_correlation(pred: Any, target: Any) -> float:
    """Pearson correlation over all counted cells."""
    return channel_mean(lambda f, r: correlation(f, r, over="all"), [pred], target)


def compute_histogram_distance(pred: Any, target: Any, bins: int = 50) -> float:
    """Distance of the histograms over the joint range, 0 (same) to 2 (no overlap)."""
    return channel_mean(
        lambda f, r: histogram_distance(f, r, bins=bins), [pred], target
    )


def compute_crps(samples: Sequence[Any], target: Any, *, fair: bool = True) -> float:
    """Continuous ranked probability score of an ensemble.

    Parameters
    ----------
    samples : sequence
        M fields, or one array with the members as first axis.
    fair : bool
        The estimator that does not depend on M, or that of the ensemble as it is.

    References
    ----------
    Ferro (2014), doi:10.1002/qj.2270.
    """
    return channel_mean(lambda f, r: crps(f, r, fair=fair), samples, target)


def compute_energy_score(
    samples: Sequence[Any], target: Any, *, fair: bool = True
) -> float:
    """Energy score of whole fields; one member has no second term.

    References
    ----------
    Gneiting and Raftery (2007), doi:10.1198/016214506000001437.
    """
    return channel_mean(lambda f, r: energy_score(f, r, fair=fair), samples, target)


def compute_fss(
    pred: Any, target: Any, threshold: float, window_size: int = 9
) -> float:
    """Fractions skill score of "at least ``threshold``"; NaN without any event.

    Parameters
    ----------
    threshold : float
        In the units of the fields.
    window_size : int
        Odd side of the window, cells.

    References
    ----------
    Roberts and Lean (2008), doi:10.1175/2007MWR2123.1.
    """
    return member_fss([pred], target, threshold, window_size)


def member_fss(
    samples: Sequence[Any], target: Any, threshold: float, window_size: int
) -> float:
    """Fractions skill score over all members; see :func:`compute_fss`."""
    return channel_mean(
        lambda f, r: fss(f, r, threshold=threshold, window=window_size), samples, target
    )


def compute_f1_extremes(
    pred: Any, target: Any, threshold_percentiles: Sequence[float] = PERCENTILES
) -> dict[str, float]:
    """F1 of exceeding percentiles of the target: ``{"p95": ..., "p99": ...}``."""
    return member_f1([pred], target, threshold_percentiles)


def member_f1(
    samples: Sequence[Any], target: Any, percentiles: Sequence[float]
) -> dict[str, float]:
    """F1 of exceeding percentiles, hits counted on all members."""
    if len(samples) == 0:
        return {f"p{p:.12g}": float("nan") for p in percentiles}
    found = [
        f1_extremes(f, r, percentiles=percentiles)
        for f, r in FieldPair.of(samples, target).channels()
    ]
    return {key: nan_mean([one[key] for one in found]) for key in found[0]}


def compute_wasserstein_distance(
    samples: Sequence[Any],
    target: Any,
    num_projections: int = 50,
    *,
    patch: int = 3,
    generator: np.random.Generator | None = None,
) -> float:
    """Sliced Wasserstein-2 distance of the patches of members and target.

    Parameters
    ----------
    num_projections : int
        Random directions.
    patch : int
        Side of a patch in cells; 1 compares values alone.
    generator : Generator, optional
        Draws the directions; without one they are the same in every call.

    References
    ----------
    Bonneel et al. (2015), doi:10.1007/s10851-014-0506-3.
    """
    rng = np.random.default_rng(0) if generator is None else generator
    return channel_mean(
        lambda f, r: sliced_wasserstein(
            f, r, rng=rng, patch=patch, projections=num_projections
        ),
        samples,
        target,
    )


def compute_power_spectrum(field: Any) -> Floats:
    """Radially averaged power; NaN where a cell is missing.

    Returns
    -------
    ndarray
        Mean power per mode, squared units, at ``k / (2 min(Y, X))`` cycles per cell for
        k = 1 ... K. Shape ``(K,)`` of ``(Y, X)``, else ``(..., K)``.
    """
    values = array_of(field)
    planes = values.reshape(-1, *values.shape[-2:])
    power = np.stack([power_spectrum(plane)[1] for plane in planes])
    return power.reshape(*values.shape[:-2], -1)


def compute_spectrum_distance(pred: Any, target: Any) -> float:
    """Root mean square distance of the log spectra, in dB."""
    return channel_mean(spectrum_distance, [pred], target)


def channel_mean(
    metric: Callable[[Floats, Floats], float], samples: Sequence[Any], target: Any
) -> float:
    """Return the mean over channels of what a metric gives; NaN without samples."""
    if len(samples) == 0:
        return float("nan")
    pair = FieldPair.of(samples, target)
    return nan_mean([metric(f, r) for f, r in pair.channels()])


def nan_mean(values: Sequence[float]) -> float:
    """Return the mean of what is a number; NaN without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
