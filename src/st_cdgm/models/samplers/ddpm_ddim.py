"""Ancestral sampling and DDIM, on the variance-preserving grid of 1 000 linear betas.

References
----------
Ho et al. 2020, arXiv:2006.11239, algorithm 2 (with sigma_t^2 = beta_t); Song et al.
2021, arXiv:2010.02502, eq. 12.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from st_cdgm.models.config import VP_STEPS
from st_cdgm.models.noise_levels import vp_sigmas
from st_cdgm.models.samplers.base import Denoiser, Noise, Sampler
from st_cdgm.models.samplers.euler_heun import Euler
from st_cdgm.registry import register


class _VariancePreserving(Sampler):
    """What both have in common; the grid has its own range."""

    most_steps = VP_STEPS

    def sigmas(
        self, steps: int, *, sigma_min: float, sigma_max: float, rho: float
    ) -> Tensor:
        """Return levels of the VP grid."""
        del sigma_min, sigma_max, rho
        return vp_sigmas(steps)

    def start(self, sigma: float) -> float:
        """Return that of a VP chain: from N(0, 1), i.e. N(0, 1 + sigma^2) here."""
        return math.sqrt(1 + sigma**2)


@register("sampler", "ddpm")
class DDPM(_VariancePreserving):
    """Ancestral sampling: posterior mean plus noise of variance beta_t.

    In the frame used here, with p the following level, the posterior mean is
    ``x0 + (sigma_p / sigma)^2 (x - x0)`` and beta_t becomes
    ``beta_t / abar_p = (sigma^2 - sigma_p^2) (1 + sigma_p^2) / (1 + sigma^2)``.
    """

    name = "ddpm"
    default_steps = 1000
    fresh_noise = True

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """See `Sampler.walk`."""
        for i, (sigma, following) in enumerate(pairwise(sigmas)):
            x0 = D(x, x.new_tensor(sigma))
            x = torch.lerp(x0, x, (following / sigma) ** 2)
            if following > 0:
                spread = (sigma**2 - following**2) * (1 + following**2) / (1 + sigma**2)
                x = torch.add(x, draw(i + 1), alpha=math.sqrt(spread))
        return x


@register("sampler", "ddim")
class DDIM(_VariancePreserving, Euler):
    """Deterministic DDIM (eta = 0): Euler's method on the VP grid."""

    name = "ddim"
    default_steps = 250
