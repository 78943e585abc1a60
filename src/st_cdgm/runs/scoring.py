"""What a trained model is worth: references, scores, ablations, graph, report."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_cdgm._version import __version__
from st_cdgm.runs.console import Session, progress

if TYPE_CHECKING:
    import xarray as xr

    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.days import FieldArrays
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.evaluation.scorecard import Scorecard

logger = logging.getLogger(__name__)
MODEL = "st-cdgm"


def run_references(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> dict[str, Path]:
    """Fit the reference methods on the training days; write their test ensembles."""
    from st_cdgm.inference.writer import EnsembleWriter
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

            written[name] = run_dir / "references" / f"{name}.nc"
            written[name].parent.mkdir(parents=True, exist_ok=True)
            source = f"st-cdgm {__version__}"
            with EnsembleWriter(
                written[name],
                targets=pipeline.preprocessor.targets,
                grid=pipeline.preprocessor.hr_grid,
                calendar=test.calendar,
                members=range(fields.shape[1]),
                attrs={"title": f"Reference {name}", "source": source},
            ) as writer:
                writer.append(test.day, fields)
            logger.info("reference %s: %d members", name, fields.shape[1])
            advance(1, None)
    return written


def scored_days(config: Config, pipeline: PipelineViews) -> FieldArrays:
    """Return every ``evaluation.stride``-th test day, with its truth."""
    return pipeline.arrays("test").select(slice(None, None, config.evaluation.stride))


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
            climatology=_as_dataset(_usual(days, pipeline), days, pipeline),
            land=_land_fraction(config, pipeline),
            protocol=protocol,
            output=run_dir,
            metrics=config.evaluation.metrics,
        )


def _usual(days: FieldArrays, pipeline: PipelineViews) -> Any:
    """Return the mean of the training days at each day's season. (T, C, Y, X)."""
    from st_cdgm.data.fit.baseline.climatology import ClimatologyBaseline

    train = pipeline.arrays("train")
    assert train.hr is not None
    names = [target.name for target in pipeline.preprocessor.targets]
    learned = ClimatologyBaseline.fit(train.hr, train.season, names)
    return learned.predict(days.lr, days.season)


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

    # Each test on the same windows, with the same random numbers.
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


def write_report(run_dir: Path, *, title: str | None = None) -> Path:
    """Build report.html from the files of a run; return its path."""
    from st_cdgm.evaluation.report.build import build_report

    return build_report(run_dir, title=title)
