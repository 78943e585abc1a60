"""The one training loop of the neural references: AdamW, cosine, early stopping."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from st_cdgm.training.early_stopping import EarlyStopping

_LOGGER = logging.getLogger(__name__)

GRADIENT_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Budget and step sizes of one network.

    Attributes
    ----------
    epochs : int
        Most passes over the training days.
    batch_size : int
        Days per step.
    learning_rate, weight_decay : float
        Of AdamW; the rate falls to 0 as a cosine over all epochs.
    patience : int
        Epochs without a better score after which training ends.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw torch's random numbers from a seed; afterwards all is as it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def train(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    score: Callable[[], float],
    *,
    days: int,
    schedule: Schedule,
) -> float:
    """Train a network and leave it with the weights of its best score.

    Parameters
    ----------
    network : nn.Module
        Changed in place, in ``eval`` mode at the end.
    loss : callable
        Takes the positions of a batch of training days, shape ``(B,)``.
    score : callable
        Score of the network on days held out, the lower the better; called after every
        epoch without gradients and with the same random numbers each time.
    days : int
        Number of training days.
    schedule : Schedule
        Budget and step sizes.

    Returns
    -------
    float
        The best score.

    References
    ----------
    Loshchilov and Hutter (2019), arXiv:1711.05101 (AdamW) and 1608.03983 (cosine).
    """
    optimiser = torch.optim.AdamW(
        network.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )
    batches = -(-days // schedule.batch_size)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, schedule.epochs * batches
    )
    stopping = EarlyStopping(patience=schedule.patience, verbose=False)

    for epoch in range(schedule.epochs):
        network.train()
        for index in torch.randperm(days).chunk(batches):
            optimiser.zero_grad()
            torch.autograd.backward(loss(index))
            nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
            optimiser.step()
            cosine.step()

        # The same random numbers after every epoch, so that scores can be compared.
        network.eval()
        with torch.no_grad(), seeded(0):
            value = score()
        _LOGGER.debug("epoch %d: score %.5g", epoch + 1, value)
        if stopping(value, network):
            break

    stopping.restore(network)
    network.eval()
    return float("nan") if stopping.best_score is None else stopping.best_score
