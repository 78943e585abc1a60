"""Settings of ensemble generation."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["InferenceConfig"]


@dataclass(kw_only=True)
class InferenceConfig:
    """Ensemble generation.

    Attributes
    ----------
    members : int
        Ensemble size M.
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
