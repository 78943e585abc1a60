"""Settings of ensemble generation."""

from __future__ import annotations

from dataclasses import dataclass

from st_cdgm.errors import ConfigError

__all__ = ["InferenceConfig"]


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
