"""The steps of the main job, one function each; the verbs put them together.

load configuration -> pipeline -> train -> downscale the test period -> references ->
scorecard -> learned graph -> report.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_cdgm._version import __version__
from st_cdgm.config.load import save_config
from st_cdgm.runs.checks import check_run_directory
from st_cdgm.runs.console import Session, console, progress, start_logging
from st_cdgm.runs.discovery import discover_if_possible
from st_cdgm.runs.provenance import provenance
from st_cdgm.runs.score_table import scorecard_table

if TYPE_CHECKING:
    import xarray as xr

    from st_cdgm.config.schema import Config
    from st_cdgm.data.synthetic import SyntheticPaths
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.data.variables.fields import FieldArrays
    from st_cdgm.evaluation.scorecard import Scorecard

logger = logging.getLogger(__name__)
MODEL = "st-cdgm"


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


def prepare_run(config: Config, session: Session) -> Path:
    """Make the run directory, start its log, write config.yaml and provenance.json.

    Raises
    ------
    ConfigError
        See :func:`check_run_directory`.
    MissingFileError
        A data file does not exist; nothing is written then.
    """
    run_dir = check_run_directory(config)
    data = config.data
    named = [data.lr_path, data.hr_path, data.static_path]
    if data.store:
        named = [str(Path(data.store) / "metadata.json")]
    origin = provenance([data.resolve(p) for p in named if p], seed=config.run.seed)
    start_logging(session, level=config.run.log_level, run_dir=run_dir)
    save_config(config, run_dir / "config.yaml")
    text = json.dumps(origin, indent=2) + "\n"
    (run_dir / "provenance.json").write_text(text, encoding="utf-8")
    return run_dir


def open_data(config: Config, session: Session) -> PipelineViews:
    """Read, align, split and prepare the data, or open the store that holds them."""
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
    from st_cdgm.runs.checks import check_same_settings

    data = config.data
    logger.info("reading %s", data.resolve(data.store or data.lr_path))
    with progress(session, "Reading"):
        if not data.store:
            return NetCDFDataPipeline.from_config(data)
        stored = ZarrDataPipeline(data.resolve(data.store), memory=data.memory)
        check_same_settings(data, stored.config)
        return stored


def train_model(
    config: Config,
    pipeline: PipelineViews,
    run_dir: Path,
    session: Session,
    *,
    resume: bool = False,
) -> Path:
    """Train, or go on with it; return the directory of the best checkpoint."""
    from st_cdgm.runs.progress import TrainingProgress
    from st_cdgm.training.fit import train

    # Lightning sets its own level when imported; its advice is not for this reader.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    with progress(session, "Training") as advance:
        result = train(
            pipeline,
            model=config.model(),
            loss=config.loss,
            training=config.training,
            run_dir=run_dir,
            seed=config.run.seed,
            callbacks=[TrainingProgress(advance)],
            resume=resume,
        )
    logger.info(
        "best validation loss %.4f in epoch %d, %d updates in %.0f s",
        result.best_loss,
        result.best_epoch,
        result.steps,
        result.seconds,
    )
    return result.checkpoint


def downscale_test(
    config: Config, checkpoint: Path, run_dir: Path, session: Session
) -> Path:
    """Downscale the test period from the checkpoint and the coarse file alone."""
    from st_cdgm.checkpoint.directory import load_checkpoint

    # Pieces of a test period are joined: only their own days are scored.
    test = load_checkpoint(checkpoint).preprocessor.periods["test"]
    start, end = test[0], test[-1]
    return downscale_files(
        checkpoint,
        [config.data.resolve(config.data.lr_path)],
        run_dir / "downscaled.nc",
        session=session,
        members=config.inference.members,
        seed=config.run.seed,
        start=start,
        end=end,
        sampler=config.inference.sampler,
        steps=config.inference.steps,
        guidance_scale=config.inference.guidance_scale,
        block_means=config.inference.block_means,
        batch_days=config.inference.batch_days,
    )


def downscale_files(
    checkpoint: Path,
    lr: Sequence[str],
    output: Path,
    *,
    session: Session,
    **options: Any,
) -> Path:
    """Downscale coarse files; ``options`` are those of ``inference.downscale``."""
    from st_cdgm.inference.downscale import downscale

    with progress(session, "Downscaling") as advance:
        return downscale(
            checkpoint,
            list(lr),
            output,
            on_total=lambda days: advance(0, days),
            on_progress=lambda days: advance(days, None),
            **options,
        )


def run_references(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> dict[str, Path]:
    """Fit the reference methods on the training days; write their test ensembles."""
    from st_cdgm.references.base import build_reference

    training = pipeline.arrays("train")
    # Without the truth: a reference could not look at it if it wanted to.
    test = replace(scored_days(config, pipeline), hr=None)
    written = {}
    names = config.evaluation.references
    with progress(session, "References", len(names)) as advance:
        for name in names:
            reference = build_reference(name).fit(training, pipeline.preprocessor)
            fields = reference.predict(
                test, members=config.inference.members, seed=config.run.seed
            )
            path = run_dir / "references" / f"{name}.nc"
            _write_fields(path, fields, test, pipeline, title=f"Reference {name}")
            written[name] = path
            logger.info("reference %s: %d members", name, fields.shape[1])
            advance(1, None)
    return written


def scored_days(config: Config, pipeline: PipelineViews) -> FieldArrays:
    """Return every ``evaluation.stride``-th test day, with its truth."""
    return pipeline.arrays("test").select(slice(None, None, config.evaluation.stride))


def _write_fields(
    path: Path,
    fields: Any,
    days: FieldArrays,
    pipeline: PipelineViews,
    *,
    title: str,
) -> None:
    from st_cdgm.inference.writer import EnsembleWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with EnsembleWriter(
        path,
        targets=pipeline.preprocessor.targets,
        grid=pipeline.preprocessor.hr_grid,
        calendar=days.calendar,
        members=range(fields.shape[1]),
        attrs={"title": title, "source": f"st-cdgm {__version__}"},
    ) as writer:
        writer.append(days.day, fields)


def score_test(
    config: Config,
    pipeline: PipelineViews,
    forecasts: Mapping[str, Path],
    run_dir: Path,
    session: Session,
) -> Scorecard:
    """Score all sources on the scored test days."""
    from st_cdgm.evaluation.scorecard import evaluate_ensembles

    days = scored_days(config, pipeline)
    assert days.hr is not None
    protocol: dict[str, Any] = {
        "run": config.run.name,
        "seed": config.run.seed,
        "splits": config.data.splits.describe(),
        "test": pipeline.preprocessor.periods["test"],
        "stride": config.evaluation.stride,
        "baseline": pipeline.preprocessor.baseline.strategy,
        "history": f"model {config.data.seq_len} days of predictors, references 1",
        "version": __version__,
    }
    # A cell without training truth has no prediction, so it cannot be scored.
    cells = np.asarray(pipeline.preprocessor.valid)
    truth = np.where(cells, days.hr, np.nan)
    unscored = int((np.isfinite(days.hr).any(axis=0) & ~cells).sum())
    if unscored:
        protocol["cells_left_out"] = (
            f"{unscored}, with test truth but no training truth"
        )
    with progress(session, "Scoring"):
        return evaluate_ensembles(
            forecasts,
            _as_dataset(truth, days, pipeline),
            mask="truth",
            baseline=_as_dataset(days.baseline, days, pipeline),
            land=_land_fraction(config, pipeline),
            protocol=protocol,
            output=run_dir,
        )


def _land_fraction(config: Config, pipeline: PipelineViews) -> Any:
    """Return the land area fraction (Y, X) of the static file, None without it."""
    from st_cdgm.data.read.readers import read_static

    data, preprocessor = config.data, pipeline.preprocessor
    if data.static_path is None or "sftlf" not in preprocessor.static_names:
        return None
    path = data.resolve(data.static_path)
    _, values = read_static(path, variables=["sftlf"], grid=preprocessor.hr_grid)
    return values[0]


def _as_dataset(fields: Any, days: FieldArrays, pipeline: PipelineViews) -> xr.Dataset:
    """Return (T, C, Y, X) fields as a deterministic dataset."""
    from st_cdgm.inference.writer import ensemble_dataset

    dataset = ensemble_dataset(
        fields[:, None],
        day=days.day,
        calendar=days.calendar,
        targets=pipeline.preprocessor.targets,
        grid=pipeline.preprocessor.hr_grid,
        members=range(1),
    )
    return dataset.isel(realization=0, drop=True)


def export_graph(config: Config, checkpoint: Path, run_dir: Path) -> None:
    """Write the learned graph as dag.json, dag.csv and dag.png."""
    from st_cdgm.checkpoint.directory import load_checkpoint
    from st_cdgm.evaluation.graph.dag import export_dag

    model = load_checkpoint(checkpoint).model
    export_dag(
        run_dir,
        model.effective_dag().detach().cpu().numpy(),
        model.names,
        constraint=config.loss.dag.constraint,
        possible=model.possible_edges,
    )


def ablate(
    config: Config,
    checkpoint: Path,
    pipeline: PipelineViews,
    run_dir: Path,
    session: Session,
) -> Path:
    """Measure what the model takes from its causal part; write conditioning.json.

    On validation days: the states shuffled, and every edge of the graph removed; see
    ``training.ablation``.
    """
    from st_cdgm.checkpoint.directory import load_checkpoint
    from st_cdgm.training.ablation import edge_test, shuffle_test

    loaded = load_checkpoint(checkpoint)
    windows = pipeline.windows("validation", stride=config.training.validation_stride)
    document: dict[str, Any] = {"period": pipeline.preprocessor.periods["validation"]}
    with progress(session, "Ablations", 2) as advance:
        for name, test in (("shuffled", shuffle_test), ("without_edges", edge_test)):
            results = test(
                loaded.model,
                loaded.preprocessor,
                windows,
                members=config.training.validation_members,
                batch_size=config.training.batch_size,
                seed=config.run.seed,
            )
            document[name] = [result.to_dict() for result in results]
            for result in results:
                logger.info(
                    "%s: loss of %s %+.1f %% (95 %% interval %+.1f to %+.1f)",
                    name.replace("_", " "),
                    result.variable,
                    100 * result.increase,
                    100 * result.low,
                    100 * result.high,
                )
            advance(1, None)
    path = run_dir / "conditioning.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def score_files(
    prediction: Path,
    truth: Path,
    output: Path,
    *,
    references: Mapping[str, Path],
    mask: str = "common",
    session: Session,
) -> Scorecard:
    """Score an ensemble file, and others, against a truth file."""
    from st_cdgm.evaluation.scorecard import evaluate_files

    with progress(session, "Scoring"):
        return evaluate_files(
            prediction, truth, references=references, mask=mask, output=output
        )


def make_climate(
    config: Config, directory: Path, session: Session, *, overwrite: bool = False
) -> SyntheticPaths:
    """Simulate the synthetic climate and write its files."""
    from st_cdgm.data.synthetic import write_synthetic

    with progress(session, "Simulating"):
        return write_synthetic(config.synthetic, directory, overwrite=overwrite)


def write_report(run_dir: Path, *, title: str | None = None) -> Path:
    """Build report.html from the files of a run; return its path."""
    from st_cdgm.evaluation.report.build import build_report

    return build_report(run_dir, title=title)
