"""A sampler: from noise to a draw of the learned distribution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from st_cdgm.models.samplers.base import Denoiser, Noise, Sampler
from st_cdgm.registry import register


@register("sampler", "few_steps")
class FewSteps(Sampler):
    """Euler's method with four steps."""

    name = "few_steps"
    default_steps = 4

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """Go straight towards the estimate of every step."""
        for sigma, following in pairwise(sigmas):
            x = torch.lerp(D(x, x.new_tensor(sigma)), x, following / sigma)
        return x
