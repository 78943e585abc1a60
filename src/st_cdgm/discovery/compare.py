"""Other methods on the same record, for comparison: spatial means of every variable.

PCMCI and PCMCI+ come from tigramite (GPL, extra ``oracle``), which is imported here
alone and only when asked for.

References
----------
Lütkepohl, New introduction to multiple time series analysis,
doi:10.1007/978-3-540-27752-1. PCMCI doi:10.1126/sciadv.aau4996. PCMCI+
arXiv:2003.03685.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from st_cdgm.discovery.anomalies import remove_harmonics
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.series import Record, window_ends
from st_cdgm.discovery.statistics import q_values
from st_cdgm.errors import ConfigError, check_choice
from st_cdgm.typing import Floats

METHODS = ("var", "pcmci", "pcmci+")
LEVEL = 0.01


def compare(
    record: Record, methods: list[str], config: DiscoveryConfig
) -> dict[str, list[tuple[str, str]]]:
    """Return the edges of other methods, from the same lags, seasons removed.

    Raises
    ------
    ConfigError
        An unknown method, or tigramite is not installed.
    """
    out = {}
    record = record.select(record.present())
    series, steps = _means(record, config), record.number
    for name in methods:
        check_choice("compare", name, METHODS)
        if name == "var":
            found = joint_var(series, steps, config.max_lag)
        else:
            found = _tigramite(series, config.max_lag, plus=name == "pcmci+")
        out[name] = [(record.names[i], record.names[k]) for i, k in np.argwhere(found)]
    return out


def joint_var(
    series: Floats, number: NDArray[np.int64], lags: int, *, level: float = LEVEL
) -> NDArray[np.bool_]:
    """Test every link by an F-test in a vector autoregression, with FDR control.

    Parameters
    ----------
    series : ndarray
        Shape ``(T, Q)``.
    number : ndarray
        Number of each step. Shape ``(T,)``.
    lags : int
        Order of the autoregression.
    level : float
        False discovery rate over all pairs.

    Returns
    -------
    ndarray of bool
        ``[i, k]``: i -> k. Shape ``(Q, Q)``.
    """
    rows = np.flatnonzero(window_ends(number, lags + 1))
    q = series.shape[1]
    past = [series[rows - lag] for lag in range(1, lags + 1)]
    X = np.column_stack([np.ones(len(rows)), *past])
    Y = series[rows]
    full = _squares(X, Y)

    free, p = len(rows) - X.shape[1], np.ones((q, q))
    for i in range(q):
        columns = [1 + lag * q + i for lag in range(lags)]
        lost = _squares(np.delete(X, columns, axis=1), Y) - full
        p[i] = stats.f.sf(lost / lags / (full / free), lags, free)
    off = ~np.eye(q, dtype=bool)
    found = np.zeros((q, q), bool)
    found[off] = q_values(p[off]) < level
    return found


def _squares(X: Floats, Y: Floats) -> Floats:
    """Return the residual sums of squares. ``(Q,)``."""
    left = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    return np.asarray(np.square(left).sum(axis=0))


def _means(record: Record, config: DiscoveryConfig) -> Floats:
    """Return anomalies of spatial means, the first channel of each. ``(T, Q)``."""
    parts = [np.nanmean(field[:, 0], axis=(1, 2)) for field in record.fields.values()]
    series = np.stack(parts, axis=1)[:, :, None, None]
    left = remove_harmonics(series, record.season, harmonics=config.harmonics)
    left = np.asarray(left[:, :, 0, 0], np.float64)
    return np.asarray(left / np.maximum(left.std(axis=0), 1e-12))


def _tigramite(series: Floats, lags: int, *, plus: bool) -> NDArray[np.bool_]:
    try:
        from tigramite.data_processing import DataFrame
        from tigramite.independence_tests.parcorr import ParCorr
        from tigramite.pcmci import PCMCI
    except ImportError as error:
        raise ConfigError(
            "PCMCI needs the package tigramite",
            variable="--compare",
            found="not installed",
            expected="pip install 'st-cdgm[oracle]'",
        ) from error

    pcmci = PCMCI(DataFrame(series), ParCorr(), verbosity=0)
    if plus:
        found = pcmci.run_pcmciplus(tau_min=0, tau_max=lags, pc_alpha=LEVEL)
    else:
        found = pcmci.run_pcmci(tau_max=lags, pc_alpha=0.2, fdr_method="fdr_bh")
    edge = (found["graph"][:, :, 1:] == "-->").any(axis=2)
    if not plus:
        edge &= (found["p_matrix"][:, :, 1:] < LEVEL).any(axis=2)
    np.fill_diagonal(edge, False)
    return np.asarray(edge)
