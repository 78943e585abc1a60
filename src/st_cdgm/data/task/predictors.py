"""New predictors for a trained task: same channels, same grid, no truth."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.derived.appending import read_with_derived
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.time.calendar import duration
from st_cdgm.data.time.periods import check_period, period_days
from st_cdgm.errors import InputError

_LOGGER = logging.getLogger(__name__)


def load_predictors(
    preprocessor: Preprocessor,
    paths: str | Path | list[str | Path],
    *,
    start: str | None = None,
    end: str | None = None,
) -> tuple[FieldArrays, int]:
    """Read predictors for inference.

    Up to ``seq_len - 1`` consecutive days before ``start`` are kept as history, so that
    the first day asked for has a full window where the file holds it.

    Parameters
    ----------
    preprocessor : Preprocessor
        Of the trained model.
    paths : str or Path, or several
        Predictor files; their calendar may differ from the training calendar.
    start, end : str, optional
        First and last day wanted, ISO dates; open where None.

    Returns
    -------
    arrays : FieldArrays
        With ``hr`` None; history first.
    first : int
        Index of the first day that was asked for.

    Raises
    ------
    InputError
        If the baseline is an oracle, or the units, the time step or the period do not
        fit.
    MissingVariableError
        If a channel is absent.
    GridMismatchError
        If the grid is not the training grid.
    """
    check_no_oracle(preprocessor)
    cube = read_with_derived(
        paths,
        variables=[c.name for c in preprocessor.channels if not c.derived],
        derived=[c.name for c in preprocessor.channels if c.derived],
        coarsen=preprocessor.lr_coarsen,
        role="lr",
        time_step=preprocessor.time_step,
    )
    preprocessor.lr_grid.check_same(cube.grid, file=cube.file, role="predictor")
    _check_units(preprocessor, cube)
    _check_steps(preprocessor, cube)
    wanted = period_days(cube.days.key, start, end, file=cube.file)
    _warn_of_shortfall(cube, start, end)
    history = _history(cube.days.ordinal, int(wanted[0]), preprocessor.seq_len - 1)
    index = np.concatenate([history, wanted])
    raw, days = cube.load(index), cube.days.select(index)
    _warn_of_missing(raw, cube)
    return FieldArrays.prepared(preprocessor, days, raw), len(history)


def check_no_oracle(preprocessor: Preprocessor) -> None:
    """Raise InputError where the baseline needs a truth that inference cannot have."""
    if preprocessor.baseline.oracle:
        raise InputError(
            "this model's first guess is made from the fine truth",
            found=f"baseline_strategy {preprocessor.baseline.strategy}, an oracle",
            expected="lr_interp, climatology or regression",
            remedy="train again with baseline_strategy auto to predict without truth",
        )


def _check_units(preprocessor: Preprocessor, cube: ChannelCube) -> None:
    for known, new in zip(preprocessor.channels, cube.channels, strict=True):
        if known.units != new.units:
            raise InputError(
                "a predictor has other units than in training",
                file=cube.file,
                variable=new.name,
                found=new.units,
                expected=known.units,
                remedy="convert the file, or correct its units attribute",
            )


def _check_steps(preprocessor: Preprocessor, cube: ChannelCube) -> None:
    known, new = preprocessor.step_seconds, cube.days.step_seconds
    if known != new:
        raise InputError(
            "the predictors have another time step than in training",
            file=cube.file,
            variable="time",
            found=duration(new),
            expected=duration(known),
            remedy="aggregate or interpolate the file to the step of training",
        )


def _warn_of_shortfall(cube: ChannelCube, start: str | None, end: str | None) -> None:
    """Say that the record does not reach as far as the period asked for."""
    first, last = check_period(start, end)
    day = cube.days.day
    last -= max(last % 100 - 28, 0)  # not every month has the 29th to the 31st
    if (start is not None and first < day[0]) or (end is not None and last > day[-1]):
        _LOGGER.warning(
            "%s covers %s only, less than %s to %s",
            cube.file,
            cube.days.period(),
            start or "the beginning",
            end or "the end",
        )


def _warn_of_missing(raw: NDArray[np.float32], cube: ChannelCube) -> None:
    """Say which channels have holes; they will be filled as in training."""
    share = (~np.isfinite(raw)).mean(axis=(0, 2, 3))  # (C_lr,)
    if share.any():
        named = (
            f"{name} {s:.2g}" for name, s in zip(cube.names, share, strict=True) if s
        )
        _LOGGER.warning(
            "%s: missing values are filled (share missing: %s)",
            cube.file,
            ", ".join(named),
        )


def _history(ordinal: NDArray[np.int64], first: int, length: int) -> NDArray[np.int64]:
    """Return the indices of up to ``length`` consecutive days before ``first``."""
    start = first
    while (
        start > 0
        and first - start < length
        and ordinal[start] - ordinal[start - 1] == 1
    ):
        start -= 1
    return np.arange(start, first, dtype=np.int64)
