"""What a trained model is worth: references, scores, ablations, graph, report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_cdgm._version import __version__
from st_cdgm.outputs import to_json, write_bytes
from st_cdgm.redaction import redacted
from st_cdgm.runs.console import Session, progress

if TYPE_CHECKING:
    import xarray as xr

    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.days import FieldArrays
    from st_cdgm.data.task.prepared import PipelineViews
    from st_cdgm.evaluation.scorecard import Scorecard

logger = logging.getLogger(__name__)
MODEL = "st-cdgm"
FAILURES = "failures.json"
SCORES = "the scores"


class Analyses:
    """What is made of a run after its long part, each by itself.

    ``failures`` are those that failed, and why; ``failures.json`` tells the report.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / FAILURES
        self.path.unlink(missing_ok=True)
        self.failures: dict[str, Exception] = {}

    @contextmanager
    def spared(self, name: str) -> Iterator[None]:
        """Take note of a failure inside and go on."""
        try:
            yield
        except Exception as error:
            logger.warning("%s could not be computed", name, exc_info=error)
            self.failures[name] = error
            why = {
                key: redacted(f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
                for key, e in self.failures.items()
            }
            write_bytes(self.path, (to_json(why) + "\n").encode())

    def check_scored(self) -> None:
        """Raise what kept the scores, the aim of a run, from being computed."""
        if error := self.failures.get(SCORES):
            raise error


@dataclass(frozen=True, kw_only=True)
class FittedReference:
    """What was written of a reference method, and what a protocol says of it.

    Attributes
    ----------
    path : Path
        Its ensemble of the scored test days.
    history, candidates : int
        As in :class:`st_cdgm.references.base.Reference`.
    """

    path: Path
    history: int
    candidates: int


def run_references(
    config: Config, pipeline: PipelineViews, run_dir: Path, session: Session
) -> dict[str, FittedReference]:
    """Fit the reference methods on the training days; write their test ensembles."""
    written = {}
    names = config.evaluation.references
    with progress(session, "References", len(names)) as advance:
        for name in names:
            path = run_dir / "references" / f"{name}.nc"
            path.parent.mkdir(parents=True, exist_ok=True)
            written[name] = run_reference(config, pipeline, name, path)
            advance(1, None)
    return written


def run_reference(
    config: Config, pipeline: PipelineViews, name: str, path: Path
) -> FittedReference:
    """Fit one reference method and write its ensemble of the scored test days.

    It learns from the training days; the validation days, if any, are for its tuning.
    """
    from st_cdgm.inference.writer import EnsembleWriter
    from st_cdgm.references.base import fit_reference

    has = "validation" in config.data.splits.names()
    reference = fit_reference(
        name,
        pipeline.arrays("train"),
        pipeline.preprocessor,
        pipeline.arrays("validation") if has else None,
    )

    # Without the truth: a reference could not look at it if it wanted to.
    test = replace(scored_days(config, pipeline), hr=None)
    members, seed = config.inference.members, config.run.seed
    fields = reference.predict(test, members=members, seed=seed)
    with EnsembleWriter(
        path,
        targets=pipeline.preprocessor.targets,
        grid=pipeline.preprocessor.hr_grid,
        calendar=test.calendar,
        members=range(fields.shape[1]),
        networks=reference.networks,
        attrs={"title": f"Reference {name}", "source": f"st-cdgm {__version__}"},
    ) as writer:
        writer.append(test.day, fields)

    logger.info("reference %s: %d members", name, fields.shape[1])
    return FittedReference(
        path=path, history=reference.history, candidates=reference.candidates
    )


def scored_days(config: Config, pipeline: PipelineViews) -> FieldArrays:
    """Return every ``evaluation.stride``-th test day, with its truth."""
    return pipeline.arrays("test").select(slice(None, None, config.evaluation.stride))


def score_test(
    config: Config,
    pipeline: PipelineViews,
    ensemble: Path | None,
    references: Mapping[str, FittedReference],
    output: Path | None,
    session: Session,
) -> Scorecard:
    """Score the model's ensemble, if any, and the references on the scored test days.

    Without ``output`` nothing is written.
    """
    from st_cdgm.evaluation.scorecard import evaluate_ensembles

    forecasts = {} if ensemble is None else {MODEL: ensemble}
    history = {} if ensemble is None else {MODEL: config.data.seq_len}
    forecasts |= {name: fitted.path for name, fitted in references.items()}
    history |= {name: fitted.history for name, fitted in references.items()}
    tuned = {name: fitted.candidates for name, fitted in references.items()}

    days = scored_days(config, pipeline)
    assert days.hr is not None
    protocol: dict[str, Any] = {
        "run": config.run.name,
        "seed": config.run.seed,
        "splits": config.data.splits.describe(),
        "test": pipeline.preprocessor.periods["test"],
        "stride": config.evaluation.stride,
        "baseline": pipeline.preprocessor.baseline.strategy,
        "history": f"days of predictors: {_listed(history)}",
        "tuning": f"settings compared, none on test days: {_listed(tuned)}",
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
            output=output,
            metrics=config.evaluation.chosen_metrics(),
        )


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items()) or "none"


def _usual(days: FieldArrays, pipeline: PipelineViews) -> Any:
    """Return the mean of the training days at each day's season. (T, C, Y, X)."""
    from st_cdgm.data.fit.baseline.climatology import ClimatologyBaseline
    from st_cdgm.data.fit.baseline.contract import BaselineTask

    train, prep = pipeline.arrays("train"), pipeline.preprocessor
    truth = train.hr
    assert truth is not None
    task = BaselineTask(
        targets=prep.targets,
        channels=prep.channels,
        lr_grid=prep.lr_grid,
        hr_grid=prep.hr_grid,
        blocks=lambda: iter([(train.lr, train.season, truth)]),
        found={},
    )
    return ClimatologyBaseline.build(task).predict(days.lr, days.season)


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


def export_weights(config: Config, checkpoint: Path, run_dir: Path) -> None:
    """Write the weights of the causal network as weights.json, .csv and .png.

    They say how the network uses the edges that it was given, not which edges there
    are. Where no graph could be tested they are all there is, and written as the graph.
    """
    from st_cdgm.checkpoint.directory import load_checkpoint
    from st_cdgm.evaluation.graph.dag import export_dag

    model = load_checkpoint(checkpoint).model
    tested = (run_dir / "dag.json").is_file()
    export_dag(
        run_dir,
        model.effective_dag().detach().cpu().numpy(),
        model.names,
        constraint=config.loss.dag.constraint,
        possible=model.possible_edges,
        name="weights" if tested else "dag",
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
    from st_cdgm.training.ablation import Ablations

    loaded = load_checkpoint(checkpoint)
    ablations = Ablations(
        model=loaded.model,
        preprocessor=loaded.preprocessor,
        windows=pipeline.windows(
            "validation", stride=config.training.validation_stride
        ),
        members=config.training.validation_members,
        batch_size=config.training.batch_size,
        seed=config.run.seed,
    )
    document: dict[str, Any] = {"period": pipeline.preprocessor.periods["validation"]}

    # Each on the same windows, with the same random numbers.
    with progress(session, "Ablations", 2) as advance:
        for name, ablation in (
            ("shuffled", ablations.shuffle_states),
            ("without_edges", ablations.remove_edges),
        ):
            results = ablation()
            document[name] = [asdict(result) for result in results]
            for result in results:
                logger.info(
                    "%s: loss of %s %+.1f %% (95 %% interval %+.1f to %+.1f)",
                    name.replace("_", " "),
                    result.variable,
                    *(100 * x for x in (result.increase, result.low, result.high)),
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
    session: Session,
    **options: Any,
) -> Scorecard:
    """Score an ensemble file against a truth file; options of ``evaluate_files``."""
    from st_cdgm.evaluation.scorecard import evaluate_files

    with progress(session, "Scoring"):
        return evaluate_files(prediction, truth, output=output, **options)


def write_report(run_dir: Path, *, title: str | None = None) -> Path:
    """Build report.html from the files of a run; return its path."""
    from st_cdgm.evaluation.report.build import build_report

    return build_report(run_dir, title=title)


# What the names of figures begin with.
FIGURES = ("maps", "spectra", "ranks", "quantiles", "graph", "training")


def is_figure(path: Path) -> bool:
    """Whether a file is named as those of :func:`draw_figures`."""
    return path.name.partition("-")[0] in FIGURES


def draw_figures(
    directory: Path, *, session: Session, folder: str = "figures"
) -> list[Path]:
    """Draw the figures of the report as files; return them."""
    from st_cdgm.evaluation.report.export import write_figures

    with progress(session, "Figures"):
        return write_figures(directory, folder)
