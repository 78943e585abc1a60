"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from st_cdgm.errors import ConfigError

REFERENCES = ("lr_interp", "climatology", "analogs", "ridge")


@dataclass(kw_only=True)
class EvaluationConfig:
    """What the model is compared with, and on which days.

    Attributes
    ----------
    references : list of str
        Methods fitted on the same training period and scored on the same days:
        ``lr_interp`` (the baseline alone), ``climatology``, ``analogs``, ``ridge``.
    stride : int
        Every so many test days are scored; 1 is every day.
    """

    references: list[str] = field(
        default_factory=lambda: ["climatology", "analogs", "ridge"]
    )
    stride: int = 1

    def check(self) -> None:
        """Raise ConfigError for an unknown reference or a value out of range."""
        for name in self.references:
            if name not in REFERENCES:
                raise ConfigError(
                    "evaluation.references names an unknown method",
                    found=name,
                    expected=" | ".join(REFERENCES),
                )
        if self.stride < 1:
            raise ConfigError(
                "evaluation.stride is too small", found=self.stride, expected=">= 1"
            )
