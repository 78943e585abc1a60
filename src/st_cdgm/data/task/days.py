"""Days in physical units in memory, and encoded days, in memory or block by block."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import dask
import numpy as np
from dask.utils import parse_bytes
from numpy.typing import NDArray
from xarray.backends.file_manager import FILE_CACHE

from st_cdgm.data.time.windows import previous_step
from st_cdgm.errors import ConfigError

if TYPE_CHECKING:
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.time.calendar import CalendarDays

Fields = dict[str, NDArray[np.float32]]
DayReader = Callable[[int, int], Fields]
# Days read at once.
DAYS_PER_BLOCK = 32
# Blocks that a budget should hold at least: shuffling mixes the windows of eight.
BLOCKS_KEPT = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class FieldArrays:
    """Days in memory, in time order, as the model and the references see them.

    Attributes
    ----------
    days : CalendarDays
        The days, or steps shorter than a day. Length T.
    lr : ndarray
        Standardised predictors without NaN. Shape ``(T, C_lr, y, x)``, float32.
    baseline : ndarray
        Baseline in target units, no NaN. Shape ``(T, C, Y, X)``, float32.
    hr : ndarray or None
        Truth in target units, NaN where there is none. Shape ``(T, C, Y, X)``, float32.
    record : FieldArrays or None
        Of days that were selected: all days of the record, without truth. The days
        before a day are looked up there.
    """

    days: CalendarDays
    lr: NDArray[np.float32]
    baseline: NDArray[np.float32]
    hr: NDArray[np.float32] | None
    record: FieldArrays | None = None

    @classmethod
    def prepared(
        cls,
        preprocessor: Preprocessor,
        days: CalendarDays,
        raw: NDArray[np.float32],
        truth: NDArray[np.float32] | None = None,
        before: NDArray[np.float32] | None = None,
    ) -> FieldArrays:
        """Make them of predictors in canonical units and, where known, the truth.

        ``before`` are the predictors of the day before each, for baselines that see
        them; where it is not given, they are looked up among the days themselves.
        """
        if before is None and preprocessor.baseline.history > 1:
            before = raw[previous_step(days.ordinal)]
        baseline = preprocessor.predict_baseline(
            raw, days.season, truth, before=before, key=days.key
        )
        lr = preprocessor.standardise_lr(raw)
        return cls(days=days, lr=lr, baseline=baseline, hr=truth)

    def __len__(self) -> int:
        return len(self.days)

    @property
    def day(self) -> NDArray[np.int64]:
        """YYYYMMDD, or YYYYMMDDhhmmss of shorter steps. Shape ``(T,)``."""
        return self.days.key

    @property
    def season(self) -> NDArray[np.float32]:
        """Fraction of the year elapsed, in [0, 1). Shape ``(T,)``."""
        return self.days.season

    @property
    def calendar(self) -> str:
        """CF calendar of the days."""
        return self.days.calendar

    def select(self, index: NDArray[Any] | slice) -> FieldArrays:
        """Return the days at ``index``."""
        return FieldArrays(
            days=self.days.select(index),
            lr=self.lr[index],
            baseline=self.baseline[index],
            hr=None if self.hr is None else self.hr[index],
            record=self.record or replace(self, hr=None),
        )

    def lagged(self, lag: int) -> NDArray[np.float32]:
        """Return the predictors of the day ``lag`` days earlier.

        Where the record does not reach so far back its earliest day before the gap
        stands in, as in the model's windows. Shape ``(T, C_lr, y, x)``.
        """
        record = self.record or self
        ordinal = record.days.ordinal
        before, at = previous_step(ordinal), np.searchsorted(ordinal, self.days.ordinal)
        for _ in range(lag):
            at = before[at]
        return record.lr[at]


class DayFields:
    """Fields of consecutive steps, read on demand and kept within a budget.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` returns named arrays ``(stop - start, ...)``, float32.
    n_days : int
        Length of the record.
    bytes_per_day : int
        Memory of one day over all arrays.
    memory : int
        Bytes that may stay resident. A record that fits is read once and kept; of a
        longer one the blocks used last are kept, one at least.
    days_per_block : int
        Days read at once; fewer where the budget would not hold some blocks.
    kept : int, optional
        Blocks to keep, of just this size; the budget is not looked at then.
    """

    def __init__(
        self,
        read: DayReader,
        n_days: int,
        *,
        bytes_per_day: int = 0,
        memory: int = 0,
        days_per_block: int = DAYS_PER_BLOCK,
        kept: int | None = None,
    ) -> None:
        self.n_days, self.read = int(n_days), read
        self.in_memory = kept is None and n_days * bytes_per_day <= memory
        self.days_per_block = int(days_per_block)
        if kept is None:
            fitting = memory // max(BLOCKS_KEPT * bytes_per_day, 1)
            self.days_per_block = max(min(self.days_per_block, int(fitting)), 1)
            kept = max(memory // max(self.days_per_block * bytes_per_day, 1), 1)

        self._kept = kept
        self._whole: Fields | None = None
        self._blocks: OrderedDict[int, Fields] = OrderedDict()
        self._owner = self._process = os.getpid()

    def __len__(self) -> int:
        return self.n_days

    def load(self) -> DayFields:
        """Read everything now, if it may stay; before workers are forked, say."""
        if self.in_memory and self._whole is None:
            self._whole = self._all()
        return self

    def window(self, start: int, stop: int) -> Fields:
        """Return the days ``start:stop``; views into memory where they are kept.

        The arrays must not be written to.
        """
        if self.load()._whole is not None:
            return {
                key: value[start:stop]
                for key, value in cast("Fields", self._whole).items()
            }
        size = self.days_per_block
        # An empty range still needs a block, for the shapes.
        numbers = range(start // size, max(-(-stop // size), start // size + 1))
        parts = []
        for number in numbers:
            block, first = self._block(number), number * size
            days = slice(max(start - first, 0), min(stop - first, size))
            parts.append({key: value[days] for key, value in block.items()})
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def take(self, index: NDArray[np.int64], keys: Sequence[str]) -> Fields:
        """Return copies of windows, shape ``(B, T, ...)`` each, of the arrays ``keys``.

        ``index`` are the days of each window, not decreasing along T, shape ``(B, T)``.
        """
        if self.load()._whole is not None:
            return {key: cast("Fields", self._whole)[key][index] for key in keys}
        windows = []
        for days in index:
            window = self.window(int(days[0]), int(days[-1]) + 1)
            windows.append({key: window[key][days - days[0]] for key in keys})
        return {key: np.stack([window[key] for window in windows]) for key in keys}

    def _all(self) -> Fields:
        out: Fields = {}
        size = self.days_per_block
        for start in range(0, self.n_days, size):
            stop = min(start + size, self.n_days)
            for key, value in self.read(start, stop).items():
                if key not in out:
                    out[key] = np.empty((self.n_days, *value.shape[1:]), np.float32)
                out[key][start:stop] = value
        return out

    def _block(self, number: int) -> Fields:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        while len(self._blocks) >= self._kept:
            self._blocks.popitem(last=False)
        start = number * self.days_per_block
        self._blocks[number] = self._fresh(
            start, min(start + self.days_per_block, self.n_days)
        )
        return self._blocks[number]

    def _fresh(self, start: int, stop: int) -> Fields:
        if os.getpid() == self._owner:
            return dict(self.read(start, stop))
        # A forked worker inherits open files that it must not share, and thread pools
        # without their threads.
        if os.getpid() != self._process:
            FILE_CACHE.clear()
            self._process = os.getpid()
        with dask.config.set(scheduler="synchronous"):
            return dict(self.read(start, stop))


def memory_bytes(memory: str | int, *, variable: str = "data.memory") -> int:
    """Return an amount of memory such as ``"2 GiB"`` in bytes.

    Raises
    ------
    ConfigError
        If it is no positive amount.
    """
    try:
        number = int(parse_bytes(memory)) if memory else 0
    except (ValueError, AttributeError, TypeError):
        number = 0
    if number <= 0:
        raise ConfigError(
            "not an amount of memory",
            variable=variable,
            found=memory,
            expected="a number with a unit, such as 2 GiB or 500 MB",
        )
    return number
