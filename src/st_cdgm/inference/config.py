"""Settings of ensemble generation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from st_cdgm.errors import ConfigError, check_choice, check_least
from st_cdgm.models.sampling import Sampling

ON_INVALID = ("error", "mask")


@dataclass(kw_only=True)
class InferenceConfig:
    """Ensemble generation.

    Attributes
    ----------
    members : int
        Ensemble size M, of the model and of the references it is compared with.
    batch_days : int
        Days generated together; bounds memory.
    sampler : str or None
        Another sampler than the one in the checkpoint.
    steps : int or None
        Another number of solver steps.
    guidance_scale : float
        1: the model itself; 0: as if the causal states were unknown; above 1: their
        influence exaggerated (the ensemble loses spread). Other than 1 needs a
        diffusion model trained with ``diffusion.condition_dropout``.
    block_means : dict of str to str
        Target -> predictor of the same quantity: the area mean of each ensemble field
        over a coarse cell is made that of the coarse model, exactly. Empty: off.
    on_invalid : str
        Values that are not finite or physically impossible: ``error``, or ``mask`` them
        and report days and numbers.
    calibrate : bool
        Whether bias and spread are put right as `training.fit_bias` and
        `training.fit_spread` found on validation days, where the checkpoint holds that.
    device : str
        ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda`` ...
    """

    members: int = 20
    batch_days: int = 16
    sampler: str | None = None
    steps: int | None = None
    guidance_scale: float = 1.0
    block_means: dict[str, str] = field(default_factory=dict)
    on_invalid: str = "error"
    calibrate: bool = True
    device: str = "auto"

    @property
    def sampling(self) -> Sampling:
        """How to draw."""
        return Sampling(
            sampler=self.sampler,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            block_means=self.block_means,
            calibrate=self.calibrate,
        )

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        for key in ("members", "batch_days", "steps"):
            value = getattr(self, key)
            if value is not None:
                check_least(key, value, 1, section="inference.")
        check_on_invalid(self.on_invalid, section="inference.")
        if not math.isfinite(self.guidance_scale):
            raise ConfigError(
                "inference.guidance_scale is not a number",
                variable="inference.guidance_scale",
                found=self.guidance_scale,
                expected="1, or another number for classifier-free guidance",
            )


def check_on_invalid(found: str, *, section: str = "") -> None:
    """Raise ConfigError unless it is known what to do with values that are not true."""
    check_choice("on_invalid", found, ON_INVALID, section=section)
