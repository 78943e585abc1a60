"""Scores, the learned graph and the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.evaluation.graph.dag import (
        compute_structural_hamming_distance,
        export_dag,
        export_dag_to_csv,
        export_dag_to_json,
    )
    from st_cdgm.evaluation.report.build import build_report
    from st_cdgm.evaluation.report.plots import plot_dag_heatmap
    from st_cdgm.evaluation.scorecard import (
        Scorecard,
        evaluate_ensembles,
        evaluate_files,
    )

__all__ = [
    "Scorecard",
    "build_report",
    "compute_structural_hamming_distance",
    "evaluate_ensembles",
    "evaluate_files",
    "export_dag",
    "export_dag_to_csv",
    "export_dag_to_json",
    "plot_dag_heatmap",
]

_HOME = {
    "Scorecard": "st_cdgm.evaluation.scorecard",
    "build_report": "st_cdgm.evaluation.report.build",
    "compute_structural_hamming_distance": "st_cdgm.evaluation.graph.dag",
    "evaluate_ensembles": "st_cdgm.evaluation.scorecard",
    "evaluate_files": "st_cdgm.evaluation.scorecard",
    "export_dag": "st_cdgm.evaluation.graph.dag",
    "export_dag_to_csv": "st_cdgm.evaluation.graph.dag",
    "export_dag_to_json": "st_cdgm.evaluation.graph.dag",
    "plot_dag_heatmap": "st_cdgm.evaluation.report.plots",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
