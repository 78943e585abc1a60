"""Two stages, as CorrDiff: the mean by a U-Net, its residual by a diffusion model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.models.preconditioning import precondition
from st_cdgm.models.samplers import sample
from st_cdgm.randomness import member_day_noise
from st_cdgm.references.neural.pool import Pool
from st_cdgm.references.neural.task import Examples, Task, phase_of_year, two_days
from st_cdgm.references.neural.training import Schedule, train
from st_cdgm.references.neural.unet import MeanField, UNet, UNetSizes
from st_cdgm.registry import register

# Training noise: ln(sigma) ~ N(mean, std^2), for residuals of unit variance.
LOG_SIGMA = (-0.5, 1.2)
SIGMA_RANGE = (0.02, 20.0)


@register("reference", "corrdiff")
@dataclass(kw_only=True, eq=False)
class CorrDiffReference(Pool):
    """A regression U-Net and an EDM denoiser of its residual, both on the same maps.

    The denoiser learns the residuals of the training days, which the regression has
    seen; a member's residual is widened per variable by what the days held out show
    them to be too small.

    Attributes
    ----------
    seeds : int
        Diffusion models between which members are dealt.
    regressions : int
        Regression U-Nets whose average is the first stage of them all.
    sizes : UNetSizes
        Size of either U-Net.
    regression, diffusion : Schedule
        Training budget of either stage.
    steps : int
        Noise levels of Heun's method; a member costs one network pass less than twice
        as many.

    References
    ----------
    Mardani et al. (2025), doi:10.1038/s43247-025-02042-5, arXiv:2309.15214; Karras et
    al. (2022), arXiv:2206.00364.
    """

    seeds: int = 2
    regressions: int = 2
    sizes: UNetSizes = UNetSizes()
    regression: Schedule = Schedule(
        epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, patience=6
    )
    diffusion: Schedule = Schedule(
        epochs=30, batch_size=32, learning_rate=1e-3, weight_decay=1e-2, patience=30
    )
    steps: int = 8

    def learn(self, task: Task) -> None:
        """Train both stages."""
        super().learn(task)
        del self._residuals

    def prepare(self, task: Task) -> None:
        """Train the first stage; measure its residuals."""
        self._mean = MeanField.fit(
            task,
            seeds=range(self.seed, self.seed + self.regressions),
            sizes=self.sizes,
            schedule=self.regression,
        )

        # What the training days do not show of the error, the days held out do.
        cells, both = task.targets.cells, (task.train, task.held_out)
        seen, new = (days.target - self._mean.of(days) for days in both)
        scale = seen.square().mean(dim=0).sqrt()  # (C, Y, X)
        scale = torch.where(cells & (scale > 0), scale, 1.0)
        self._residuals = seen / scale, new / scale
        square = self._residuals[1].square().mean(dim=0)
        wider = [row[own].mean().sqrt() for row, own in zip(square, cells, strict=True)]
        self._scale = scale * torch.stack(wider)[:, None, None]

    def train(self, task: Task) -> Denoiser:
        """Return a denoiser of the residual."""
        cells = task.targets.cells
        network = Denoiser(len(cells), task.maps_seen, self.sizes)
        seen, new = self._residuals

        def error(days: Examples, residual: Tensor, index: Tensor) -> Tensor:
            maps = task.maps(days, index)
            return network.error(residual[index], maps)[:, cells].mean()

        def loss(index: Tensor) -> Tensor:
            return error(task.train, seen, index)

        def score() -> float:
            parts = torch.split(torch.arange(len(new)), self.diffusion.batch_size)
            found = [len(index) * error(task.held_out, new, index) for index in parts]
            return float(torch.stack(found).sum()) / len(new)

        train(network, loss, score, days=len(seen), schedule=self.diffusion)
        return network

    def draw_from(
        self, network: Denoiser, days: FieldArrays, members: range, seed: int
    ) -> Tensor:
        """Add the residuals that a denoiser makes of the (member, day)'s noise."""
        maps = self._inputs.maps(torch.from_numpy(two_days(days)), phase_of_year(days))
        noise = member_day_noise(seed, members, days.day, self._targets.cells.shape)()
        start, repeated = noise.flatten(0, 1), maps.repeat_interleave(len(members), 0)

        residual = sample(
            lambda x, sigma: network(x, sigma, repeated),
            start.shape,
            sampler="heun",
            steps=self.steps,
            noise=start[None],
            sigma_min=SIGMA_RANGE[0],
            sigma_max=SIGMA_RANGE[1],
            denoiser_dtype=torch.float32,
        )
        mean = self._mean(maps)[:, None]
        return mean + residual.float().reshape(noise.shape) * self._scale


class Denoiser(nn.Module):
    """A U-Net with the preconditioning of Karras et al. around it.

    Parameters
    ----------
    channels, maps : int
        Channels of the residual, and of what is known of the day.
    sizes : UNetSizes
        Size of the U-Net.
    """

    def __init__(self, channels: int, maps: int, sizes: UNetSizes) -> None:
        super().__init__()
        self.network = UNet(channels + maps, channels, sizes, levels=True)

    def forward(self, x: Tensor, sigma: Tensor, maps: Tensor) -> Tensor:
        """Estimate x0 from ``x = x0 + sigma * noise``. Shape ``(B, C, Y, X)``."""
        c = precondition("edm", sigma, sigma)
        expand = (slice(None), None, None, None)
        inputs = torch.cat([c.c_in[expand] * x, maps], dim=1)
        raw = self.network(inputs, sigma.log() / 4)
        made: Tensor = c.c_skip[expand] * x + c.c_out[expand] * raw
        return made

    def error(self, residual: Tensor, maps: Tensor) -> Tensor:
        """Return the weighted squared error at random noise levels, per cell."""
        mean, std = LOG_SIGMA
        sigma = (mean + std * torch.randn(len(residual))).exp()
        x = residual + sigma[:, None, None, None] * torch.randn_like(residual)
        weight = precondition("edm", sigma, sigma).weight[:, None, None, None]
        error: Tensor = self(x, sigma, maps) - residual
        return weight * error.square()
