"""Baseline: the smoothed truth, for super-resolution studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask
from st_cdgm.data.fit.moments import fill_nearest
from st_cdgm.data.space.blocks import block_mean
from st_cdgm.errors import InputError
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray


@register("baseline", "hr_smoothing")
@dataclass(frozen=True)
class SmoothingBaseline(Baseline):
    """Coarsen the truth by block means and interpolate it back: an oracle.

    Blocks that reach over the border hold fewer cells, and positions beyond the
    outermost block centres take the nearest block, so no NaN frame arises (D3).

    Attributes
    ----------
    factor : int
        Cells per block side, at least 1.
    """

    factor: int
    oracle = True

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Take the block side of the task."""
        return cls(max(int(task.factor), 1))

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the smoothed truth; a day without any truth gives 0."""
        del lr, season
        if truth is None:
            raise InputError(
                "the baseline hr_smoothing needs the fine truth",
                expected="target fields of the same days",
                remedy="train with lr_interp or climatology to predict without truth",
            )
        blocks = block_mean(truth, self.factor)
        for t, c in np.argwhere(np.isnan(blocks).any(axis=(2, 3))):
            blocks[t, c] = np.nan_to_num(fill_nearest(blocks[t, c]))

        rows = _linear_weights(truth.shape[-2], blocks.shape[-2], self.factor)
        columns = _linear_weights(truth.shape[-1], blocks.shape[-1], self.factor)
        return np.asarray(rows @ blocks @ columns.T, dtype=np.float32)


def _linear_weights(size: int, blocks: int, factor: int) -> FloatArray:
    """Return weights from block centres to cells. Shape ``(size, blocks)``."""
    edges = np.minimum(np.arange(blocks + 1) * factor, size)
    centre = (edges[:-1] + edges[1:] - 1) / 2
    return np.stack(
        [np.interp(np.arange(size), centre, row) for row in np.eye(blocks)], axis=1
    ).astype(np.float32)
