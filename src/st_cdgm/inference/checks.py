"""Whether a model can be sampled in the way that is asked for."""

from __future__ import annotations

from st_cdgm.errors import ConfigError

__all__ = ["check_sampler"]

ONE_STEP = "one_step"


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
