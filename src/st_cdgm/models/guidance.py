"""The denoiser a sampler sees: guided, projected, conditioned on its last estimate.

References
----------
Ho & Salimans 2022, arXiv:2207.12598 (classifier-free guidance); Chen et al. 2022,
arXiv:2208.04202 (self-conditioning).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning

Projection = Callable[[Tensor], Tensor]


class _Denoise(Protocol):
    def __call__(
        self,
        x: Tensor,
        sigma: Tensor,
        condition: Conditioning,
        *,
        previous: Tensor | None = None,
    ) -> Tensor: ...


class GuidedDenoiser:
    r"""Estimate x0 for a sampler, from a network and everything that steers it.

    .. math:: D = D(x; \varnothing) + g \left(D(x; c) - D(x; \varnothing)\right)

    Guidance g = 1 is the conditional model itself, 0 ignores the causal states and more
    than 1 exaggerates what they do. (g is 1 + w of Ho & Salimans, eq. 6; it applies to
    x0 as to the noise, which is linear in x0.) With g > 1 the samples no longer follow
    the conditional distribution: the ensemble loses spread.

    Parameters
    ----------
    denoise : callable
        The network's estimate.
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

    Raises
    ------
    ConfigError
        (a ``ValueError``) The scale is NaN or infinite.
    """

    def __init__(
        self,
        denoise: _Denoise,
        condition: Conditioning,
        *,
        guidance_scale: float = 1.0,
        projection: Projection | None = None,
        self_conditioning: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not math.isfinite(guidance_scale):
            raise ConfigError(
                "the guidance scale is not a number",
                variable="guidance_scale",
                found=guidance_scale,
                expected="1 (the model itself), 0 (no causal states) or another number",
            )
        self._denoise = denoise
        self._condition = condition
        self._scale = guidance_scale
        self._projection = projection
        self._remember = self_conditioning
        self._previous: Tensor | None = None
        self._dtype = dtype
        every = torch.ones(len(condition.tokens), dtype=torch.bool)
        self._null = None if guidance_scale == 1 else condition.without_states(every)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimate, in the dtype of ``x`` where it was projected."""
        state, level = x.to(self._dtype), sigma.to(self._dtype)
        previous = self._previous
        x0 = self._denoise(state, level, self._condition, previous=previous)
        if self._null is not None:
            free = self._denoise(state, level, self._null, previous=previous)
            x0 = torch.lerp(free, x0, self._scale)
        if self._projection is not None:
            x0 = self._projection(x0.to(x.dtype))
        if self._remember:
            self._previous = x0.to(self._dtype)
        return x0
