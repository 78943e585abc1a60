"""From arrays to tensors: windows of days for training and inference.

This is the one place where xarray and NumPy become tensors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from st_cdgm.data.batch import Batch
from st_cdgm.data.fields import FieldArrays
from st_cdgm.errors import ConfigError, InputError

if TYPE_CHECKING:
    import xarray as xr

    from st_cdgm.data.pipeline import GridMetadata
    from st_cdgm.data.preprocessor import Preprocessor

__all__ = ["ResDiffIterableDataset", "WindowDataset", "runs_of_days", "window_index"]

Indices = NDArray[np.int64]


def runs_of_days(ordinal: Indices) -> list[Indices]:
    """Return the indices of each run of consecutive days, in time order."""
    breaks = np.flatnonzero(np.diff(ordinal) != 1) + 1
    return np.split(np.arange(len(ordinal), dtype=np.int64), breaks)


def window_index(
    ordinal: Indices, seq_len: int, *, stride: int = 1, pad_start: bool = False
) -> Indices:
    """Return the days of every window, none of which crosses a gap.

    Parameters
    ----------
    ordinal : ndarray
        Day numbers; consecutive days differ by 1. Shape ``(T,)``.
    seq_len : int
        Days per window.
    stride : int
        Days from one window to the next within a run, also beyond ``seq_len``.
    pad_start : bool
        True: every day ends a window, and where a run of days holds too little history
        its first day is repeated.

    Returns
    -------
    ndarray
        Indices of days. Shape ``(W, seq_len)``, int64.
    """
    for name, value in (("seq_len", seq_len), ("stride", stride)):
        if value < 1:
            raise ConfigError(
                f"{name} must be at least 1", variable=f"data.{name}", found=value
            )
    back = np.arange(1 - seq_len, 1, dtype=np.int64)
    parts = []
    for run in runs_of_days(ordinal):
        if not len(run):
            continue
        ends = run[0 if pad_start else seq_len - 1 :: stride]
        parts.append(np.maximum(ends[:, None] + back, run[0]))  # (W, T)
    return np.concatenate(parts) if parts else np.empty((0, seq_len), dtype=np.int64)


class WindowDataset(Dataset[Any]):
    """Windows of consecutive days, encoded once and kept in memory.

    ``DataLoader(dataset, batch_size=32, collate_fn=WindowDataset.collate)`` yields one
    :class:`Batch` after the other.

    Parameters
    ----------
    arrays : FieldArrays
        Days in memory.
    preprocessor : Preprocessor
        Encodes them.
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
        arrays: FieldArrays,
        preprocessor: Preprocessor,
        *,
        seq_len: int,
        stride: int = 1,
        pad_start: bool = False,
    ) -> None:
        self.arrays = arrays
        self.seq_len = int(seq_len)
        days = window_index(
            arrays.ordinal, self.seq_len, stride=int(stride), pad_start=pad_start
        )
        if not len(days):
            longest = max(len(run) for run in runs_of_days(arrays.ordinal))
            raise InputError(
                "no window of consecutive days",
                found=f"at most {longest} consecutive days",
                expected=f"runs of at least {self.seq_len} days",
                remedy="shorten data.seq_len or give a longer period",
            )
        self._days = torch.from_numpy(days)  # (W, T)
        self._lr = torch.from_numpy(np.ascontiguousarray(arrays.lr))
        self._baseline = preprocessor.encode_baseline(arrays.baseline)
        self._season = torch.from_numpy(np.ascontiguousarray(arrays.season))
        self._time = torch.from_numpy(np.ascontiguousarray(arrays.day))
        self._static = torch.from_numpy(preprocessor.static)
        self._cells = torch.from_numpy(preprocessor.valid)  # (C, Y, X)
        self._target: Tensor | None = None
        self._valid: Tensor | None = None
        if arrays.hr is not None:
            self._target, self._valid = preprocessor.encode_target(
                arrays.hr, self._baseline
            )

    def __len__(self) -> int:
        return len(self._days)

    @property
    def ends(self) -> Indices:
        """Index into the arrays of each window's last day. Shape ``(W,)``."""
        return cast(Indices, self._days[:, -1].numpy())

    def batch(self, index: Sequence[int] | Tensor) -> Batch:
        """Return some windows. ``index`` counts windows, shape ``(B,)``."""
        days = self._days[torch.as_tensor(index, dtype=torch.int64)]  # (B, T)
        if self._target is None or self._valid is None:
            target, valid = None, self._cells.expand(*days.shape, *self._cells.shape)
        else:
            target, valid = self._target[days], self._valid[days]
        return Batch(
            lr=self._lr[days],
            baseline=self._baseline[days],
            season=self._season[days],
            time=self._time[days],
            static=self._static,
            valid=valid,
            target=target,
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


class ResDiffIterableDataset(IterableDataset[dict[str, Any]]):
    """Windows as dictionaries, without batch axis, in time order.

    Each sample holds ``lr (T, C_lr, y, x)``, ``baseline``, ``residual`` and ``hr``
    ``(T, C, Y, X)``, ``static (C_s, Y, X)`` where there is one, and ``time``, a list of
    T ISO dates. No window crosses a gap in the days. Workers and ranks share the
    windows among themselves.

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
    ) -> None:
        from st_cdgm.data.calendars import day_keys

        super().__init__()
        self.dims = dims
        self.seq_len, self.stride = int(seq_len), max(int(stride), 1)
        self.drop_last, self.as_torch = drop_last, as_torch
        self._static = static_tensor_torch if as_torch else static_tensor_np
        coarse, fine = (dims.lr_lat, dims.lr_lon), (dims.hr_lat, dims.hr_lon)
        self._fields = {
            "lr": _stacked(lr_dataset, dims.time, coarse),
            "baseline": _stacked(baseline_dataset, dims.time, fine),
            "residual": _stacked(residual_dataset, dims.time, fine),
            "hr": _stacked(hr_dataset, dims.time, fine),
        }
        self._days = day_keys(lr_dataset[dims.time])
        self._bounds = self._windows()

    def __len__(self) -> int:
        """Return the number of windows over all workers."""
        return len(self._bounds)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        share, shares = _shard()
        for start, stop in self._bounds[share::shares]:
            yield self._sample(slice(start, stop))

    def _windows(self) -> list[tuple[int, int]]:
        """Return the first and one past the last day of every window."""
        out = []
        for run in runs_of_days(self._days.ordinal):
            first, end = int(run[0]), int(run[-1]) + 1
            starts = range(first, end, self.stride)
            full = [s for s in starts if s + self.seq_len <= end]
            out += [(s, s + self.seq_len) for s in full]
            # The tail is what no full window has covered.
            rest = [s for s in starts if s + self.seq_len > end]
            covered = full[-1] + self.seq_len if full else first
            if not self.drop_last and rest and covered < end:
                out.append((rest[0], end))
        return out

    def _sample(self, days: slice) -> dict[str, Any]:
        sample: dict[str, Any] = {
            key: value[days] for key, value in self._fields.items()
        }
        if self.as_torch:
            sample = {
                key: torch.from_numpy(value.copy()) for key, value in sample.items()
            }
        if self._static is not None:
            sample["static"] = self._static
        sample["time"] = [_iso(day) for day in self._days.day[days]]
        return sample


def _stacked(
    dataset: xr.Dataset, time: str, space: tuple[str, str]
) -> NDArray[np.float32]:
    """Return all variables of a data set. Shape ``(T, C, Y, X)``, float32."""
    for name, variable in dataset.data_vars.items():
        if set(variable.dims) != {time, *space}:
            raise InputError(
                "a variable does not span time and the grid",
                variable=str(name),
                found=str(variable.dims),
                expected=str((time, *space)),
                remedy="select a level, or make one variable per level",
            )
    arrays = [
        variable.transpose(time, *space).values
        for variable in dataset.data_vars.values()
    ]
    return np.stack(arrays, axis=1).astype(np.float32)


def _shard() -> tuple[int, int]:
    """Return which share of the windows this worker of this rank takes, of how many."""
    worker = get_worker_info()
    number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    else:
        rank, ranks = (
            int(os.environ.get("RANK", 0)),
            int(os.environ.get("WORLD_SIZE", 1)),
        )
    return rank * workers + number, ranks * workers


def _iso(day: int) -> str:
    text = f"{int(day):08d}"
    return f"{text[:4]}-{text[4:6]}-{text[6:]}"
