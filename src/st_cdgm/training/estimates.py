"""What the training asks of a denoiser beside its loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.noise_levels import karras_sigmas
from st_cdgm.models.preconditioning import precondition


def check_min_snr(decoder: Any, gamma: float | None) -> None:
    """Raise ConfigError unless min-SNR weights with ``gamma`` are possible."""
    if gamma is None:
        return
    config = getattr(decoder, "config", None)
    kind = getattr(config, "parameterisation", None)
    if getattr(config, "one_step", False) or kind not in ("eps", "v"):
        raise ConfigError(
            "min-SNR weights are of noise or v prediction",
            variable="min_snr_gamma",
            found="one_step" if getattr(config, "one_step", False) else kind,
            expected="diffusion.parameterisation: eps | v",
        )
    if not gamma > 0:
        raise ConfigError(
            "the bound of the min-SNR weights must be positive",
            variable="min_snr_gamma",
            found=gamma,
            expected="> 0, such as 5",
        )


def min_snr_ratio(decoder: Any, sigma: Tensor, gamma: float) -> Tensor:
    """Return the factor from the decoder's own weights to min(SNR, gamma).

    On the squared error of x0; that is min(SNR, gamma) / SNR on the error of the noise
    and min(SNR, gamma) / (SNR + 1) on that of v.

    Parameters
    ----------
    decoder : CausalDiffusionDecoder
        With parameterisation ``eps`` or ``v``.
    sigma : Tensor
        Noise levels, SNR = 1 / sigma^2. Shape ``(B,)``.
    gamma : float
        Largest signal-to-noise ratio that counts.

    Returns
    -------
    Tensor
        Shape ``(B, 1, 1, 1)``.

    References
    ----------
    Hang et al., Efficient diffusion training via min-SNR weighting, arXiv:2303.09556.
    """
    own = precondition(decoder.config.parameterisation, sigma, decoder.vp_grid).weight
    wanted = (1 / sigma**2).clamp(max=gamma)
    return (wanted / own)[:, None, None, None]


def sampled_estimate(
    decoder: Any, conditioning: Any, noise: Tensor, *, steps: int
) -> Tensor:
    """Draw a sample by Euler steps; the last one alone carries the gradient.

    The memory is that of one network call, however many the steps.

    Parameters
    ----------
    decoder : CausalDiffusionDecoder
        Not ``one_step``.
    conditioning : Conditioning or Tensor
        Of B days.
    noise : Tensor
        Standard normal. Shape ``(B, C, Y, X)``.
    steps : int
        Network calls.

    Returns
    -------
    Tensor
        Standardised residual. Shape ``(B, C, Y, X)``.

    References
    ----------
    Clark et al., Directly fine-tuning diffusion models on differentiable rewards,
    arXiv:2309.17400 (gradient through the last step alone).
    """
    cfg, b = decoder.config, len(noise)
    levels = karras_sigmas(steps, sigma_min=cfg.sigma_min, sigma_max=cfg.sigma_max)
    sigmas = levels.tolist()
    x = sigmas[0] * noise
    with torch.no_grad():
        for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            estimate = decoder.denoise(x, noise.new_full((b,), now), conditioning)
            x = x + (after - now) * (x - estimate) / now
    out: Tensor = decoder.denoise(x, noise.new_full((b,), sigmas[-1]), conditioning)
    return out
