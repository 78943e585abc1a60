"""Conditional generator of the fine-scale residual: diffusion or one-step ensemble.

Both are the same U-Net. The diffusion model denoises; the one-step generator turns
noise into a member in one pass and is trained by a proper score of its ensemble.

References
----------
Karras et al. 2022, arXiv:2206.00364 (EDM); Gneiting & Raftery 2007,
doi:10.1198/016214506000001437 (proper scores).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.denoiser import ConditionalDenoiser
from st_cdgm.models.diffusion_output import (
    DiffusionOutput,
    FieldCodec,
    compose,
    decode_temperatures,
)
from st_cdgm.models.guidance import GuidedDenoiser, Projection
from st_cdgm.models.objective import Objective
from st_cdgm.models.samplers import resolve_sampler, sample
from st_cdgm.models.sampling import AS_CONFIGURED, Sampling
from st_cdgm.models.stacked import check_shape
from st_cdgm.models.truth import Draws, Truth
from st_cdgm.randomness import member_day_noise


class CausalDiffusionDecoder(ConditionalDenoiser):
    """U-Net that turns noise into the standardised residual of a day.

    A conditioning is a :class:`Conditioning`, or its tokens ``(B, Q, D)`` alone if the
    decoder has no conditioning maps.

    Parameters
    ----------
    in_channels : int
        Target channels C.
    conditioning_dim : int
        Width D of a causal token.
    height, width : int
        Fine grid Y, X; any size (padded inside to the U-Net's multiple).
    num_diffusion_steps, scheduler_type, use_gradient_checkpointing : optional
        ``steps``, ``scheduler_type`` and ``use_gradient_checkpointing`` instead of the
        config's; see `DiffusionConfig`.
    unet_kwargs : mapping, optional
        Sizes of the U-Net instead of the config's, and further arguments of the
        library's ``UNet2DConditionModel``.
    config : DiffusionConfig, optional
        Kind of generator, noise range and sizes. Without one: noise prediction
        (``eps``) sampled by ``ddpm``.
    spatial_channels : int
        Channels of all conditioning maps together.
    temperature_triple : bool
        The three channels are a minimum temperature and two increments
        (`apply_physical_constraints`).

    Raises
    ------
    ConfigError
        (a ``ValueError``) Unknown scheduler, value out of range, a triple that has not
        three channels.
    ImportError
        diffusers is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        conditioning_dim: int,
        height: int,
        width: int,
        *,
        num_diffusion_steps: int | None = None,
        unet_kwargs: Mapping[str, Any] | None = None,
        scheduler_type: str | None = None,
        use_gradient_checkpointing: bool | None = None,
        config: DiffusionConfig | None = None,
        spatial_channels: int = 0,
        temperature_triple: bool = False,
    ) -> None:
        if temperature_triple and in_channels != 3:
            raise ConfigError(
                "a temperature triple has three channels",
                variable="in_channels",
                found=in_channels,
                expected=3,
            )

        named: dict[str, Any] = {
            "steps": num_diffusion_steps,
            "scheduler_type": scheduler_type,
            "use_gradient_checkpointing": use_gradient_checkpointing,
        }
        default = DiffusionConfig(scheduler_type="ddpm", parameterisation="eps")
        chosen = {key: value for key, value in named.items() if value is not None}
        super().__init__(
            in_channels,
            conditioning_dim,
            height,
            width,
            config=replace(config or default, **chosen),
            unet_kwargs=unet_kwargs,
            spatial_channels=spatial_channels,
        )
        self.temperature_triple = temperature_triple

    def compute_loss(
        self,
        target: Tensor,
        conditioning: Conditioning | Tensor,
        use_focal_loss: bool = False,
        focal_alpha: float = 1.0,
        focal_gamma: float = 2.0,
        *,
        valid: Tensor | None = None,
        sigma: Tensor | None = None,
        noise: Tensor | None = None,
        members: int | None = None,
        extreme_values: Tensor | None = None,
        per_variable: bool = False,
        **weights: Any,
    ) -> Tensor:
        """Return the generator's loss: denoising, or the fair CRPS of ``one_step``.

        Cells whose target is NaN or infinite, or that are not ``valid``, count for
        nothing; without any cell left the loss is 0 with a gradient of 0. NaN anywhere
        else is an error.

        Parameters
        ----------
        target : Tensor
            Standardised residual. Shape ``(B, C, Y, X)``.
        conditioning : Conditioning or Tensor
            Of B days.
        use_focal_loss, focal_alpha, focal_gamma, **weights
            Attributes of `Objective`.
        valid : Tensor, optional
            Where the target counts. Shape ``(B, C, Y, X)``, bool.
        sigma, noise : Tensor, optional
            Instead of random ones. Shapes ``(B,)`` and ``(B, C, Y, X)``; for
            ``one_step`` noise has shape ``(B * members, *noise_shape)``.
        members : int, optional
            Ensemble of ``one_step``; default ``train_members``.
        extreme_values : Tensor, optional
            What is extreme; default the target. Shape ``(B, C, Y, X)``.
        per_variable : bool
            Return one loss per channel, shape ``(C,)``, instead of their scalar mean.

        Raises
        ------
        ValueError
            NaN or infinity in the conditioning, the prediction or the loss; a wrong
            shape; focal weights for ``one_step``.
        """
        expected = (None, self.in_channels, self.height, self.width)
        check_shape("target", target, expected)
        objective = Objective(
            use_focal_loss=use_focal_loss,
            focal_alpha=focal_alpha,
            focal_gamma=focal_gamma,
            **weights,
        )
        objective.check(self)

        # Missing truth is filled and left out of every average.
        mask = torch.isfinite(target)
        mask = mask if valid is None else mask & valid
        truth = Truth(torch.where(mask, target, 0.0), mask, extreme=extreme_values)
        draws = Draws.of(
            self, truth.residual, members=members, noise=noise, sigma=sigma
        )
        found = objective.loss(self, truth, conditioning, draws).check().per_variable
        return found if per_variable else found.mean()

    # -- sampling -----------------------------------------------------------------

    @torch.no_grad()
    def draw_residual(
        self,
        conditioning: Conditioning | Tensor,
        noise: Callable[[], Tensor],
        sampling: Sampling = AS_CONFIGURED,
    ) -> Tensor:
        """Draw an ensemble of standardised residuals.

        Parameters
        ----------
        conditioning : Conditioning or Tensor
            Of B days.
        noise : callable
            Each call returns further standard normal numbers. Shape
            ``(B, M, *noise_shape)``.
        sampling : Sampling
            What differs from the configured way.

        Returns
        -------
        Tensor
            Shape ``(B, M, C, Y, X)``; float64 if projected.

        Raises
        ------
        ConfigError
            Unknown sampler, or guidance of a model that was not trained for it.
        """
        config, projection = self.config, sampling.projection
        # A number of steps is no mistake where there is but one.
        steps = None if config.one_step else sampling.steps
        replace(sampling, steps=steps).check(config)

        condition = self.prepare(conditioning)
        device = condition.tokens.device
        start = noise().to(device)
        b, m = start.shape[:2]
        condition = condition.repeat(m)
        if config.one_step:
            out = self.generate_one_step(start.flatten(0, 1), condition)
            out = out.reshape(b, m, *out.shape[1:])
            return out if projection is None else projection(out.double())

        # The solver sees one row for each (day, member).
        def projected(x0: Tensor) -> Tensor:
            assert projection is not None
            return projection(x0.reshape(b, m, *x0.shape[1:])).flatten(0, 1)

        guided = GuidedDenoiser(
            self.denoise,
            condition,
            guidance_scale=sampling.guidance_scale,
            projection=None if projection is None else projected,
            self_conditioning=config.self_conditioning,
            dtype=start.dtype,
        )
        name = sampling.sampler or config.scheduler_type
        steps = steps or config.num_sampling_steps
        if steps is None and resolve_sampler(name) == "ddpm":
            steps = config.steps  # ancestral sampling walks the training levels
        out = sample(
            guided,
            (b * m, self.in_channels, self.height, self.width),
            sampler=name,
            steps=steps,
            noise=lambda i: (start if i == 0 else noise().to(device)).flatten(0, 1),
            sigma_min=config.sigma_min,
            sigma_max=config.sigma_max,
            device=device,
        )
        out = out if projection is not None else out.to(start.dtype)
        return out.reshape(b, m, *out.shape[1:])

    @torch.no_grad()
    def sample(
        self,
        conditioning: Conditioning | Tensor,
        *,
        num_steps: int | None = None,
        generator: torch.Generator | None = None,
        baseline: Tensor | None = None,
        apply_constraints: bool = True,
        scheduler_type: str | None = None,
        members: int | None = None,
        noise: Callable[[], Tensor] | None = None,
        guidance_scale: float = 1.0,
        projection: Projection | None = None,
        codec: FieldCodec | None = None,
    ) -> DiffusionOutput:
        """Draw fields.

        Parameters
        ----------
        conditioning : Conditioning or Tensor
            Of B days.
        num_steps, scheduler_type : optional
            Number of noise levels and sampler instead of the configured ones; no call
            changes the next one's. ``ddpm`` walks the training levels by default.
        generator : torch.Generator, optional
            Source of all random numbers; default torch's own. One number is drawn from
            it, and makes a stream for each (day, member): members 1-4 of 20 equal those
            of 4.
        baseline : Tensor, optional
            Added to the residual, in its units. Shape ``(B, C, Y, X)``.
        apply_constraints : bool
            Decode: with ``codec``, or the declared temperature triple. False: the
            channels are taken for the fields themselves.
        members : int, optional
            Ensemble size M; without it the member axis is left out.
        noise : callable, optional
            Instead of the generator: each call returns ``(B, M, *noise_shape)``, M
            being 1 without ``members``.
        guidance_scale, projection
            See `Sampling`.
        codec : FieldCodec, optional
            Names and decodes the channels, such as a ``TargetCodec``.

        Returns
        -------
        DiffusionOutput
            No gradient is kept.

        Raises
        ------
        ConfigError
            See `draw_residual`.
        ValueError
            Baseline of another shape than the residual; noise and generator both given.
        """
        prepared = self.prepare(conditioning)
        b = len(prepared.tokens)
        if baseline is not None:
            expected = (b, self.in_channels, self.height, self.width)
            check_shape("baseline", baseline, expected)
        if noise is not None and generator is not None:
            msg = "give either noise or a generator, not both"
            raise ValueError(msg)
        if noise is None:
            # One number of the generator makes a stream for each (day, member).
            origin = torch.device("cpu") if generator is None else generator.device
            seed = torch.randint(2**62, (), generator=generator, device=origin)
            noise = member_day_noise(
                int(seed), range(members or 1), np.arange(b), self.noise_shape
            )
        sampling = Sampling(
            sampler=scheduler_type,
            steps=num_steps,
            guidance_scale=guidance_scale,
            projection=projection,
        )
        residual = self.draw_residual(prepared, noise, sampling)
        return compose(
            residual if members is not None else residual.squeeze(1),
            baseline,
            codec=codec,
            triple=self.temperature_triple and codec is None,
            decode=apply_constraints,
        )

    def reconstruct_from_residual(
        self,
        residual: Tensor,
        *,
        baseline: Tensor | None = None,
        apply_constraints: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return minimum, mean and maximum temperature, each ``(B, [M,] 1, Y, X)``.

        Raises
        ------
        ValueError
            No temperature triple was declared, or the shapes differ.
        """
        if not self.temperature_triple:
            msg = "the channels are no temperature triple (temperature_triple=False)"
            raise ValueError(msg)
        if baseline is not None:
            check_shape("baseline", baseline, (None, *residual.shape[-3:]))
        made = compose(
            residual, baseline, codec=None, triple=True, decode=apply_constraints
        )
        t_min, t_mean, t_max = torch.split(made.composite, 1, dim=-3)
        return t_min, t_mean, t_max

    @staticmethod
    def apply_physical_constraints(
        raw_output: Tensor, use_soft: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Turn a minimum and two increments into t_min <= t <= t_max.

        See `diffusion_output.decode_temperatures`; ``encode_temperatures`` there is the
        inverse that targets need.
        """
        return decode_temperatures(raw_output, soft=use_soft)
