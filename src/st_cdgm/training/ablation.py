"""What the model takes from its causal part, measured by taking it away.

``shuffle_states`` gives every validation day another day's causal states: where the
loss does not rise, the generator does not use the states. ``remove_edges`` removes
every edge of the learned graph: where no loss rises, the states may be used, but not
the edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.datasets import WindowDataset
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition
from st_cdgm.training.loop_step import joined

# Weather persists: days closer than this are not independent in the bootstrap.
SPELL_DAYS = 10


@dataclass(frozen=True, kw_only=True)
class AblationResult:
    """Effect of an ablation on one loss.

    Attributes
    ----------
    variable : str
        Target variable, or ``drivers`` for the prediction of the drivers.
    loss, changed_loss, days : float, float, int
        Mean over the days compared, without and with the ablation; how many they are.
    increase, low, high : float
        Relative increase of the loss, and its 95 % interval from a bootstrap over
        spells of days.
    """

    variable: str
    loss: float
    changed_loss: float
    increase: float
    low: float
    high: float
    days: int


@dataclass(frozen=True, kw_only=True)
class Ablations:
    """Ablations of one model, on the same days and with the same random numbers.

    The loss is the one the generator was trained with: the fair CRPS of ``one_step``,
    else the denoising loss.

    Attributes
    ----------
    model, preprocessor : STCDGM, Preprocessor
        A trained model.
    windows : WindowDataset
        Of the validation period.
    members, resamples : int
        Ensemble size for the CRPS; bootstrap samples.
    batch_size, seed : int
        Days at a time; seed of all draws.
    """

    model: STCDGM
    preprocessor: Preprocessor
    windows: WindowDataset
    members: int = 8
    batch_size: int = 64
    resamples: int = 2000
    seed: int = 0

    @torch.no_grad()
    def shuffle_states(self) -> list[AblationResult]:
        """Exchange the causal states (tokens and maps) between days of a month.

        Baseline, static fields, season and validity stay, and so does the noise. Within
        a calendar month, because winter states under a summer season would be easy to
        tell. Days alone in their month are left out. One result per target variable,
        none where all days are alone.
        """
        condition, _, own = self._intact
        days = self.windows.days.day[self.windows.ends]  # YYYYMMDD
        order = _shuffle_within_months(days, self.seed)
        moved = (order != torch.arange(len(order))).numpy()
        return self._compared(own, self._losses(condition.shuffled(order)), moved)

    @torch.no_grad()
    def remove_edges(self) -> list[AblationResult]:
        """Remove every edge of the learned graph.

        The network is not trained again: this is what the trained model takes from the
        edges, not what a model without edges could learn. One result per target
        variable, and ``drivers``: the squared error of each variable's drivers
        predicted from its own and its parents' past.
        """
        _, drivers, own = self._intact
        mask = self.model.cell.edge_mask.clone()
        self.model.cell.restrict_edges(torch.zeros_like(mask))
        try:
            condition, changed_drivers = self._states()
            other = self._losses(condition)
        finally:
            self.model.cell.restrict_edges(mask)

        return self._compared(
            torch.cat([own, drivers], 1), torch.cat([other, changed_drivers], 1)
        )

    @cached_property
    def _intact(self) -> tuple[Conditioning, Tensor, Tensor]:
        """Conditioning, drivers' error and losses of the model as it is."""
        condition, drivers = self._states()
        return condition, drivers, self._losses(condition)

    @cached_property
    def _module(self) -> STCDGMModule:
        return STCDGMModule(
            self.model.eval(),
            self.preprocessor,
            loss=LossConfig(),
            training=TrainingConfig(),
            total_steps=1,
        )

    def _states(self) -> tuple[Conditioning, Tensor]:
        """Return the conditioning of all days and the drivers' error.

        Shape of the error ``(W, 1)``, or ``(W, 0)`` where nothing is predicted.
        """
        model, parts, errors = self._module.model, [], []
        for index in torch.split(torch.arange(len(self.windows)), self.batch_size):
            batch = self.windows.batch(index)
            rollout = model.rollout(batch.lr)
            parts.append(last_day_condition(model, batch, rollout))

            # The error of the prediction, if there is one.
            if rollout.predicted is None:
                errors.append(torch.zeros(len(index), 0))
                continue
            error = (rollout.predicted - rollout.drivers[1:]) ** 2
            error = (error * model.gather_mask[None, :, None, :]).sum(dim=(0, 1, 3))
            errors.append(error.reshape(len(index), -1).mean(dim=1, keepdim=True))
        return joined(parts), torch.cat(errors)

    def _losses(self, condition: Conditioning) -> Tensor:
        """Return the generator's loss per day and variable ``(W, C)``; same noise."""
        generator = torch.Generator().manual_seed(self.seed)
        losses = [
            self._module.generator_loss(
                self.windows.batch(index),
                condition.take(index),
                self._module.fixed_draws(len(index), self.members, generator),
                per_day=True,
            )
            for index in torch.split(torch.arange(len(self.windows)), self.batch_size)
        ]
        return torch.cat(losses)

    def _compared(
        self, own: Tensor, other: Tensor, kept: NDArray[np.bool_] | slice = slice(None)
    ) -> list[AblationResult]:
        """Compare losses ``(W, C)`` of the days kept; resample whole spells, paired."""
        before, after = own.numpy()[kept], other.numpy()[kept]
        if not len(before):  # no two days share a month
            return []
        spells = self.windows.days.ordinal[self.windows.ends] // SPELL_DAYS
        _, group = np.unique(spells[kept], return_inverse=True)
        count = int(group.max()) + 1
        rng = np.random.default_rng(self.seed)
        draw = rng.integers(0, count, size=(self.resamples, count))

        # Each loss, and the interval of its relative increase.
        results = []
        names = [t.name for t in self.preprocessor.targets] + ["drivers"]
        for name, x, y in zip(names, before.T, after.T, strict=False):
            sums = [
                np.bincount(group, weights=loss)[draw].sum(axis=1) for loss in (y, x)
            ]
            low, high = np.quantile(sums[0] / sums[1] - 1, [0.025, 0.975])
            loss, changed = float(x.mean()), float(y.mean())
            results.append(
                AblationResult(
                    variable=name,
                    loss=loss,
                    changed_loss=changed,
                    increase=changed / loss - 1,
                    low=float(low),
                    high=float(high),
                    days=len(x),
                )
            )
        return results


def _shuffle_within_months(days: NDArray[np.int64], seed: int) -> Tensor:
    """Return an order in which every day takes another day of its calendar month."""
    generator = torch.Generator().manual_seed(seed)
    month = days // 100 % 100
    order = torch.arange(len(days))
    for m in np.unique(month):
        index = torch.from_numpy(np.flatnonzero(month == m))
        cycle = index[torch.randperm(len(index), generator=generator)]
        order[cycle] = cycle.roll(1)
    return order
