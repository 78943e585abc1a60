"""Scores of fields and the learned graph, by the names of the original interface.

A thin face of :mod:`st_cdgm.evaluation.metrics`: for a few fields in memory, such as
those of a notebook. A whole test period is scored by
:func:`st_cdgm.evaluation.evaluate_ensembles`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.evaluation.evaluation_xai.metric_report import (
        MetricReport as MetricReport,
    )
    from st_cdgm.evaluation.evaluation_xai.metric_report import (
        evaluate_metrics as evaluate_metrics,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_correlation as compute_correlation,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import compute_crps as compute_crps
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_energy_score as compute_energy_score,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_f1_extremes as compute_f1_extremes,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import compute_fss as compute_fss
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_histogram_distance as compute_histogram_distance,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import compute_mae as compute_mae
    from st_cdgm.evaluation.evaluation_xai.scores import compute_mse as compute_mse
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_power_spectrum as compute_power_spectrum,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import compute_rmse as compute_rmse
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_spectrum_distance as compute_spectrum_distance,
    )
    from st_cdgm.evaluation.evaluation_xai.scores import (
        compute_wasserstein_distance as compute_wasserstein_distance,
    )
    from st_cdgm.evaluation.graph.dag import (
        compute_structural_hamming_distance as compute_structural_hamming_distance,
    )
    from st_cdgm.evaluation.graph.dag import export_dag_to_csv as export_dag_to_csv
    from st_cdgm.evaluation.graph.dag import export_dag_to_json as export_dag_to_json
    from st_cdgm.evaluation.graph.plots import plot_dag_heatmap as plot_dag_heatmap
    from st_cdgm.inference.autoregressive import InferenceResult as InferenceResult
    from st_cdgm.inference.autoregressive import (
        autoregressive_inference as autoregressive_inference,
    )

__getattr__, __dir__, __all__ = attach(__name__)
