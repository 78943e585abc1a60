"""Predictors and targets on the days they share, read all at once or in blocks."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from st_cdgm.data.fit.moments import Blocks
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube, TargetCube
from st_cdgm.data.task.days import DAYS_PER_BLOCK, FieldArrays
from st_cdgm.data.time.alignment import aligned_steps
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.windows import previous_step
from st_cdgm.errors import InputError
from st_cdgm.typing import FloatArray, Indices

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedDays:
    """The days that predictors and targets share.

    Attributes
    ----------
    lr, hr : ChannelCube, TargetCube
        Lazy cubes with their channels, targets and grids.
    days : CalendarDays
        The shared days.
    of_lr, of_hr : ndarray
        Their indices in the two cubes. Shape ``(T,)``.
    raw, truth : ndarray or None
        The values, where they are kept in memory. Shapes ``(T, C_lr, y, x)`` and
        ``(T, C, Y, X)``; NaN where missing.
    """

    lr: ChannelCube
    hr: TargetCube
    days: CalendarDays
    of_lr: Indices
    of_hr: Indices
    raw: FloatArray | None = None
    truth: FloatArray | None = None

    @property
    def file(self) -> str:
        """Both files, for messages."""
        return f"{self.lr.file}, {self.hr.file}"

    def read(self, index: Indices | slice) -> tuple[FloatArray, FloatArray]:
        """Return predictors and truth of some days."""
        if self.raw is not None and self.truth is not None:
            return self.raw[index], self.truth[index]
        truth = self.hr.load(_as_slice(self.of_hr[index]), check=False)
        raw = self.lr.load(_as_slice(self.of_lr[index]), check=False)
        return raw, np.where(np.isfinite(truth), truth, np.nan)

    def read_with_before(
        self, index: Indices | slice
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return predictors, truth, and the predictors of the day before each.

        Where the record has no day before, the day itself stands in.
        """
        own = np.arange(len(self.days))[index]
        earlier = previous_step(self.days.ordinal)[own]
        needed = np.union1d(own, earlier)
        raw, truth = self.read(needed)
        at, before = np.searchsorted(needed, own), np.searchsorted(needed, earlier)
        return raw[at], truth[at], raw[before]

    def blocks(self, index: Indices, size: int = DAYS_PER_BLOCK) -> Blocks:
        """Return the days at ``index`` in blocks of ``size``."""

        def iterate() -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
            for start in range(0, len(index), size):
                part = index[start : start + size]
                raw, truth = self.read(part)
                yield raw, self.days.season[part], truth

        return iterate


def pair_days(
    lr: ChannelCube,
    hr: TargetCube,
    *,
    memory: int,
    chunks: Mapping[str, int] | None = None,
    calendar_align: str | None = None,
) -> PairedDays:
    """Find the shared days; read them if their values take at most ``memory`` bytes.

    ``calendar_align`` says how records with and without leap days are paired, see
    :func:`st_cdgm.data.time.alignment.aligned_steps`.

    Raises
    ------
    InputError
        If calendars differ or no day is shared.
    """
    of_lr, of_hr, days = aligned_steps(
        lr.days, hr.days, calendar_align, file=f"{lr.file}, {hr.file}"
    )
    if not len(of_lr):
        raise InputError(
            "predictors and targets share no day",
            file=f"{lr.file}, {hr.file}",
            found=f"{lr.days.period()} and {hr.days.period()}",
            expected="overlapping periods",
            remedy="give files of the same period",
        )
    if not lr.grid.contains(hr.grid, lr.grid.half_cell):
        _LOGGER.warning(
            "the coarse grid (%s) does not enclose the fine grid (%s): "
            "its edge values are used beyond",
            lr.grid,
            hr.grid,
        )

    # Values stay in memory if they are small enough.
    pairs = PairedDays(
        lr=_chunked(lr, chunks),
        hr=_chunked(hr, chunks),
        days=days,
        of_lr=of_lr,
        of_hr=of_hr,
    )
    per_day = sum(math.prod(cube.values.shape[1:]) for cube in (lr, hr))
    if 4 * per_day * len(of_lr) > memory:
        return pairs

    truth = pairs.hr.load(of_hr)
    truth = np.where(np.isfinite(truth), truth, np.nan)
    return replace(pairs, raw=pairs.lr.load(of_lr), truth=truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedReader:
    """Compute what the model learns from, for any days.

    Each day is computed by itself, so any split of the record gives the same values.
    Can be sent to worker processes (cloudpickle), provided that the data are in files.
    """

    source: PairedDays
    preprocessor: Preprocessor

    def __call__(self, start: int, stop: int) -> dict[str, FloatArray]:
        """Return ``lr``, ``baseline``, ``residual``, ``hr`` of the days.

        Standardised predictors without NaN ``(T, C_lr, y, x)``; encoded baseline,
        standardised residual and encoded truth ``(T, C, Y, X)``, NaN where there is no
        truth.
        """
        days = self.physical(slice(start, stop))
        assert days.hr is not None
        return self.preprocessor.prepare(days.lr, days.baseline, days.hr)

    def physical(self, index: Indices | slice) -> FieldArrays:
        """Return some days in physical units; they may look at the day before."""
        source, prep = self.source, self.preprocessor
        read = source.read_with_before if prep.baseline.history > 1 else source.read
        raw, truth, *before = read(index)
        days = source.days.select(index)
        return FieldArrays.prepared(prep, days, raw, truth, *before)


def _as_slice(index: Indices) -> Indices | slice:
    """Return consecutive indices as a slice, which files read without detours."""
    if len(index) and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _chunked(cube: Any, chunks: Mapping[str, int] | None) -> Any:
    """Return the cube with dask chunks along time as asked for."""
    if not chunks or "time" not in chunks:
        return cube
    return replace(cube, values=cube.values.chunk({"time": int(chunks["time"])}))
