"""From arrays to tensors: windows of days for training and inference.

This is the one place where xarray and NumPy become tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import dask.array
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from st_cdgm.data.task.batch import Batch
from st_cdgm.data.task.days import DayFields, FieldArrays, Fields, memory_bytes
from st_cdgm.data.time.windows import (
    process_group,
    runs_of_days,
    sample_bounds,
    shuffled_by_block,
    window_index,
    worker_share,
)
from st_cdgm.errors import InputError
from st_cdgm.typing import Indices

if TYPE_CHECKING:
    import xarray as xr

    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.task.labels import GridMetadata
    from st_cdgm.data.time.calendar import CalendarDays


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedDays:
    """Days of a record to make windows of, which need not be in memory.

    ``days`` are at ``index``, shape ``(n,)``, increasing, of the record of prepared
    ``fields``. Of the preprocessor are the static fields, and where the model was
    trained. ``truth`` says whether the fields hold one.
    """

    fields: DayFields
    days: CalendarDays
    index: Indices
    preprocessor: Preprocessor
    truth: bool = True

    @classmethod
    def of_arrays(cls, arrays: FieldArrays, preprocessor: Preprocessor) -> PreparedDays:
        """Encode days in memory."""

        def read(start: int, stop: int) -> Fields:
            part = arrays.select(slice(start, stop))
            if part.hr is None:
                encoded = preprocessor.encode_baseline(part.baseline)
                return {"lr": part.lr, "baseline": encoded.numpy()}
            return preprocessor.prepare(part.lr, part.baseline, part.hr)

        count, need = len(arrays), preprocessor.bytes_per_day
        return cls(
            fields=DayFields(read, count, bytes_per_day=need, memory=need * count),
            days=arrays.days,
            index=np.arange(count, dtype=np.int64),
            preprocessor=preprocessor,
            truth=arrays.hr is not None,
        )


class WindowDataset(Dataset[Any]):
    """Windows of consecutive days in any order, a batch at a time.

    ``DataLoader(dataset, batch_size=32, collate_fn=WindowDataset.collate)`` yields one
    :class:`Batch` after the other.

    Parameters
    ----------
    record : PreparedDays
        The days.
    seq_len : int
        Days per window T.
    stride : int
        Days from one window to the next.
    pad_start : bool
        Whether every day ends a window; see :func:`window_index`.

    Raises
    ------
    InputError
        If no run of consecutive days is as long as a window.
    """

    def __init__(
        self,
        record: PreparedDays,
        *,
        seq_len: int,
        stride: int = 1,
        pad_start: bool = False,
    ) -> None:
        self.days, self.seq_len = record.days, int(seq_len)
        self._windows = window_index(
            self.days.ordinal, self.seq_len, stride=int(stride), pad_start=pad_start
        )  # (W, T)
        if not len(self._windows):
            longest = max(len(run) for run in runs_of_days(self.days.ordinal))
            raise no_window(f"at most {longest} consecutive days", self.seq_len)

        self._time = self.days.key
        self._fields, self._record = record.fields.load(), record.index
        self._keys = ("lr", "baseline", "hr") if record.truth else ("lr", "baseline")
        self._static = torch.from_numpy(record.preprocessor.static)
        self._cells = torch.from_numpy(record.preprocessor.valid)  # (C, Y, X)

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def ends(self) -> Indices:
        """Index into :attr:`days` of each window's last day. Shape ``(W,)``."""
        return self._windows[:, -1]

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """Return some windows. ``index`` counts windows, shape ``(B,)``."""
        days = self._windows[np.asarray(index, dtype=np.int64)]  # (B, T)
        taken = {
            key: torch.from_numpy(value)
            for key, value in self._fields.take(self._record[days], self._keys).items()
        }
        truth = taken.get("hr")
        if truth is None:
            valid = self._cells.expand(*days.shape, *self._cells.shape)
        else:
            valid = torch.isfinite(truth)
            truth = torch.where(valid, truth, taken["baseline"])

        return Batch(
            lr=taken["lr"],
            baseline=taken["baseline"],
            season=torch.from_numpy(self.days.season[days]),
            time=torch.from_numpy(self._time[days]),
            static=self._static,
            valid=valid,
            truth=truth,
        )

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return index

    def __getitems__(self, index: list[int]) -> Batch:
        return self.batch(index)

    @staticmethod
    def collate(batch: Batch) -> Batch:
        """Return the batch that ``__getitems__`` has already made."""
        return batch


def no_window(found: str, seq_len: int) -> InputError:
    """Return the error for a record in which no run of days is as long as a window."""
    return InputError(
        "no window of consecutive days",
        found=found,
        expected=f"runs of at least {seq_len} days",
        remedy="shorten data.seq_len or give a longer period",
    )


class SharedWindows(IterableDataset[dict[str, Any]]):
    """Windows that workers and ranks share, in an order that the epoch may decide."""

    def __init__(self) -> None:
        super().__init__()
        # Shared with workers that are running already.
        zero = cast("Any", torch.zeros(1, dtype=torch.int64))
        self._epoch: Any = zero.share_memory_()
        self._parent: tuple[int, int] | None = None

    @property
    def epoch(self) -> int:
        """The pass whose random order is taken."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Choose the random order of the passes to come, as a DistributedSampler does.

        Call it before each pass on all ranks; workers that persist follow.
        """
        self._epoch[0] = int(epoch)

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is not forked knows nothing of its parent's process group.
        return {**self.__dict__, "_parent": process_group()}


class ResDiffIterableDataset(SharedWindows):
    """Windows as dictionaries, without batch axis.

    Each sample holds ``lr (T, C_lr, y, x)``, ``baseline``, ``residual`` and ``hr``
    ``(T, C, Y, X)``, ``static (C_s, Y, X)`` where there is one, and ``time``, a list of
    T ISO dates. No window crosses a gap in the days. Workers and ranks share the
    windows among themselves, each window once. Samples are views into the memory that
    all windows share: copy them before writing to them. ``DataLoader`` copies them into
    its batches; without batches it hands out the views.

    Parameters
    ----------
    lr_dataset, baseline_dataset, residual_dataset, hr_dataset : xarray.Dataset
        Variables with the dimensions time, row, column; the same days in all of them.
    static_tensor_np, static_tensor_torch : ndarray and Tensor, or None
        Static fine fields in both forms. Shape ``(C_s, Y, X)``.
    dims : GridMetadata
        Dimension names.
    seq_len : int
        Days per window.
    stride : int
        Days from one window to the next; may exceed ``seq_len``.
    drop_last : bool
        False also yields the shorter window left at the end of a run of days.
    as_torch : bool
        Tensors if True, else NumPy arrays.
    shuffle : bool
        Whether windows come in random order, another one after :meth:`set_epoch`;
        without it in time order. A record beyond ``memory`` is shuffled in blocks of
        days and among the windows of some blocks, so that each block is read about
        once.
    seed : int
        Of the random order; see :meth:`set_epoch`.
    memory : str or int
        What may stay in memory; a longer record is read block by block.
    """

    def __init__(
        self,
        *,
        lr_dataset: xr.Dataset,
        baseline_dataset: xr.Dataset,
        residual_dataset: xr.Dataset,
        hr_dataset: xr.Dataset,
        static_tensor_np: NDArray[np.float32] | None,
        static_tensor_torch: Tensor | None,
        dims: GridMetadata,
        seq_len: int,
        stride: int = 1,
        drop_last: bool = True,
        as_torch: bool = True,
        shuffle: bool = False,
        seed: int = 0,
        memory: str | int = "4 GiB",
    ) -> None:
        from st_cdgm.data.time.axis import day_keys

        coarse, fine = (dims.lr_lat, dims.lr_lon), (dims.hr_lat, dims.hr_lon)
        stacked = {
            "lr": _stacked(lr_dataset, dims.time, coarse),
            "baseline": _stacked(baseline_dataset, dims.time, fine),
            "residual": _stacked(residual_dataset, dims.time, fine),
            "hr": _stacked(hr_dataset, dims.time, fine),
        }

        def read(start: int, stop: int) -> Fields:
            days = slice(start, stop)
            return {
                key: np.asarray(value[days], np.float32)
                for key, value in stacked.items()
            }

        # What fits into memory is read by the set-up, the rest when it is asked for.
        days = day_keys(lr_dataset[dims.time])
        per_day = sum(4 * math.prod(value.shape[1:]) for value in stacked.values())
        fields = DayFields(
            read, len(days), bytes_per_day=per_day, memory=memory_bytes(memory)
        )
        self._setup(
            fields,
            days,
            np.arange(len(days), dtype=np.int64),
            static_tensor_torch if as_torch else static_tensor_np,
            dims=dims,
            seq_len=seq_len,
            stride=stride,
            drop_last=drop_last,
            as_torch=as_torch,
            shuffle=shuffle,
            seed=seed,
        )

    @classmethod
    def of_days(
        cls, record: PreparedDays, *, as_torch: bool = True, **options: Any
    ) -> ResDiffIterableDataset:
        """Return the windows of prepared days; ``options`` as of the class."""
        made = cls.__new__(cls)
        static: Any = record.preprocessor.static
        if not len(static):
            static = None
        elif as_torch:
            static = torch.from_numpy(static)

        made._setup(
            record.fields,
            record.days,
            record.index,
            static,
            as_torch=as_torch,
            **options,
        )
        return made

    def _setup(
        self,
        fields: DayFields,
        days: CalendarDays,
        index: Indices,
        static: Any,
        *,
        dims: GridMetadata,
        seq_len: int,
        stride: int,
        drop_last: bool,
        as_torch: bool,
        shuffle: bool,
        seed: int,
    ) -> None:
        super().__init__()
        self.dims, self.as_torch = dims, as_torch
        self.seq_len, self.stride = int(seq_len), max(int(stride), 1)
        self.drop_last, self.shuffle, self.seed = drop_last, shuffle, seed

        # Before workers are forked, so that they share it.
        self._fields = fields.load()
        self._record, self._static = index, static
        self._iso = days.iso()
        self._bounds = sample_bounds(
            days.ordinal, self.seq_len, stride=self.stride, drop_last=self.drop_last
        )

    def __len__(self) -> int:
        """Return the number of windows over all workers."""
        return len(self._bounds)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        share, shares = worker_share(self._parent)
        for start, stop in self._ordered()[share::shares]:
            yield self._sample(start, stop)

    def _ordered(self) -> list[tuple[int, int]]:
        if not self.shuffle:
            return self._bounds
        random = np.random.default_rng((self.seed, self.epoch))
        if self._fields.in_memory:
            return [self._bounds[i] for i in random.permutation(len(self._bounds))]
        return shuffled_by_block(self._bounds, self._fields.days_per_block, random)

    def _sample(self, start: int, stop: int) -> dict[str, Any]:
        first = int(self._record[start])
        sample: dict[str, Any] = dict(self._fields.window(first, first + stop - start))
        if self.as_torch:
            for key, value in sample.items():
                sample[key] = torch.from_numpy(value)
        if self._static is not None:
            sample["static"] = self._static
        sample["time"] = self._iso[start:stop]
        return sample


def _stacked(dataset: xr.Dataset, time: str, space: tuple[str, str]) -> Any:
    """Return all variables of a data set, lazily. Shape ``(T, C, Y, X)``."""
    for name, variable in dataset.data_vars.items():
        if set(variable.dims) != {time, *space}:
            raise InputError(
                "a variable does not span time and the grid",
                variable=str(name),
                found=str(variable.dims),
                expected=str((time, *space)),
                remedy="select a level, or make one variable per level",
            )

    array: Any = dask.array  # its stubs leave these two untyped
    return array.stack(
        [
            array.asarray(variable.transpose(time, *space).data)
            for variable in dataset.data_vars.values()
        ],
        axis=1,
    )
