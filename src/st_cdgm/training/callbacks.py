"""Callbacks: averaged weights and checkpoints in our own format, early stopping.

The first two are Lightning's; ``EarlyStopping`` is for plain loops.
"""

from __future__ import annotations

import logging
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, WeightAveraging
from torch import Tensor, nn

from st_cdgm.checkpoint.directory import load_weights, save_checkpoint
from st_cdgm.errors import Terminated
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.outputs import remove
from st_cdgm.training.config import CheckpointConfig, LrSchedulerConfig
from st_cdgm.training.early_stopping import EarlyStopping
from st_cdgm.training.resume import EndRequest, StateStore, write_state

__all__ = ["AveragedWeights", "BestCheckpoint", "EarlyStopping", "PlateauSchedule"]

logger = logging.getLogger(__name__)
COPIES = "epoch_[0-9][0-9][0-9][0-9]*"  # of `CheckpointConfig.save_every`


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, with a warm start.

    The decay at update n is min(decay, (1 + n) / (10 + n)), so that short trainings do
    not average over their initial weights.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            n = int(count)
            return old.lerp(new, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, avg_fn=average)

    def averaged(self, module: LightningModule) -> nn.Module:
        """Return the module with averaged weights."""
        average = self._average_model
        return module if average is None else average.module


class _Resumed(Callback):
    """A callback some of whose attributes belong to the state of a training."""

    KEPT: tuple[str, ...]

    def state_dict(self) -> dict[str, Any]:
        """Return their values."""
        return {name: getattr(self, name) for name in self.KEPT}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the values up again."""
        for name in self.KEPT:
            setattr(self, name, state_dict[name])


class PlateauSchedule(_Resumed):
    """Lower the learning rate where the validation loss no longer falls.

    The rule is that of ``torch.optim.lr_scheduler.ReduceLROnPlateau`` (threshold
    ``1e-4``, relative), applied to a factor so that it works beside the warm-up.

    ``lr`` is the peak learning rate, ``monitor`` the score that is followed.
    """

    KEPT = ("best", "waited", "factor")
    THRESHOLD = 1e-4

    def __init__(
        self, settings: LrSchedulerConfig, lr: float, monitor: str = "val_loss"
    ) -> None:
        self.settings, self.lr, self.monitor = settings, lr, monitor
        self.best, self.waited, self.factor = math.inf, 0, 1.0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take note of the validation loss."""
        if trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics.get(self.monitor, math.nan))
        if score < self.best - self.THRESHOLD * abs(self.best) or (
            math.isinf(self.best) and math.isfinite(score)
        ):
            self.best, self.waited = score, 0
        else:
            self.waited += 1

        if self.waited > self.settings.patience:
            least = min(self.settings.min_lr / self.lr, 1.0)
            self.factor = max(self.factor * self.settings.factor, least)
            self.waited = 0
            logger.info("learning rate lowered to %.3g", self.factor * self.lr)
        pl_module.lr_factor = self.factor  # type: ignore[assignment]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand a resumed training its factor."""
        pl_module.lr_factor = self.factor  # type: ignore[assignment]


class BestCheckpoint(_Resumed, Checkpoint):
    """Keep ``checkpoints/best`` (lowest validation score) and ``checkpoints/last``.

    Parameters
    ----------
    directory : Path
        The run's ``checkpoints`` folder.
    averaging, extra : AveragedWeights or None, dict
        Where the weights to store are; additions to the checkpoint's description.
    restore_best : bool
        Let ``last`` hold the best weights instead of the final ones.
    store : StateStore, optional
        With it ``last`` is written after every epoch, with all that is needed to go on.
    state_minutes : float
        Inside an epoch it is written every so many minutes, by a single process.
    request : EndRequest, optional
        Where a wish to end is noted: ``last`` is written, and the training ends.
    kept : CheckpointConfig, optional
        Whether ``best`` is the best, and which copies are kept in ``save_dir``.
    monitor : str
        Name of the validation score.
    """

    KEPT = ("best", "best_epoch")

    def __init__(
        self,
        directory: Path,
        averaging: AveragedWeights | None,
        extra: dict[str, Any] | None = None,
        *,
        restore_best: bool = False,
        store: StateStore | None = None,
        state_minutes: float = math.inf,
        request: EndRequest | None = None,
        kept: CheckpointConfig | None = None,
        monitor: str = "val_loss",
    ) -> None:
        self.monitor = monitor
        self.directory, self.averaging = directory, averaging
        self.restore_best, self.store = restore_best, store
        self.state_seconds, self.request = 60 * state_minutes, request or EndRequest()
        self.kept = kept or CheckpointConfig()
        self.extra = extra or {}
        self.best = math.inf
        self.best_epoch = -1
        self._started = self._stored = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be told of every update; end at once a training that was stopped early."""
        if any(stop.stopped_epoch > 0 for stop in trainer.early_stopping_callbacks):
            trainer.should_stop = True
        updated = partial(self._updated, trainer, pl_module)
        pl_module.updated = updated  # type: ignore[assignment]

    def _updated(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store a state inside an epoch, in time or because the training stops."""
        late = time.monotonic() - self._stored > self.state_seconds
        due = late or self.request.made or trainer.should_stop
        if not due or trainer.world_size > 1 or self.store is None:
            return
        # The end of an epoch has a state of its own, after the validation.
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_state(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the weights if they are the best so far."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        found = trainer.callback_metrics
        metrics = {k: float(v) for k, v in found.items() if k.startswith("val_")}
        score = metrics.get(self.monitor, math.nan)
        minutes = (time.monotonic() - self._started) / 60
        told = ", ".join(f"{k} {v:.4f}" for k, v in metrics.items())
        logger.info("epoch %d, %.1f min: %s", trainer.current_epoch, minutes, told)

        # A NaN is never an improvement.
        if score < self.best and self.kept.save_best:
            self.best, self.best_epoch = score, trainer.current_epoch
            self._save("best", trainer, pl_module, metrics)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the state of a complete epoch, to go on from if need be."""
        complete = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self._log_means(trainer, pl_module)
        if complete and trainer.is_global_zero:
            self._keep_copy(trainer, pl_module)
        if self.store is not None and complete:
            self._save_state(trainer, pl_module)

    def _keep_copy(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights of every so many epochs, and of those the newest."""
        epoch, kept = trainer.current_epoch + 1, self.kept
        if not kept.save_every or epoch % kept.save_every:
            return
        folder = (self.directory.parent / kept.save_dir).absolute()
        self._save(str(folder / f"epoch_{epoch:04d}"), trainer, pl_module, {})
        copies = sorted(folder.glob(COPIES), key=lambda path: (len(path.name), path))
        for old in copies[: -kept.max_checkpoints]:
            remove(old)

    def _log_means(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the epoch's losses before its state, which holds them then."""
        row = pl_module.epoch_means()  # type: ignore[operator]
        row["epoch"] = trainer.current_epoch
        for log in trainer.loggers:
            log.log_metrics(row, trainer.global_step - 1)
            log.save()

    def _save_state(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.directory / "last")
        if trainer.is_global_zero:
            self._save("last", trainer, pl_module, {})
        self._stored = time.monotonic()
        if self.request.made and trainer.world_size == 1:
            raise Terminated

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the final weights; the best ones too if there was no validation."""
        if not trainer.is_global_zero:
            return
        if self.restore_best and self.best_epoch >= 0:
            load_weights(self._model(pl_module), self.directory / "best")
        self._save("last", trainer, pl_module, {})
        if self.best_epoch < 0:
            self._save("best", trainer, pl_module, {})

    def _save(
        self,
        name: str,
        trainer: Trainer,
        pl_module: LightningModule,
        metrics: dict[str, float],
    ) -> None:
        state = self.store.state if self.store and name == "last" else None
        save_checkpoint(
            self.directory / name,
            self._model(pl_module),
            pl_module.preprocessor,  # type: ignore[arg-type]
            extra={
                **self.extra,
                "epoch": trainer.current_epoch,
                "global_step": trainer.global_step,
                "metrics": metrics,
            },
            more=partial(write_state, state=state) if state else None,
        )

    def _model(self, pl_module: LightningModule) -> STCDGM:
        """Return the model whose weights are stored."""
        averaging = self.averaging
        module = pl_module if averaging is None else averaging.averaged(pl_module)
        assert isinstance(module.model, STCDGM)
        return module.model
