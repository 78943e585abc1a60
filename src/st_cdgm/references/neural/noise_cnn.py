"""A convolutional network on the coarse grid with noise inputs, after DeepESD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.randomness import member_day_noise
from st_cdgm.references.neural.pool import Pool
from st_cdgm.references.neural.task import (
    Examples,
    Targets,
    Task,
    phase_of_year,
    two_days,
)
from st_cdgm.references.neural.training import Schedule, train
from st_cdgm.registry import register


@register("reference", "noise_cnn")
@dataclass(kw_only=True, eq=False)
class NoiseCnnReference(Pool):
    """Three convolutions on the coarse grid and one dense layer to all fine cells.

    The network of the paper predicts the parameters of a distribution in every cell.
    Here noise is handed to it instead, as further coarse channels and beside the
    features of the dense layer, and the fair CRPS of a few members trains it: members
    are then fields, not independent cells. Temperatures and precipitation have networks
    of their own, as in the paper.

    Attributes
    ----------
    filters : tuple of int
        Filters of the convolutions, 3 x 3 each.
    noise_maps, noise : int
        Noise channels on the coarse grid, and numbers beside the features.
    dropout : float
        On the features of the dense layer.
    members : int
        Members per day while it trains.
    schedule : Schedule
        Training budget of a network.

    References
    ----------
    Bano-Medina et al. (2020), doi:10.5194/gmd-13-2109-2020; (2022, DeepESD),
    doi:10.5194/gmd-15-6747-2022. Fair CRPS: Ferro (2014), doi:10.1002/qj.2270.
    """

    filters: tuple[int, ...] = (50, 25, 10)
    noise_maps: int = 4
    noise: int = 16
    dropout: float = 0.1
    members: int = 4
    schedule: Schedule = Schedule(
        epochs=40, batch_size=64, learning_rate=1e-3, weight_decay=1e-2, patience=8
    )

    def train(self, task: Task) -> list[NoiseCnn]:
        """Return one network for each group of targets."""
        return [self._train_group(task, group) for group in task.targets.groups]

    def _train_group(self, task: Task, group: list[int]) -> NoiseCnn:
        days = task.train
        network = NoiseCnn(self, days, task.targets, group)

        def loss(index: Tensor, days: Examples = days) -> Tensor:
            coarse, season = days.coarse[index], days.season[index]
            noise = torch.randn(len(index), self.members, network.noise_size)
            made = network(coarse, season, noise)
            return task.targets.crps(made, days.target[index][:, group], group)

        def score() -> float:
            held = task.held_out
            return float(loss(torch.arange(len(held)), held))

        train(network, loss, score, days=len(days), schedule=self.schedule)
        return network

    def draw_from(
        self, network: list[NoiseCnn], days: FieldArrays, members: range, seed: int
    ) -> Tensor:
        """Give each network its own numbers of the (member, day)."""
        coarse, season = torch.from_numpy(two_days(days)), phase_of_year(days)
        sizes = [part.noise_size for part in network]
        noise = member_day_noise(seed, members, days.day, (sum(sizes),))()
        out = torch.zeros(len(days), len(members), *self._targets.cells.shape)
        for part, own in zip(network, torch.split(noise, sizes, dim=-1), strict=True):
            out[:, :, part.group] = part(coarse, season, own)
        return out


class NoiseCnn(nn.Module):
    """The network of one group of targets; see `NoiseCnnReference`."""

    cells: Tensor

    def __init__(
        self,
        sizes: NoiseCnnReference,
        days: Examples,
        targets: Targets,
        group: list[int],
    ) -> None:
        super().__init__()
        self.group = group
        _, channels, y, x = days.coarse.shape
        self.map_shape = (sizes.noise_maps, y, x)
        self.noise_sizes = [sizes.noise_maps * y * x, sizes.noise]
        self.register_buffer("cells", targets.cells[group].clone())

        widths = [channels + sizes.noise_maps, *sizes.filters]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Dropout(sizes.dropout)]
        self.convolutions = nn.Sequential(*layers)

        features = widths[-1] * y * x + sizes.noise + days.season.shape[1]
        self.dense = nn.Linear(features, int(self.cells.sum()))

    @property
    def noise_size(self) -> int:
        """Numbers of noise of a member on a day."""
        return sum(self.noise_sizes)

    def forward(self, coarse: Tensor, season: Tensor, noise: Tensor) -> Tensor:
        """Return M members of B days.

        Parameters
        ----------
        coarse, season : Tensor
            Shapes ``(B, C, y, x)`` and ``(B, 2)``.
        noise : Tensor
            Standard normal. Shape ``(B, M, noise_size)``.

        Returns
        -------
        Tensor
            Standardised targets of the group. Shape ``(B, M, C_group, Y, X)``.
        """
        b, m = noise.shape[:2]
        maps, beside = torch.split(noise.flatten(0, 1), self.noise_sizes, dim=1)
        repeated = coarse.repeat_interleave(m, dim=0)
        stacked = torch.cat([repeated, maps.reshape(b * m, *self.map_shape)], dim=1)
        parts = [self.convolutions(stacked), season.repeat_interleave(m, dim=0), beside]
        out = torch.zeros(b * m, *self.cells.shape)
        out[:, self.cells] = self.dense(torch.cat(parts, dim=1))
        return out.reshape(b, m, *self.cells.shape)
