"""Baseline: learned by ridge regression of every fine cell, cross-fitted by years."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from st_cdgm.data.fit.baseline.climatology import MIN_DAYS
from st_cdgm.data.fit.baseline.contract import (
    Baseline,
    BaselineDays,
    BaselineTask,
    encoded_truth,
    filed,
)
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.local.cells import (
    PENALTY_CELLS,
    CellFit,
    FeatureTable,
    choose_penalty,
)
from st_cdgm.data.fit.local.equations import penalties
from st_cdgm.data.fit.local.features import LocalFeatures
from st_cdgm.data.fit.local.linear_map import LinearMap
from st_cdgm.data.fit.moments import fill_missing, rooted
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.windows import previous_step
from st_cdgm.data.variables.table import precipitation_channels
from st_cdgm.errors import InputError
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, Indices, State

_LOGGER = logging.getLogger(__name__)
COMPONENTS = 60
# Each is a fit that the checkpoint holds; years are dealt out to so many at most.
FOLDS = 5
# Truth of this size is read at once, a strip of cells after the other.
STRIP_BYTES = 256 * 2**20


@register("baseline", "ridge")
@dataclass(frozen=True, kw_only=True, eq=False)
class RidgeBaseline(Baseline):
    """A ridge regression per fine cell on the weather of the day and the day before.

    A cell sees the coarse channels of both days, interpolated to it and multiplied by
    cosine and sine of the year, gradient and curvature of pressure and geopotential,
    and the leading components of both days; see :class:`LocalFeatures`. It is linear in
    encoded space; decoding makes the fields admissible.

    The baseline of a training day comes from a fit that had not seen its year: years
    are dealt out to five folds at most, and a day takes the fit without its own. So
    what a model learns to add is as large as on days it has never seen. All other days
    take the fit to all training years. A training day is known by its date.

    Attributes
    ----------
    codec : TargetCodec
        Space in which the regression is linear.
    root : tuple of int
        Predictor channels that enter as their square root.
    fine : tuple of int
        Rows and columns of the fine grid.
    features : LocalFeatures
        What the P fitted cells see.
    source : ndarray
        The fitted cell that each fine cell takes its values from: itself, or the
        nearest where there is too little truth. Shape ``(Y*X,)``.
    coefficients : ndarray
        Of the fit to all training days. Shape ``(P, C, K)``, float32.
    apart : ndarray
        What the coefficients of the fits without one fold are more than these. Shape
        ``(folds, P, C, K)``, float16.
    day, fold : ndarray
        Keys of the training days, increasing, and their folds. Shape ``(T,)``.

    References
    ----------
    Hoerl and Kennard (1970), doi:10.1080/00401706.1970.10488634, the regression;
    Chernozhukov et al. (2018), doi:10.1111/ectj.12097, cross-fitting.
    """

    codec: TargetCodec
    root: tuple[int, ...]
    fine: tuple[int, int]
    features: LocalFeatures
    source: Indices
    coefficients: FloatArray
    apart: NDArray[np.float16]
    day: Indices
    fold: Indices

    history = 2
    restricts = True
    cross_fitted = True

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Fit to the training days of a task.

        Predictors are kept in memory; the truth is read a strip of cells at a time.

        Raises
        ------
        InputError
            If the dates are unknown, or a target has too little truth in every cell.
        """
        training = _Training.of(task)
        usable = training.usable()  # (C, Y * X)
        cells = np.flatnonzero(usable.any(axis=0))
        features = LocalFeatures.fit(training.days, task, components=COMPONENTS)
        folds = year_folds(training.dates.key, most=FOLDS)

        # The penalty, on some cells.
        some = cells[
            np.unique(np.linspace(0, len(cells) - 1, PENALTY_CELLS, dtype=int))
        ]
        table = FeatureTable(features, training.days, some)
        penalty, _ = choose_penalty(table, training.truth(some, usable), folds)
        _LOGGER.info("ridge baseline: penalties %s", penalty)

        # All cells, a strip after the other.
        weights = penalties(features, penalty)
        size = (len(cells), len(task.targets), len(weights))
        whole = np.empty(size, dtype=np.float32)
        apart = np.empty((len(folds), *size), dtype=np.float16)
        for strip in training.strips(len(cells)):
            own = cells[strip]
            truth = training.truth(own, usable)
            table = FeatureTable(features, training.days, own)

            for at, X in table.chunks(np.arange(len(own))):
                fit, to = CellFit.of(X, truth[:, :, at], folds), strip.start + at
                whole[to] = every = fit.coefficients(weights)
                for k in range(len(folds)):
                    apart[k, to] = fit.coefficients(weights, without=k) - every

        _fill_targets(whole, apart, usable[:, cells], task.hr_grid.shape, cells)
        return cls(
            codec=training.codec,
            root=training.root,
            fine=task.hr_grid.shape,
            features=features.at(cells),
            source=_nearest(np.asarray(usable.any(axis=0)), task.hr_grid.shape),
            coefficients=whole,
            apart=apart,
            day=training.dates.key,
            fold=fold_numbers(folds),
        )

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the fields of days whose dates and days before are not known."""
        return self.predict_days(BaselineDays(lr=lr, season=season, truth=truth))

    def predict_days(self, days: BaselineDays) -> FloatArray:
        """Return the fields; see :meth:`Baseline.predict_days`."""
        seen = BaselineDays(
            lr=rooted(days.lr, self.root),
            season=days.season,
            before=rooted(days.lagged(1), self.root),
        )
        fit = self.fits(days.key, len(days.season))
        used = {k: self.coefficients + self.apart[k] for k in set(fit) if k >= 0}
        used[-1] = self.coefficients
        cells, targets, _ = self.coefficients.shape
        linear = LinearMap(self.features, np.arange(cells), targets)
        encoded = linear.predict(seen, lambda t: used[fit[t]])

        whole = encoded[:, :, self.source].reshape(*encoded.shape[:2], *self.fine)
        decoded = self.codec.decode(torch.from_numpy(np.ascontiguousarray(whole)))
        return cast("FloatArray", decoded.numpy())

    def fits(self, key: Indices | None, count: int) -> list[int]:
        """Return the fold that the fit of each of T days has not seen, or -1."""
        if key is None:
            return [-1] * count
        at = np.minimum(np.searchsorted(self.day, key), len(self.day) - 1)
        return [int(k) for k in np.where(self.day[at] == key, self.fold[at], -1)]

    def to_state(self) -> State:
        """Return facts and arrays."""
        facts, arrays = self.features.to_state()
        meta = {
            "codec": self.codec.to_dict(),
            "root": list(self.root),
            "fine": list(self.fine),
            "features": facts,
        }
        own = {key: getattr(self, key) for key in _ARRAYS}
        return meta, own | {f"features.{key}": value for key, value in arrays.items()}

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        rows, columns = meta["fine"]
        return cls(
            codec=TargetCodec.from_dict(meta["codec"]),
            root=tuple(meta["root"]),
            fine=(rows, columns),
            features=LocalFeatures.from_state(
                meta["features"], filed(arrays, "features")
            ),
            **{key: arrays[key] for key in _ARRAYS},
        )


_ARRAYS = ("source", "coefficients", "apart", "day", "fold")


def fold_numbers(folds: list[Indices]) -> Indices:
    """Return the number of each day's fold, from the positions of each. ``(T,)``."""
    out = np.empty(sum(map(len, folds)), dtype=np.int64)
    for k, fold in enumerate(folds):
        out[fold] = k
    return out


# -- Training days ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    """Training days: their predictors in memory, their truth read on demand."""

    task: BaselineTask
    codec: TargetCodec
    root: tuple[int, ...]
    dates: CalendarDays
    days: BaselineDays

    @classmethod
    def of(cls, task: BaselineTask) -> Self:
        if task.days is None or not len(task.days):
            raise InputError(
                "no dated training days to fit a regression to",
                expected="days in the training period",
                remedy="check data.splits.train against the period of the files",
            )

        # Predictors of all days; a missing one counts as its mean.
        root = tuple(precipitation_channels(task.channels))
        raw = np.concatenate([rooted(raw, root) for raw, _, _ in task.blocks()])
        lr = fill_missing(raw, _mean(raw), "zero")
        before = lr[previous_step(task.days.ordinal)]
        return cls(
            task=task,
            codec=build_codec(task.targets) if task.codec is None else task.codec,
            root=root,
            dates=task.days,
            days=BaselineDays(lr=lr, season=task.days.season, before=before),
        )

    def usable(self) -> NDArray[np.bool_]:
        """Say which cells have truth on enough days. Shape ``(C, Y * X)``."""
        count = sum(
            np.isfinite(encoded_truth(self.codec, truth)).sum(axis=0)
            for _, _, truth in self.task.blocks()
        )
        enough = min(MIN_DAYS, (len(self.dates) + 1) // 2)
        usable = np.asarray(count >= enough).reshape(len(self.task.targets), -1)

        for target, known in zip(self.task.targets, usable, strict=True):
            if not known.any():
                raise InputError(
                    "no regression: too few training days with a value",
                    variable=target.name,
                    expected=f"at least {enough} days in some cell",
                    remedy="lengthen the training period or leave the variable out",
                )
        return usable

    def truth(self, cells: Indices, usable: NDArray[np.bool_]) -> FloatArray:
        """Return encoded truth of some cells, NaN where missing. ``(T, C, p)``.

        0 where a target has too little truth in a cell: others go without it there.
        """
        parts = []
        for _, _, truth in self.task.blocks():
            encoded = encoded_truth(self.codec, truth)
            parts.append(encoded.reshape(*encoded.shape[:2], -1)[:, :, cells])
        return np.where(usable[:, cells], np.concatenate(parts), np.float32(0.0))

    def strips(self, cells: int) -> Iterator[slice]:
        """Yield ranges of cells whose truth takes about ``STRIP_BYTES``."""
        per_cell = 4 * len(self.dates) * len(self.task.targets)
        step = max(1, STRIP_BYTES // per_cell)
        for start in range(0, cells, step):
            yield slice(start, min(start + step, cells))


def _mean(lr: FloatArray) -> FloatArray:
    """Return the mean of each predictor cell, of its channel where none is known."""
    known = np.isfinite(lr)
    count = known.sum(axis=0)
    total = np.where(known, lr, 0.0).sum(axis=0, dtype=np.float64)
    channel = total.sum(axis=(1, 2)) / np.maximum(count.sum(axis=(1, 2)), 1)
    own = total / np.maximum(count, 1)
    mean = np.where(count > 0, own, channel[:, None, None])
    return np.asarray(mean, dtype=np.float32)


def _nearest(known: NDArray[np.bool_], shape: tuple[int, int]) -> Indices:
    """Return the position among known cells of that nearest to each. ``(Y*X,)``."""
    position = np.cumsum(known) - 1
    index = distance_transform_edt(
        ~known.reshape(shape), return_distances=False, return_indices=True
    )
    return np.asarray(position.reshape(shape)[index[0], index[1]].ravel())


def _fill_targets(
    whole: FloatArray,
    apart: NDArray[np.float16],
    usable: NDArray[np.bool_],
    shape: tuple[int, int],
    cells: Indices,
) -> None:
    """Give a target without truth in a fitted cell the nearest cell's coefficients.

    In place; ``usable`` has the shape ``(C, P)``.
    """
    for c, known in enumerate(usable):
        if known.all():
            continue
        on_grid = np.zeros(int(np.prod(shape)), dtype=bool)
        on_grid[cells[known]] = True
        nearest = np.flatnonzero(known)[_nearest(on_grid, shape)[cells]]
        whole[:, c] = whole[nearest, c]
        apart[:, :, c] = apart[:, nearest, c]
