"""The steps of a run up to its ensemble: directory, data, training, downscaling."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.config.load import save_config
from st_cdgm.runs.checks import check_run_directory
from st_cdgm.runs.console import Session, progress, start_logging
from st_cdgm.runs.provenance import provenance

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config
    from st_cdgm.data.synthetic import SyntheticPaths
    from st_cdgm.data.task.prepared import PipelineViews

logger = logging.getLogger(__name__)


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


def make_climate(
    config: Config, directory: Path, session: Session, *, overwrite: bool = False
) -> SyntheticPaths:
    """Simulate the synthetic climate and write its files."""
    from st_cdgm.data.synthetic import write_synthetic

    with progress(session, "Simulating"):
        return write_synthetic(config.synthetic, directory, overwrite=overwrite)


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
