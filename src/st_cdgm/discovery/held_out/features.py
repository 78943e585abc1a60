"""What a prediction may use: the past of every variable around a cell, in groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm.discovery.anomalies import (
    patches,
    remove_harmonics,
    standardise,
)
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.series import Record, window_ends
from st_cdgm.typing import FloatArray, Floats, Indices

# Components with less than this share of the mean variance are left out.
VARIANCE_FLOOR = 1e-3
FREE, LINEAR, SQUARE = 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """Features and targets of all steps, for one choice of training steps.

    Attributes
    ----------
    X : ndarray
        Features at n cells. Shape ``(T, n, F)``, float32.
    Y : ndarray
        Targets at the cells. Shape ``(T, n, K)``, float32.
    kind : ndarray
        0 for free features (mean, trend, known drivers), 1 linear, 2 squares.
        Shape ``(F,)``.
    stiff : ndarray
        How much more than others a feature is penalised: components of small variance
        and longer lags are trusted less. Shape ``(F,)``.
    owner : ndarray
        Variable that each target channel belongs to. Shape ``(K,)``.
    past : dict
        Columns of a source at a lag, by ``(source, lag)``.
    memory : dict
        Columns of a source's slower past.
    same_step : dict
        Columns of a source at the target's own step; no prediction uses them unless
        it is asked to.
    uniform : list of ndarray
        Change of a source's linear features per standard deviation of a channel,
        everywhere in the neighbourhood. Shape ``(C, components)`` each.
    usable : ndarray of bool
        Steps whose past is there, all of it on the same side. Shape ``(T,)``.
    """

    X: FloatArray
    Y: FloatArray
    kind: Indices
    stiff: Floats
    owner: Indices
    past: dict[tuple[int, int], slice]
    memory: dict[int, slice]
    same_step: dict[int, slice]
    uniform: list[Floats]
    usable: NDArray[np.bool_]

    @property
    def lags(self) -> list[int]:
        """Lags of the past, increasing."""
        return sorted({lag for _, lag in self.past})

    @property
    def sources(self) -> int:
        """Number S of sources."""
        return len(self.uniform)

    @property
    def targets(self) -> int:
        """Number Q of target variables."""
        return int(self.owner.max()) + 1

    def base(self) -> Indices:
        """Return the columns that say nothing about the same step."""
        hidden = columns_of(self.same_step.values())
        return np.setdiff1d(np.arange(len(self.kind)), hidden)

    def group(self, source: int) -> Indices:
        """Return all columns of a source's past."""
        own = [self.past[source, lag] for lag in self.lags]
        own += [self.memory[source]] if source in self.memory else []
        return columns_of(own)


def columns_of(groups: Iterable[slice]) -> Indices:
    """Return the columns of several groups, increasing."""
    parts = [np.arange(group.start, group.stop) for group in groups]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)


class Columns:
    """Features, a group after the other."""

    def __init__(self) -> None:
        self._parts: list[FloatArray] = []
        self._kinds: list[Indices] = []
        self._stiff: list[Floats] = []
        self._width = 0

    def add(
        self, values: FloatArray, kind: int | Indices, stiff: float | Floats = 1.0
    ) -> slice:
        """Append features ``(T, n, F)`` and return their columns."""
        width = values.shape[-1]
        self._parts.append(values)
        self._kinds.append(np.broadcast_to(np.asarray(kind, np.int64), width))
        self._stiff.append(np.broadcast_to(np.asarray(stiff, np.float64), width))
        self._width += width
        return slice(self._width - width, self._width)

    def joined(self) -> tuple[FloatArray, Indices, Floats]:
        """Return all features, float32, their kinds and their stiffness."""
        values = np.concatenate(self._parts, axis=-1).astype(np.float32, copy=False)
        return values, np.concatenate(self._kinds), np.concatenate(self._stiff)


def make_design(
    record: Record, train: NDArray[np.bool_], config: DiscoveryConfig
) -> Design:
    """Make features and targets; seasons, scales, components of training steps alone.

    Parameters
    ----------
    record : Record
        Q variables and their calendar.
    train : ndarray of bool
        Steps to learn from. Shape ``(T,)``.
    config : DiscoveryConfig
        Lags, components, squares, memory, trend, harmonics, clip, cells.
    """
    ordinal, cells = record.number, record.cells(config.max_cells)
    past, memory, same_step, uniform, targets = {}, {}, {}, [], []
    columns = Columns()
    free = free_features(record, config, train)
    columns.add(np.repeat(free[:, None], len(cells), axis=1), FREE)

    for i, field in enumerate(record.fields.values()):
        anomaly = anomalies_of(field, record.season, train, config)
        around, centre = neighbourhoods(anomaly)[:, cells], _centre(anomaly)[:, cells]
        basis = Basis.fit(around[train], config, channels=field.shape[1])
        targets.append(centre)
        uniform.append(basis.uniform)

        # The same step, every lag with its squares, and what came before the lags.
        scores = basis.scores(around)
        same_step[i] = columns.add(scores, LINEAR, basis.stiff)
        full, kind, stiff = basis.with_squares(scores)
        for lag in range(1, config.max_lag + 1):
            past[i, lag] = columns.add(shifted(full, lag), kind, stiff * lag**2)
        if config.memory:
            slow = _slow(centre, train, ordinal, config)
            memory[i] = columns.add(slow, LINEAR)

    X, kind, stiff = columns.joined()
    return Design(
        X=X,
        Y=np.concatenate(targets, axis=-1),
        kind=kind,
        stiff=stiff,
        owner=np.repeat(np.arange(len(targets)), [y.shape[-1] for y in targets]),
        past=past,
        memory=memory,
        same_step=same_step,
        uniform=uniform,
        usable=usable_steps(ordinal, train, config.max_lag),
    )


def anomalies_of(
    field: NDArray[np.floating],
    season: Floats,
    train: NDArray[np.bool_],
    config: DiscoveryConfig,
) -> FloatArray:
    """Remove season and scale of the training steps; draw in what lies far out."""
    filled = np.where(np.isfinite(field), field, 0.0)
    left = remove_harmonics(filled, season, train, harmonics=config.harmonics)
    return np.clip(standardise(left, train), -config.clip, config.clip)


def neighbourhoods(field: FloatArray) -> FloatArray:
    """Return neighbourhoods ``(T, N, 9 C)``; of a single cell, the cell."""
    if min(field.shape[2:]) < 3:
        return _centre(field)
    return patches(field)


def _centre(field: FloatArray) -> FloatArray:
    """Return the cells themselves. Shape ``(T, N, C)``."""
    return field.reshape(*field.shape[:2], -1).transpose(0, 2, 1)


def free_features(
    record: Record, config: DiscoveryConfig, train: NDArray[np.bool_]
) -> FloatArray:
    """Return the constant, powers of time and the drivers from outside. ``(T, P)``."""
    ordinal = record.number
    span = max(float(np.ptp(ordinal)), 1.0)
    time = 2.0 * (ordinal - ordinal.min()) / span - 1.0
    parts = [time**power for power in range(config.trend + 1)]
    if record.known is not None:
        known = np.asarray(record.known, np.float64)
        # The variables have lost their season, and so must what explains them.
        known = remove_harmonics(
            known, record.season, train, harmonics=config.harmonics
        ).astype(np.float64)
        known /= np.maximum(known[train].std(axis=0), 1e-12)
        parts += list(known.T)
    return np.stack(parts, axis=1).astype(np.float32)


def shifted(values: FloatArray, lag: int) -> FloatArray:
    """Return what was so many steps earlier, 0 before the first."""
    out = np.zeros_like(values)
    out[lag:] = values[:-lag]
    return out


def _slow(
    values: FloatArray,
    train: NDArray[np.bool_],
    ordinal: Indices,
    config: DiscoveryConfig,
) -> FloatArray:
    """Return means over the steps before the lags, of the step's own side alone."""
    out = np.zeros_like(values)
    for side in (train, ~train):
        sums = np.cumsum(np.where(side[:, None, None], values, 0.0), 0, dtype="f8")
        count = np.cumsum(side.astype(np.int64))
        sums = np.concatenate([np.zeros_like(sums[:1]), sums])
        count = np.concatenate([[0], count])

        # Steps t - L - memory .. t - L - 1, found by their number: gaps stay gaps.
        last = np.searchsorted(ordinal, ordinal - config.max_lag)
        first = np.searchsorted(ordinal, ordinal - config.max_lag - config.memory)
        number = np.maximum(count[last] - count[first], 1)[:, None, None]
        mean = (sums[last] - sums[first]) / number
        out[side] = mean[side]
    scale = out[train].std(axis=(0, 1))
    return np.asarray(out / np.where(scale > 0, scale, 1.0), np.float32)


def usable_steps(
    ordinal: Indices, train: NDArray[np.bool_], lags: int
) -> NDArray[np.bool_]:
    """Mark steps that end L + 1 consecutive steps of one side."""
    same = np.ones(len(train), bool)
    for lag in range(1, lags + 1):
        same[lag:] &= train[lag:] == train[:-lag]
    return window_ends(ordinal, lags + 1) & same


@dataclass(frozen=True, kw_only=True, eq=False)
class Basis:
    """Leading components of neighbourhoods, of unit variance in training.

    Attributes
    ----------
    mean, axes : ndarray
        Of the F values of a neighbourhood. Shapes ``(F,)`` and ``(F, m)``.
    clip : float
        Scores beyond are drawn in.
    squares : int
        How many leading components have products.
    centre, scale : ndarray
        Mean and deviation of the products in training.
    stiff : ndarray
        Penalty of a component beside that of the first. Shape ``(m,)``.
    uniform : ndarray
        See `Design`. Shape ``(C, m)``.
    """

    mean: FloatArray
    axes: FloatArray
    clip: float
    squares: int
    centre: FloatArray
    scale: FloatArray
    stiff: Floats
    uniform: Floats

    @classmethod
    def fit(
        cls,
        around: FloatArray,
        config: DiscoveryConfig,
        *,
        channels: int,
        tilt: float = 1.0,
    ) -> Self:
        """Take components from training neighbourhoods ``(T, n, F)``.

        The penalty of a component goes with its variance to the power ``-tilt``.
        """
        flat = around.reshape(-1, around.shape[-1]).astype(np.float64)
        mean = flat.mean(axis=0)
        variance, axes = np.linalg.eigh(np.atleast_2d(np.cov(flat, rowvar=False)))
        order = np.argsort(variance)[::-1][: config.components]
        least = max(VARIANCE_FLOOR * float(variance.mean()), 1e-12)
        kept = order[variance[order] > least]
        kept = kept if len(kept) else order[:1]
        scaled = axes[:, kept] / np.sqrt(np.maximum(variance[kept], 1e-12))

        relative = variance[kept] / max(float(variance[kept].max()), 1e-12)

        few = min(config.squares, scaled.shape[1])
        scores = (flat - mean) @ scaled[:, :few]
        products = _products(np.clip(scores, -config.clip, config.clip))
        # A standard deviation more of a channel, at every cell of the neighbourhood.
        shift = np.tile(np.eye(channels), (1, flat.shape[1] // channels))
        return cls(
            mean=mean.astype(np.float32),
            axes=scaled.astype(np.float32),
            clip=config.clip,
            squares=few,
            centre=products.mean(axis=0).astype(np.float32),
            scale=np.maximum(products.std(axis=0), 1e-12).astype(np.float32),
            stiff=np.maximum(relative, VARIANCE_FLOOR) ** -tilt,
            uniform=shift @ scaled,
        )

    def scores(self, around: FloatArray) -> FloatArray:
        """Return the components of neighbourhoods, unit variance. ``(T, n, m)``."""
        return np.clip((around - self.mean) @ self.axes, -self.clip, self.clip)

    def with_squares(self, scores: FloatArray) -> tuple[FloatArray, Indices, Floats]:
        """Add standardised products of the leading components; kinds and stiffness."""
        products = (_products(scores[..., : self.squares]) - self.centre) / self.scale
        full = np.concatenate([scores, products], axis=-1)
        kind = [LINEAR] * scores.shape[-1] + [SQUARE] * products.shape[-1]
        stiff = np.concatenate(
            [self.stiff, np.sqrt(_products(self.stiff[: self.squares]))]
        )
        return full, np.array(kind), stiff


def _products(scores: Any) -> Any:
    """Return all squares and products of the last axis."""
    i, j = np.triu_indices(scores.shape[-1])
    return scores[..., i] * scores[..., j]
