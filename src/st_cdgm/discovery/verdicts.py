"""From held-out losses to verdicts about edges.

With ``MSE_k`` the held-out error of variable k predicted from its own and all others'
past, ``MSE_k(-i)`` without i's past, and ``MSE_k(i*)`` with i's past of another year in
its place (a shadow: the same season, the same memory, no link)::

    gain_ik   = (MSE_k(-i) - MSE_k) / MSE_k
    shadow_ik = (MSE_k(-i) - MSE_k(i*)) / MSE_k

The edge i -> k is accepted iff the gain exceeds a floor, its t-value over held-out
years exceeds a limit, and it is larger than a multiple of the best shadow of k. A gain
that fails the last condition alone is *not identifiable*: something the years have in
common, such as an annual cycle, predicts as well as the parent does.

Shadows do not see a hidden driver that is slow but differs from year to year. It leaves
a trace elsewhere: the parts of two variables that the model cannot explain are then
more alike in monthly than in daily means. An edge between such variables stays an edge
but is called *doubtful*.

References
----------
Granger, Investigating causal relations by econometric models and cross-spectral
methods, doi:10.2307/1912791.
Kursa & Rudnicki, Feature selection with the Boruta package (shadow variables),
doi:10.18637/jss.v036.i11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.discovery.network import DiscoveryConfig
from st_cdgm.errors import InputError
from st_cdgm.typing import Floats

# Smallest sum of squares that counts as a spread between years.
TINY = 1e-12
SLOW_DAYS = 30
SLOW_Z = 3.0
FEWEST_BLOCKS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeVerdicts:
    """What was decided about every ordered pair of variables, ``[i, k]``: i -> k.

    Arrays are of shape ``(Q, Q)`` but for ``error``.

    Attributes
    ----------
    names : tuple of str
        The Q variables.
    gain, t_value : ndarray
        Relative increase of k's held-out error without i, and its t-value over
        held-out years.
    shadow : ndarray
        Relative gain of the year-shifted shadow of i.
    edge, unidentifiable : ndarray of bool
        Accepted edges, and gains that are real in size and steadiness but no better
        than shadows.
    tested : ndarray of bool
        Pairs whose model without i was fitted; False: the fit gave i no weight at all,
        which counts as no edge.
    error : ndarray
        Held-out mean squared error of each variable in units of its variance.
        Shape ``(Q,)``.
    slow : ndarray
        z-value of the slow variance that the unexplained parts of two variables share,
        symmetric, 0 where unknown.
    """

    names: tuple[str, ...]
    gain: Floats
    t_value: Floats
    shadow: Floats
    edge: NDArray[np.bool_]
    unidentifiable: NDArray[np.bool_]
    tested: NDArray[np.bool_]
    error: Floats
    slow: Floats

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """Edges that a slow hidden driver of both variables might make. ``(Q, Q)``."""
        return self.edge & (self.slow > SLOW_Z)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values, one record per tested pair."""
        pairs = [
            {
                "source": self.names[i],
                "target": self.names[k],
                "gain": float(self.gain[i, k]),
                "t": float(self.t_value[i, k]),
                "shadow": float(self.shadow[i, k]),
                "slow_z": float(self.slow[i, k]),
                "verdict": self.verdict(int(i), int(k)),
            }
            for i, k in np.argwhere(self.tested)
        ]
        names, error = list(self.names), self.error.tolist()
        return {"variables": names, "error": error, "pairs": pairs}

    def verdict(self, i: int, k: int) -> str:
        """Return ``edge``, ``doubtful``, ``not identifiable`` or ``none``."""
        if self.edge[i, k]:
            return "doubtful" if self.doubtful[i, k] else "edge"
        return "not identifiable" if self.unidentifiable[i, k] else "none"


def year_t_values(gains: Floats) -> Floats:
    """Return mean over standard error along the first axis; 0 for equal zeros.

    One value per held-out year: ``(Y, ...)``, ``Y >= 2``.
    """
    mean, spread = gains.mean(axis=0), gains.std(axis=0, ddof=1)
    steady: Floats = mean / np.maximum(spread / np.sqrt(len(gains)), TINY)
    return steady


def judge_edges(
    names: Sequence[str],
    full: Floats,
    without: Floats,
    shadow: Floats,
    tested: NDArray[np.bool_] | None = None,
    *,
    config: DiscoveryConfig | None = None,
    slow: Floats | None = None,
) -> EdgeVerdicts:
    """Apply the rule to held-out errors per year.

    Parameters
    ----------
    names : sequence of str
        The Q variables.
    full : ndarray
        Error with all parents. Shape ``(Y, Q)``.
    without, shadow : ndarray
        Error of target k without i, and with the shadow of i. Shape ``(Y, Q, Q)``,
        ``[year, i, k]``.
    tested : ndarray of bool, optional
        Pairs to judge; all but the diagonal when absent. Shape ``(Q, Q)``.
    config : DiscoveryConfig, optional
        ``min_gain``, ``min_t`` and ``shadow_ratio`` are used.
    slow : ndarray, optional
        As :func:`slow_common_variance` returns it. Shape ``(Q, Q)``.

    Raises
    ------
    InputError
        Fewer than two years, or shapes that do not fit.
    """
    rule, q = config or DiscoveryConfig(), len(names)
    shapes = (full.shape, without.shape, shadow.shape)
    years = len(full)
    if shapes != ((years, q), (years, q, q), (years, q, q)) or years < 2:
        raise InputError(
            "edges are judged from the errors of two or more held-out years",
            found=shapes,
            expected=f"(Y, {q}), (Y, {q}, {q}) twice, Y >= 2",
        )

    tested = np.ones((q, q), bool) if tested is None else tested.copy()
    np.fill_diagonal(tested, False)

    # Relative to the full error: what is lost without i, and what i's shadow spares.
    base = np.maximum(full.mean(axis=0), TINY)  # (Q,)
    gains = np.where(tested, (without - full[:, None, :]) / base, 0.0)
    shadows = np.where(tested, (without - shadow) / base, 0.0)
    gain, t_value = gains.mean(axis=0), year_t_values(gains)
    mean_shadow = shadows.mean(axis=0)
    best = np.maximum(mean_shadow.max(axis=0), 0.0)  # of each target

    # Large and steady; then no better than the best shadow is not identifiable.
    real = tested & (gain > rule.min_gain) & (t_value > rule.min_t)
    edge = real & (gain > rule.shadow_ratio * best)

    return EdgeVerdicts(
        names=tuple(names),
        gain=gain,
        t_value=t_value,
        shadow=mean_shadow,
        edge=edge,
        unidentifiable=real & ~edge,
        tested=tested,
        error=full.mean(axis=0),
        slow=np.zeros((q, q)) if slow is None else slow,
    )


def slow_common_variance(
    residual: Floats, ordinal: NDArray[np.int64], *, block: int = SLOW_DAYS
) -> Floats:
    """Compare the correlation of unexplained parts in long and in daily means.

    Under white residuals both estimate the same correlation; the difference of their
    Fisher transforms over its standard error is returned where the long means are the
    more alike, else 0.

    Parameters
    ----------
    residual : ndarray
        Held-out residuals, spatial means. Shape ``(D, Q)``.
    ordinal : ndarray
        Number of each day. Shape ``(D,)``.
    block : int
        Days of a long mean; a mean counts when at least half of its days exist.

    Returns
    -------
    ndarray
        z-values, symmetric, 0 on the diagonal, and everywhere for fewer than ten long
        means. Shape ``(Q, Q)``.
    """
    q = residual.shape[1]
    number, count = np.unique(ordinal // block, return_counts=True)
    number = number[2 * count >= block]
    if len(number) < FEWEST_BLOCKS:
        return np.zeros((q, q))

    where = ordinal // block
    means = np.stack([residual[where == b].mean(axis=0) for b in number])
    slow, daily = _correlation(means), _correlation(residual)

    z = np.abs(np.arctanh(slow) - np.arctanh(daily)) * np.sqrt(len(number) - 3)
    z = np.where(np.abs(slow) > np.abs(daily), z, 0.0)
    np.fill_diagonal(z, 0.0)
    return np.asarray(z, dtype=np.float64)


def _correlation(series: Floats) -> Floats:
    """Correlate columns, within the open interval; 0 with a constant."""
    centred = series - series.mean(axis=0)
    covariance = centred.T @ centred
    size = np.sqrt(np.diag(covariance))
    correlation = covariance / np.maximum(np.outer(size, size), TINY)
    return np.asarray(np.clip(correlation, -0.999, 0.999))


def shadow_days(
    year: NDArray[np.int64],
    season: NDArray[np.floating],
    allowed: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Return for every day the same day of the season in another allowed year.

    Parameters
    ----------
    year, season, allowed : ndarray
        Year and elapsed fraction of the year of each day, and whether it may be asked
        for and given. Shape ``(T,)``.

    Returns
    -------
    ndarray
        Index of the day in the next allowed year (the last year takes the first) whose
        season is nearest; -1 on days not allowed. Shape ``(T,)``, int64.

    Raises
    ------
    InputError
        The allowed days lie in a single year.
    """
    years = np.unique(year[allowed])
    if len(years) < 2:
        raise InputError(
            "shadows need days of two or more years",
            found=f"{len(years)} year(s)",
            expected=">= 2 in the training and in the held-out period each",
        )

    out = np.full(len(year), -1, dtype=np.int64)
    for here, there in zip(years, np.roll(years, -1), strict=True):
        mine = np.flatnonzero(allowed & (year == here))
        other = np.flatnonzero(allowed & (year == there))
        distance = np.abs(season[other] - season[mine][:, None])
        out[mine] = other[distance.argmin(axis=1)]
    return out
