"""Euler's and Heun's method on the probability-flow ODE, on the Karras grid.

References
----------
Karras et al. 2022, arXiv:2206.00364, eq. 5 and algorithm 1 (without churn).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from st_cdgm.models.samplers.base import Denoiser, Noise, Sampler
from st_cdgm.registry import register


@register("sampler", "euler")
class Euler(Sampler):
    """Euler on dx/dsigma = (x - D) / sigma; on the VP grid that is DDIM, eta = 0."""

    name = "euler"
    default_steps = 128

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """See `Sampler.walk`; lerp(x0, x, w) is x0 + w (x - x0)."""
        del draw
        for sigma, following in pairwise(sigmas):
            x0 = D(x, x.new_tensor(sigma))
            x = torch.lerp(x0, x, following / sigma)
        return x


@register("sampler", "heun")
@register("sampler", "edm")
class Heun(Sampler):
    """Heun's method; the step to zero is Euler's, since the slope at 0 is 0 / 0."""

    name = "heun"
    default_steps = 18

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """See `Sampler.walk`."""
        del draw
        for sigma, following in pairwise(sigmas):
            slope = (x - D(x, x.new_tensor(sigma))) / sigma
            ahead = x + (following - sigma) * slope
            if following > 0:
                slope_ahead = (ahead - D(ahead, x.new_tensor(following))) / following
                ahead = x + (following - sigma) * 0.5 * (slope + slope_ahead)
            x = ahead
        return x
