"""Ridge regressions of all fine cells, a chunk of cells after the other."""

from __future__ import annotations

import warnings
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
from st_cdgm.data.fit.local.linear_map import LinearMap
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
        After :meth:`fit`. Shape ``(P, C, K + F)``, float32.
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
        self._choose(table, truth, folds)

        # All cells, and what a fit without the fold leaves over.
        weights = penalties(self.features, self.penalty)
        size = (len(self.cells), truth.shape[1], len(weights))
        self.coefficients = np.empty(size, dtype=np.float32)
        self.residual = np.empty(truth.shape, dtype=np.float32)
        for at, X in table.chunks(np.arange(len(self.cells))):
            fit = CellFit.of(X, truth[:, :, at], folds)
            self.coefficients[at] = fit.coefficients(weights)
            self.residual[:, :, at] = fit.residual(weights)

        return self

    def predict(self, days: TwoDays) -> FloatArray:
        """Return the regressions' encoded targets. Shape ``(T, C, P)``, float32."""
        targets = self.coefficients.shape[1]
        applied = LinearMap(self.features, self.cells, targets)
        return applied.predict(days, lambda _: self.coefficients)

    def _choose(
        self, table: FeatureTable, truth: FloatArray, folds: Sequence[Indices]
    ) -> None:
        self.penalty, self.candidates = choose_penalty(table, truth, folds)


def choose_penalty(
    table: FeatureTable, truth: FloatArray, folds: Sequence[Indices]
) -> tuple[Penalty, int]:
    """Return the penalty with the least held-out error, and how many were compared.

    On at most ``PENALTY_CELLS`` of the table's cells; all targets count alike. The
    truth ``(T, C, P)`` is as in :meth:`CellFit.of`.
    """
    count = min(PENALTY_CELLS, truth.shape[-1])
    some = np.linspace(0, truth.shape[-1] - 1, count).astype(int)
    every = [CellFit.of(X, truth[:, :, at], folds) for at, X in table.chunks(some)]

    def error(penalty: Penalty) -> Floats:
        weights = penalties(table.features, penalty)
        errors = [fit.sums.held_out_error(weights) for fit in every]
        return np.asarray(np.sum(errors, axis=0))

    return search(error)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellFit:
    """Regressions of standardised targets of p cells on their features.

    Attributes
    ----------
    X, Y : ndarray
        Features and standardised targets, 0 on days that do not count in a cell.
        Shapes ``(p, T, K)`` and ``(p, T, C)``.
    mean, scale : ndarray
        Of the targets. Shape ``(p, C)``.
    sums : NormalEquations
        Their products.
    folds : sequence of ndarray
        Positions of the days of each fold.
    """

    X: FloatArray
    Y: FloatArray
    mean: FloatArray
    scale: FloatArray
    sums: NormalEquations
    folds: Sequence[Indices]

    @classmethod
    def of(cls, X: FloatArray, truth: FloatArray, folds: Sequence[Indices]) -> Self:
        """Take in p cells; days on which a target is missing do not count there.

        Parameters
        ----------
        X : ndarray
            Features. Shape ``(p, T, K)``.
        truth : ndarray
            Encoded targets, NaN where missing. Shape ``(T, C, p)``.
        folds : sequence of ndarray
            Positions of the days of each fold; together every day once.
        """
        given = truth.transpose(2, 0, 1)  # (p, T, C)
        known = np.isfinite(given).all(axis=-1, keepdims=True)
        if not known.all():
            given, X = np.where(known, given, np.nan), np.where(known, X, 0.0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(empty slice|freedom).*")
            mean, scale = np.nanmean(given, axis=1), np.nanstd(given, axis=1)
        mean = np.nan_to_num(mean)
        scale = np.where(scale > 0, scale, 1.0).astype(np.float32)

        standard = np.nan_to_num((given - mean[:, None]) / scale[:, None])
        return cls(
            X=X,
            Y=standard,
            mean=mean,
            scale=scale,
            sums=NormalEquations.of(X, standard, folds),
            folds=folds,
        )

    def coefficients(self, penalty: Floats, without: int | None = None) -> Floats:
        """Return the coefficients in units of the targets. Shape ``(p, C, K)``.

        Of all days, or of all but those of a fold.
        """
        out = self.sums.solve(penalty, without) * self.scale[:, None]
        out[:, 0] += self.mean
        return out.transpose(0, 2, 1)

    def residual(self, penalty: Floats) -> FloatArray:
        """Return truth minus the prediction of a fit without the day's fold.

        In units of the targets. Shape ``(T, C, p)``.
        """
        away = np.empty_like(self.Y)
        for k, fold in enumerate(self.folds):
            held_out = self.X[:, fold] @ self.sums.solve(penalty, without=k)
            away[:, fold] = self.Y[:, fold] - held_out
        return np.asarray((away * self.scale[:, None]).transpose(1, 2, 0))


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
        self.features = features
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
