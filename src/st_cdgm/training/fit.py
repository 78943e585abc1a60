"""Train the whole chain on a pipeline's training period."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.data import DataLoader

from st_cdgm.checkpoint.build import build_model
from st_cdgm.data.fit.moments import Moments
from st_cdgm.data.task.batch import Batch
from st_cdgm.data.task.datasets import WindowDataset
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import ConfigError, InputError, Terminated
from st_cdgm.models.config import ModelConfig
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.outputs import recover_directory
from st_cdgm.randomness import seed_everything
from st_cdgm.training.callbacks import AveragedWeights, BestCheckpoint, PlateauSchedule
from st_cdgm.training.config import CheckpointConfig, LossConfig, TrainingConfig
from st_cdgm.training.lightning_module import STCDGMModule
from st_cdgm.training.linear_start import start_linear_path
from st_cdgm.training.resume import (
    METRICS,
    STATE,
    EndRequest,
    EpochOrder,
    MetricsLog,
    MetricsState,
    RandomState,
    StateStore,
    complete_rows,
    read_state,
    requests_to_end,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Where the trained model is and how it got there."""

    checkpoint: Path
    best_loss: float
    best_epoch: int
    steps: int
    seconds: float
    parameters: int


def _loader(
    windows: WindowDataset, training: TrainingConfig, *, shuffle: bool, seed: int
) -> DataLoader[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(
        windows,
        batch_size=training.batch_size,
        sampler=EpochOrder(windows, generator) if shuffle else None,
        drop_last=shuffle and len(windows) >= training.batch_size,
        # The data set makes whole batches itself.
        collate_fn=WindowDataset.collate,  # type: ignore[arg-type]
        num_workers=training.num_workers,
        generator=generator,
    )


def _new_model(pipeline: PipelineViews, config: ModelConfig) -> STCDGM:
    """Build the model; the baseline's scale comes from the training period."""
    preprocessor = pipeline.preprocessor
    scale = Moments(preprocessor.valid.shape)
    for part in pipeline.blocks("train"):
        scale.add(part["baseline"])
    mean, std = scale.result("per_variable")  # (C, 1, 1)
    model = build_model(
        preprocessor,
        config,
        baseline_mean=torch.from_numpy(mean[:, 0, 0]),
        baseline_std=torch.from_numpy(std[:, 0, 0]),
    )
    if model.linear is not None:
        start_linear_path(model.linear, pipeline, config.diffusion.linear_start)
    return model


def _amount_std(pipeline: PipelineViews) -> Tensor:
    """Spread of truth minus baseline in physical units over training. ``(C,)``."""
    preprocessor = pipeline.preprocessor
    spread = Moments(preprocessor.valid.shape)
    for part in pipeline.blocks("train"):
        truth, baseline = (
            preprocessor.codec.decode(torch.from_numpy(part[key]))
            for key in ("hr", "baseline")
        )
        spread.add((truth - baseline).numpy())
    return torch.from_numpy(spread.result("per_variable")[1][:, 0, 0])


def _callbacks(
    training: TrainingConfig,
    run_dir: Path,
    extra: dict[str, Any],
    store: StateStore,
    request: EndRequest | None = None,
    kept: CheckpointConfig | None = None,
) -> tuple[list[Callback], BestCheckpoint]:
    averaging = AveragedWeights(training.ema_decay) if training.ema_decay > 0 else None
    stopping = training.early_stopping
    best = BestCheckpoint(
        run_dir / "checkpoints",
        averaging,
        extra,
        restore_best=stopping.enabled and stopping.restore_best,
        store=store,
        state_minutes=training.state_minutes,
        request=request,
        kept=kept,
        monitor=training.monitored,
    )
    callbacks: list[Callback] = [best, LearningRateMonitor("epoch")]
    if averaging is not None:
        callbacks.append(averaging)

    if training.lr_scheduler.enabled:
        callbacks.append(
            PlateauSchedule(training.lr_scheduler, training.lr, training.monitored)
        )
    if stopping.enabled:
        score, least = training.monitored, stopping.min_delta
        callbacks.append(EarlyStopping(score, least, stopping.patience))
    return callbacks, best


def train(
    pipeline: PipelineViews,
    *,
    model: ModelConfig,
    loss: LossConfig,
    training: TrainingConfig,
    run_dir: Path,
    seed: int = 0,
    callbacks: Sequence[Callback] = (),
    extra: dict[str, Any] | None = None,
    resume: bool = False,
    checkpoint: CheckpointConfig | None = None,
) -> TrainingResult:
    """Train and leave ``checkpoints/best``, ``checkpoints/last`` and ``logs``.

    Parameters
    ----------
    pipeline : PipelineViews
        A data pipeline, of NetCDF files or of a Zarr store, with a train and a
        validation period.
    model, loss, training : ModelConfig, LossConfig, TrainingConfig
        Sizes, weights, optimisation.
    run_dir, seed : Path, int
        Run directory; seed of Python, NumPy, torch, shuffling and workers.
    callbacks, extra : sequence of Callback, dict
        Further Lightning callbacks, a progress bar for instance; additions to the
        checkpoint's description.
    resume : bool
        Go on with an interrupted training of the same settings in ``run_dir``, from the
        last state that it left; in one process the result is that of a training that
        was not interrupted.
    checkpoint : CheckpointConfig, optional
        Which copies are kept beside ``last``.

    Raises
    ------
    InputError
        The training or the validation period holds no window of consecutive days; there
        is no state to go on from, or it is damaged.
    ConfigError
        The state to go on from is that of a training with other settings.
    FloatingPointError
        The loss is not finite; the message names the days.
    Terminated
        The process was asked to end (SIGTERM); the state is in ``checkpoints/last``.
    """
    seed_everything(seed)
    windows = pipeline.windows("train", more_days=int(loss.change_weight > 0))
    validation = pipeline.windows("validation", stride=training.validation_stride)
    network = _new_model(pipeline, model)
    loader = _loader(windows, training, shuffle=True, seed=seed)
    total_steps = len(loader) * training.epochs
    module = STCDGMModule(
        network,
        pipeline.preprocessor,
        loss=loss,
        training=training,
        total_steps=total_steps,
        amount_std=_amount_std(pipeline) if loss.block_units == "physical" else None,
    )

    parameters = sum(p.numel() for p in network.parameters())
    logger.info(
        "training: %d windows, %d validation windows, %d updates, %.2f M parameters, "
        "variables %s",
        len(windows),
        len(validation),
        total_steps,
        parameters / 1e6,
        ", ".join(network.names),
    )

    # What an interrupted training goes on from.
    store, request = StateStore(), EndRequest()
    assert isinstance(loader.sampler, EpochOrder)
    settings = _settings(model, loss, training, seed=seed, updates=total_steps)
    module.settings = settings
    start = find_state(run_dir, settings) if resume else None
    keep = checkpoint or CheckpointConfig()
    own, best = _callbacks(training, run_dir, extra or {}, store, request, keep)
    log = MetricsLog(run_dir, name="logs", version="")
    kept = [RandomState(loader.sampler, training.batch_size), MetricsState(log)]
    # Lightning calls `best`, a `Checkpoint`, after all others, early stopping too: the
    # state holds what they have seen at the end of the epoch.
    all_of_them = [*kept, *own, *callbacks]
    trainer = _trainer(training, run_dir, all_of_them, store, log)

    started = time.monotonic()
    with warnings.catch_warnings(), requests_to_end(request):
        # Windows are in memory: more loader processes would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # `EpochOrder` knows which windows are left; Lightning looks elsewhere.
        warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
        if start:
            log.experiment.begin(complete_rows(Path(log.log_dir) / METRICS, start[1]))
        try:
            trainer.fit(
                module,
                loader,
                _loader(validation, training, shuffle=False, seed=seed),
                ckpt_path=start and str(start[0]),
            )
        except SIGTERMException as error:  # of several processes, or at the last moment
            raise Terminated from error
    if request.made:
        raise Terminated

    return TrainingResult(
        checkpoint=run_dir / "checkpoints" / "best",
        best_loss=best.best,
        best_epoch=best.best_epoch,
        steps=trainer.global_step,
        seconds=time.monotonic() - started,
        parameters=parameters,
    )


def _settings(
    model: ModelConfig, loss: LossConfig, training: TrainingConfig, **more: Any
) -> dict[str, Any]:
    """Return what decides about the result, so that only the same is resumed."""
    optimisation = asdict(training)
    for key in ("max_minutes", "num_workers", "state_minutes"):
        del optimisation[key]
    parts = {"model": asdict(model), "loss": asdict(loss), "training": optimisation}
    return parts | more


def has_state(run_dir: Path) -> bool:
    """Whether a training in ``run_dir`` left a state to go on from."""
    last = run_dir / "checkpoints" / "last"
    recover_directory(last)
    return (last / STATE).is_file()


def check_resumable(run_dir: Path) -> Path:
    """Return the checkpoint of a run that a training can go on from.

    Raises
    ------
    InputError
        There is none: the training was not begun, or ended before its first state.
    """
    last = run_dir / "checkpoints" / "last"
    if not has_state(run_dir):
        raise InputError(
            "there is nothing to resume",
            file=last,
            found="no state of a training",
            expected=f"{STATE}, which a training leaves in checkpoints/last",
            remedy="begin the training without --resume (with --overwrite where a run "
            "lies already), or correct run.dir",
        )
    return last


def find_state(run_dir: Path, settings: dict[str, Any]) -> tuple[Path, int]:
    """Return the checkpoint to go on from and its number of updates.

    Raises
    ------
    InputError
        There is none, or it is damaged.
    ConfigError
        It is of a training with other settings.
    """
    last = check_resumable(run_dir)
    state = read_state(last)
    before = state.get("settings", {})
    other = [key for key in settings if before.get(key) != settings[key]]
    if other:
        raise ConfigError(
            "the training to resume had other settings",
            file=last,
            variable=", ".join(other),
            remedy="use the configuration it was begun with, or another run directory",
        )
    step = int(state["global_step"])
    logger.info("resumed in epoch %d after %d updates", state["epoch"], step)
    return last, step


def _trainer(
    training: TrainingConfig,
    run_dir: Path,
    callbacks: list[Callback],
    store: StateStore,
    log: MetricsLog | None = None,
) -> pl.Trainer:
    minutes = training.max_minutes
    loggers: list[Logger] = [log or MetricsLog(run_dir, name="logs", version="")]
    try:
        loggers.append(TensorBoardLogger(run_dir, name="logs", version="tensorboard"))
    except ModuleNotFoundError:
        logger.info("tensorboard is not installed; metrics go to logs/metrics.csv only")

    return pl.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        precision=training.precision,  # type: ignore[arg-type]
        max_epochs=training.epochs,
        max_time=timedelta(minutes=minutes) if minutes else None,
        gradient_clip_val=training.gradient_clipping or None,
        check_val_every_n_epoch=training.validation_every,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[store],
        logger=loggers,
        enable_checkpointing=True,  # by `BestCheckpoint`
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=run_dir,
        log_every_n_steps=training.log_every,
    )
