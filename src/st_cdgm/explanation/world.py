"""The world model: tomorrow's coarse fields from today's, along the edges of a graph.

Per level a ridge in closed form from the components of 5 x 5 patches of the level and
of its parents, and their leading products, to the level's channels; on anomalies of the
training days. What it does not predict of a record are its errors. Driven by them it
gives the record back, and with an edit the record as it would have been (abduction,
action, prediction).

References
----------
Pearl, Causality, 2nd ed., section 7.1, doi:10.1017/CBO9780511803161.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.discovery.anomalies import patches
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.features import FREE, Basis, Columns
from st_cdgm.discovery.held_out.nested import Sums, choose_penalties, penalty
from st_cdgm.discovery.series import window_ends
from st_cdgm.errors import InputError
from st_cdgm.typing import FloatArray, Floats, Indices

RADIUS = 2
COMPONENTS = DiscoveryConfig(components=48, squares=8, clip=6.0)
# Days that components are taken from, days read together, cells that are fitted on.
BASIS_DAYS, CHUNK, MOST_CELLS = 365, 64, 256
LEAST_DAYS = 90

# Level -> (source, lag in days), its own past first.
Inputs = Mapping[str, tuple[tuple[str, int], ...]]
Edit = Callable[[int, FloatArray], FloatArray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Climatology:
    """Annual harmonics of every cell, and the spread of each channel around them.

    Attributes
    ----------
    waves : ndarray
        Coefficients, see `annual_harmonics`. Shape ``(7, C, y, x)``, float32.
    scale : ndarray
        Standard deviation over training days and cells. Shape ``(C, 1, 1)``.
    """

    waves: FloatArray
    scale: FloatArray

    @classmethod
    def fit(cls, lr: FloatArray, season: FloatArray) -> Self:
        """Fit to training days; shapes ``(T, C, y, x)`` and ``(T,)``."""
        sums = HarmonicSums(int(np.prod(lr.shape[1:])))
        sums.add(season, lr.reshape(len(lr), -1))
        waves = sums.solve(1).reshape(-1, *lr.shape[1:]).astype(np.float32)

        spread = (lr - from_harmonics(waves, season)).std(axis=(0, 2, 3))
        scale = np.where(spread > 0, spread, 1.0)[:, None, None]
        return cls(waves=waves, scale=scale.astype(np.float32))

    def anomalies(self, lr: FloatArray, season: FloatArray) -> FloatArray:
        """Return standardised anomalies of predictors ``(T, C, y, x)``."""
        return (lr - from_harmonics(self.waves, season)) / self.scale

    def fields(self, anomalies: FloatArray, season: FloatArray) -> FloatArray:
        """Return the predictors of standardised anomalies ``(T, C, y, x)``."""
        return anomalies * self.scale + from_harmonics(self.waves, season)


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldModel:
    """One-step predictions of all levels from their own past and their parents'.

    Attributes
    ----------
    groups : mapping
        Channels of each level.
    inputs : mapping
        Sources and lags of each level.
    climate : Climatology
        Between predictors as a model gets them and anomalies.
    bases : mapping of str to Basis
        Components of each level's patches.
    weights : mapping of str to ndarray
        Coefficients: constant, then the features of every input. Shape ``(F, K)``.
    reach : mapping of str to float
        Largest distance of a training patch from the mean, see :meth:`distance`.
    """

    groups: Mapping[str, list[int]]
    inputs: Inputs
    climate: Climatology
    bases: Mapping[str, Basis]
    weights: Mapping[str, FloatArray]
    reach: Mapping[str, float]

    @classmethod
    def fit(
        cls,
        lr: FloatArray,
        season: FloatArray,
        ordinal: Indices,
        *,
        groups: Mapping[str, list[int]],
        inputs: Inputs,
    ) -> Self:
        """Fit to training days.

        Parameters
        ----------
        lr : ndarray
            Predictors as a model gets them, finite. Shape ``(T, C, y, x)``.
        season, ordinal : ndarray
            Elapsed fraction of the year, and number of each day. Shape ``(T,)``.
        groups : mapping of str to list of int
            Channels of each level.
        inputs : mapping
            Sources and lags of each level.

        Raises
        ------
        InputError
            Too few days follow each other.
        """
        lags = longest_lag(inputs)
        enough = len(ordinal) > lags
        steps = np.flatnonzero(window_ends(ordinal, lags + 1) if enough else [])
        if len(steps) < LEAST_DAYS:
            raise InputError(
                "too few training days for a model of the coarse fields",
                found=f"{len(steps)} days whose past of {lags} days is there",
                expected=f">= {LEAST_DAYS}",
                remedy="give the predictors of the training period as well "
                "(--lr may be repeated)",
            )
        climate = Climatology.fit(lr, season)
        anomalies = climate.anomalies(lr, season)

        # Components, and how far from the mean training days are.
        some = np.linspace(0, len(lr) - 1, min(len(lr), BASIS_DAYS)).astype(int)
        bases, reach = {}, {}
        for name, channels in groups.items():
            around = patches(anomalies[some][:, channels], RADIUS)
            basis = Basis.fit(around, COMPONENTS, channels=len(channels))
            bases[name], reach[name] = basis, float(_distance(basis, around).max())

        fitter = _Fitter(anomalies, steps, groups, inputs, bases)
        weights = {name: fitter.weights(name) for name in groups}
        return cls(
            groups=groups,
            inputs=inputs,
            climate=climate,
            bases=bases,
            weights=weights,
            reach=reach,
        )

    @property
    def lags(self) -> int:
        """Days of the past L that a prediction needs."""
        return longest_lag(self.inputs)

    def step(
        self, past: FloatArray, names: Collection[str] | None = None
    ) -> FloatArray:
        """Predict a day from the L days before it.

        Parameters
        ----------
        past : ndarray
            Anomalies, the latest day last. Shape ``(L, C, y, x)``.
        names : collection of str, optional
            Levels to predict; the others are 0.

        Returns
        -------
        ndarray
            Anomalies. Shape ``(C, y, x)``.
        """
        out = np.zeros(past.shape[1:], np.float32)
        known: dict[tuple[str, int], FloatArray] = {}
        for name in self.groups if names is None else names:
            for source, lag in self.inputs[name]:
                if (source, lag) not in known:
                    day = past[-lag][None, self.groups[source]]
                    known[source, lag] = _features(self.bases[source], day)[0][0]

            X = np.concatenate([known[key] for key in self.inputs[name]], axis=-1)
            made = self.weights[name][0] + X @ self.weights[name][1:]
            out[self.groups[name]] = made.T.reshape(-1, *out.shape[1:])
        return out

    def abduct(self, anomalies: FloatArray) -> FloatArray:
        """Return what the model does not predict of a record.

        Of anomalies of consecutive days ``(L + N, C, y, x)``: the errors of the last N.
        """
        lags = self.lags
        predicted = [
            self.step(anomalies[t - lags : t]) for t in range(lags, len(anomalies))
        ]
        return np.asarray(anomalies[lags:] - np.stack(predicted), np.float32)

    def roll(
        self,
        past: FloatArray,
        errors: FloatArray,
        *,
        edit: Edit | None = None,
        held: Mapping[str, FloatArray] | None = None,
    ) -> FloatArray:
        """Go forward from the past, driven by the errors of a record.

        Parameters
        ----------
        past : ndarray
            Anomalies of the L days before. Shape ``(L, C, y, x)``.
        errors : ndarray
            From :meth:`abduct`. Shape ``(N, C, y, x)``.
        edit : callable, optional
            ``edit(lead, anomalies)`` returns a day's anomalies as they are to be.
        held : mapping of str to ndarray, optional
            Levels that are not predicted, with their anomalies ``(N, K, y, x)``.

        Returns
        -------
        ndarray
            Anomalies. Shape ``(N, C, y, x)``.
        """
        held = {} if held is None else held
        free = [name for name in self.groups if name not in held]
        days = list(past)
        for lead, error in enumerate(errors):
            day = self.step(np.stack(days[-self.lags :]), free) + error
            for name, values in held.items():
                day[self.groups[name]] = values[lead]
            days.append(day if edit is None else edit(lead, day))
        return np.stack(days[len(past) :])

    def distance(self, name: str, anomalies: FloatArray) -> float:
        """Return how far days ``(N, C, y, x)`` lie from the training mean at most.

        Root mean square of the component scores of a level's patches, 1 on average; in
        parts of the largest of training: above 1 is outside what was seen.
        """
        around = patches(anomalies[:, self.groups[name]], RADIUS)
        return float(_distance(self.bases[name], around).max()) / self.reach[name]


def longest_lag(inputs: Inputs) -> int:
    """Return the number of past days L that any level needs."""
    return max(lag for pairs in inputs.values() for _, lag in pairs)


class _Fitter:
    """Regressions of all levels, from the same days and cells."""

    def __init__(
        self,
        anomalies: FloatArray,
        steps: Indices,
        groups: Mapping[str, list[int]],
        inputs: Inputs,
        bases: Mapping[str, Basis],
    ) -> None:
        self._anomalies, self._steps = anomalies, steps
        self._groups, self._inputs, self._bases = groups, inputs, bases
        count = int(np.prod(anomalies.shape[2:]))
        some = np.linspace(0, count - 1, min(count, MOST_CELLS)).round()
        self._cells = some.astype(int)

    def weights(self, name: str) -> FloatArray:
        """Return the coefficients of a level; each half of the days tunes the other."""
        halves = []
        for part in np.array_split(self._steps, 2):
            sums = [Sums.of(X, Y) for X, Y, *_ in self._rows(name, part)]
            halves.append(sum(sums[1:], sums[0]))
        _, _, kind, stiff = next(self._rows(name, self._steps[:1]))

        first, second = halves
        out = np.zeros(first.cross.shape, np.float32)
        both, every = first + second, np.arange(len(kind))
        for candidate, targets in choose_penalties((first, second), kind, stiff):
            chosen = both.of_columns(every, targets)
            out[:, targets] = chosen.solve(penalty(kind, stiff, candidate))
        return out

    def _rows(
        self, name: str, steps: Indices
    ) -> Iterator[tuple[FloatArray, FloatArray, Indices, Floats]]:
        """Yield features, targets, kinds and stiffness, some days at a time."""
        channels = self._groups[name]
        for start in range(0, len(steps), CHUNK):
            days = steps[start : start + CHUNK]
            columns = Columns()
            columns.add(np.ones((len(days), len(self._cells), 1), np.float32), FREE)
            for source, lag in self._inputs[name]:
                fields = self._anomalies[days - lag][:, self._groups[source]]
                full, kind, stiff = _features(self._bases[source], fields, self._cells)
                columns.add(full, kind, stiff * lag**2)

            X, kind, stiff = columns.joined()
            Y = self._anomalies[days][:, channels]
            flat = Y.reshape(*Y.shape[:2], -1)[:, :, self._cells].transpose(0, 2, 1)
            yield (
                X.reshape(-1, X.shape[-1]),
                np.ascontiguousarray(flat.reshape(-1, len(channels))),
                kind,
                stiff,
            )


def _features(
    basis: Basis, fields: FloatArray, cells: Indices | None = None
) -> tuple[FloatArray, Indices, Floats]:
    """Return components of patches and their products. ``(T, n, F)``."""
    around = patches(fields, RADIUS)
    scores = basis.scores(around if cells is None else around[:, cells])
    return basis.with_squares(scores)


def _distance(basis: Basis, around: FloatArray) -> NDArray[np.floating]:
    """Return the root mean square of scores that are not drawn in. ``(T, n)``."""
    scores = (around - basis.mean) @ basis.axes
    return np.asarray(np.sqrt(np.square(scores).mean(axis=-1)))
