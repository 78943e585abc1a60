"""A compact U-Net, and the conditional mean that a few of them learn."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from st_cdgm.references.neural.task import Examples, Inputs, Task
from st_cdgm.references.neural.training import Schedule, seeded, train

GROUPS = 8  # of the group normalisation
WAVES = 16  # numbers that encode a noise level
DAYS = 32  # days whose means are computed at once


@dataclass(frozen=True, kw_only=True)
class UNetSizes:
    """Size of a U-Net.

    Attributes
    ----------
    widths : tuple of int
        Channels per resolution, fine to coarse, multiples of 8; each step halves the
        grid.
    dropout : float
        Share of channels left out in every block while training.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    dropout: float = 0.1


class UNet(nn.Module):
    """Two convolutions at each resolution down and up, with skip connections.

    It is a fraction of the size of the library's U-Net, which suits the few thousand
    days of a station-era record, and several times as fast on CPUs.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    sizes : UNetSizes
        Widths and dropout.
    levels : bool
        Whether it is told a noise level.

    References
    ----------
    Ronneberger et al. (2015), arXiv:1505.04597.
    """

    def __init__(
        self, inputs: int, outputs: int, sizes: UNetSizes, *, levels: bool = False
    ) -> None:
        super().__init__()
        widths, told = sizes.widths, WAVES if levels else 0
        self.multiple = 2 ** (len(widths) - 1)
        down = pairwise([inputs, *widths])
        up = [(fine + coarse, fine) for fine, coarse in pairwise(widths)]
        self.down, self.up = (
            nn.ModuleList(Block(a, b, sizes.dropout, told) for a, b in part)
            for part in (down, up[::-1])
        )
        self.out = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor, level: Tensor | None = None) -> Tensor:
        """Map ``(B, C_in, Y, X)`` to ``(B, C_out, Y, X)``; ``level`` is ``(B,)``."""
        height, width = x.shape[-2:]
        pad_y, pad_x = (-size % self.multiple for size in (height, width))
        x = F.pad(x, (0, pad_x, 0, pad_y), mode="replicate")
        told = None if level is None else waves(level)

        kept = []
        for i, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if i else x, told)
            kept.append(x)

        # Back up, each resolution beside what it was on the way down.
        x = kept.pop()
        for block in self.up:
            finer = F.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([finer, kept.pop()], dim=1), told)
        made: Tensor = self.out(x)
        return made[..., :height, :width]


class Block(nn.Module):
    """Two convolutions with group normalisation; the noise level scales and shifts."""

    def __init__(self, inputs: int, width: int, dropout: float, told: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(2))
        self.dropout = nn.Dropout2d(dropout)
        self.modulation = nn.Linear(told, 2 * width) if told else None

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Map ``(B, C, Y, X)`` to ``(B, width, Y, X)``."""
        x = self.norms[0](self.first(x))
        if self.modulation is not None:
            scale, shift = self.modulation(told)[:, :, None, None].chunk(2, dim=1)
            x = x * (1 + scale) + shift
        x = self.norms[1](self.second(self.dropout(F.silu(x))))
        return F.silu(x)


def waves(level: Tensor) -> Tensor:
    """Encode numbers of order 1 by sines and cosines. Shape ``(B, WAVES)``."""
    frequency = 2.0 ** torch.arange(WAVES // 2, device=level.device)
    angle = level[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanField:
    """The conditional mean of a day: the average of U-Nets.

    Attributes
    ----------
    inputs : Inputs
        What they see.
    networks : list of UNet
        One or more.
    """

    inputs: Inputs
    networks: list[UNet]

    @classmethod
    def fit(
        cls, task: Task, *, seeds: range, sizes: UNetSizes, schedule: Schedule
    ) -> Self:
        """Train a network for each seed by the squared error of encoded targets."""
        networks = []
        for seed in seeds:
            with seeded(seed):
                outputs = len(task.targets.cells)
                networks.append(UNet(task.maps_seen, outputs, sizes))
                _learn(networks[-1], task, schedule)
        return cls(inputs=task.inputs, networks=networks)

    @torch.no_grad()
    def __call__(self, maps: Tensor) -> Tensor:
        """Return the standardised means of B days. Shape ``(B, C, Y, X)``."""
        return torch.stack([network(maps) for network in self.networks]).mean(dim=0)

    def of(self, days: Examples) -> Tensor:
        """Return the means of many days. Shape ``(T, C, Y, X)``."""
        both = (torch.split(part, DAYS) for part in (days.coarse, days.season))
        parts = [self(self.inputs.maps(*some)) for some in zip(*both, strict=True)]
        return torch.cat(parts)


def _learn(network: UNet, task: Task, schedule: Schedule) -> None:
    cells = task.targets.cells

    def loss(index: Tensor) -> Tensor:
        made: Tensor = network(task.maps(task.train, index))
        error = made - task.train.target[index]
        return error[:, cells].square().mean()

    def score() -> float:
        means = MeanField(inputs=task.inputs, networks=[network]).of(task.held_out)
        error = means - task.held_out.target
        return float(error[:, cells].square().mean())

    train(network, loss, score, days=len(task.train), schedule=schedule)
