"""Ridge regressions of every level, and latent values where a record has a floor.

Rain is a quantity that cannot fall below nothing: what is seen is the larger of a
latent value and the floor. Coefficients of the latent value are found by
expectation-maximisation: a dry cell stands for the mean of what would be below the
floor, given the prediction.

References
----------
Tobin, Estimation of relationships for limited dependent variables,
doi:10.2307/1907382.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import log_ndtr

from st_cdgm.discovery.anomalies import patches
from st_cdgm.discovery.held_out.features import FREE, Basis, Columns
from st_cdgm.discovery.held_out.nested import Sums, choose_penalties, penalty
from st_cdgm.typing import FloatArray, Floats, Indices

RADIUS = 2
# Days read together, cells that are fitted on, rounds of expectation-maximisation.
CHUNK, MOST_CELLS, ROUNDS = 64, 128, 4
# A value so near to the floor counts as lying on it, standard deviations.
ON_FLOOR = 1e-3

# Level -> (source, lag in days), its own past first.
Inputs = Mapping[str, tuple[tuple[str, int], ...]]


class Fitter:
    """Regressions of all levels, from the same days and cells.

    Parameters
    ----------
    anomalies, floor : ndarray
        Training days, and what their values cannot fall below, ``-inf`` for no limit.
        Shape ``(T, C, y, x)``.
    steps : ndarray
        Days whose past is there.
    groups, inputs, bases : mapping
        See `WorldModel`.
    """

    def __init__(
        self,
        anomalies: FloatArray,
        floor: FloatArray,
        steps: Indices,
        groups: Mapping[str, list[int]],
        inputs: Inputs,
        bases: Mapping[str, Basis],
    ) -> None:
        self._anomalies, self._floor, self._steps = anomalies, floor, steps
        self._groups, self._inputs, self._bases = groups, inputs, bases
        count = int(np.prod(anomalies.shape[2:]))
        some = np.linspace(0, count - 1, min(count, MOST_CELLS)).round()
        self._cells = some.astype(int)

    def weights(self, name: str) -> FloatArray:
        """Return the coefficients of a level, the constant first. Shape ``(F, K)``."""
        parts = np.array_split(self._steps, 2)
        halves = [self._sums(name, part) for part in parts]
        out = self._solved(name, halves)
        limited = np.isfinite(self._floor[:1, self._groups[name]]).any(axis=(0, 2, 3))
        if not limited.any():
            return out

        # Expectation, then maximisation, for the channels that have a floor.
        spread = np.ones(out.shape[1])
        for _ in range(ROUNDS):
            found = [
                self._expected(name, part, half, out, spread)
                for part, half in zip(parts, halves, strict=True)
            ]
            halves = [half for half, _ in found]
            rows = sum(half.rows for half in halves)
            spread = np.sqrt(sum(square for _, square in found) / rows)
            out[:, limited] = self._solved(name, halves)[:, limited]
        return out

    def _sums(self, name: str, days: Indices) -> Sums:
        sums = [Sums.of(X, Y) for X, Y, _ in self._rows(name, days)]
        return sum(sums[1:], sums[0])

    def _expected(
        self,
        name: str,
        days: Indices,
        sums: Sums,
        weights: FloatArray,
        spread: Floats,
    ) -> tuple[Sums, Floats]:
        """Return the sums with latent values, and the sum of their squared errors."""
        cross, square = np.zeros_like(sums.cross), np.zeros_like(sums.square)
        errors = np.zeros_like(square)
        for X, Y, floor in self._rows(name, days):
            guess = X @ weights
            hidden, variance = latent(Y, floor, guess, spread)
            cross += X.T @ hidden
            square += np.square(hidden, dtype=np.float64).sum(axis=0)
            errors += (np.square(hidden - guess) + variance).sum(axis=0)
        return replace(sums, cross=cross, square=square), errors

    def _solved(self, name: str, halves: Sequence[Sums]) -> FloatArray:
        """Solve for all days; each half tunes the penalties of the other."""
        first, second = halves
        _, kind, stiff = self._columns(name, self._steps[:1]).joined()
        out = np.zeros(first.cross.shape, np.float32)
        both, every = first + second, np.arange(len(kind))
        for candidate, targets in choose_penalties((first, second), kind, stiff):
            chosen = both.of_columns(every, targets)
            out[:, targets] = chosen.solve(penalty(kind, stiff, candidate))
        return out

    def _rows(
        self, name: str, steps: Indices
    ) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
        """Yield features, targets and floors ``(N, F | K)``, some days at a time."""
        for start in range(0, len(steps), CHUNK):
            days = steps[start : start + CHUNK]
            X, _, _ = self._columns(name, days).joined()
            Y = self._targets(self._anomalies, name, days)
            floor = self._targets(self._floor, name, days)
            yield X.reshape(-1, X.shape[-1]), Y, floor

    def _targets(self, values: FloatArray, name: str, days: Indices) -> FloatArray:
        chosen = values[days][:, self._groups[name]]
        flat = chosen.reshape(*chosen.shape[:2], -1)[:, :, self._cells]
        return np.ascontiguousarray(flat.transpose(0, 2, 1).reshape(-1, flat.shape[1]))

    def _columns(self, name: str, days: Indices) -> Columns:
        columns = Columns()
        columns.add(np.ones((len(days), len(self._cells), 1), np.float32), FREE)
        for source, lag in self._inputs[name]:
            fields = self._anomalies[days - lag][:, self._groups[source]]
            full, kind, stiff = features(self._bases[source], fields, self._cells)
            columns.add(full, kind, stiff * lag**2)
        return columns


def latent(
    values: FloatArray, floor: FloatArray, guess: FloatArray, spread: Floats
) -> tuple[FloatArray, Floats]:
    """Return what values stand for, and its variance; those above the floor themselves.

    Of values on the floor the mean and variance of a normal distribution around the
    guess, cut off at the floor. All shapes ``(N, K)``, ``spread`` ``(K,)``.
    """
    on_floor = values <= floor + ON_FLOOR
    a = np.where(on_floor, (floor - guess) / spread, 0.0)
    ratio = np.exp(-0.5 * a**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(a))
    hidden = np.where(on_floor, guess - spread * ratio, values)
    variance = np.where(on_floor, spread**2 * (1 - a * ratio - ratio**2), 0.0)
    return hidden.astype(np.float32), variance


def features(
    basis: Basis, fields: FloatArray, cells: Indices | None = None
) -> tuple[FloatArray, Indices, Floats]:
    """Return components of patches and their products. ``(T, n, F)``."""
    around = patches(fields, RADIUS)
    scores = basis.scores(around if cells is None else around[:, cells])
    return basis.with_squares(scores)
