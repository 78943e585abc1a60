"""Settings of ensemble generation."""

from __future__ import annotations

from dataclasses import dataclass

from st_cdgm.errors import ConfigError

__all__ = ["InferenceConfig", "check_sampler"]

ONE_STEP = "one_step"


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
    """

    members: int = 20
    batch_days: int = 16
    sampler: str | None = None
    steps: int | None = None

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        for key in ("members", "batch_days", "steps"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ConfigError(
                    f"inference.{key} is too small",
                    variable=f"inference.{key}",
                    found=value,
                    expected=">= 1",
                )


def check_sampler(
    sampler: str | None, steps: int | None, *, scheduler: str, section: str = ""
) -> None:
    """Raise ConfigError unless a model can be sampled this way.

    Parameters
    ----------
    sampler, steps : str and int, optional
        What replaces the model's own choice.
    scheduler : str
        ``diffusion.scheduler_type`` of the model.
    section : str
        Put before the names in messages, ``inference.`` for instance.
    """
    if scheduler == ONE_STEP:
        if sampler in (None, ONE_STEP) and steps is None:
            return
        raise ConfigError(
            "this model makes a field in one step: there is no sampler to choose",
            variable=f"{section}sampler, {section}steps",
            found=f"sampler {sampler or 'not set'}, steps {steps or 'not set'}",
            expected="neither, since diffusion.scheduler_type is one_step",
            remedy="leave both out, or train with another diffusion.scheduler_type",
        )
    from st_cdgm.models.samplers import resolve_sampler

    resolve_sampler(sampler or scheduler)
