"""Conditional generator of the fine-scale residual: diffusion or one-step ensemble.

Both are the same U-Net. The diffusion model denoises; the one-step generator turns
noise into a member in one pass and is trained by a proper score of its ensemble.

References
----------
Karras et al. 2022, arXiv:2206.00364 (EDM preconditioning); Salimans & Ho 2022,
arXiv:2202.00512 (v); Hang et al. 2023, arXiv:2303.09556 (min-SNR weights); Gneiting &
Raftery 2007, doi:10.1198/016214506000001437 (proper scores).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.samplers import vp_sigmas

__all__ = ["CausalDiffusionDecoder", "Preconditioning", "multiscale_noise"]

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


def multiscale_noise(
    noise: Tensor, scales: list[int], pattern: str = "smooth"
) -> Tensor:
    """Give channel i of white noise the length scale ``scales[i % len]``, in cells.

    White noise averages out over the domain; errors of a day do not. Every cell keeps
    unit variance.

    Parameters
    ----------
    noise : Tensor
        Standard normal. Shape ``(B, C, Y, X)``.
    scales : list of int
        Length scales; 1 leaves a channel white.
    pattern : str
        ``smooth``: Gaussian filter with a standard deviation of half the scale, alike
        everywhere (opposite edges are neighbours). ``blocks``: constant on blocks of
        that size, whose borders show in the spread.
    """
    make = _smooth if pattern == "smooth" else _blocks
    channels = [
        make(noise[:, c : c + 1], scales[c % len(scales)])
        for c in range(noise.shape[1])
    ]
    return torch.cat(channels, dim=1)


def _blocks(white: Tensor, size: int) -> Tensor:
    y, x = white.shape[-2:]
    by, bx = min(size, y), min(size, x)
    coarse = white[..., ::by, ::bx]
    fine = coarse.repeat_interleave(by, dim=-2).repeat_interleave(bx, dim=-1)
    return fine[..., :y, :x]


def _smooth(white: Tensor, size: int) -> Tensor:
    if size == 1:
        return white
    y, x = white.shape[-2:]
    fy = torch.fft.fftfreq(y, device=white.device)[:, None]
    fx = torch.fft.fftfreq(x, device=white.device)[None, :]
    response = torch.exp(-2 * (math.pi * size / 2) ** 2 * (fy**2 + fx**2))
    # Parseval: the mean squared response is the variance of the filtered noise.
    response = response / response.square().mean().sqrt()
    spectrum = torch.fft.fft2(white.float()) * response
    filtered: Tensor = torch.fft.ifft2(spectrum).real
    return filtered.to(white.dtype)


def _unet(
    in_channels: int,
    out_channels: int,
    sample_size: tuple[int, int],
    cross_attention_dim: int,
    kwargs: dict[str, Any],
) -> nn.Module:
    from diffusers import UNet2DConditionModel

    network: nn.Module = UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=in_channels,
        out_channels=out_channels,
        cross_attention_dim=cross_attention_dim,
        **kwargs,
    )
    return network


def unet_kwargs(config: UNetConfig) -> dict[str, Any]:
    """Translate our few sizes into the library's arguments."""
    levels = len(config.block_out_channels)
    attention = min(config.attention_levels, levels)
    plain = levels - attention
    return {
        "block_out_channels": tuple(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "down_block_types": ("DownBlock2D",) * plain
        + ("CrossAttnDownBlock2D",) * attention,
        "up_block_types": ("CrossAttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
        "attention_head_dim": config.attention_head_dim,
        "norm_num_groups": config.norm_num_groups,
        "dropout": config.dropout,
    }


class CausalDiffusionDecoder(nn.Module):
    """U-Net that turns noise into the standardised residual of a day.

    Parameters
    ----------
    in_channels : int
        Target channels C.
    conditioning_dim : int
        Width of a causal token.
    height, width : int
        Fine grid Y, X; any size (padded inside to the U-Net's multiple).
    config : DiffusionConfig, optional
        Kind of generator, noise range and sizes.
    spatial_channels : int
        Channels of all conditioning maps together.
    """

    vp_grid: Tensor

    def __init__(
        self,
        in_channels: int,
        conditioning_dim: int,
        height: int,
        width: int,
        *,
        config: DiffusionConfig | None = None,
        spatial_channels: int = 0,
    ) -> None:
        super().__init__()
        self.config = config or DiffusionConfig()
        self.config.check()
        self.in_channels = in_channels
        self.height, self.width = height, width
        self.multiple = 2 ** (len(self.config.unet.block_out_channels) - 1)
        noisy = self.config.noise_channels if self.config.one_step else in_channels
        self.unet = _unet(
            noisy + spatial_channels,
            in_channels,
            (height, width),
            conditioning_dim,
            unet_kwargs(self.config.unet),
        )
        if self.config.use_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()  # type: ignore[operator]
        # Ascending, as searchsorted needs it; trained on the levels the samplers walk.
        grid = vp_sigmas(self.config.steps).flip(0)
        self.register_buffer("vp_grid", grid, persistent=False)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of one member's noise on one day, without batch."""
        channels = (
            self.config.noise_channels if self.config.one_step else self.in_channels
        )
        return (channels, self.height, self.width)

    def forward(
        self, noisy: Tensor, timestep: Tensor, condition: Conditioning
    ) -> Tensor:
        """Run the U-Net on ``(B, C, Y, X)``; pads to its multiple and crops back."""
        if condition.tokens.ndim != 3:
            msg = (
                "conditioning tokens must have shape (B, Q, D), "
                f"found {tuple(condition.tokens.shape)}"
            )
            raise ValueError(msg)
        inputs = torch.cat([noisy, condition.maps().to(noisy.dtype)], dim=1)
        pad_y, pad_x = (-self.height) % self.multiple, (-self.width) % self.multiple
        if pad_y or pad_x:
            inputs = F.pad(inputs, (0, pad_x, 0, pad_y), mode="replicate")
        output: Tensor = self.unet(
            inputs, timestep, condition.tokens.to(noisy.dtype)
        ).sample
        return output[..., : self.height, : self.width]

    def generate_one_step(self, noise: Tensor, condition: Conditioning) -> Tensor:
        """Turn noise ``(B, C_z, Y, X)`` into residuals ``(B, C, Y, X)`` in one pass."""
        z = multiscale_noise(noise, self.config.noise_scales, self.config.noise_pattern)
        return self.forward(z, torch.zeros(len(z), device=z.device), condition)

    def denoise(self, x: Tensor, sigma: Tensor, condition: Conditioning) -> Tensor:
        """Estimate x0 from ``x = x0 + sigma * noise``; ``sigma`` has shape ``(B,)``."""
        c = precondition(self.config.parameterisation, sigma, self.vp_grid)
        expand = (slice(None), None, None, None)
        raw = self.forward(c.c_in[expand] * x, c.c_noise, condition)
        return c.c_skip[expand] * x + c.c_out[expand] * raw

    def training_sigma(self, batch: int, device: torch.device) -> Tensor:
        """Draw the noise levels of a training batch. Shape ``(B,)``."""
        if self.config.parameterisation == "edm":
            normal = torch.randn(batch, device=device)
            return (self.config.p_mean + self.config.p_std * normal).exp()
        index = torch.randint(len(self.vp_grid), (batch,), device=device)
        return self.vp_grid[index].float()

    def denoising_error(
        self, target: Tensor, condition: Conditioning, *, sigma: Tensor, noise: Tensor
    ) -> Tensor:
        """Return the weighted squared error of x0 per cell. Shape ``(B, C, Y, X)``.

        Its expectation over ``training_sigma`` is the diffusion loss; the caller
        averages over the valid cells.
        """
        x = target + sigma[:, None, None, None] * noise
        estimate = self.denoise(x, sigma, condition)
        weight = precondition(self.config.parameterisation, sigma, self.vp_grid).weight
        return weight[:, None, None, None] * (estimate - target) ** 2

    def validation_sigma(self, batch: int) -> Tensor:
        """Spread noise levels evenly over the training distribution. Shape ``(B,)``."""
        quantile = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
        if self.config.parameterisation == "edm":
            normal = math.sqrt(2) * torch.erfinv(2 * quantile - 1)
            return (self.config.p_mean + self.config.p_std * normal).exp().float()
        return self.vp_grid[(quantile * len(self.vp_grid)).long().cpu()].float()
