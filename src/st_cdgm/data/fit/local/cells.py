"""Ridge regressions of all fine cells, a chunk of cells after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.local.equations import (
    NormalEquations,
    Penalty,
    penalties,
    search,
)
from st_cdgm.data.fit.local.features import LocalFeatures, TwoDays
from st_cdgm.typing import FloatArray, Floats, Indices

# The penalties are chosen on at most this many cells.
PENALTY_CELLS = 24
CHUNK_BYTES = 96 * 2**20
_FOLDS = 10  # that a record usually has


@dataclass(kw_only=True, eq=False)
class CellRegressions:
    """Regressions of encoded targets on :class:`LocalFeatures`, one per fine cell.

    Attributes
    ----------
    features : LocalFeatures
        What they see.
    cells : ndarray
        Flat fine cells that have one. Shape ``(P,)``.
    penalty : dict
        After :meth:`fit`: what was chosen, see :func:`penalties`.
    candidates : int
        After :meth:`fit`: how many were compared.
    coefficients : ndarray
        After :meth:`fit`. Shape ``(P, K + F, C)``, float32.
    residual : ndarray
        After :meth:`fit`: truth minus the prediction of a regression that had not seen
        the fold of the day. Shape ``(T, C, P)``, float32.
    """

    features: LocalFeatures
    cells: NDArray[np.int64]
    penalty: Penalty = field(init=False)
    candidates: int = field(init=False)
    coefficients: FloatArray = field(init=False)
    residual: FloatArray = field(init=False)

    def fit(self, days: TwoDays, truth: FloatArray, folds: Sequence[Indices]) -> Self:
        """Choose the penalty by leaving out folds, then fit every cell.

        Parameters
        ----------
        days : TwoDays
            T training days.
        truth : ndarray
            Encoded targets, complete. Shape ``(T, C, P)``.
        folds : sequence of ndarray
            Positions of the days of each fold; together every day once.
        """
        table = FeatureTable(self.features, days, self.cells)
        mean, scale = truth.mean(axis=0), truth.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
        standard = ((truth - mean) / scale).transpose(2, 0, 1)  # (P, T, C)
        self._choose(table, standard, folds)

        # All cells, and what a fit without the fold leaves over.
        weights = penalties(self.features, self.penalty)
        size = (len(self.cells), len(weights), truth.shape[1])
        self.coefficients = np.empty(size, dtype=np.float32)
        self.residual = np.empty(truth.shape, dtype=np.float32)
        for at, X in table.chunks(np.arange(len(self.cells))):
            sums = NormalEquations.of(X, standard[at], folds)
            self.coefficients[at] = sums.solve(weights) * scale.T[at, None]
            self.coefficients[at, 0] += mean.T[at]

            away = np.empty_like(standard[at])
            for k, fold in enumerate(folds):
                held_out = X[:, fold] @ sums.solve(weights, without=k)
                away[:, fold] = standard[at][:, fold] - held_out
            self.residual[:, :, at] = away.transpose(1, 2, 0) * scale[:, at]

        return self

    def predict(self, days: TwoDays) -> FloatArray:
        """Return the regressions' encoded targets. Shape ``(T, C, P)``, float32."""
        table = FeatureTable(self.features, days, self.cells)
        out = np.empty(
            (len(days.season), self.coefficients.shape[-1], len(self.cells)),
            dtype=np.float32,
        )
        for at, X in table.chunks(np.arange(len(self.cells))):
            made = X.astype(np.float64) @ self.coefficients[at]
            out[:, :, at] = made.transpose(1, 2, 0)
        return out

    def _choose(
        self, table: FeatureTable, truth: FloatArray, folds: Sequence[Indices]
    ) -> None:
        """Choose the penalty on some cells. The truth is standardised, (P, T, C)."""
        count = min(PENALTY_CELLS, len(self.cells))
        some = np.linspace(0, len(self.cells) - 1, count).astype(int)
        every = [
            NormalEquations.of(X, truth[at], folds) for at, X in table.chunks(some)
        ]

        def error(penalty: Penalty) -> Floats:
            weights = penalties(self.features, penalty)
            errors = [sums.held_out_error(weights) for sums in every]
            return np.asarray(np.sum(errors, axis=0))

        self.penalty, self.candidates = search(error)


class FeatureTable:
    """All features of some days, for a chunk of cells at a time.

    Parameters
    ----------
    features : LocalFeatures
        What they are.
    days : TwoDays
        T days.
    cells : ndarray
        Flat fine cells. Shape ``(P,)``.
    """

    def __init__(
        self, features: LocalFeatures, days: TwoDays, cells: NDArray[np.int64]
    ) -> None:
        self._shared = features.shared(days).astype(np.float32)  # (T, K)
        self._weather, self._cells = features.weather(days), cells
        self._width = len(features.groups()[0])

    def chunks(self, which: Indices) -> Iterator[tuple[Indices, FloatArray]]:
        """Yield positions of cells and their features ``(p, T, K + F)``, float32.

        A chunk and its normal equations take about ``CHUNK_BYTES``.
        """
        rows = len(self._shared) + _FOLDS * self._width
        step = max(1, CHUNK_BYTES // (4 * rows * self._width))
        for start in range(0, len(which), step):
            at = which[start : start + step]
            own = self._weather.at(self._cells[at])
            shared = np.broadcast_to(self._shared, (len(at), *self._shared.shape))
            yield at, np.concatenate([shared, own], axis=-1)
