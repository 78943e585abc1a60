"""DPM-Solver++(2M) and its stochastic form, on the Karras grid.

References
----------
Lu et al. 2022, arXiv:2211.01095, algorithm 2 and section 5.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from st_cdgm.models.samplers.base import Denoiser, Noise, Sampler
from st_cdgm.registry import register


@register("sampler", "dpm_solver++")
@register("sampler", "dpm_solver")
class DPMSolver(Sampler):
    """DPM-Solver++(2M): exponential integrator in lambda = -log sigma, x0 linear in it.

    The first step has no history and the step to zero has infinite length; both take
    x0 as constant.
    """

    name = "dpm_solver++"
    default_steps = 20

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """See `Sampler.walk`."""
        previous: Tensor | None = None
        for i, (sigma, following) in enumerate(pairwise(sigmas)):
            now = x0 = D(x, x.new_tensor(sigma))
            if previous is not None and following > 0:
                # x0 + (x0 - previous) / (2 r) with r = h_{i-1} / h_i.
                step = math.log(sigma / following)
                last_step = math.log(sigmas[i - 1] / sigma)
                x0 = now + (now - previous) * (0.5 * step / last_step)
            previous = now

            ratio = following / sigma  # exp(-h)
            if not self.fresh_noise:
                x = torch.lerp(x0, x, ratio)
                continue
            x = torch.lerp(x0, x, ratio**2)
            if following > 0:
                x = torch.add(x, draw(i + 1), alpha=following * math.sqrt(1 - ratio**2))
        return x


@register("sampler", "dpm_solver_sde")
class DPMSolverSDE(DPMSolver):
    """SDE-DPM-Solver++(2M): as 2M, with the reverse SDE's noise, integrated exactly."""

    name = "dpm_solver_sde"
    default_steps = 100
    fresh_noise = True
