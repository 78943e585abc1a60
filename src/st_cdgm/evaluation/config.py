"""Settings of the evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath

from st_cdgm.errors import ConfigError, check_least
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
    enabled : bool
        False: a run ends with its ensemble, without references and scores.
    num_samples : int, optional
        Another name of ``inference.members``; where given, it decides.
    compute_f1_extremes, f1_percentiles : bool, list of float
        Whether to add the metrics ``f1_p95`` ..., one for each percentile of the truth:
        90, 95, 98, 99 or 99.9.
    save_visualizations, output_dir : bool, str
        Whether to draw the figures of the report as files too, and into which folder of
        the run directory.
    """

    references: list[str] = field(
        default_factory=lambda: ["climatology", "analogs", "ridge", "glm"]
    )
    metrics: list[str] = field(default_factory=list)
    stride: int = 1
    enabled: bool = True
    num_samples: int | None = None
    compute_f1_extremes: bool = False
    f1_percentiles: list[float] = field(default_factory=lambda: [95.0, 99.0])
    save_visualizations: bool = False
    output_dir: str = "figures"

    def chosen_metrics(self) -> list[str]:
        """Return the metrics beside the standard ones, those of extremes included."""
        percentiles = self.f1_percentiles if self.compute_f1_extremes else []
        extremes = [f"f1_p{percentile:g}" for percentile in percentiles]
        return list(dict.fromkeys([*self.metrics, *extremes]))

    def check(self) -> None:
        """Raise ConfigError for an unknown name or a value out of range."""
        for name in self.references:
            get("reference", name)
        for name in self.chosen_metrics():
            get("metric", name)
        place = PurePath(self.output_dir)
        if place.is_absolute() or ".." in place.parts or not place.name:
            raise ConfigError(
                "the figures of a run lie in its directory",
                variable="evaluation.output_dir",
                found=self.output_dir,
                expected="the name of a folder in run.dir",
            )
        check_least("stride", self.stride, 1, section="evaluation.")
