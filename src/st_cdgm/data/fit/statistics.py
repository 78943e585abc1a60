"""Fit a preprocessor to training days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.fit.moments import (
    Blocks,
    FillStrategy,
    Moments,
    Scope,
    Variation,
    fill_missing,
    rooted,
    warn_of_idle,
)
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.fit.robust import RobustMoments
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.windows import previous_step
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import precipitation_channels
from st_cdgm.errors import ConfigError, InputError, MissingVariableError
from st_cdgm.typing import FloatArray


def fit_preprocessor(
    *,
    blocks: Blocks,
    channels: Sequence[Channel],
    targets: Sequence[TargetVariable],
    lr_grid: Grid,
    hr_grid: Grid,
    static: FloatArray,
    nan_fill: FillStrategy = "zero",
    normalization: Scope = "per_variable",
    normalize: bool = True,
    residual_scaling: Scope = "per_gridpoint",
    lr_root: bool = True,
    robust: bool = False,
    days: CalendarDays | None = None,
    file: str = "",
    **facts: Any,
) -> Preprocessor:
    """Gather all statistics from training days.

    Parameters
    ----------
    blocks : callable
        Training days; see :data:`st_cdgm.data.fit.moments.Blocks`.
    channels, targets, lr_grid, hr_grid, nan_fill, **facts
        Attributes of :class:`Preprocessor`; ``nan_fill`` holds for static fields, too.
    static : ndarray
        Raw fine fields. Shape ``(C_s, Y, X)``.
    normalization, residual_scaling : {"per_variable", "per_gridpoint"}
        Scope of the statistics of predictors and residuals.
    normalize : bool
        False leaves predictors in canonical units.
    lr_root : bool
        Whether precipitation predictors enter as their square root.
    robust : bool
        Median and interquartile range of the predictors, not mean and deviation.
    days : CalendarDays, optional
        Dates of the training days, for baselines that look at the day before or leave
        years out.
    file : str
        Named in errors.

    Raises
    ------
    InputError
        If a predictor or target has no finite value on any training day.
    """
    roots = precipitation_channels(channels) if lr_root and normalize else ()
    shape = (len(channels), *lr_grid.shape)
    predictors = RobustMoments(shape) if robust else Moments(shape)
    valid = np.zeros((len(targets), *hr_grid.shape), dtype=bool)
    changes = Variation(channels, lr_grid.shape), Variation(targets, hr_grid.shape)
    for raw, _, truth in blocks():
        changes[0].add(raw)
        changes[1].add(truth)
        predictors.add(rooted(raw, roots))
        valid |= np.isfinite(truth).any(axis=0)

    # What replaces a missing predictor is raw, before the root.
    _check_known(predictors.count > 0, [c.name for c in channels], file=file)
    _check_known(valid, [t.name for t in targets], file=file)
    warn_of_idle(*changes, file=file)
    mean, std = predictors.result(normalization)
    fill = mean.copy()
    fill[list(roots)] **= 2

    # Residuals are scaled last: they need all else.
    draft = Preprocessor(
        channels=tuple(channels),
        targets=tuple(targets),
        lr_grid=lr_grid,
        hr_grid=hr_grid,
        static=standardise_static(static, nan_fill),
        lr_mean=mean if normalize else np.zeros_like(mean),
        lr_std=std if normalize else np.ones_like(std),
        lr_fill=fill,
        lr_root=roots,
        nan_fill=nan_fill,
        residual_mean=np.zeros((len(targets), 1, 1), dtype=np.float32),
        residual_std=np.ones((len(targets), 1, 1), dtype=np.float32),
        score_std=np.ones(len(targets), dtype=np.float32),
        valid=valid,
        **facts,
    )
    return _with_residual_statistics(draft, blocks, residual_scaling, days)


def standardise_static(static: FloatArray, nan_fill: FillStrategy) -> FloatArray:
    """Return raw fine fields with mean 0 and std 1 over the grid, without NaN (D18).

    Shape ``(C_s, Y, X)``; ``nan_fill`` as in
    :func:`st_cdgm.data.fit.moments.fill_missing`.
    """
    if not len(static):
        return static.astype(np.float32)
    over_grid = Moments(static.shape)
    over_grid.add(static[None])
    mean, std = over_grid.result("per_variable")
    filled = fill_missing(static[None], mean, nan_fill)[0]
    return np.asarray((filled - mean) / std, dtype=np.float32)


def _with_residual_statistics(
    draft: Preprocessor, blocks: Blocks, scope: Scope, days: CalendarDays | None
) -> Preprocessor:
    """Return the draft with mean and spread of its encoded and scored residuals."""
    residual, score = Moments(draft.valid.shape), Moments(draft.valid.shape)
    start, last = 0, None
    for raw, season, truth in blocks():
        dates: dict[str, Any] = {}
        if days is not None and draft.baseline.history > 1:
            # The day before a block's first day is the last one of the block before.
            own = days.select(slice(max(start - 1, 0), start + len(raw)))
            longer = raw if last is None else np.concatenate([last, raw])
            before = longer[previous_step(own.ordinal)]
            dates = {"before": before[-len(raw) :], "key": own.key[-len(raw) :]}
            start, last = start + len(raw), raw[-1:]

        baseline = draft.predict_baseline(raw, season, truth, **dates)
        both = draft.codec.encode(torch.from_numpy(np.concatenate([baseline, truth])))
        scored = draft.codec.scored(both)
        count = len(truth)
        residual.add((both[count:] - both[:count]).numpy())
        score.add((scored[count:] - scored[:count]).numpy())

    mean, std = residual.result(scope)
    _, score_std = score.result("per_variable")
    return replace(
        draft,
        residual_mean=mean,
        residual_std=std,
        score_std=score_std[:, 0, 0].copy(),
    )


def with_given_statistics(
    fitted: Preprocessor, means: str | Path | None, stds: str | Path | None
) -> Preprocessor:
    """Return the preprocessor with predictor statistics read from files.

    Both or none: NetCDF with one number or field per channel, in canonical units.

    Raises
    ------
    ConfigError
        If only one is given.
    MissingVariableError
        If a file lacks a channel.
    """
    if means is None and stds is None:
        return fitted
    if means is None or stds is None:
        raise ConfigError(
            "statistics need both a file of means and one of standard deviations",
            variable="means_path, stds_path",
            found=f"{means}, {stds}",
        )
    mean, std = _statistics(means, fitted), _statistics(stds, fitted)
    return replace(fitted, lr_mean=mean, lr_std=np.where(std > 0, std, 1), lr_fill=mean)


def _statistics(path: str | Path, fitted: Preprocessor) -> FloatArray:
    """Read one number or field per channel. Shape ``(C_lr, y, x)``."""
    with xr.open_dataset(path) as ds:
        missing = [c.name for c in fitted.channels if c.name not in ds]
        if missing:
            raise MissingVariableError(
                "a statistics file lacks channels",
                file=path,
                variable=", ".join(missing),
                found=", ".join(map(str, ds.data_vars)),
                expected=", ".join(c.name for c in fitted.channels),
            )

        fields = [
            np.broadcast_to(np.squeeze(ds[c.name].values), fitted.lr_grid.shape)
            for c in fitted.channels
        ]
    return np.stack(fields).astype(np.float32)


def _check_known(known: NDArray[np.bool_], names: Sequence[str], *, file: str) -> None:
    """Raise InputError where a channel is known on no cell. Shape ``(C, Y, X)``."""
    empty = [name for name, cells in zip(names, known, strict=True) if not cells.any()]
    if empty:
        raise InputError(
            "a variable has no value in the training period",
            file=file,
            variable=", ".join(empty),
            found="only missing values",
            expected="finite values on some training days",
            remedy="leave the variable out or choose another training period",
        )
