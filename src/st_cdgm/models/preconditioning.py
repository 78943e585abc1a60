"""From noise level to the coefficients around the network, and the loss's weight.

References
----------
Karras et al. 2022, arXiv:2206.00364 (EDM); Salimans & Ho 2022, arXiv:2202.00512 (v);
Hang et al. 2023, arXiv:2303.09556 (min-SNR weights).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True)
class Preconditioning:
    """Coefficients of D(x; sigma) = c_skip x + c_out F(c_in x; c_noise): ``(B,)``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor
    weight: Tensor  # of |D - x0|^2 in the loss


def precondition(kind: str, sigma: Tensor, grid: Tensor) -> Preconditioning:
    """Return the coefficients of one parameterisation, for data of unit variance.

    ``edm``: Karras et al. 2022, table 1 with sigma_data = 1. ``eps`` and ``v``: the VP
    network rescaled to sigma, x_vp = x / sqrt(1 + sigma^2); their min-SNR weights
    min(SNR, 5) / SNR and min(SNR, 5) / (SNR + 1) of the eps and v errors are both
    min(SNR, 5) on the error of x0.

    Parameters
    ----------
    kind : str
        ``edm``, ``eps`` or ``v``.
    sigma : Tensor
        Noise levels. Shape ``(B,)``.
    grid : Tensor
        Ascending noise levels that ``eps`` and ``v`` are trained on.
    """
    total = 1 + sigma**2
    c_in = total.rsqrt()
    if kind == "edm":
        return Preconditioning(
            c_skip=1 / total,
            c_out=sigma * c_in,
            c_in=c_in,
            # The U-Net's sinusoids are made for steps 0..1000: ln(sigma)/4 scaled up.
            c_noise=250 * sigma.log(),
            weight=total / sigma**2,
        )
    timestep = torch.searchsorted(grid.to(sigma), sigma.contiguous()).clamp(
        max=len(grid) - 1
    )
    min_snr = (1 / sigma**2).clamp(max=MIN_SNR_GAMMA)
    if kind == "eps":
        return Preconditioning(
            torch.ones_like(sigma), -sigma, c_in, timestep.to(sigma), min_snr
        )
    return Preconditioning(1 / total, -sigma * c_in, c_in, timestep.to(sigma), min_snr)
