"""New predictors for a trained task: same channels, same grid, no truth."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.files.open import Paths
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.task.predictor_check import Predictors, open_predictors
from st_cdgm.data.time.periods import check_period, period_days
from st_cdgm.data.time.windows import runs_of_days
from st_cdgm.typing import Indices

_LOGGER = logging.getLogger(__name__)


def load_predictors(
    preprocessor: Preprocessor,
    paths: Paths | Predictors,
    *,
    start: str | None = None,
    end: str | None = None,
    regrid: str = "auto",
) -> tuple[FieldArrays, int]:
    """Read predictors for inference.

    Up to ``seq_len - 1`` consecutive days before ``start`` (one at least, where the
    baseline sees the day before) are kept as history, so that the first day asked for
    has a full window where the file holds it. The first day of the file stands in for
    the day before it.

    Parameters
    ----------
    preprocessor, regrid
        See :func:`open_predictors`.
    paths : path, several paths, Dataset or Predictors
        Predictor files; their calendar may differ from the training calendar. Or what
        :func:`open_predictors` made of them.
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
        If the baseline is an oracle, the period does not fit, or the file does not fit
        the model; all that does not fit is listed. Where it is one thing:
        MissingVariableError for channels, GridMismatchError for the grid.
    """
    opened = (
        paths
        if isinstance(paths, Predictors)
        else open_predictors(preprocessor, paths, regrid=regrid)
    )
    cube = opened.cube
    wanted = period_days(
        cube.days.key, start, end, file=cube.file, calendar=cube.days.calendar
    )
    _warn_of_shortfall(cube, start, end)
    history = _history(cube.days.ordinal, int(wanted[0]), preprocessor.history - 1)

    index = np.concatenate([history, wanted])
    raw, days = cube.load(index), cube.days.select(index)
    _warn_of_missing(raw, cube)
    return FieldArrays.prepared(preprocessor, days, raw), len(history)


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


def _history(ordinal: Indices, first: int, length: int) -> Indices:
    """Return the indices of up to ``length`` consecutive days before ``first``."""
    run = next(run for run in runs_of_days(ordinal) if run[0] <= first <= run[-1])
    before: Indices = run[run < first]
    return before[max(len(before) - length, 0) :]
