"""Yardsticks for the learned graph, each on the series the model gets.

All answer with a Boolean matrix ``[i, k]``: i acts on k one day later. Those that look
further back (VAR, PCMCI, PCMCI+) are in `st_cdgm.discovery.compare`.

References
----------
DAGMA arXiv:2209.08037. NOTEARS arXiv:1803.01422. R2-SortnRegress arXiv:2303.18211.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, stats

from st_cdgm.models.acyclicity import notears

Graph = NDArray[np.bool_]
Floats = NDArray[np.float64]
# Fixed on the graphs with seeds 1001 to 1005; 0.1 loses a fifth of the mild links.
WEIGHT_THRESHOLD = 0.02
LEVEL = 0.01


def spatial_means(fields: NDArray[np.floating]) -> Floats:
    """``(T, Q, y, x)`` -> standardised ``(T, Q)``."""
    series = np.asarray(fields, np.float64).mean(axis=(2, 3))
    return (series - series.mean(0)) / series.std(0)


def lag_augmented(series: Floats) -> Floats:
    """``[x(t-1), x(t)]``: what the static methods are given. Shape ``(T-1, 2Q)``."""
    return np.hstack([series[:-1], series[1:]])


def lagged_block(weights: Floats, q: int) -> Graph:
    """Edges from yesterday's variables to today's others."""
    block = np.abs(weights[:q, q:]) > WEIGHT_THRESHOLD
    np.fill_diagonal(block, False)
    return block


def dagma(fields: NDArray[np.floating]) -> Graph:
    """DAGMA (linear), told that nothing acts on yesterday."""
    from dagma.linear import DagmaLinear

    data = lag_augmented(spatial_means(fields))
    q = data.shape[1] // 2
    into_past = tuple((i, j) for i in range(2 * q) for j in range(q) if i != j)
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        weights = DagmaLinear(loss_type="l2").fit(
            data,
            lambda1=0.02,
            w_threshold=0.0,
            warm_iter=4000,
            max_iter=8000,
            lr=1e-3,
            exclude_edges=into_past,
        )
    return lagged_block(np.asarray(weights), q)


def notears_linear(fields: NDArray[np.floating], penalty: float = 0.02) -> Graph:
    """NOTEARS (linear): augmented Lagrangian, L-BFGS-B, told the same as DAGMA."""
    data = lag_augmented(spatial_means(fields))
    n, d = data.shape
    q = d // 2
    second = torch.from_numpy(data.T @ data / n)
    free = np.zeros((d, d), bool)
    free[:, q:] = True
    np.fill_diagonal(free, False)
    bounds = [(0.0, None if f else 0.0) for f in free.ravel()] * 2

    def objective(w: Floats, rho: float, alpha: float) -> tuple[float, Floats]:
        halves = torch.tensor(w.reshape(2, d, d), requires_grad=True)
        W = halves[0] - halves[1]
        residual = torch.eye(d, dtype=W.dtype) - W
        fit = 0.5 * torch.trace(residual.T @ second @ residual)
        h = notears(W)
        loss = fit + 0.5 * rho * h * h + alpha * h + penalty * halves.sum()
        loss.backward()
        return loss.item(), halves.grad.numpy().ravel()

    w, rho, alpha, h = np.zeros(2 * d * d), 1.0, 0.0, np.inf
    for _ in range(20):
        while rho < 1e12:
            found = optimize.minimize(
                objective, w, (rho, alpha), jac=True, method="L-BFGS-B", bounds=bounds
            ).x
            W = torch.from_numpy(found[: d * d] - found[d * d :]).view(d, d)
            new = float(notears(W))
            if new <= 0.25 * h:
                break
            rho *= 10
        w, h = found, new
        alpha += rho * h
        if h <= 1e-8 or rho >= 1e12:
            break
    return lagged_block(W.numpy(), q)


def _bic_parents(y: Floats, own: Floats, candidates: Floats) -> NDArray[np.bool_]:
    """Greedy forward regression on candidates by the Bayesian information criterion."""
    n, count = candidates.shape
    chosen: list[int] = []

    def score(columns: list[int]) -> float:
        design = np.column_stack([np.ones(n), own, candidates[:, columns]])
        residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        return float(n * np.log(residual @ residual / n) + design.shape[1] * np.log(n))

    best = score([])
    while len(chosen) < count:
        trials = {j: score([*chosen, j]) for j in range(count) if j not in chosen}
        j = min(trials, key=lambda key: trials[key])
        if trials[j] >= best:
            break
        chosen, best = [*chosen, j], trials[j]
    return np.isin(np.arange(count), chosen)


def r2_sortability(fields: NDArray[np.floating]) -> Graph:
    """R2-SortnRegress with the known lag: parents come before in the order of R2."""
    series = spatial_means(fields)
    q = series.shape[1]
    inverse = np.linalg.inv(np.corrcoef(series.T))
    order = np.argsort(1 - 1 / np.diag(inverse))  # R2 of each on all others
    edge = np.zeros((q, q), bool)
    for place, k in enumerate(order):
        before = order[:place]
        if len(before):
            edge[before, k] = _bic_parents(
                series[1:, k], series[:-1, [k]], series[:-1, before]
            )
    return edge


def naive_granger(fields: NDArray[np.floating], *, level: float = LEVEL) -> Graph:
    """Return edges by F-tests on spatial means, in sample: the textbook, as a warning.

    Parameters
    ----------
    fields : ndarray
        Shape ``(T, Q, y, x)``.
    level : float
        Significance of each test.

    Returns
    -------
    ndarray of bool
        ``[i, k]``: i -> k. Shape ``(Q, Q)``.
    """
    series = np.asarray(fields, np.float64).mean(axis=(2, 3))
    past, now = series[:-1], series[1:]
    n, q = past.shape
    edge = np.zeros((q, q), dtype=bool)

    for k in range(q):
        small = np.column_stack([np.ones(n), past[:, k]])
        without = _residual_sum(small, now[:, k])
        for i in range(q):
            if i == k:
                continue
            full = _residual_sum(np.column_stack([small, past[:, i]]), now[:, k])
            f = (without - full) / (full / (n - 3))
            edge[i, k] = stats.f.sf(f, 1, n - 3) < level
    return edge


def _residual_sum(design: Floats, y: Floats) -> float:
    weights = np.linalg.lstsq(design, y, rcond=None)[0]
    return float(((y - design @ weights) ** 2).sum())


def empty(fields: NDArray[np.floating]) -> Graph:
    return np.zeros((fields.shape[1],) * 2, bool)


METHODS = {
    "naive F-test": naive_granger,
    "DAGMA": dagma,
    "NOTEARS": notears_linear,
    "R2-sortability": r2_sortability,
    "empty graph": empty,
}
