"""All scores of one ensemble of fields at once; none can take the others with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from st_cdgm.evaluation.evaluation_xai import scores
from st_cdgm.evaluation.evaluation_xai.fields import (
    FieldPair,
    array_of,
    own_baseline,
)
from st_cdgm.evaluation.metrics.distribution import histogram_distance
from st_cdgm.evaluation.metrics.spectra import spectrum_distance

_LOGGER = logging.getLogger(__name__)
NAN = float("nan")
ERRORS = ("mse", "mae", "rmse", "correlation")
T = TypeVar("T")


@dataclass(frozen=True)
class MetricReport:
    """Scores of an ensemble, and of its baseline where there is one.

    Attributes
    ----------
    mse, mae, rmse, correlation : float
        Of the ensemble mean.
    hist_distance, spectrum_distance : float
        Of the members; the latter in dB.
    crps, energy_score : float
        Fair scores of the ensemble.
    baseline_mse, baseline_mae, baseline_rmse : float or None
        The same errors of the baseline.
    fss, wasserstein_distance, f1_extremes : float, float, dict or None
        None where they were not asked for.
    failed : dict of str to str
        Scores that could not be computed (NaN or None above), and why.
    """

    mse: float
    mae: float
    hist_distance: float
    crps: float
    spectrum_distance: float
    baseline_mse: float | None = None
    baseline_mae: float | None = None
    fss: float | None = None
    wasserstein_distance: float | None = None
    energy_score: float | None = None
    f1_extremes: dict[str, float] | None = None
    rmse: float = float("nan")
    correlation: float = float("nan")
    baseline_rmse: float | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the scores by name, plain numbers only."""
        return asdict(self)


@dataclass
class _Attempts:
    """Run scores one by one; keep what failed."""

    failed: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, score: Callable[[], T], otherwise: T) -> T:
        try:
            return score()
        except Exception as error:  # noqa: BLE001 - a plugin's metric may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            self.failed[name] = reason
            _LOGGER.warning("%s could not be computed: %s", name, reason)
            return otherwise


def evaluate_metrics(
    samples: Sequence[Any],
    target: Any,
    baseline: Any | None = None,
    *,
    compute_advanced: bool = True,
    fss_threshold: float | None = None,
    fss_window_size: int = 9,
    compute_f1_extremes: bool = True,
    f1_percentiles: Sequence[float] = scores.PERCENTILES,
    inverse_transform: Callable[[Any], Any] | None = None,
) -> MetricReport:
    """Score an ensemble of fields; see :mod:`st_cdgm.evaluation.evaluation_xai.scores`.

    Parameters
    ----------
    samples : sequence
        M fields or draws of a decoder.
    target, baseline : field
        The truth, NaN where there is none; what the residual was added to. Without a
        baseline that of the first sample counts, if it is in the units of the fields.
    compute_advanced : bool
        Whether to compute FSS, Wasserstein distance and energy score as well.
    fss_threshold, fss_window_size : float, int
        Event of the FSS, which is left out without a threshold, and side of its window.
    compute_f1_extremes, f1_percentiles : bool, sequence of float
        Whether and above which percentiles of the target to count extremes.
    inverse_transform : callable, optional
        Applied to samples, target and baseline before anything is compared: from a
        transformed scale to physical units.

    Returns
    -------
    MetricReport
        A score that fails is NaN, is named in ``failed`` and logged as a warning.

    Raises
    ------
    InputError
        (a ValueError) No sample, other shapes, or a sample with a hole where the target
        has a value.
    """
    if baseline is None and len(samples):
        baseline = own_baseline(samples[0])
    physical: Callable[[Any], Any] = inverse_transform or (lambda fields: fields)
    members = [physical(array_of(sample)) for sample in samples]
    truth = physical(array_of(target))
    pair = FieldPair.of(members, truth)
    pair.check_whole()

    # Errors of the ensemble mean, all else of the members: the mean is too smooth.
    attempt = _Attempts()
    mean = np.swapaxes(pair.forecast.mean(axis=2), 0, 1)  # (B, C, Y, X)
    found = _errors(mean, truth, attempt)
    if baseline is not None:
        first = physical(array_of(baseline))
        found |= _errors(first, truth, attempt, names=ERRORS[:3], prefix="baseline_")

    asked = dict(_ensemble_scores(members, truth))
    if compute_advanced:
        asked |= dict(_advanced_scores(members, truth))
    if compute_advanced and fss_threshold is not None:
        asked["fss"] = lambda: scores.member_fss(
            members, truth, fss_threshold, fss_window_size
        )
    found |= {name: attempt(name, score, NAN) for name, score in asked.items()}

    if compute_f1_extremes:
        found["f1_extremes"] = attempt(
            "f1_extremes",
            lambda: scores.member_f1(members, truth, f1_percentiles),
            None,
        )
    return MetricReport(**found, failed=attempt.failed)


def _errors(
    field: Any,
    truth: Any,
    attempt: _Attempts,
    *,
    names: Sequence[str] = ERRORS,
    prefix: str = "",
) -> dict[str, Any]:
    """Return errors of one field by name."""
    return {
        prefix + name: attempt(prefix + name, partial(score, field, truth), NAN)
        for name in names
        for score in [getattr(scores, f"compute_{name}")]
    }


def _ensemble_scores(
    members: Sequence[Any], truth: Any
) -> Iterator[tuple[str, Callable[[], float]]]:
    yield "crps", partial(scores.compute_crps, members, truth)
    for name, metric in (
        ("hist_distance", histogram_distance),
        ("spectrum_distance", spectrum_distance),
    ):
        yield name, partial(scores.channel_mean, metric, members, truth)


def _advanced_scores(
    members: Sequence[Any], truth: Any
) -> Iterator[tuple[str, Callable[[], float]]]:
    distance = scores.compute_wasserstein_distance
    yield "wasserstein_distance", partial(distance, members, truth)
    yield "energy_score", partial(scores.compute_energy_score, members, truth)
