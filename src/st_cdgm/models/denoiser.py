"""The conditional U-Net as denoiser and as one-step generator, and its training error.

References
----------
Karras et al. 2022, arXiv:2206.00364.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from st_cdgm.models.conditioning import Conditioning, Prepared
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.noise import WHOLE_DOMAIN, domain_numbers, multiscale_noise
from st_cdgm.models.noise_levels import vp_sigmas
from st_cdgm.models.preconditioning import precondition
from st_cdgm.models.stacked import check_shape
from st_cdgm.models.unet import modulated
from st_cdgm.models.unet import unet_kwargs as unet_kwargs_of

Adapter = Callable[[Any], "Conditioning | Tensor"]


class ConditionalDenoiser(nn.Module):
    """U-Net with preconditioning, conditioning and padding around it.

    Parameters
    ----------
    in_channels, conditioning_dim, height, width, unet_kwargs, spatial_channels
        As for ``CausalDiffusionDecoder``.
    config : DiffusionConfig
        Kind of generator, noise range and sizes.
    """

    vp_grid: Tensor

    def __init__(
        self,
        in_channels: int,
        conditioning_dim: int,
        height: int,
        width: int,
        *,
        config: DiffusionConfig,
        unet_kwargs: Mapping[str, Any] | None = None,
        spatial_channels: int = 0,
    ) -> None:
        from diffusers import UNet2DConditionModel

        super().__init__()
        config.check()
        self.config = config
        self.in_channels, self.spatial_channels = in_channels, spatial_channels
        self.conditioning_dim = conditioning_dim
        self.height, self.width = height, width
        self.condition_adapter: Adapter | None = None

        sizes = unet_kwargs_of(config.unet, unet_kwargs)
        self.multiple = 2 ** (len(sizes["block_out_channels"]) - 1)
        inputs = self.noise_maps + spatial_channels
        inputs += in_channels if config.self_conditioning else 0
        self.unet: nn.Module = UNet2DConditionModel(
            sample_size=(height, width),
            in_channels=inputs,
            out_channels=in_channels,
            cross_attention_dim=conditioning_dim,
            **(modulated(self.modulation) | sizes),
        )
        if self.modulation:
            # Without effect at first: the network learns where to use it.
            for parameter in self.unet.class_embedding.parameters():
                nn.init.zeros_(parameter)
        if config.use_gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()

        # Ascending, as searchsorted needs it; trained on the levels the samplers walk.
        self.register_buffer(
            "vp_grid", vp_sigmas(config.steps).flip(0), persistent=False
        )

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Shape of one member's noise on one day, without batch.

        That of ``one_step`` reaches beyond the borders by the margin.
        """
        around = 2 * self.margin
        channels = self.noise_maps + self.modulation
        return (channels, self.height + around, self.width + around)

    @property
    def noise_maps(self) -> int:
        """Noise channels that the network is given as maps."""
        config = self.config
        own = config.noise_channels * config.noise_groups
        return own if config.one_step else self.in_channels

    @property
    def modulation(self) -> int:
        """Noise channels that become one number each, for the normalisations."""
        return self.config.noise_modulation if self.config.one_step else 0

    @property
    def noise_memory(self) -> tuple[float, ...]:
        """Correlation of a step's noise with the step before, per noise channel.

        Empty where steps are independent.
        """
        memory = self.config.noise_memory
        if not any(memory):
            return ()
        if not self.config.one_step or len(memory) == 1:
            return (memory[0],) * self.noise_shape[0]
        scales = self.config.noise_scales
        of_maps = [memory[c % len(scales)] for c in range(self.noise_maps)]
        # The numbers of the whole domain go with the largest scale.
        largest = max(scales, key=lambda s: math.inf if s == WHOLE_DOMAIN else s)
        return (*of_maps, *[memory[scales.index(largest)]] * self.modulation)

    @property
    def margin(self) -> int:
        """Cells that the network sees beyond each border."""
        return self.config.noise_margin if self.config.one_step else 0

    # -- conditioning -------------------------------------------------------------

    def set_condition_adapter(self, adapter: Adapter | None) -> None:
        """Change what the U-Net is told.

        Parameters
        ----------
        adapter : callable or None
            Applied to the conditioning once per call of a public method, before
            anything else; returns tokens or a :class:`Conditioning`. A module's weights
            become part of the decoder. None removes it.
        """
        # A module cannot be replaced by a plain function without being removed first.
        del self.condition_adapter
        self.condition_adapter = adapter

    def prepare(self, conditioning: Conditioning | Tensor) -> Prepared:
        """Apply the adapter and check the shapes; once, also where called again.

        Raises
        ------
        ValueError
            Tokens that have not three axes, or another number of maps than the decoder
            was built for.
        """
        if isinstance(conditioning, Prepared):
            return conditioning

        if self.condition_adapter is not None:
            conditioning = self.condition_adapter(conditioning)
        if isinstance(conditioning, Tensor):
            none = conditioning.new_zeros(len(conditioning), 0, self.height, self.width)
            conditioning = Conditioning(conditioning, none, none)

        tokens = conditioning.tokens
        check_shape("conditioning tokens (B, Q, D)", tokens, (None, None, None))
        found = conditioning.state_maps.shape[1] + conditioning.context.shape[1]
        if found != self.spatial_channels:
            msg = (
                f"the decoder was built for {self.spatial_channels} channels of "
                f"conditioning maps, found {found}"
            )
            raise ValueError(msg)

        maps = conditioning.state_maps, conditioning.context
        return Prepared(tokens, *maps, conditioning.mean)

    # -- network ------------------------------------------------------------------

    def forward(
        self,
        noisy_sample: Tensor,
        timestep: Tensor | float,
        conditioning: Conditioning | Tensor,
        *,
        previous: Tensor | None = None,
        modulation: Tensor | None = None,
    ) -> Tensor:
        """Run the U-Net on ``(B, C, Y, X)``; pads to its multiple and crops back.

        With ``eps``, for ``sqrt(abar_t) x0 + sqrt(1 - abar_t) eps`` at the training
        level t, it returns the prediction of eps. ``previous`` is an earlier estimate,
        for a self-conditioned network, ``modulation`` the numbers ``(B, K)`` that
        modulate its normalisations.
        """
        condition, noisy = self.prepare(conditioning), noisy_sample
        m, parts = self.margin, [noisy]
        if self.spatial_channels:
            maps = condition.maps().to(noisy.dtype)
            parts.append(F.pad(maps, (m, m, m, m), mode="replicate"))
        if self.config.self_conditioning:
            parts.append(torch.zeros_like(noisy) if previous is None else previous)
        # float64 data pass through a float32 network, float32 noise through a bf16 one.
        dtype = next(self.unet.parameters()).dtype
        inputs = torch.cat(parts, dim=1).to(dtype)
        pad_y, pad_x = (-size % self.multiple for size in noisy.shape[-2:])
        if pad_y or pad_x:
            inputs = F.pad(inputs, (0, pad_x, 0, pad_y), mode="replicate")
        more = {} if modulation is None else {"class_labels": modulation.to(dtype)}
        tokens = condition.tokens.to(dtype)
        output: Tensor = self.unet(inputs, timestep, tokens, **more).sample
        output = output if dtype == noisy.dtype else output.to(noisy.dtype)
        return output[..., m : m + self.height, m : m + self.width]

    def generate_one_step(
        self, noise: Tensor, condition: Conditioning | Tensor
    ) -> Tensor:
        """Turn noise ``(B, *noise_shape)`` into residuals in one pass."""
        maps, numbers = noise[:, : self.noise_maps], noise[:, self.noise_maps :]
        z = multiscale_noise(maps, self.config.noise_scales, self.config.noise_pattern)
        level = torch.zeros(len(z), device=z.device)
        told = domain_numbers(numbers) if self.modulation else None
        prepared = self.prepare(condition)
        made = self.forward(z, level, prepared, modulation=told)
        return made if prepared.mean is None else made + prepared.mean.to(made)

    def denoise(
        self,
        x: Tensor,
        sigma: Tensor,
        condition: Conditioning | Tensor,
        *,
        previous: Tensor | None = None,
    ) -> Tensor:
        """Estimate x0 from ``x = x0 + sigma * noise``; ``sigma`` has shape ``(B,)``.

        The network sees what is left of x without the linear path.
        """
        prepared = self.prepare(condition)
        mean = x.new_zeros(()) if prepared.mean is None else prepared.mean.to(x)
        left = x - mean
        c = precondition(self.config.parameterisation, sigma, self.vp_grid)
        expand = (slice(None), None, None, None)
        scaled = c.c_in[expand] * left
        raw = self.forward(scaled, c.c_noise, prepared, previous=previous)
        return c.c_skip[expand] * left + c.c_out[expand] * raw + mean

    # -- training -----------------------------------------------------------------

    def training_sigma(self, batch: int, device: torch.device) -> Tensor:
        """Draw the noise levels of a training batch. Shape ``(B,)``."""
        if self.config.parameterisation == "edm":
            normal = torch.randn(batch, device=device)
            return (self.config.p_mean + self.config.p_std * normal).exp()
        index = torch.randint(len(self.vp_grid), (batch,), device=device)
        return self.vp_grid[index].float()

    def validation_sigma(self, batch: int) -> Tensor:
        """Spread noise levels evenly over the training distribution. Shape ``(B,)``."""
        quantile = (torch.arange(batch, dtype=torch.float64) + 0.5) / batch
        if self.config.parameterisation == "edm":
            normal = math.sqrt(2) * torch.erfinv(2 * quantile - 1)
            return (self.config.p_mean + self.config.p_std * normal).exp().float()
        return self.vp_grid[(quantile * len(self.vp_grid)).long().cpu()].float()

    def denoising_error(
        self,
        target: Tensor,
        condition: Conditioning | Tensor,
        *,
        sigma: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Return the weighted squared error of x0 per cell. Shape ``(B, C, Y, X)``.

        Its expectation over ``training_sigma`` is the diffusion loss; the caller
        averages over the valid cells. The weight is that of the noise level (min-SNR,
        or Karras et al.).
        """
        prepared, share = self.prepare(condition), self.config.condition_dropout
        if self.training and share > 0:
            drop = torch.rand(len(target), device=target.device) < share
            prepared = prepared.without_states(drop)

        x = target + sigma[:, None, None, None] * noise
        previous = None
        if self.config.self_conditioning:
            with torch.no_grad():
                previous = self.denoise(x, sigma, prepared)
            if self.training:  # it is shown half the time
                shown = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
                previous = torch.where(shown, previous, 0.0)

        estimate = self.denoise(x, sigma, prepared, previous=previous)
        weight = precondition(self.config.parameterisation, sigma, self.vp_grid).weight
        return weight[:, None, None, None] * (estimate - target) ** 2
