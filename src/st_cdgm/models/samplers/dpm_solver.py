"""DPM-Solver++(2M) and its stochastic form, on the Karras grid.

References
----------
Lu et al. 2022, arXiv:2211.01095, algorithm 2 and section 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
        del draw
        estimates = _extrapolated(D, sigmas)
        for i, (sigma, following) in enumerate(pairwise(sigmas)):
            x0 = estimates(i, x)
            x = torch.lerp(x0, x, following / sigma)
        return x


@register("sampler", "dpm_solver_sde")
class DPMSolverSDE(Sampler):
    """SDE-DPM-Solver++(2M): as 2M, with the reverse SDE's noise, integrated exactly."""

    name = "dpm_solver_sde"
    default_steps = 100
    fresh_noise = True

    def walk(self, D: Denoiser, x: Tensor, sigmas: list[float], draw: Noise) -> Tensor:
        """See `Sampler.walk`."""
        estimates = _extrapolated(D, sigmas)
        for i, (sigma, following) in enumerate(pairwise(sigmas)):
            x0 = estimates(i, x)
            ratio = (following / sigma) ** 2  # exp(-2 h)
            x = torch.lerp(x0, x, ratio)
            if following > 0:
                x = torch.add(x, draw(i + 1), alpha=following * math.sqrt(1 - ratio))
        return x


def _extrapolated(D: Denoiser, sigmas: list[float]) -> Callable[[int, Tensor], Tensor]:
    """Return the 2M estimate ``D_i + (D_i - D_{i-1}) / (2 r)``, r = h_{i-1} / h_i."""
    previous: Tensor | None = None

    def estimate(i: int, x: Tensor) -> Tensor:
        nonlocal previous
        now = D(x, x.new_tensor(sigmas[i]))
        before, previous = previous, now
        if before is None or sigmas[i + 1] == 0:
            return now
        step = math.log(sigmas[i] / sigmas[i + 1])
        last_step = math.log(sigmas[i - 1] / sigmas[i])
        return now + (now - before) * (0.5 * step / last_step)

    return estimate
