"""A deterministic U-Net, and the residual fields of days that it had not seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.references.days import draw_in_season
from st_cdgm.references.neural.pool import NeuralReference
from st_cdgm.references.neural.task import Task, phase_of_year, two_days
from st_cdgm.references.neural.training import Schedule
from st_cdgm.references.neural.unet import MeanField, UNetSizes
from st_cdgm.registry import register


@register("reference", "unet_residuals")
@dataclass(kw_only=True, eq=False)
class UNetResidualsReference(NeuralReference):
    """The conditional mean of a U-Net plus whole residual fields of other days.

    The mean is the average of a few U-Nets that differ in their training seed. A member
    adds the residual field of a day held out (a validation day, or one of the last
    training year) of the same season, so that cells, variables and biases of days
    never seen go together.

    Attributes
    ----------
    seeds : int
        Networks that are averaged.
    window : float
        Half width of the season in days from which residuals are drawn.
    sizes, schedule
        Size and training budget of a U-Net.

    References
    ----------
    Ronneberger et al. (2015), arXiv:1505.04597.
    """

    seeds: int = 2
    window: float = 45.0
    sizes: UNetSizes = UNetSizes()
    schedule: Schedule = Schedule(
        epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, patience=6
    )

    def learn(self, task: Task) -> None:
        """Train the networks; keep the residuals of the days held out."""
        self._mean = MeanField.fit(
            task,
            seeds=range(self.seed, self.seed + self.seeds),
            sizes=self.sizes,
            schedule=self.schedule,
        )
        self._season = task.held_out.days.season
        self._residual = task.held_out.target - self._mean.of(task.held_out)

    def draw(self, days: FieldArrays, members: int, seed: int) -> Tensor:
        """Add residuals of M days held out to the mean.

        Nothing is drawn twice for a day.
        """
        drawn = draw_in_season(
            days, self._season, window=self.window, members=members, seed=seed
        )
        maps = self._inputs.maps(torch.from_numpy(two_days(days)), phase_of_year(days))
        return self._mean(maps)[:, None] + self._residual[torch.from_numpy(drawn)]
