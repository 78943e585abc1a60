"""The whole way of a run: data, training, downscaling, scores, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from st_cdgm.runs.console import Session, console, progress
from st_cdgm.runs.discovery import discover_if_possible
from st_cdgm.runs.score_table import scorecard_table
from st_cdgm.runs.scoring import (
    MODEL,
    ablate,
    export_graph,
    run_references,
    score_test,
    write_report,
)
from st_cdgm.runs.steps import downscale_test, open_data, prepare_run, train_model

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config


def run_workflow(config: Config, session: Session, *, resume: bool = False) -> Path:
    """Do everything; return the report's path."""
    from st_cdgm.inference.downscale import check_daily
    from st_cdgm.physics.coarse_means import CoarseMeans

    run_dir = prepare_run(config, session)
    pipeline = open_data(config, session)
    check_daily(pipeline.preprocessor)
    CoarseMeans.of(
        pipeline.preprocessor, config.inference.block_means, section="inference."
    )
    # The references need seconds and nothing from the model: what is wrong with the
    # test period or with them is known before the long part.
    references = run_references(config, pipeline, run_dir, session)
    checkpoint = train_model(config, pipeline, run_dir, session, resume=resume)
    ensemble = downscale_test(config, checkpoint, run_dir, session)
    scorecard = score_test(
        config, pipeline, {MODEL: ensemble, **references}, run_dir, session
    )
    export_graph(config, checkpoint, run_dir)
    ablate(config, checkpoint, pipeline, run_dir, session)
    discover_if_possible(config, pipeline, run_dir, session)
    with progress(session, "Report"):
        report = write_report(run_dir, title=config.run.name)
    out = console()
    out.print(scorecard_table(scorecard))
    out.print(f"Report: {report}", markup=False)
    return report
