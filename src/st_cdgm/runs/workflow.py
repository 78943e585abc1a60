"""The whole way of a run: data, training, downscaling, scores, report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from st_cdgm.outputs import check_output_path
from st_cdgm.runs.checks import (
    check_before_training,
    check_files,
    check_reference,
    check_test_period,
    check_test_predictors,
)
from st_cdgm.runs.console import Session, console, lasting, progress, show_results
from st_cdgm.runs.directory import (
    check_run_directory,
    check_state,
    discard_replaced,
    nothing_left_behind,
    prepare_run,
)
from st_cdgm.runs.discovery import (
    before_graph,
    discover_links,
    inside_graph,
    links_table,
)
from st_cdgm.runs.score_table import show_scorecard
from st_cdgm.runs.scoring import (
    SCORES,
    Analyses,
    ablate,
    draw_figures,
    export_weights,
    run_reference,
    run_references,
    score_test,
    write_report,
)
from st_cdgm.runs.steps import downscale_test, ensemble_results, open_data, train_pool

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.evaluation.scorecard import Scorecard
    from st_cdgm.training.fit import TrainingResult


def run_workflow(
    config: Config, session: Session, *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Train, downscale the test period, evaluate, report; return the report's path.

    Parameters
    ----------
    config : Config
        Settings of the run.
    session : Session
        Where progress and results are shown.
    resume, overwrite : bool
        What to do where ``run.dir`` holds a run: go on with it, or replace it.

    Raises
    ------
    InputError
        A setting, a file or the run directory cannot be used.
    """
    from st_cdgm.inference.downscale import check_daily
    from st_cdgm.physics.coarse_means import CoarseMeans

    how = {"resume": resume, "overwrite": overwrite}
    with _begun(config, session, to_the_end=True, **how) as (run_dir, pipeline):
        check_daily(pipeline.preprocessor)
        check_test_predictors(config, pipeline.preprocessor)
        CoarseMeans.of(
            pipeline.preprocessor, config.inference.block_means, section="inference."
        )
        inside, pipeline = inside_graph(config, pipeline, run_dir, session)

        # The references need nothing from the model: what is wrong with the test period
        # or with them is known before the long part.
        scored = config.evaluation.enabled
        references = (
            run_references(config, pipeline, run_dir, session) if scored else {}
        )
        discard_replaced(run_dir)
        checkpoint = train_pool(
            inside, pipeline, run_dir, session, resume=resume
        ).checkpoint
        ensemble = downscale_test(config, checkpoint, run_dir, session)

        # No analysis that fails costs the others, nor the report.
        analyses = Analyses(run_dir)
        if scored:
            with analyses.spared(SCORES):
                card = score_test(
                    config, pipeline, ensemble, references, run_dir, session
                )
        with analyses.spared("the weights of the causal network"):
            export_weights(config, checkpoint, run_dir)
        with analyses.spared("the ablations"):
            ablate(config, checkpoint, pipeline, run_dir, session)

        with progress(session, "Report"):
            report = write_report(run_dir, title=config.run.name)
        if config.evaluation.save_visualizations:
            folder = config.evaluation.output_dir
            with analyses.spared("the figures"):
                draw_figures(run_dir, session=session, folder=folder)
        analyses.check_scored()

    if session.announce:
        if scored:
            show_scorecard(card)
        show_results({"Checkpoint": checkpoint, "Ensemble": ensemble, "Report": report})
    return report


def train_workflow(
    config: Config, session: Session, *, resume: bool = False, overwrite: bool = False
) -> TrainingResult:
    """Train a model and say where it is; parameters as in :func:`run_workflow`."""
    how = {"resume": resume, "overwrite": overwrite}
    with _begun(config, session, to_the_end=False, **how) as (run_dir, pipeline):
        discard_replaced(run_dir)
        inside, pipeline = inside_graph(config, pipeline, run_dir, session)
        result = train_pool(inside, pipeline, run_dir, session, resume=resume)

    best = f"{result.best_loss:.4f} in epoch {result.best_epoch}"
    show_results(
        {
            "Checkpoint": result.checkpoint,
            "Validation loss": best if result.best_epoch >= 0 else "not computed",
            "Training": f"{result.steps} updates in {lasting(result.seconds)}",
        }
    )
    return result


def discover_workflow(config: Config, session: Session) -> Path:
    """Test the graph of a run's data in its directory; return ``dag.json``."""
    how = {"resume": True, "overwrite": False, "trains": False}
    with _begun(config, session, to_the_end=False, **how) as (run_dir, pipeline):
        graph = discover_links(config, pipeline, run_dir, session)
    console(wide=True).print(links_table(graph))
    return run_dir / "dag.json"


def reference_workflow(
    config: Config, name: str, output: Path, session: Session
) -> Scorecard:
    """Fit a reference method, write its ensemble of the test days and score it.

    Parameters
    ----------
    config : Config
        Settings of the run that it is compared with; ``evaluation.stride`` says which
        test days are made, ``inference.members`` how many members.
    name : str
        A registered reference.
    output : Path
        NetCDF file to write.
    session : Session
        Where progress and results are shown.

    Raises
    ------
    ConfigError
        There is no reference of this name, or no test period.
    InputError
        A file cannot be used, or the reference cannot be fitted to the data.
    """
    # All that can be known before the data are read.
    check_reference(config, name)
    check_test_period(config)
    check_files(config)
    check_output_path(output)

    pipeline = open_data(config, session)
    with progress(session, f"Fitting {name}"):
        fitted = run_reference(config, pipeline, name, output)
    scorecard = score_test(config, pipeline, None, {name: fitted}, None, session)

    if session.announce:
        show_scorecard(scorecard, ["spread_skill"])
        show_results(
            ensemble_results(output)
            | {"Seen": str(scorecard.protocol["history"])}
            | {"Tuned": str(scorecard.protocol["tuning"])}
        )
    return scorecard


@contextmanager
def _begun(
    config: Config,
    session: Session,
    *,
    to_the_end: bool,
    resume: bool,
    overwrite: bool,
    trains: bool = True,
) -> Iterator[tuple[Path, PipelineViews]]:
    """Check what can be checked, begin the run directory, read the data."""
    check_before_training(config, to_the_end=to_the_end)
    run_dir = check_run_directory(config, resume=resume, overwrite=overwrite)
    if resume and trains:
        check_state(run_dir)
    with nothing_left_behind(run_dir, overwrite=overwrite):
        prepare_run(config, session)
        yield run_dir, open_data(before_graph(config), session)
