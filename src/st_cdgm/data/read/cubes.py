"""Days of a long lazy record, read without looking at all of its tasks.

Each time a slice of a dask array is computed, dask goes through the tasks of the whole
array first. For a century of daily files that takes longer than reading the slice, and
a pass over the record takes time in proportion to the square of its length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.array.core import concatenate3
from dask.base import get_scheduler
from dask.core import flatten
from dask.optimization import cull
from dask.utils import ensure_dict
from numpy.typing import NDArray

from st_cdgm.data.files.lazy import readable
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.limits import limits_of
from st_cdgm.errors import InputError

_LOGGER = logging.getLogger(__name__)


class RangeWatch:
    """Warn once of every variable whose values leave its physical range.

    ``variables``, in canonical units, lie on the second axis of the values.
    """

    def __init__(
        self,
        variables: Sequence[Channel | TargetVariable],
        grid: Grid,
        days: CalendarDays,
        file: str,
    ) -> None:
        self.variables, self.grid, self.days, self.file = variables, grid, days, file
        self._limits = [
            limits_of(
                one.row,
                one.units,
                days.step_seconds / 3600,
                on_level=isinstance(one, Channel) and one.level is not None,
            )
            for one in variables
        ]
        self._told: set[str] = set()

    def look(self, values: NDArray[np.floating], index: NDArray[np.integer]) -> None:
        """Look at the days ``index``, values of shape ``(T, C, y, x)``."""
        for c, (variable, limits) in enumerate(
            zip(self.variables, self._limits, strict=True)
        ):
            if limits is None or variable.name in self._told:
                continue
            plane = values[:, c]
            outside = (plane < limits[0]) | (plane > limits[1])
            if not outside.any():
                continue

            self._told.add(variable.name)
            day, *cell = (int(i[0]) for i in np.nonzero(outside))
            _LOGGER.warning(
                "%s has values outside %.4g to %.4g %s in %s: %d of the %d read "
                "together, the first %.5g on %s at %.2f degrees north, %.2f degrees "
                "east",
                *(variable.name, *limits, variable.units, self.file),
                *(int(outside.sum()), outside.size, float(plane[day, *cell])),
                self.days.select(index[day : day + 1]).iso()[0],
                *(float(axis[*cell]) for axis in (self.grid.lat2d, self.grid.lon2d)),
            )


MANY_BLOCKS = 16  # along time: from here on dask's own slicing is slow


class DayBlocks:
    """A dask array whose tasks are ordered once; days are the first axis."""

    def __init__(self, array: da.Array) -> None:
        self._keys: list[Any] = array.__dask_keys__()
        optimised = array.__dask_optimize__(array.__dask_graph__(), self._keys)
        self._tasks = ensure_dict(optimised)
        self._ends = np.cumsum(array.chunks[0])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Compute the days from ``start`` up to ``stop``; at least one day.

        Runs on the scheduler that dask is set to.
        """
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        keys = self._keys[first : last + 1]
        tasks, _ = cull(self._tasks, list(flatten(keys)))  # type: ignore[no-untyped-call]
        chosen: Any = get_scheduler()  # type: ignore[no-untyped-call]
        blocks = (chosen or da.Array.__dask_scheduler__)(tasks, keys)
        begin = int(self._ends[first - 1]) if first else 0
        trimmed = []

        for number, block in enumerate(blocks, start=int(first)):
            end = int(self._ends[number])
            trimmed.append(_trimmed(block, max(start - begin, 0), stop - begin))
            begin = end

        whole: Any = concatenate3(trimmed)  # type: ignore[no-untyped-call]
        return np.asarray(whole)


def _trimmed(block: Any, start: int, stop: int) -> Any:
    """Cut the first axis of an array, or of all arrays of nested sequences."""
    if isinstance(block, list | tuple):
        return [_trimmed(part, start, stop) for part in block]
    return block[start:stop]


@dataclass(frozen=True, kw_only=True, eq=False)
class LazyCube:
    """What predictors and targets share: days that are read when asked for.

    Attributes
    ----------
    grid : Grid
        In the order of the file.
    days : CalendarDays
        One entry per time step.
    values : xarray.DataArray
        Lazy float32, canonical units, NaN where missing. Dimensions time, the axis of
        :attr:`variables`, ``y``, ``x``.
    file : str
        Where it came from, for messages.
    """

    grid: Grid
    days: CalendarDays
    values: xr.DataArray
    file: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names along the second axis."""
        return tuple(variable.name for variable in self.variables)

    @property
    def variables(self) -> Sequence[Channel | TargetVariable]:
        """What lies on the second axis."""
        raise NotImplementedError

    @cached_property
    def _watch(self) -> RangeWatch:
        return RangeWatch(self.variables, self.grid, self.days, self.file)

    @cached_property
    def _blocks(self) -> DayBlocks | None:
        chunks = self.values.chunks
        if chunks is not None and len(chunks[0]) >= MANY_BLOCKS:
            return DayBlocks(self.values.data)
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what each process makes for itself."""
        return {k: v for k, v in self.__dict__.items() if k != "_blocks"}

    def load(
        self, index: NDArray[Any] | slice | None = None, *, check: bool = True
    ) -> NDArray[np.float32]:
        """Read the days at ``index`` (all of them). Shape ``(T, C, y, x)``.

        Raises
        ------
        InputError
            If the file breaks off, or, with ``check``, a variable has no finite value.
        """
        index = slice(None) if index is None else index
        days = np.arange(self.values.shape[0])[index]
        in_a_row = isinstance(index, slice) and index.step in (None, 1)
        blocks = self._blocks if in_a_row and len(days) else None
        names = ", ".join(self.names)
        with readable(names, self.file):
            if blocks is not None:
                read = blocks.read(int(days[0]), int(days[-1]) + 1)
            else:
                read = np.asarray(self.values[index].values)
        read = read.astype(np.float32, copy=False)

        for c, name in enumerate(self.names):
            if check and read.size and not np.isfinite(read[:, c]).any():
                raise all_missing(name, self.file)
        self._watch.look(read, days)
        return read


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelCube(LazyCube):
    """Predictors of a file, not yet read; ``channel`` is their axis."""

    channels: tuple[Channel, ...]

    @property
    def variables(self) -> tuple[Channel, ...]:
        """What lies on the second axis."""
        return self.channels


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetCube(LazyCube):
    """Fine-grid targets of a file, not yet read; ``variable`` is their axis."""

    targets: tuple[TargetVariable, ...]

    @property
    def variables(self) -> tuple[TargetVariable, ...]:
        """What lies on the second axis."""
        return self.targets


def all_missing(name: str, file: str) -> InputError:
    """Return the error about a variable without any value."""
    return InputError(
        "a variable has no values",
        file=file,
        variable=name,
        found="missing everywhere",
        expected="finite values on some cells",
        remedy="check fill value, valid_range, mask and region in the file, or leave "
        "it out",
    )
