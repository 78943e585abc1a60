"""How residuals are drawn, in one place from the command line to the solver."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from st_cdgm.errors import ConfigError
from st_cdgm.models.config import DiffusionConfig

if TYPE_CHECKING:
    from st_cdgm.models.guidance import Projection


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Options of a draw.

    Attributes
    ----------
    sampler, steps : str and int, optional
        Another sampler and number of noise levels than the model's own.
    guidance_scale : float
        Strength of the causal states, for a model trained with
        ``diffusion.condition_dropout``; 1 is the model itself. See `GuidedDenoiser`.
    block_means : mapping of str to str
        Target -> predictor whose values the target's means over coarse cells take,
        exactly; see `st_cdgm.physics.coarse_means`. Inference makes it a projection.
    calibrate : bool
        Whether to put right what the checkpoint knows of its bias and spread.
    projection : callable, optional
        Applied to every estimate ``(B, M, C, Y, X)`` of the residual, such as
        `BlockMeanProjection`.
    """

    sampler: str | None = None
    steps: int | None = None
    guidance_scale: float = 1.0
    block_means: Mapping[str, str] = field(default_factory=dict)
    calibrate: bool = True
    projection: Projection | None = None

    def check(self, model: DiffusionConfig, *, section: str = "") -> None:
        """Raise ConfigError unless a model can be sampled this way.

        Parameters
        ----------
        model : DiffusionConfig
            Settings of the generator.
        section : str
            Put before the names in messages, ``inference.`` for instance.
        """
        scale, share = self.guidance_scale, model.condition_dropout
        if scale != 1 and not (math.isfinite(scale) and share > 0):
            raise ConfigError(
                "this model cannot be guided",
                variable=f"{section}guidance_scale",
                found=f"{scale}, of a model with diffusion.condition_dropout {share:g}",
                expected="1",
                remedy="train a diffusion model with diffusion.condition_dropout above "
                "0, such as 0.1",
            )
        if not model.one_step:
            from st_cdgm.models.samplers import resolve_sampler

            resolve_sampler(self.sampler or model.scheduler_type)
        elif self.sampler not in (None, "one_step") or self.steps is not None:
            raise ConfigError(
                "this model makes a field in one step: there is no sampler to choose",
                variable=f"{section}sampler, {section}steps",
                found=f"sampler {self.sampler or 'not set'}, "
                f"steps {self.steps or 'not set'}",
                expected="neither, since diffusion.scheduler_type is one_step",
                remedy="leave both out, or train with another diffusion.scheduler_type",
            )


AS_CONFIGURED = Sampling()
