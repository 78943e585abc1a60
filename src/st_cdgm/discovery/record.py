"""The predictors of a pipeline as a record in which lagged links can be sought."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from st_cdgm.checkpoint.build import channel_groups
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.discovery.series import Record

# A larger grid is averaged over blocks: neighbouring cells say the same, and the
# network keeps all days of all cells in memory.
MOST_NODES = 600


def predictor_record(
    pipeline: PipelineViews, *, most_nodes: int = MOST_NODES
) -> Record:
    """Return the predictors of all days that are not for testing.

    One variable per node type of the graph: each level's channels, and those without a
    level, standardised as the model gets them.

    Parameters
    ----------
    pipeline : PipelineViews
        Open data, from files or from a store.
    most_nodes : int
        Larger coarse grids are averaged over square blocks; a remainder is cut off.

    Returns
    -------
    Record
        Fields of shape ``(T, C, y, x)`` and their calendar.
    """
    # Days for testing stay unseen here too.
    known = [i for name, i in pipeline.indices.items() if name != "test"]
    index = np.sort(np.concatenate(known))
    nodes = math.prod(pipeline.preprocessor.lr_grid.shape)
    side = math.ceil(math.sqrt(nodes / most_nodes))

    parts = [
        _block_mean(pipeline.prepared(start, stop)["lr"], side)
        for start, stop in _runs(index, pipeline.fields.days_per_block)
    ]
    lr = np.concatenate(parts)

    days = pipeline.days.select(index)
    groups = channel_groups(pipeline.preprocessor.channels)
    return Record(
        fields={name: lr[:, channels] for name, channels in groups.items()},
        year=np.asarray(days.day // 10_000, dtype=np.int64),
        season=np.asarray(days.season, dtype=np.float64),
        ordinal=np.asarray(days.ordinal, dtype=np.int64),
    )


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
