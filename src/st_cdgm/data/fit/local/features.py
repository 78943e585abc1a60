"""What the regression of a fine cell sees of a day and of the day before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, eye_array, vstack

from st_cdgm.data.fit.components import PrincipalComponents
from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.data.space.gradients import Gradient, horizontal_gradient
from st_cdgm.data.space.grid import Grid, interpolation
from st_cdgm.data.variables.fields import Channel
from st_cdgm.data.variables.table import quantity_of
from st_cdgm.typing import FloatArray, Floats, State

HARMONICS = 2
# What a feature is; each group has a penalty of its own.
GROUPS = ("harmonics", "components", "own", "modulated", "derivatives")
# Pressure at sea level and the height of pressure surfaces: their slope is the wind,
# their curvature says where air rises.
_MASS = ("pressure", "geopotential", "geopotential_height")
_DAYS_FOR_SCALES = 500
# Arrays that a state holds, of the components, of an operator and of its matrix.
_SPACE = ("mean", "scale", "axes", "explained")
_OPERATOR = ("channels", "mean", "scale")
_MATRIX = ("data", "indices", "indptr")
_COLUMNS = 256


class TwoDays(Protocol):
    """Predictors of days and of the days before them."""

    @property
    def lr(self) -> FloatArray:
        """Predictors without NaN. Shape ``(T, C_lr, y, x)``."""

    @property
    def season(self) -> FloatArray:
        """Fraction of the year elapsed, in [0, 1). Shape ``(T,)``."""

    def lagged(self, lag: int) -> FloatArray:
        """Return the predictors of the day ``lag`` days earlier, shaped alike."""


class Place(Protocol):
    """Where features are made: predictor channels, coarse and fine grid."""

    @property
    def channels(self) -> Sequence[Channel]:
        """Predictors in channel order."""

    @property
    def lr_grid(self) -> Grid:
        """Coarse grid."""

    @property
    def hr_grid(self) -> Grid:
        """Fine grid."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operator:
    """A linear map of some coarse channels to the fine cells.

    Attributes
    ----------
    channels : ndarray
        Which channels. Shape ``(R,)``.
    matrix : csr_array
        From coarse to fine cells. Shape ``(Y*X, N)``.
    mean : ndarray
        Training mean of the channels. Shape ``(R, N)``.
    scale : ndarray
        Training deviation of what the map makes of each. Shape ``(R, 1)``.
    groups : tuple of str
        What the result is called; where a second group follows, it holds the result
        times cosine and times sine of the year.
    """

    channels: NDArray[np.int64]
    matrix: csr_array
    mean: FloatArray
    scale: FloatArray
    groups: tuple[str, ...]

    def apply(self, lr: FloatArray, cells: NDArray[np.int64]) -> FloatArray:
        """Return ``(p, T, R)`` at p fine cells from predictors ``(T, C_lr, N)``."""
        rows = self.matrix[cells]
        near = np.unique(rows.indices)
        weight = rows[:, near].toarray().astype(np.float32)  # (p, n)
        seen = lr[:, self.channels[:, None], near] - self.mean[:, near]
        return np.asarray(((seen / self.scale) @ weight.T).transpose(2, 0, 1))


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalFeatures:
    """Features of a day: some that all fine cells share, and those of each cell.

    Shared are the harmonics of the year and the leading components of the predictors
    on the day and the day before. A cell's own are the coarse channels of both days,
    interpolated to it; these times cosine and sine of the year; and gradient and
    Laplacian of pressure and geopotential. All but the harmonics have mean 0 and about
    unit variance over the training days.

    Attributes
    ----------
    space : PrincipalComponents
        Components of the predictors.
    width : ndarray
        Training deviation of each. Shape ``(K,)``.
    operators : tuple of Operator
        What makes the cell's own.
    """

    space: PrincipalComponents
    width: Floats
    operators: tuple[Operator, ...]

    @classmethod
    def fit(
        cls,
        days: TwoDays,
        place: Place,
        *,
        components: int,
        modulated: bool = True,
    ) -> Self:
        """Take components and scales from the training days.

        With ``modulated`` the interpolated channels appear thrice: as they are, times
        cosine and times sine of the year.
        """
        space = PrincipalComponents.fit(
            days.lr, area=place.lr_grid.area_weights(), limit=components
        )
        return cls(
            space=space,
            width=space.transform(days.lr).std(axis=0),
            operators=_operators(days, place, modulated=modulated),
        )

    def at(self, cells: NDArray[np.int64]) -> LocalFeatures:
        """Return the features of some fine cells alone, counted anew."""
        own = (replace(o, matrix=csr_array(o.matrix[cells])) for o in self.operators)
        return replace(self, operators=tuple(own))

    def shared(self, days: TwoDays) -> Floats:
        """Return the features that all cells share, the intercept first.

        Shape ``(T, K)``; the first ``1 + 2 * HARMONICS`` are the harmonics.
        """
        waves = annual_harmonics(days.season, HARMONICS)
        scores = [self.space.transform(lr) for lr in (days.lr, days.lagged(1))]
        return np.column_stack([waves, *(score / self.width for score in scores)])

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the position in ``GROUPS`` and whether it is of the day before.

        Of every feature, those that cells share first. Shapes ``(K + F,)``.
        """
        waves, scores = ["harmonics"] * (1 + 2 * HARMONICS), len(self.width)
        own: list[str] = []
        for operator in self.operators:
            first, *second = operator.groups
            own += [first] * len(operator.channels)
            own += second * 2 * len(operator.channels)

        names = [*waves, *["components"] * 2 * scores, *own, *own]
        counts = (len(waves) + scores, scores, len(own), len(own))
        yesterday = np.repeat([False, True, False, True], counts)
        return np.array([GROUPS.index(name) for name in names]), yesterday

    def to_state(self) -> State:
        """Return JSON-able facts and arrays, from which :meth:`from_state` rebuilds."""
        arrays: dict[str, NDArray[Any]] = {"width": self.width}
        arrays |= {key: getattr(self.space, key) for key in _SPACE}
        meta: list[dict[str, Any]] = []
        for i, one in enumerate(self.operators):
            meta.append({"groups": list(one.groups), "shape": list(one.matrix.shape)})
            parts = {key: getattr(one.matrix, key) for key in _MATRIX}
            parts |= {key: getattr(one, key) for key in _OPERATOR}
            arrays |= {f"{i}.{key}": value for key, value in parts.items()}
        return {"operators": meta}, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild the features written by :meth:`to_state`."""
        operators = []
        for i, facts in enumerate(meta["operators"]):
            parts = {key: arrays[f"{i}.{key}"] for key in (*_MATRIX, *_OPERATOR)}
            matrix = csr_array(
                tuple(parts.pop(key) for key in _MATRIX), shape=tuple(facts["shape"])
            )
            groups = tuple(facts["groups"])
            operators.append(Operator(matrix=matrix, groups=groups, **parts))

        space = PrincipalComponents(**{key: arrays[key] for key in _SPACE})
        return cls(space=space, width=arrays["width"], operators=tuple(operators))

    def weather(self, days: TwoDays) -> Weather:
        """Return the days as the features of cells are made of them."""
        both = [lr.reshape(*lr.shape[:2], -1) for lr in (days.lr, days.lagged(1))]
        waves = annual_harmonics(days.season, 1)[:, 1:].astype(np.float32)
        return Weather(features=self, both=(both[0], both[1]), waves=waves)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weather:
    """Predictors of T days and of the days before each.

    Attributes
    ----------
    features : LocalFeatures
        What is made of them.
    both : tuple of ndarray
        Of the day and of the day before. Shapes ``(T, C_lr, N)``.
    waves : ndarray
        Cosine and sine of the year. Shape ``(T, 2)``.
    """

    features: LocalFeatures
    both: tuple[FloatArray, FloatArray]
    waves: FloatArray

    def at(self, cells: NDArray[np.int64]) -> FloatArray:
        """Return the own features of p fine cells. Shape ``(p, T, F)``, float32."""
        parts = []
        for lr in self.both:
            for operator in self.features.operators:
                part = operator.apply(lr, cells)
                parts.append(part)
                if len(operator.groups) > 1:
                    parts += [part * wave[:, None] for wave in self.waves.T]

        return np.concatenate(parts, axis=-1, dtype=np.float32)


def _operators(days: TwoDays, place: Place, *, modulated: bool) -> tuple[Operator, ...]:
    """Return the interpolation, and that of gradient and Laplacian where they exist."""
    grid = place.lr_grid
    to_fine = interpolation(grid, place.hr_grid)
    rows = np.repeat(np.arange(len(to_fine.index)), to_fine.index.shape[1])
    shape = (len(to_fine.index), int(np.prod(grid.shape)))
    weights = csr_array((to_fine.weight.ravel(), (rows, to_fine.index.ravel())), shape)
    every = np.arange(len(place.channels))
    mass = np.flatnonzero([_is_mass(channel) for channel in place.channels])

    first = ("own", "modulated") if modulated else ("own",)
    made = [_operator(days, every, csr_array(eye_array(shape[1])), weights, first)]
    if mass.size and min(grid.shape) > 1:
        made += [
            _operator(days, mass, matrix, weights, ("derivatives",))
            for matrix in _derivatives(grid)
        ]
    return tuple(made)


def _operator(
    days: TwoDays,
    channels: NDArray[np.int64],
    matrix: csr_array,
    weights: csr_array,
    groups: tuple[str, ...],
) -> Operator:
    """Return a map of the coarse grid followed by the interpolation, with scales."""
    lr = days.lr.reshape(*days.lr.shape[:2], -1)
    mean = lr[:, channels].mean(axis=0)
    step = max(1, len(lr) // _DAYS_FOR_SCALES)
    values = (lr[::step, channels] - mean).reshape(-1, lr.shape[-1]) @ matrix.T
    variance = np.square(values).mean(axis=-1).reshape(-1, len(channels)).mean(axis=0)

    return Operator(
        channels=channels,
        matrix=csr_array(weights @ matrix, dtype=np.float32),
        mean=mean,
        scale=np.sqrt(np.where(variance > 0, variance, 1.0))[:, None].astype("f4"),
        groups=groups,
    )


def _is_mass(channel: Channel) -> bool:
    named: dict[str, Any] = {"units": channel.units}
    if channel.standard_name:
        named["standard_name"] = channel.standard_name
    quantity = quantity_of(channel.variable, named)
    return quantity is not None and quantity.key in _MASS


def _derivatives(grid: Grid) -> tuple[csr_array, csr_array, csr_array]:
    """Return the eastward and northward derivative and the Laplacian as matrices.

    Shapes ``(N, N)``; a derivative that does not exist, as at a pole, is 0.
    """
    size = int(np.prod(grid.shape))
    gradient: Gradient = horizontal_gradient(grid)
    found: tuple[list[csr_array], list[csr_array]] = ([], [])

    # What the derivative makes of a field that is 1 in one cell is that cell's column.
    for start in range(0, size, _COLUMNS):
        columns = np.eye(min(_COLUMNS, size - start), size, start)
        along = gradient(columns.reshape(-1, *grid.shape))
        for parts, part in zip(found, along, strict=True):
            parts.append(csr_array(np.nan_to_num(part).reshape(len(columns), size)))

    east, north = (csr_array(vstack(parts).T) for parts in found)
    return east, north, csr_array(east @ east + north @ north)
