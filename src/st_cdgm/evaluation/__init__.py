"""Scores, the learned graph and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.evaluation.evaluation_xai import InferenceResult as InferenceResult
    from st_cdgm.evaluation.evaluation_xai import MetricReport as MetricReport
    from st_cdgm.evaluation.evaluation_xai import (
        autoregressive_inference as autoregressive_inference,
    )
    from st_cdgm.evaluation.evaluation_xai import (
        compute_correlation as compute_correlation,
    )
    from st_cdgm.evaluation.evaluation_xai import compute_crps as compute_crps
    from st_cdgm.evaluation.evaluation_xai import (
        compute_energy_score as compute_energy_score,
    )
    from st_cdgm.evaluation.evaluation_xai import (
        compute_f1_extremes as compute_f1_extremes,
    )
    from st_cdgm.evaluation.evaluation_xai import compute_fss as compute_fss
    from st_cdgm.evaluation.evaluation_xai import (
        compute_histogram_distance as compute_histogram_distance,
    )
    from st_cdgm.evaluation.evaluation_xai import compute_mae as compute_mae
    from st_cdgm.evaluation.evaluation_xai import compute_mse as compute_mse
    from st_cdgm.evaluation.evaluation_xai import (
        compute_power_spectrum as compute_power_spectrum,
    )
    from st_cdgm.evaluation.evaluation_xai import compute_rmse as compute_rmse
    from st_cdgm.evaluation.evaluation_xai import (
        compute_spectrum_distance as compute_spectrum_distance,
    )
    from st_cdgm.evaluation.evaluation_xai import (
        compute_wasserstein_distance as compute_wasserstein_distance,
    )
    from st_cdgm.evaluation.evaluation_xai import evaluate_metrics as evaluate_metrics
    from st_cdgm.evaluation.graph.dag import (
        compute_structural_hamming_distance as compute_structural_hamming_distance,
    )
    from st_cdgm.evaluation.graph.dag import export_dag as export_dag
    from st_cdgm.evaluation.graph.dag import export_dag_to_csv as export_dag_to_csv
    from st_cdgm.evaluation.graph.dag import export_dag_to_json as export_dag_to_json
    from st_cdgm.evaluation.graph.plots import plot_dag_heatmap as plot_dag_heatmap
    from st_cdgm.evaluation.report.build import build_report as build_report
    from st_cdgm.evaluation.scorecard import Scorecard as Scorecard
    from st_cdgm.evaluation.scorecard import evaluate_ensembles as evaluate_ensembles
    from st_cdgm.evaluation.scorecard import evaluate_files as evaluate_files

__getattr__, __dir__, __all__ = attach(__name__)
