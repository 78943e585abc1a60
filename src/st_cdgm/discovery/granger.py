"""A linear Granger test between gridded variables.

Each variable is regressed on the 3 x 3 neighbourhoods of all variables a day before, on
training years; an edge is decided by the held-out gain, with the rule that the neural
network's edges are decided by.

References
----------
Granger, doi:10.2307/1912791.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from st_cdgm.discovery.anomalies import inner_cells, patches
from st_cdgm.discovery.network import DiscoveryConfig
from st_cdgm.discovery.verdicts import EdgeVerdicts, judge_edges, shadow_days
from st_cdgm.errors import InputError

Floats = NDArray[np.floating]
RIDGE = 1e-3  # of the mean diagonal


def patch_granger(
    fields: Floats,
    year: NDArray[np.int64],
    season: Floats,
    *,
    names: Sequence[str],
    folds: int = 2,
    lags: int = 1,
    config: DiscoveryConfig | None = None,
) -> EdgeVerdicts:
    """Decide edges by the held-out gain of a linear model of neighbourhoods.

    Parameters
    ----------
    fields : ndarray
        Standardised anomalies, one channel per variable, consecutive days.
        Shape ``(T, Q, y, x)``.
    year, season : ndarray
        Year and elapsed fraction of the year of each day. Shape ``(T,)``.
    names : sequence of str
        The variables.
    folds : int
        Every year is held out once, in one of so many fits.
    lags : int
        Days of the past that enter.
    config : DiscoveryConfig, optional
        The rule, see :func:`~st_cdgm.discovery.verdicts.judge_edges`.

    Raises
    ------
    InputError
        A grid without inner cells, or fewer than two years in a fold.
    """
    t, q = fields.shape[:2]
    cells = inner_cells((fields.shape[2], fields.shape[3]))
    if not len(cells):
        raise InputError(
            "neighbourhoods need inner cells",
            found=fields.shape[2:],
            expected="at least 3 x 3",
        )

    own = np.stack([patches(fields[:, [k]])[:, cells] for k in range(q)])
    target = own[..., 4].transpose(1, 2, 0)[lags:]  # (T', n, Q)
    past = np.concatenate([own[:, lags - j : t - j] for j in range(1, lags + 1)], -1)

    # Every fold is fitted anew and judged by the years it has not seen.
    index = np.unique(year, return_inverse=True)[1]
    parts = []
    for fold in range(folds):
        train = (index % folds != fold)[lags:]
        moments = _Moments(past, target, year[lags:], season[lags:], train)
        parts.append(moments.errors())

    full, without, shadow = map(np.concatenate, zip(*parts, strict=True))
    return judge_edges(names, full, without, shadow, config=config)


class _Moments:
    """Cross products of features and targets, on training days and per year.

    Features: a constant, the patches of all variables, and the same of their shadows.
    """

    def __init__(
        self,
        past: Floats,
        target: Floats,
        year: NDArray[np.int64],
        season: Floats,
        train: NDArray[np.bool_],
    ) -> None:
        self.q, self.width = past.shape[0], past.shape[-1]
        other = np.maximum(
            shadow_days(year, season, train), shadow_days(year, season, ~train)
        )

        def products(chosen: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
            days = np.flatnonzero(chosen)
            rows = len(days) * target.shape[1]
            # Of the variables, then of their shadows: (2Q, T, n, F).
            both = np.concatenate([past[:, days], past[:, other[days]]])
            x = both.transpose(1, 2, 0, 3).reshape(rows, -1).astype(np.float64)
            x = np.hstack([np.ones((rows, 1)), x])
            y = target[days].reshape(rows, self.q).astype(np.float64)
            return x.T @ x / rows, x.T @ y / rows, (y * y).mean(axis=0)

        self.fit = products(train)
        held = np.unique(year[~train])
        self.test = [products(~train & (year == y)) for y in held]

    def _year_errors(self, blocks: Sequence[int]) -> Floats:
        """Fit all targets on these blocks; held-out error. Shape ``(Y, Q)``."""
        parts = [np.arange(self.width) + 1 + b * self.width for b in blocks]
        cols = np.concatenate([[0], *parts])
        square = np.ix_(cols, cols)
        gram = self.fit[0][square]
        gram = gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
        w = np.linalg.solve(gram, self.fit[1][cols])
        return np.stack(
            [
                yy
                - 2 * (w * xy[cols]).sum(0)
                + np.einsum("fk,fg,gk->k", w, xx[square], w)
                for xx, xy, yy in self.test
            ]
        )

    def errors(self) -> tuple[Floats, Floats, Floats]:
        """Return the errors per year: full, without each i, with each shadow."""
        every, fit = list(range(self.q)), self._year_errors
        full = fit(every)
        without = np.stack([fit([b for b in every if b != i]) for i in every], axis=1)
        shadow = np.stack(
            [fit([b + self.q * (b == i) for b in every]) for i in every], axis=1
        )

        # A target keeps its own past in every comparison.
        for k in every:
            without[:, k, k] = shadow[:, k, k] = full[:, k]
        return full, without, shadow
