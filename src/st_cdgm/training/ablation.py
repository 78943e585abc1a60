"""What the model takes from its causal part, measured by taking it away.

``shuffle_test`` gives every validation day another day's causal states: where the loss
does not rise, the generator does not use the states. ``edge_test`` removes every edge
of the learned graph: where no loss rises, the states may be used, but not the edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True)
class _Probe:
    """A model, days and random numbers that stay the same across ablations."""

    model: STCDGM
    preprocessor: Preprocessor
    windows: WindowDataset
    members: int
    batch_size: int
    resamples: int
    seed: int

    @cached_property
    def module(self) -> STCDGMModule:
        return STCDGMModule(
            self.model.eval(),
            self.preprocessor,
            loss=LossConfig(),
            training=TrainingConfig(),
            total_steps=1,
        )

    @property
    def names(self) -> list[str]:
        return [t.name for t in self.preprocessor.targets]

    @property
    def days(self) -> NDArray[np.int64]:
        """YYYYMMDD of each window's last day."""
        return self.windows.days.day[self.windows.ends]

    @property
    def spells(self) -> NDArray[np.int64]:
        """Number of the spell of days each window's last day belongs to."""
        return self.windows.days.ordinal[self.windows.ends] // SPELL_DAYS

    def _batches(self) -> Iterator[Tensor]:
        for start in range(0, len(self.windows), self.batch_size):
            yield torch.arange(start, min(start + self.batch_size, len(self.windows)))

    def states(self) -> tuple[Conditioning, Tensor]:
        """Return the conditioning of all days and the drivers' error ``(W, 1)``."""
        model, parts, errors = self.module.model, [], []
        for index in self._batches():
            batch = self.windows.batch(index)
            rollout = model.rollout(batch.lr)
            parts.append(last_day_condition(model, batch, rollout))
            if rollout.predicted is not None:
                error = (rollout.predicted - rollout.drivers[1:]) ** 2
                error = (error * model.gather_mask[None, :, None, :]).sum(dim=(0, 1, 3))
                errors.append(error.reshape(len(index), -1).mean(dim=1, keepdim=True))

        error = torch.cat(errors) if errors else torch.zeros(0, 1)
        return joined(parts), error

    def losses(self, condition: Conditioning) -> Tensor:
        """Return the generator's loss per day and variable ``(W, C)``; same noise."""
        generator = torch.Generator().manual_seed(self.seed)
        losses = [
            self.module.generator_loss(
                self.windows.batch(index),
                condition.take(index),
                members=self.members,
                draws=self.module.fixed_draws(len(index), self.members, generator),
                per_day=True,
            )
            for index in self._batches()
        ]
        return torch.cat(losses)


@torch.no_grad()
def shuffle_test(
    model: STCDGM,
    preprocessor: Preprocessor,
    windows: WindowDataset,
    *,
    members: int = 8,
    batch_size: int = 64,
    resamples: int = 2000,
    seed: int = 0,
) -> list[AblationResult]:
    """Exchange the causal states (tokens and maps) between days of a calendar month.

    Baseline, static fields, season and validity stay, and so does the noise. Within a
    month, because winter states under a summer season would be easy to tell. The loss
    is the one the generator was trained with: the fair CRPS of ``one_step``, else the
    denoising loss.

    Parameters
    ----------
    windows : WindowDataset
        Of the validation period. Days alone in their month are left out.
    members, resamples : int
        Ensemble size for the CRPS; bootstrap samples.

    Returns
    -------
    list of AblationResult
        One per target variable.
    """
    probe = _Probe(model, preprocessor, windows, members, batch_size, resamples, seed)
    condition, _ = probe.states()
    order = _shuffle_within_months(probe.days, seed)
    moved = (order != torch.arange(len(order))).numpy()
    own = probe.losses(condition).numpy()
    other = probe.losses(condition.shuffled(order)).numpy()
    return _summarise(probe, probe.names, own, other, moved)


@torch.no_grad()
def edge_test(
    model: STCDGM,
    preprocessor: Preprocessor,
    windows: WindowDataset,
    *,
    members: int = 8,
    batch_size: int = 64,
    resamples: int = 2000,
    seed: int = 0,
) -> list[AblationResult]:
    """Remove every edge of the learned graph and compare.

    The network is not trained again: this is what the trained model takes from the
    edges, not what a model without edges could learn.

    Returns
    -------
    list of AblationResult
        One per target variable, and ``drivers``: the squared error of each variable's
        drivers predicted from its own and its parents' past.
    """
    probe = _Probe(model, preprocessor, windows, members, batch_size, resamples, seed)
    condition, drivers = probe.states()
    own = probe.losses(condition)
    with _without_edges(model):
        condition, changed_drivers = probe.states()
        other = probe.losses(condition)

    names = probe.names
    if len(drivers):
        own = torch.cat([own, drivers], 1)
        other = torch.cat([other, changed_drivers], 1)
        names = [*names, "drivers"]

    return _summarise(probe, names, own.numpy(), other.numpy())


@contextmanager
def _without_edges(model: STCDGM) -> Iterator[None]:
    mask = model.cell.edge_mask.clone()
    model.cell.restrict_edges(torch.zeros_like(mask))
    try:
        yield
    finally:
        model.cell.restrict_edges(mask)


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


def _summarise(
    probe: _Probe,
    names: list[str],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    kept: NDArray[np.bool_] | slice = slice(None),
) -> list[AblationResult]:
    """Compare losses ``(W, C)`` of the days kept; resample whole spells, paired."""
    own, other = own[kept], other[kept]
    _, group = np.unique(probe.spells[kept], return_inverse=True)
    count = int(group.max()) + 1
    rng = np.random.default_rng(probe.seed)
    draw = rng.integers(0, count, size=(probe.resamples, count))

    results = []
    for k, name in enumerate(names):
        before, after = (np.bincount(group, weights=x[:, k]) for x in (own, other))
        ratio = after[draw].sum(axis=1) / before[draw].sum(axis=1) - 1
        low, high = np.quantile(ratio, [0.025, 0.975])
        loss, changed = float(own[:, k].mean()), float(other[:, k].mean())
        results.append(
            AblationResult(
                variable=name,
                loss=loss,
                changed_loss=changed,
                increase=changed / loss - 1,
                low=float(low),
                high=float(high),
                days=len(own),
            )
        )

    return results
