"""New predictors for a trained task: same channels, same grid, no truth."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.files.open import Paths
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.task.predictor_check import Predictors, open_predictors
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.periods import check_period, period_days
from st_cdgm.data.time.windows import runs_of_days
from st_cdgm.typing import Indices

_LOGGER = logging.getLogger(__name__)
# Memory for the days that are read at once: predictors, baseline, and both encoded.
BLOCK_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictorDays:
    """The days asked for, read block by block when they are needed.

    Attributes
    ----------
    preprocessor : Preprocessor
        Of the model.
    cube : ChannelCube
        The predictors, not read.
    index : ndarray
        Days of the cube: ``first`` days of history, then those asked for.
    first, history : int
        Days of history before the first day; so many are needed before a block.
    """

    preprocessor: Preprocessor
    cube: ChannelCube
    index: Indices
    first: int
    history: int
    # The block read last, and whether holes were reported.
    _kept: dict[tuple[int, int], FieldArrays] = field(default_factory=dict, repr=False)
    _told: set[str] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        """Return the number of days asked for."""
        return len(self.index) - self.first

    @property
    def days(self) -> CalendarDays:
        """The days asked for."""
        return self.cube.days.select(self.index[self.first :])

    def part(self, start: int, stop: int) -> PredictorDays:
        """Return the days ``start:stop`` of those asked for, with their history."""
        begin = max(self.first + start - self.history, 0)
        return replace(
            self,
            index=self.index[begin : self.first + stop],
            first=self.first + start - begin,
            _kept={},
        )

    def block(self, start: int, stop: int) -> tuple[FieldArrays, int]:
        """Read the days ``start:stop``, history first; and how many that is.

        The block read last is kept.

        Raises
        ------
        InputError
            The file breaks off, or a channel has no value on any of these days.
        """
        part = self.part(start, min(stop, len(self)))
        if (start, stop) not in self._kept:
            self._kept.clear()
            self._kept[start, stop] = part.load()
        return self._kept[start, stop], part.first

    def load(self) -> FieldArrays:
        """Read all of them, history first; errors as of :meth:`block`."""
        run = len(self.index) and self.index[-1] - self.index[0] + 1 == len(self.index)
        days = slice(int(self.index[0]), int(self.index[-1]) + 1) if run else self.index
        raw = self.cube.load(days)
        if "holes" not in self._told and _warn_of_missing(raw, self.cube):
            self._told.add("holes")
        return FieldArrays.prepared(
            self.preprocessor, self.cube.days.select(self.index), raw
        )

    def block_days(self, batch_days: int) -> int:
        """Return how many days are read at once: whole batches, whatever the record."""
        fitting = BLOCK_BYTES // (self.preprocessor.bytes_per_day * batch_days)
        return batch_days * max(int(fitting), 1)


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
    if not isinstance(paths, Predictors):
        paths = open_predictors(preprocessor, paths, regrid=regrid)
    found = find_predictors(preprocessor, paths, start=start, end=end)
    return found.load(), found.first


def find_predictors(
    preprocessor: Preprocessor,
    opened: Predictors,
    *,
    start: str | None = None,
    end: str | None = None,
) -> PredictorDays:
    """Return the days asked for, and their history, without reading them.

    Parameters and errors as of :func:`load_predictors`.
    """
    cube = opened.cube
    wanted = period_days(
        cube.days.key, start, end, file=cube.file, calendar=cube.days.calendar
    )
    _warn_of_shortfall(cube, start, end)
    length = preprocessor.history - 1
    history = _history(cube.days.ordinal, int(wanted[0]), length)
    return PredictorDays(
        preprocessor=preprocessor,
        cube=cube,
        index=np.concatenate([history, wanted]),
        first=len(history),
        history=length,
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


def _warn_of_missing(raw: NDArray[np.float32], cube: ChannelCube) -> bool:
    """Say which channels have holes, if any; they will be filled as in training."""
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
    return bool(share.any())


def _history(ordinal: Indices, first: int, length: int) -> Indices:
    """Return the indices of up to ``length`` consecutive days before ``first``."""
    run = next(run for run in runs_of_days(ordinal) if run[0] <= first <= run[-1])
    before: Indices = run[run < first]
    return before[max(len(before) - length, 0) :]
