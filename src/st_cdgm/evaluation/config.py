"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from st_cdgm.errors import check_least
from st_cdgm.registry import get


@dataclass(kw_only=True)
class EvaluationConfig:
    """What the model is compared with, in which scores, and on which days.

    Attributes
    ----------
    references : list of str
        Methods fitted on the same training period and scored on the same days:
        ``lr_interp`` (the baseline alone), ``climatology``, ``quantile_mapping``,
        ``analogs``, ``ridge_pc``, ``ridge`` (per fine cell), ``glm``, or one of a
        plugin. ``st-cdgm plugins --kind reference`` lists all.
    metrics : list of str
        Metrics beside the standard ones, which every scorecard has: ``fss``,
        ``fss_10mm``, ``f1_p95``, ``f1_p99``, ``histogram_distance`` and, slow,
        ``sliced_wasserstein``. ``st-cdgm plugins --kind metric`` lists all.
    stride : int
        Every so many test days are scored; 1 is every day.
    """

    references: list[str] = field(
        default_factory=lambda: ["climatology", "analogs", "ridge", "glm"]
    )
    metrics: list[str] = field(default_factory=list)
    stride: int = 1

    def check(self) -> None:
        """Raise ConfigError for an unknown name or a value out of range."""
        for name in self.references:
            get("reference", name)
        for name in self.metrics:
            get("metric", name)
        check_least("stride", self.stride, 1, section="evaluation.")
