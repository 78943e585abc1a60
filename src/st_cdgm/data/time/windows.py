"""Which days make a window, in which order, and who reads it."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch.utils.data import get_worker_info

from st_cdgm.errors import ConfigError
from st_cdgm.typing import Indices

# Blocks of days whose windows are shuffled together where memory is short.
BLOCKS_TOGETHER = 8


def runs_of_days(ordinal: Indices) -> list[Indices]:
    """Return the indices of each run of consecutive days, in time order."""
    breaks = np.flatnonzero(np.diff(ordinal) != 1) + 1
    return np.split(np.arange(len(ordinal), dtype=np.int64), breaks)


def previous_step(ordinal: Indices) -> Indices:
    """Return the index of the step before each; of itself where there is none.

    Of step numbers, shape ``(T,)``, increasing, where consecutive steps differ by 1.
    """
    index = np.arange(len(ordinal), dtype=np.int64)
    follows = np.diff(ordinal, prepend=ordinal[:1]) == 1
    return np.asarray(np.where(follows, index - 1, index))


def window_index(
    ordinal: Indices, seq_len: int, *, stride: int = 1, pad_start: bool = False
) -> Indices:
    """Return the days of every window, none of which crosses a gap.

    Of day numbers, shape ``(T,)``, where consecutive days differ by 1, the indices of
    shape ``(W, seq_len)``, int64. Within a run of days a window begins ``stride`` days
    after the one before. With ``pad_start`` every day ends a window, and where a run
    holds too little history its first day is repeated.
    """
    if min(seq_len, stride) < 1:
        raise ConfigError(
            "windows are too short or do not move on",
            variable="data.seq_len, data.stride",
            found=f"{seq_len}, {stride}",
            expected="at least 1 each",
        )

    back = np.arange(1 - seq_len, 1, dtype=np.int64)
    parts = []
    for run in runs_of_days(ordinal):
        if not len(run):
            continue
        ends = run[0 if pad_start else seq_len - 1 :: stride]
        parts.append(np.maximum(ends[:, None] + back, run[0]))  # (W, T)
    return np.concatenate(parts) if parts else np.empty((0, seq_len), dtype=np.int64)


def sample_bounds(
    ordinal: Indices, seq_len: int, *, stride: int, drop_last: bool
) -> list[tuple[int, int]]:
    """Return the first and one past the last day of every window, none over a gap.

    ``drop_last`` False adds the days at the end of a run that no full window covers.
    """
    out = []
    for run in runs_of_days(ordinal):
        first, end = int(run[0]), int(run[-1]) + 1
        starts = range(first, end, stride)
        full = [s for s in starts if s + seq_len <= end]
        out += [(s, s + seq_len) for s in full]
        rest = [s for s in starts if s + seq_len > end]
        covered = full[-1] + seq_len if full else first
        if not drop_last and rest and covered < end:
            out.append((rest[0], end))

    return out


def shuffled_by_block(
    bounds: list[tuple[int, int]], block: int, random: np.random.Generator
) -> list[tuple[int, int]]:
    """Shuffle blocks of days, then the windows of some blocks among themselves."""
    groups: dict[int, list[tuple[int, int]]] = {}
    for bound in bounds:
        groups.setdefault(bound[0] // block, []).append(bound)
    blocks = list(groups.values())
    order = random.permutation(len(blocks))
    out = []
    for start in range(0, len(order), BLOCKS_TOGETHER):
        mixed = [b for i in order[start : start + BLOCKS_TOGETHER] for b in blocks[i]]
        out += [mixed[i] for i in random.permutation(len(mixed))]
    return out


def process_group() -> tuple[int, int] | None:
    """Return rank and number of ranks, None in a process that knows of no group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    named = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    return None if None in named else (int(named[0] or 0), int(named[1] or 1))


def worker_share(parent: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return which share of the windows this worker of this rank takes, of how many.

    ``parent`` is the group of the process that started the worker: a worker that was
    not forked knows nothing of it.
    """
    worker = get_worker_info()
    number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
    rank, ranks = process_group() or (parent if worker else None) or (0, 1)
    return rank * workers + number, ranks * workers
