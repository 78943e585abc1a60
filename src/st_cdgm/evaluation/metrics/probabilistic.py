"""Ensemble scores: CRPS, energy score, spread-skill ratio, rank histogram.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Unpack

import numpy as np
import scoringrules
from numpy.typing import ArrayLike

from st_cdgm.errors import GridMismatchError
from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import (
    Block,
    Cells,
    accumulate,
    pair_of,
    ratio,
    scored,
)
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices


class CrpsScore:
    """Weighted mean of the CRPS over days and cells; see :func:`crps`."""

    def __init__(self, *, fair: bool = True) -> None:
        self.fair = fair
        self._sums: list[Floats] = []
        self._weights: list[Floats] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        # Scores do not change when the truth is subtracted, and the sorted form then
        # does not cancel large numbers.
        error = block.forecast - block.reference[:, None]  # (t, M, Y, X)
        if error.shape[1] == 1:
            field = np.abs(error[:, 0])
        elif block.network is not None:
            field = _mixture(error, block.network, fair=self.fair)
        else:
            field = scoringrules.crps_ensemble(
                np.zeros_like(block.reference),
                np.sort(error, axis=1),
                m_axis=1,
                sorted_ensemble=True,
                estimator="pwm" if self.fair else "qd",
                backend="numpy",
            )

        self._sums.append((block.weight * field).sum(axis=(1, 2)))
        self._weights.append(block.weight.sum(axis=(1, 2)))

    @property
    def value(self) -> float:
        """The score in the units of the variable."""
        return ratio(
            float(_joined(self._sums).sum()), float(_joined(self._weights).sum())
        )

    @property
    def daily(self) -> Floats:
        """Area mean per day, NaN where nothing is counted. Shape ``(T,)``."""
        total, weight = _joined(self._sums), _joined(self._weights)
        counted = weight > 0
        mean = total / np.where(counted, weight, 1.0)
        return np.where(counted, mean, np.nan)

    @property
    def daily_weight(self) -> Floats:
        """Sum of the counted cell weights per day. Shape ``(T,)``."""
        return _joined(self._weights)


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate([np.empty(0), *parts])


def _mixture(error: Floats, network: Indices, *, fair: bool) -> Floats:
    """CRPS of members minus truth ``(t, M, Y, X)`` as a mixture; see :func:`crps`."""
    _, which, count = np.unique(network, return_inverse=True, return_counts=True)
    K = count.size
    weight = 1 / (K * count[which])  # (M,)
    skill = np.tensordot(np.abs(error), weight, axes=(1, 0))  # (t, Y, X)
    spread = _half_distance(error, weight)
    if not fair:
        return np.asarray(skill - spread)

    # A member has no distance to itself: n (n - 1) pairs within a network, not n^2.
    for k, n in enumerate(count):
        if n > 1:
            own = _half_distance(error[:, which == k], np.full(n, 1 / n))
            spread = spread + own / ((n - 1) * K**2)
    return np.asarray(skill - spread)


def _half_distance(values: Floats, weight: Floats) -> Floats:
    """Half the mean distance of two draws from weighted values, along axis 1.

    It is the integral of F (1 - F), F the distribution function.
    """
    order = values.argsort(axis=1)
    F = weight[order].cumsum(axis=1)[:, :-1]
    gaps = np.diff(np.take_along_axis(values, order, axis=1), axis=1)
    return np.asarray((F * (1 - F) * gaps).sum(axis=1))


def crps(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    fair: bool = True,
    network: ArrayLike | None = None,
    **cells: Unpack[Cells],
) -> float:
    """Continuous ranked probability score, mean over days and cells.

    ``mean_i |X_i - y| - sum_ij |X_i - X_j| / (2 M (M - 1))`` (fair, unbiased in the
    number of members M) or with ``2 M^2`` (``fair=False``, the ensemble as it is). One
    member gives the mean absolute error. In the units of the variable; NaN when
    nothing is counted.

    A pool of K networks is scored as the mixture of their distributions in equal parts.
    Its members are no random draw from that mixture, for each network has its share of
    them: all pairs alike would count the wide ones, between networks, too often. So the
    mean distance is 1/K times that of pairs within a network and 1 - 1/K times that of
    pairs between two, and the mean error is that of the networks' means. A network of
    one member has no pair: its spread counts as 0, which makes the score worse.

    Parameters
    ----------
    fair : bool
        The estimator.
    network : array_like, optional
        Which network made each member, any labels. Shape ``(M,)``. Files say so by a
        coordinate of this name along their members.

    Raises
    ------
    GridMismatchError
        Another number of labels than of members.

    References
    ----------
    Ferro (2014), doi:10.1002/qj.2270. The sorted form (probability weighted moments) is
    Zamo and Naveau (2018), doi:10.1007/s11004-017-9709-7.
    """
    pair = pair_of(forecast, reference, **cells)
    if network is not None:
        pair = replace(pair, network=_check_network(network, pair.shape[1]))
    score = CrpsScore(fair=fair)
    accumulate(pair, score)
    return score.value


def _check_network(network: ArrayLike, members: int) -> Indices:
    """Return labels as numbers; refuse another number of them than of members."""
    labels = np.asarray(network)
    if labels.shape != (members,):
        raise GridMismatchError(
            "The networks of the members do not fit the forecast.",
            found=labels.shape,
            expected=(members,),
        )
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)


class EnergyScore:
    """Mean over days of the energy score of whole fields; see :func:`energy_score`."""

    def __init__(self, *, fair: bool = True) -> None:
        self.fair = fair
        self._sum, self._days = 0.0, 0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        total = block.weight.sum(axis=(1, 2))  # (t,)
        days = total > 0
        root = np.sqrt(block.weight[days] / total[days, None, None])[:, None]
        error = block.forecast[days] - block.reference[days, None]
        t, M = error.shape[:2]
        vectors = (root * error).reshape(t, M, -1)
        # All distances between members from their inner products, one matrix a day.
        inner = vectors @ vectors.transpose(0, 2, 1)  # (t, M, M)
        square = np.diagonal(inner, axis1=1, axis2=2)  # (t, M)
        apart = square[:, :, None] + square[:, None, :] - 2 * inner
        skill = np.sqrt(square).mean(axis=1)  # (t,)
        pairs = np.triu(np.sqrt(apart.clip(min=0)), 1).sum(axis=(1, 2))
        # Each unordered pair stands for two ordered ones.
        scale = M * (M - 1) if self.fair else M * M
        spread = pairs / scale if M > 1 else pairs
        self._sum += float((skill - spread).sum())
        self._days += int(days.sum())

    @property
    def value(self) -> float:
        """The score in the units of the variable."""
        return ratio(self._sum, self._days)


def energy_score(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    fair: bool = True,
    **cells: Unpack[Cells],
) -> float:
    """Energy score of the fields of a day, mean over days.

    ``mean_i ||X_i - y|| - sum_ij ||X_i - X_j|| / (2 M (M - 1))`` with the norm the
    weighted root mean square over the counted cells, so that the score has the units of
    the variable and does not grow with the grid. The second term is 0 for one member.

    Parameters
    ----------
    fair : bool
        ``2 M (M - 1)`` as above, or ``2 M^2``.

    References
    ----------
    Gneiting and Raftery (2007), doi:10.1198/016214506000001437.
    """
    return scored(EnergyScore(fair=fair), forecast, reference, **cells).value


class SpreadSkillScore:
    """Spread against the error of the mean; see :func:`spread_skill_ratio`."""

    def __init__(self) -> None:
        self._variance = self._square = self._weight = 0.0
        self._members = 0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        M = self._members = block.forecast.shape[1]
        error = block.forecast.mean(axis=1) - block.reference
        self._square += float((block.weight * error**2).sum())
        self._weight += float(block.weight.sum())
        if M > 1:
            variance = block.forecast.var(axis=1, ddof=1)
            self._variance += float((block.weight * variance).sum())

    @property
    def spread(self) -> float:
        """Root of the mean ensemble variance, with the factor (M + 1) / M."""
        M = self._members
        if M < 2:
            return float("nan")
        return float(np.sqrt(ratio(self._variance, self._weight) * (M + 1) / M))

    @property
    def value(self) -> float:
        """Spread over root mean square error; NaN for one member."""
        return ratio(self.spread, float(np.sqrt(ratio(self._square, self._weight))))


def spread_skill_ratio(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> float:
    """Ratio of spread to error: 1 for a reliable ensemble, below 1 over-confident.

    ``sqrt((M + 1) / M * mean variance) / RMSE of the ensemble mean``, the variance with
    M - 1 in the denominator. NaN for one member or an error of exactly 0.

    References
    ----------
    Fortin et al. (2014), doi:10.1175/JHM-D-14-0008.1.
    """
    return scored(SpreadSkillScore(), forecast, reference, **cells).value


class RankHistogram:
    """Weighted counts of the rank of the truth; see :func:`rank_histogram`."""

    def __init__(self) -> None:
        self._steps: Floats | None = None

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        M = block.forecast.shape[1]
        truth = block.reference[:, None]
        lower = (block.forecast < truth).sum(axis=1).ravel()  # members below the truth
        equal = (block.forecast == truth).sum(axis=1).ravel()
        share = block.weight.ravel() / (equal + 1)
        # share goes to the ranks lower ... lower + equal: a step up and a step down.
        up = np.bincount(lower, share, minlength=M + 2)
        down = np.bincount(lower + equal + 1, share, minlength=M + 2)
        before = np.zeros(M + 2) if self._steps is None else self._steps
        self._steps = np.asarray(before + up - down, dtype=np.float64)

    @property
    def value(self) -> Floats:
        """Relative frequencies. Shape ``(M + 1,)``."""
        if self._steps is None:
            return np.full(1, np.nan)
        counts = np.cumsum(self._steps)[:-1]
        total = counts.sum()
        return counts / total if total > 0 else np.full_like(counts, np.nan)


def rank_histogram(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Floats:
    """Relative frequency of the rank of the truth among the members.

    A truth that equals some members (dry days) is shared evenly among the ranks it
    could take, which is the expectation of breaking ties at random without its noise.

    Returns
    -------
    ndarray
        Shape ``(M + 1,)``, sum 1; flat for a reliable ensemble. Rank 0 means that the
        truth lies below all members.

    References
    ----------
    Hamill (2001), doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.
    """
    return scored(RankHistogram(), forecast, reference, **cells).value


def reliability_index(histogram: ArrayLike) -> float:
    """Sum of the distances of a rank histogram from the flat one.

    0 when flat, at most ``2 M / (M + 1)``.

    References
    ----------
    Delle Monache et al. (2006), doi:10.1029/2005JD006917.
    """
    frequency = np.asarray(histogram, dtype=np.float64)
    return float(np.abs(frequency - 1 / frequency.size).sum())


@register("metric", "crps")
class CrpsMetric(Metric):
    """Continuous ranked probability score, fair in the ensemble size."""

    score = CrpsScore
    title, head = "fair CRPS", "fair CRPS"
    ideal, place = 0.0, 10
    headline = 1


@register("metric", "energy_score")
class EnergyMetric(Metric):
    """Energy score of whole fields."""

    score = EnergyScore
    title = "fair energy score of the day's field"
    ideal, place = 0.0, 20
