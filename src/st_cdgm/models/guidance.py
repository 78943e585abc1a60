"""The denoiser a sampler sees: guided, projected, conditioned on its last estimate.

References
----------
Ho & Salimans 2022, arXiv:2207.12598 (classifier-free guidance); Chen et al. 2022,
arXiv:2208.04202 (self-conditioning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from st_cdgm.models.conditioning import Conditioning

Projection = Callable[[Tensor], Tensor]


@dataclass
class GuidedDenoiser:
    r"""Estimate x0 for a sampler, from a network and everything that steers it.

    .. math:: D = D(x; \varnothing) + g \left(D(x; c) - D(x; \varnothing)\right)

    Guidance g = 1 is the conditional model itself, 0 ignores the causal states and more
    than 1 exaggerates what they do. (g is 1 + w of Ho & Salimans, eq. 6; it applies to
    x0 as to the noise, which is linear in x0.) With g > 1 the samples no longer follow
    the conditional distribution: the ensemble loses spread.

    Attributes
    ----------
    denoise : callable
        The network's estimate, such as `ConditionalDenoiser.denoise`.
    condition : Conditioning
        Of every row of the sample.
    guidance_scale : float
        g.
    projection : callable, optional
        Applied to each estimate in the solver's precision.
    self_conditioning : bool
        Hand the previous estimate to the network.
    dtype : torch.dtype
        Precision of the network.
    """

    denoise: Callable[..., Tensor]
    condition: Conditioning
    guidance_scale: float = 1.0
    projection: Projection | None = None
    self_conditioning: bool = False
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        every = torch.ones(len(self.condition.tokens), dtype=torch.bool)
        unguided = self.guidance_scale == 1
        self._null = None if unguided else self.condition.without_states(every)
        self._previous: Tensor | None = None

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimate, in the dtype of ``x`` where it was projected."""
        state, level = x.to(self.dtype), sigma.to(self.dtype)
        previous = self._previous
        x0 = self.denoise(state, level, self.condition, previous=previous)
        if self._null is not None:
            free = self.denoise(state, level, self._null, previous=previous)
            x0 = torch.lerp(free, x0, self.guidance_scale)
        if self.projection is not None:
            x0 = self.projection(x0.to(x.dtype))
        if self.self_conditioning:
            self._previous = x0.to(self.dtype)

        return x0
