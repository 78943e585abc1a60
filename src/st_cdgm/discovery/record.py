"""The data of a pipeline as records in which links can be sought."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from st_cdgm.checkpoint.build import channel_groups
from st_cdgm.data.space.grid import nearest_index
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.discovery.held_out.targets import TargetRecord
from st_cdgm.discovery.series import Record
from st_cdgm.typing import FloatArray, Indices

# A larger grid is averaged over blocks: neighbouring cells say the same.
MOST_NODES = 600


def training_records(
    pipeline: PipelineViews,
    *,
    target_cells: int,
    splits: tuple[str, ...] = ("train",),
    most_nodes: int = MOST_NODES,
) -> tuple[Record, TargetRecord | None]:
    """Return predictors and targets of the days that links are sought on.

    One variable per node type of the graph: each level's channels, and those without a
    level, standardised as the model gets them; and every target, precipitation as its
    square root.

    Parameters
    ----------
    pipeline : PipelineViews
        Open data, from files or from a store.
    target_cells : int
        Fine cells, evenly spread over those with truth; 0 for no targets.
    splits : tuple of str
        Periods to take.
    most_nodes : int
        Larger coarse grids are averaged over square blocks; a remainder is cut off.
    """
    index = np.sort(np.concatenate([pipeline.indices[name] for name in splits]))
    preprocessor = pipeline.preprocessor
    side = math.ceil(math.sqrt(math.prod(preprocessor.lr_grid.shape) / most_nodes))
    cells = _spread_cells(preprocessor.valid, target_cells)

    # Block by block, as the data come.
    coarse, fine = [], []
    for start, stop in _runs(index, pipeline.fields.days_per_block):
        fields = pipeline.prepared(start, stop)
        coarse.append(_block_mean(fields["lr"], side))
        if len(cells):
            fine.append(_targets(pipeline, fields["hr"], cells))
    lr = np.concatenate(coarse)

    days = pipeline.days.select(index)
    groups = channel_groups(preprocessor.channels)
    record = Record(
        fields={name: lr[:, channels] for name, channels in groups.items()},
        year=np.asarray(days.day // 10_000, dtype=np.int64),
        season=np.asarray(days.season, dtype=np.float64),
        ordinal=np.asarray(days.ordinal, dtype=np.int64),
        channels={
            name: [preprocessor.channels[c].name for c in channels]
            for name, channels in groups.items()
        },
    )
    if not len(cells):
        return record, None
    return record, TargetRecord(
        values=np.concatenate(fine),
        names=tuple(target.name for target in preprocessor.targets),
        node=_nodes(pipeline, cells, side, lr.shape[2:]),
    )


def _spread_cells(valid: NDArray[np.bool_], count: int) -> Indices:
    """Return fine cells with truth of all variables, evenly spread over the list."""
    cells = np.flatnonzero(valid.all(axis=0))
    if not count or not len(cells):
        return cells[:0]
    at = np.linspace(0, len(cells) - 1, min(count, len(cells))).round().astype(int)
    return np.asarray(cells[at])


def _targets(
    pipeline: PipelineViews, encoded: FloatArray, cells: Indices
) -> FloatArray:
    """Return targets in the scale of training scores. Shape ``(T, P, C)``.

    Temperatures in degC, precipitation as its root.
    """
    scored = pipeline.preprocessor.codec.scored(torch.from_numpy(np.array(encoded)))
    flat = scored.numpy().reshape(*encoded.shape[:2], -1)[:, :, cells]
    return np.asarray(flat.transpose(0, 2, 1), np.float32)


def _nodes(
    pipeline: PipelineViews, cells: Indices, side: int, shape: tuple[int, ...]
) -> Indices:
    """Return the cell of the record nearest to each fine cell."""
    lr, hr = pipeline.preprocessor.lr_grid, pipeline.preprocessor.hr_grid
    row, column = np.unravel_index(nearest_index(lr, hr)[cells], lr.shape)
    row = np.minimum(row // side, shape[0] - 1)
    column = np.minimum(column // side, shape[1] - 1)
    return np.asarray(row * shape[1] + column, dtype=np.int64)


def _runs(index: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Cut sorted days into runs without gaps, ``most`` days or fewer each."""
    runs = []
    for part in np.split(index, np.flatnonzero(np.diff(index) != 1) + 1):
        start, end = int(part[0]), int(part[-1]) + 1
        runs += [(a, min(a + most, end)) for a in range(start, end, most)]
    return runs


def _block_mean(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Average the last two axes over blocks of ``side`` cells; copy at any rate."""
    days, channels, rows, columns = values.shape
    rows, columns = rows // side, columns // side
    cut = values[:, :, : rows * side, : columns * side]
    blocks = cut.reshape(days, channels, rows, side, columns, side)
    mean: NDArray[np.float32] = blocks.mean(axis=(3, 5), dtype=np.float32)
    return mean
