"""Drawing an ensemble of residuals from a generator of either kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.denoiser import ConditionalDenoiser
from st_cdgm.models.guidance import GuidedDenoiser
from st_cdgm.models.samplers import resolve_sampler, sample
from st_cdgm.models.sampling import Sampling
from st_cdgm.randomness import member_day_noise


@torch.no_grad()
def draw_ensemble(
    decoder: ConditionalDenoiser,
    condition: Conditioning,
    noise: Callable[[], Tensor],
    sampling: Sampling,
) -> Tensor:
    """Draw residuals ``(B, M, C, Y, X)``; ``condition`` comes from ``prepare``."""
    config, projection = decoder.config, sampling.projection
    # A number of steps is no mistake where there is but one.
    replace(sampling, steps=None if config.one_step else sampling.steps).check(config)
    device = condition.tokens.device
    start = noise().to(device)
    b, m = start.shape[:2]
    repeated = condition.repeat(m)
    if config.one_step:
        out = decoder.prepared_one_step(start.flatten(0, 1), repeated)
        out = out.reshape(b, m, *out.shape[1:])
        return out if projection is None else projection(out.double())

    def projected(x0: Tensor) -> Tensor:
        assert projection is not None
        return projection(x0.reshape(b, m, *x0.shape[1:])).flatten(0, 1)

    name = sampling.sampler or config.scheduler_type
    out = sample(
        GuidedDenoiser(
            decoder.prepared_denoise,
            repeated,
            guidance_scale=sampling.guidance_scale,
            projection=None if projection is None else projected,
            self_conditioning=config.self_conditioning,
            dtype=start.dtype,
        ),
        (b * m, decoder.in_channels, decoder.height, decoder.width),
        sampler=name,
        steps=sampling.steps or _default_steps(config, name),
        noise=lambda i: (start if i == 0 else noise().to(device)).flatten(0, 1),
        sigma_min=config.sigma_min,
        sigma_max=config.sigma_max,
        device=device,
    )
    out = out if projection is not None else out.to(start.dtype)
    return out.reshape(b, m, *out.shape[1:])


def member_streams(
    generator: torch.Generator | None,
    days: int,
    members: int,
    shape: tuple[int, int, int],
) -> Callable[[], Tensor]:
    """Make one stream for each (day, member) out of one number of the generator.

    Returns
    -------
    callable
        Each call returns the next numbers, ``(days, members, *shape)``, float32.
    """
    device = "cpu" if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return member_day_noise(seed, range(members), np.arange(days), shape)


def _default_steps(config: DiffusionConfig, sampler: str) -> int | None:
    if config.num_sampling_steps is not None:
        return config.num_sampling_steps
    return config.steps if resolve_sampler(sampler) == "ddpm" else None
