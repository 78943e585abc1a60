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

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.discovery.anomalies import patches
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.features import Basis
from st_cdgm.discovery.series import window_ends
from st_cdgm.errors import InputError
from st_cdgm.explanation.regressions import ON_FLOOR, RADIUS, Fitter, Inputs, features
from st_cdgm.typing import FloatArray, Indices

COMPONENTS = DiscoveryConfig(components=48, squares=12, clip=6.0)
# Days that components are taken from; days that must follow each other.
BASIS_DAYS, LEAST_DAYS = 365, 90

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
    floors : mapping of int to ndarray
        What a channel cannot fall below, as a predictor. Shape ``(1|y, 1|x)``.
    """

    waves: FloatArray
    scale: FloatArray
    floors: Mapping[int, FloatArray] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        lr: FloatArray,
        season: FloatArray,
        floors: Mapping[int, FloatArray] | None = None,
    ) -> Self:
        """Fit to training days; shapes ``(T, C, y, x)`` and ``(T,)``."""
        sums = HarmonicSums(int(np.prod(lr.shape[1:])))
        sums.add(season, lr.reshape(len(lr), -1))
        waves = sums.solve(1).reshape(-1, *lr.shape[1:]).astype(np.float32)

        spread = (lr - from_harmonics(waves, season)).std(axis=(0, 2, 3))
        scale = np.where(spread > 0, spread, 1.0)[:, None, None]
        return cls(waves=waves, scale=scale.astype(np.float32), floors=floors or {})

    def anomalies(self, lr: FloatArray, season: FloatArray) -> FloatArray:
        """Return standardised anomalies of predictors ``(T, C, y, x)``."""
        return (lr - from_harmonics(self.waves, season)) / self.scale

    def floor(self, season: FloatArray) -> FloatArray:
        """Return what anomalies cannot fall below, ``-inf`` for no limit."""
        lowest = np.full((len(season), *self.waves.shape[1:]), -np.inf, np.float32)
        for channel, value in self.floors.items():
            lowest[:, channel] = value
        return self.anomalies(lowest, season)

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
        floors: Mapping[int, FloatArray] | None = None,
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
        floors : mapping of int to ndarray, optional
            Channels that cannot fall below a value, see `Climatology`.

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
        climate = Climatology.fit(lr, season, floors)
        anomalies = climate.anomalies(lr, season)

        # Components, and how far from the mean training days are.
        some = np.linspace(0, len(lr) - 1, min(len(lr), BASIS_DAYS)).astype(int)
        bases, reach = {}, {}
        for name, channels in groups.items():
            around = patches(anomalies[some][:, channels], RADIUS)
            basis = Basis.fit(around, COMPONENTS, channels=len(channels))
            bases[name], reach[name] = basis, float(_distance(basis, around).max())

        floor = climate.floor(season)
        fitter = Fitter(anomalies, floor, steps, groups, inputs, bases)
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
                    known[source, lag] = features(self.bases[source], day)[0][0]

            X = np.concatenate([known[key] for key in self.inputs[name]], axis=-1)
            made = self.weights[name][0] + X @ self.weights[name][1:]
            out[self.groups[name]] = made.T.reshape(-1, *out.shape[1:])
        return out

    def abduct(
        self, anomalies: FloatArray, floor: FloatArray | None = None
    ) -> FloatArray:
        """Return what the model does not predict of a record.

        Of a value on its floor the smallest error that explains it.

        Parameters
        ----------
        anomalies : ndarray
            Consecutive days. Shape ``(L + N, C, y, x)``.
        floor : ndarray, optional
            Of the last N, see :meth:`Climatology.floor`. Shape ``(N, C, y, x)``.

        Returns
        -------
        ndarray
            Errors of the last N. Shape ``(N, C, y, x)``.
        """
        lags = self.lags
        predicted = np.stack(
            [self.step(anomalies[t - lags : t]) for t in range(lags, len(anomalies))]
        )
        errors = np.asarray(anomalies[lags:] - predicted, np.float32)
        if floor is None:
            return errors
        on_floor = anomalies[lags:] <= floor + ON_FLOOR
        return np.where(on_floor, np.minimum(errors, 0.0), errors)

    def roll(
        self,
        past: FloatArray,
        errors: FloatArray,
        *,
        floor: FloatArray | None = None,
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
        floor : ndarray, optional
            As of :meth:`abduct`.
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
            if floor is not None:
                day = np.maximum(day, floor[lead])

            # What is held, and what is done.
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


def _distance(basis: Basis, around: FloatArray) -> NDArray[np.floating]:
    """Return the root mean square of scores that are not drawn in. ``(T, n)``."""
    scores = (around - basis.mean) @ basis.axes
    return np.asarray(np.sqrt(np.square(scores).mean(axis=-1)))
