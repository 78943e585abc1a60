"""Noise levels that samplers walk and denoisers are trained on.

References
----------
Karras et al. 2022, arXiv:2206.00364, eq. 5; Ho et al. 2020, arXiv:2006.11239 (linear
betas); Song et al. 2021, arXiv:2010.02502 (levels left out).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from st_cdgm.models.config import VP_STEPS

VP_BETA_RANGE = (1e-4, 0.02)


def karras_sigmas(
    steps: int, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Tensor:
    r"""Return the noise levels of Karras et al. 2022, eq. 5, without the final zero.

    .. math:: \sigma_i = \left(\sigma_{max}^{1/\rho} + \tfrac{i}{N-1}
              (\sigma_{min}^{1/\rho} - \sigma_{max}^{1/\rho})\right)^\rho

    Returns
    -------
    Tensor
        Decreasing from ``sigma_max`` to ``sigma_min``. Shape ``(steps,)``, float64.
    """
    if not 0 < sigma_min < sigma_max < math.inf:
        msg = f"need 0 < sigma_min < sigma_max, found {sigma_min} and {sigma_max}"
        raise ValueError(msg)
    if rho <= 0:
        msg = f"rho must be positive, found {rho}"
        raise ValueError(msg)

    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas: Tensor = (high + ramp * (low - high)) ** rho
    sigmas[0] = sigma_max  # no rounding at the ends
    if steps > 1:
        sigmas[-1] = sigma_min
    return sigmas


def vp_sigmas(steps: int) -> Tensor:
    """Return noise levels of the variance-preserving grid of 1 000 linear betas.

    ``steps`` of the 1 000 levels (about 157 down to 0.01) are taken, ``floor(c i)`` in
    the time index (the linear choice of the DDIM paper), both ends included.

    Returns
    -------
    Tensor
        Decreasing. Shape ``(steps,)``, float64.
    """
    betas = torch.linspace(*VP_BETA_RANGE, VP_STEPS, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)
    last = VP_STEPS - 1
    index = [i * last // (steps - 1) for i in range(steps)] if steps > 1 else [last]
    return torch.sqrt((1 - abar) / abar)[index].flip(0)
