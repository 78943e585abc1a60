"""Baseline: learned by ridge regression on principal components."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray

from st_cdgm.data.fit.baseline.climatology import MIN_DAYS, fill_cells
from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask, encoded_truth
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.data.fit.moments import Blocks, fill_nearest, rooted
from st_cdgm.data.fit.ridge import solve_ridge
from st_cdgm.data.variables.table import precipitation_channels
from st_cdgm.errors import InputError
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, Floats, State

_LOGGER = logging.getLogger(__name__)
COMPONENTS = 80
EXPLAINED = 0.995
# Up to this many predictor values a day the covariance is kept (288 MB), beyond it a
# sketch of it.
EXACT_LIMIT = 6000
_OVERSAMPLE = 3
# Share of the record, at its end, on which the penalty is chosen.
_HELD_OUT = 0.2
# Penalties per day, in units of the mean variance of a component.
_PENALTIES = np.logspace(-4, 2, 13)


@register("baseline", "regression")
@dataclass(frozen=True, kw_only=True, eq=False)
class RegressionBaseline(Baseline):
    r"""Harmonics of the year plus a ridge regression on the large-scale weather.

    .. math:: E[u_p \mid x] = h_p(s) + \sum_{k} b_{kp}\, z_k(x - h(s)), \qquad
              y = \mathrm{decode}(u)

    with :math:`h` three harmonics of the year, fitted to each predictor and each
    encoded target cell, and :math:`z_k` the leading principal components of the
    predictors' deviations from theirs, each variable scaled to the same total variance.

    Attributes
    ----------
    codec : TargetCodec
        Space in which the regression is linear.
    root : tuple of int
        Predictor channels that enter as their square root.
    lr_harmonics : ndarray
        Shape ``(7, C_lr, y, x)``, canonical units (after the root).
    components : ndarray
        What a deviation is multiplied by. Shape ``(K, C_lr, y, x)``.
    harmonics : ndarray
        Of the encoded targets. Shape ``(7, C, Y, X)``.
    coefficients : ndarray
        Encoded target per unit of a component. Shape ``(K, C, Y, X)``.
    """

    codec: TargetCodec
    root: tuple[int, ...]
    lr_harmonics: FloatArray
    components: FloatArray
    harmonics: FloatArray
    coefficients: FloatArray

    restricts = True

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Fit to the training days of a task, roots of precipitation among them."""
        codec = build_codec(task.targets) if task.codec is None else task.codec
        return cls.fit(
            task.blocks, codec=codec, root=precipitation_channels(task.channels)
        )

    @classmethod
    def fit(
        cls, blocks: Blocks, *, codec: TargetCodec, root: Sequence[int] = ()
    ) -> Self:
        """Fit to training days in three passes; memory does not grow with their number.

        The first pass gives the harmonics, the second the components, the third the
        regression. Its penalty, one per target, is the one with the least squared error
        on the last fifth of the days when fitted to the others. In cells with missing
        truth the products are those of the valid days, scaled to all days.

        The blocks are in time order; see :data:`st_cdgm.data.fit.moments.Blocks`.

        Raises
        ------
        InputError
            If a target has too few training days in every cell, or no predictor varies.
        """
        season = _Seasonal.fit(blocks, codec, root)
        components = _components(season, blocks)
        coefficients = _coefficients(season, components, blocks)
        return cls(
            codec=codec,
            root=season.root,
            lr_harmonics=season.lr_harmonics,
            components=components,
            harmonics=season.harmonics,
            coefficients=coefficients,
        )

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the regression's fields; see :meth:`Baseline.predict`."""
        del truth
        anomaly = rooted(lr, self.root) - from_harmonics(self.lr_harmonics, season)
        encoded = from_harmonics(self.harmonics, season)
        for day, deviation in zip(encoded, anomaly, strict=True):
            # Day by day, so that a day does not depend on its company, not even in
            # its last digit.
            score = np.tensordot(self.components, deviation, axes=3)
            day += np.tensordot(score, self.coefficients, axes=1)
        decoded = self.codec.decode(torch.from_numpy(encoded))
        return cast("FloatArray", decoded.numpy())

    def to_state(self) -> State:
        """Return facts and arrays."""
        meta, arrays = super().to_state()
        return meta | {"codec": self.codec.to_dict(), "root": list(self.root)}, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        codec = TargetCodec.from_dict(meta["codec"])
        return super().from_state({"codec": codec, "root": tuple(meta["root"])}, arrays)


# -- Harmonics -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seasonal:
    """Harmonics of predictors and encoded targets, and what deviates from them.

    ``scale``: standard deviation of each predictor variable, shape ``(C_lr, 1, 1)``;
    ``known``: predictor cells with training values, shape ``(C_lr, y, x)``;
    ``enough``: days that a cell needs.
    """

    codec: TargetCodec
    root: tuple[int, ...]
    days: int
    enough: int
    lr_harmonics: FloatArray
    scale: FloatArray
    known: NDArray[np.bool_]
    harmonics: FloatArray

    @classmethod
    def fit(cls, blocks: Blocks, codec: TargetCodec, root: Sequence[int]) -> _Seasonal:
        sums: list[HarmonicSums] = []
        shapes: list[tuple[int, ...]] = []
        for raw, season, truth in blocks():
            fields = (rooted(raw, root), encoded_truth(codec, truth))
            if not sums:
                shapes = [field.shape[1:] for field in fields]
                sums = [HarmonicSums(int(np.prod(shape))) for shape in shapes]
            for one, field in zip(sums, fields, strict=True):
                one.add(season, field.reshape(len(field), -1))

        if not sums or not sums[0].days:
            raise InputError(
                "no training days to fit a regression to",
                expected="days in the training period",
                remedy="check data.splits.train against the period of the files",
            )

        # Harmonics of predictors and targets, in turn.
        enough = min(MIN_DAYS, (sums[0].days + 1) // 2)
        coarse = sums[0].solve(enough)
        variance = sums[0].variance(coarse).reshape(shapes[0])
        lr_harmonics = np.nan_to_num(coarse).astype(np.float32).reshape(-1, *shapes[0])
        fine = sums[1].solve(enough).astype(np.float32).reshape(-1, *shapes[1])

        known = np.isfinite(variance)
        channel = np.where(known, variance, 0).sum(axis=(1, 2), keepdims=True)
        channel = np.sqrt(channel / np.maximum(known.sum((1, 2), keepdims=True), 1))
        return cls(
            codec=codec,
            root=tuple(root),
            days=sums[0].days,
            enough=enough,
            lr_harmonics=lr_harmonics,
            scale=np.where(channel > 0, channel, 1).astype(np.float32),
            known=known,
            harmonics=fill_cells(fine, codec.names, enough),
        )

    def predictors(self, raw: FloatArray, season: FloatArray) -> Floats:
        """Return scaled deviations, 0 where missing. Shape ``(T, D)``."""
        away = rooted(raw, self.root) - from_harmonics(self.lr_harmonics, season)
        usable = np.isfinite(away) & self.known
        scaled = np.where(usable, away / self.scale, 0.0)
        return cast("Floats", scaled.reshape(len(raw), -1).astype(np.float64))

    def targets(self, season: FloatArray, truth: FloatArray) -> Floats:
        """Return encoded deviations, NaN where missing. Shape ``(T, P)``."""
        away = encoded_truth(self.codec, truth) - from_harmonics(self.harmonics, season)
        return cast("Floats", away.reshape(len(truth), -1).astype(np.float64))


# -- Principal components --------------------------------------------------------------


def _components(season: _Seasonal, blocks: Blocks) -> FloatArray:
    """Return the leading components, ready for raw deviations. ``(K, C_lr, y, x)``."""
    size = season.known.size
    rng = np.random.default_rng(0)
    exact = size <= EXACT_LIMIT
    width = min(size, _OVERSAMPLE * COMPONENTS)
    probe = None if exact else np.linalg.qr(rng.normal(size=(size, width)))[0]
    sketch = np.zeros((size, size if exact else width))

    # Covariance of all days, or a sketch of it.
    total = 0.0
    for raw, part, _ in blocks():
        x = season.predictors(raw, part)
        total += float(np.square(x).sum())
        sketch += x.T @ (x if probe is None else x @ probe)

    value, vector = (
        np.linalg.eigh(sketch) if probe is None else _nystroem(sketch, probe)
    )
    order = np.argsort(value)[::-1][:COMPONENTS]
    value, vector = np.maximum(value[order], 0), vector[:, order]
    share = np.cumsum(value) / total if total > 0 else np.zeros(1)
    if total <= 0:
        raise InputError(
            "no predictor varies over the training period",
            expected="predictors that change from day to day",
            remedy="check the predictors, or use baseline_strategy climatology",
        )

    # As many components as explain the variance, or as there are.
    rank = int((value > 1e-9 * value[0]).sum())
    count = min(int(np.searchsorted(share, EXPLAINED)) + 1, rank)
    _LOGGER.debug("%d components explain %.4f", count, share[count - 1])
    shaped = vector[:, :count].T.reshape(count, *season.known.shape)
    return cast("FloatArray", (shaped * season.known / season.scale).astype(np.float32))


def _nystroem(sketch: Floats, probe: Floats) -> tuple[Floats, Floats]:
    """Return eigenvalues and vectors of C from ``sketch = C probe``.

    Nystroem's approximation with the shift of Tropp et al. (2017), algorithm 3,
    arXiv:1706.05736. Shapes: both ``(D, K)``; results ``(K,)``, ``(D, K)``.
    """
    shift = np.sqrt(len(sketch)) * np.finfo(float).eps * np.linalg.norm(sketch, 2)
    shifted = sketch + shift * probe
    core = probe.T @ shifted
    lower = np.linalg.cholesky(0.5 * (core + core.T))
    half = np.linalg.solve(lower, shifted.T).T
    vector, root, _ = np.linalg.svd(half, full_matrices=False)
    return np.maximum(np.square(root) - shift, 0.0), vector


# -- Regression ------------------------------------------------------------------------


class _Sums:
    """Products of components and target deviations over a set of days."""

    def __init__(self, components: int, cells: int) -> None:
        self.count = np.zeros(cells)
        self.days = 0
        self.gram = np.zeros((components, components))
        self.cross = np.zeros((components, cells))

    def add(self, score: Floats, away: Floats) -> None:
        """Add days. Shapes ``(T, K)`` and ``(T, P)``, NaN where missing."""
        finite = np.isfinite(away)
        self.days += len(score)
        self.count += finite.sum(axis=0)
        self.gram += score.T @ score
        self.cross += score.T @ (away if finite.all() else np.where(finite, away, 0.0))

    def __add__(self, other: _Sums) -> _Sums:
        out = _Sums(*self.cross.shape)
        for key in ("count", "days", "gram", "cross"):
            setattr(out, key, getattr(self, key) + getattr(other, key))
        return out

    def scaled(self, cells: slice) -> Floats:
        """Return the products of all days as the valid ones tell. Shape ``(K, p)``."""
        factor = self.days / np.maximum(self.count[cells], 1)
        return self.cross[:, cells] * factor

    def solve(self, penalty: float, cells: slice) -> Floats:
        """Return the coefficients. Shape ``(K, p)``."""
        weight = penalty * np.trace(self.gram) / len(self.gram)
        return solve_ridge(self.gram, self.scaled(cells), max(weight, 1e-12))

    def error(self, coefficients: Floats, cells: slice) -> float:
        """Return the squared error per day less that of no regression, over cells."""
        known = self.count[cells] > 0
        fitted = np.einsum("kp,kp->p", coefficients, self.gram @ coefficients)
        gain = 2 * np.einsum("kp,kp->p", coefficients, self.scaled(cells))
        return float((fitted - gain)[known].sum())


def _coefficients(
    season: _Seasonal, components: FloatArray, blocks: Blocks
) -> FloatArray:
    """Return the ridge regression on the components. Shape ``(K, C, Y, X)``."""
    shape = season.harmonics.shape[1:]
    count = len(components)
    project = (components * season.scale).reshape(count, -1).T.astype(np.float64)
    early, late = (_Sums(count, int(np.prod(shape))) for _ in range(2))

    border, start = season.days - int(_HELD_OUT * season.days), 0
    for raw, part, truth in blocks():
        score = season.predictors(raw, part) @ project
        away = season.targets(part, truth)
        split = min(max(border - start, 0), len(raw))
        early.add(score[:split], away[:split])
        late.add(score[split:], away[split:])
        start += len(raw)

    # One penalty per target: the best on the days held out.
    everything = early + late
    out = np.empty((count, *shape), dtype=np.float32)
    cells = int(np.prod(shape[1:]))
    for c, name in enumerate(season.codec.names):
        own = slice(c * cells, (c + 1) * cells)
        error = [late.error(early.solve(p, own), own) for p in _PENALTIES]
        best = float(_PENALTIES[int(np.argmin(error))])
        _LOGGER.debug("%s: penalty %.3g", name, best)

        fitted = everything.solve(best, own)
        fitted[:, everything.count[own] < max(season.enough, 1)] = np.nan
        narrow = fitted.astype(np.float32).reshape(count, *shape[1:])
        out[:, c] = fill_nearest(narrow)
    return out
