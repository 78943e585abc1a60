"""Does the generator use the causal states? Give it another day's and see.

The states (tokens and maps) are exchanged between validation days while baseline,
static fields, season and validity stay. If the loss does not rise, the causal part of
the model is decoration.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.datasets import WindowDataset
from st_cdgm.data.preprocessor import Preprocessor
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition

__all__ = ["ShuffleResult", "shuffle_test"]


@dataclass(frozen=True, kw_only=True)
class ShuffleResult:
    """Effect of shuffled causal states on one variable.

    Attributes
    ----------
    variable : str
        Target variable.
    loss, shuffled_loss : float
        Mean loss per day with the day's own and with another day's states.
    increase : float
        Relative increase of the loss.
    low, high : float
        95 % bootstrap interval of the increase, over days.
    days : int
        Validation days.
    """

    variable: str
    loss: float
    shuffled_loss: float
    increase: float
    low: float
    high: float
    days: int

    def to_dict(self) -> dict[str, object]:
        """Return the result as JSON-able values."""
        return asdict(self)


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
) -> list[ShuffleResult]:
    """Compare the generator's loss with right and with shuffled causal states.

    The same noise is used on both sides. The loss is the one the generator was trained
    with: the fair CRPS of ``one_step``, else the denoising loss.

    Parameters
    ----------
    windows : WindowDataset
        Of the validation period.
    members : int
        Ensemble size for the CRPS.
    resamples : int
        Bootstrap samples of days.
    """
    module = STCDGMModule(
        model.eval(),
        preprocessor,
        loss=LossConfig(),
        training=TrainingConfig(),
        total_steps=1,
    )
    generator = torch.Generator().manual_seed(seed)
    order = _derangement(len(windows), generator)
    conditions = _conditions(model, windows, batch_size)
    own: list[Tensor] = []
    other: list[Tensor] = []
    for start in range(0, len(windows), batch_size):
        index = torch.arange(start, min(start + batch_size, len(windows)))
        batch = windows.batch(index)
        per_member = members if model.decoder.config.one_step else 1
        noise = torch.randn(
            len(index) * per_member, *model.decoder.noise_shape, generator=generator
        )
        levels = model.decoder.validation_sigma(len(index))
        sigma = levels[torch.randperm(len(index), generator=generator)]
        right = _take(conditions, index)
        wrong = _take(conditions, order[index])
        for condition, losses in (
            (right, own),
            (Conditioning(wrong.tokens, wrong.state_maps, right.context), other),
        ):
            losses.append(
                module.generator_loss(
                    batch,
                    condition,
                    members=members,
                    noise=noise,
                    sigma=sigma,
                    per_day=True,
                )
            )
    names = [t.name for t in preprocessor.targets]
    return _summarise(
        names, torch.cat(own).numpy(), torch.cat(other).numpy(), resamples, seed
    )


def _derangement(count: int, generator: torch.Generator) -> torch.Tensor:
    """Random order in which no day keeps its own place: a random cycle."""
    cycle = torch.randperm(count, generator=generator)
    order = torch.empty_like(cycle)
    order[cycle] = cycle.roll(1)
    return order


def _conditions(model: STCDGM, windows: WindowDataset, batch_size: int) -> Conditioning:
    parts: list[Conditioning] = []
    for start in range(0, len(windows), batch_size):
        batch = windows.batch(range(start, min(start + batch_size, len(windows))))
        parts.append(last_day_condition(model, batch, model.rollout(batch.lr)))
    return Conditioning(
        torch.cat([p.tokens for p in parts]),
        torch.cat([p.state_maps for p in parts]),
        torch.cat([p.context for p in parts]),
    )


def _take(condition: Conditioning, index: torch.Tensor) -> Conditioning:
    return Conditioning(
        condition.tokens[index], condition.state_maps[index], condition.context[index]
    )


def _summarise(
    names: list[str],
    own: NDArray[np.float32],
    other: NDArray[np.float32],
    resamples: int,
    seed: int,
) -> list[ShuffleResult]:
    rng = np.random.default_rng(seed)
    days = len(own)
    draw = rng.integers(0, days, size=(resamples, days))
    results = []
    for k, name in enumerate(names):
        ratio = other[draw, k].mean(axis=1) / own[draw, k].mean(axis=1) - 1
        low, high = np.quantile(ratio, [0.025, 0.975])
        loss, shuffled = float(own[:, k].mean()), float(other[:, k].mean())
        results.append(
            ShuffleResult(
                variable=name,
                loss=loss,
                shuffled_loss=shuffled,
                increase=shuffled / loss - 1,
                low=float(low),
                high=float(high),
                days=days,
            )
        )
    return results
