"""Baseline: the mean of the day of the year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask
from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.data.fit.moments import fill_nearest
from st_cdgm.errors import InputError
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray

# A cell with fewer training days than this takes its nearest neighbour's climatology.
MIN_DAYS = 30


@register("baseline", "climatology")
@dataclass(frozen=True, eq=False)
class ClimatologyBaseline(Baseline):
    r"""Mean of the day of the year, from three harmonics per cell.

    .. math:: x(s) = c_0 + \sum_{k=1}^{3} a_k \cos 2\pi k s + b_k \sin 2\pi k s

    Attributes
    ----------
    coefficients : ndarray
        Order 1, cos 1, sin 1, cos 2, ... Shape ``(7, C, Y, X)``, target units.
    """

    coefficients: FloatArray

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Fit to the training days of a task; memory does not grow with their number.

        Raises
        ------
        InputError
            If a variable has no cell with a value on 30 days (or on half the days of
            a shorter record).
        """
        shape = (len(task.targets), *task.hr_grid.shape)
        sums = HarmonicSums(int(np.prod(shape)))
        for _, season, truth in task.blocks():
            sums.add(season, truth.reshape(len(truth), -1))
        enough = min(MIN_DAYS, (sums.days + 1) // 2)
        coefficients = sums.solve(enough).astype(np.float32).reshape(-1, *shape)
        names = [target.name for target in task.targets]
        return cls(fill_cells(coefficients, names, enough))

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the climatology of each day; see :meth:`Baseline.predict`."""
        del lr, truth
        return from_harmonics(self.coefficients, season)


def fill_cells(
    coefficients: FloatArray, names: Sequence[str], enough: int
) -> FloatArray:
    """Give cells without coefficients those of the nearest cell that has some.

    Shape ``(K, C, Y, X)``, NaN in cells with fewer than ``enough`` days; in place.
    Raises InputError where a variable has coefficients in no cell.
    """
    for channel, name in enumerate(names):
        filled = fill_nearest(coefficients[:, channel])
        if not np.isfinite(filled).all():
            raise InputError(
                "no climatology: too few training days with a value",
                variable=name,
                expected=f"at least {enough} days in some cell",
                remedy="lengthen the training period or leave the variable out",
            )
        coefficients[:, channel] = filled
    return coefficients
