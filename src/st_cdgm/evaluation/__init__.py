"""Scores, the learned graph and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
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
