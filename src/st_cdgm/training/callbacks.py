"""Callbacks: averaged weights and checkpoints in our own format, early stopping.

The first two are Lightning's; ``EarlyStopping`` is for plain loops.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, WeightAveraging
from torch import Tensor

from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.training.checkpoint import save_checkpoint
from st_cdgm.training.early_stopping import EarlyStopping

__all__ = ["AveragedWeights", "BestCheckpoint", "EarlyStopping"]

logger = logging.getLogger(__name__)


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

    def averaged(self, module: pl.LightningModule) -> STCDGM:
        """Return the model with averaged weights."""
        average = self._average_model
        source = module if average is None else average.module
        model = source.model
        assert isinstance(model, STCDGM)
        return model


class BestCheckpoint(Callback):
    """Keep ``checkpoints/best`` (lowest validation loss) and ``checkpoints/last``.

    Parameters
    ----------
    directory : Path
        The run's ``checkpoints`` folder.
    averaging : AveragedWeights or None
        Where the weights to store are.
    extra : dict
        Added to the checkpoint's description.
    """

    def __init__(
        self,
        directory: Path,
        averaging: AveragedWeights | None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.directory, self.averaging = directory, averaging
        self.extra = extra or {}
        self.best = math.inf
        self.best_epoch = -1
        self._started = time.monotonic()

    def on_validation_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Store the weights if they are the best so far."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {
            key: float(value)
            for key, value in trainer.callback_metrics.items()
            if key.startswith("val_")
        }
        score = metrics.get("val_loss", math.nan)
        minutes = (time.monotonic() - self._started) / 60
        logger.info(
            "epoch %d, %.1f min: %s",
            trainer.current_epoch,
            minutes,
            ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()),
        )
        # A NaN is never an improvement.
        if score < self.best:
            self.best, self.best_epoch = score, trainer.current_epoch
            self._save("best", trainer, pl_module, metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store the final weights; the best ones too if there was no validation."""
        if trainer.is_global_zero:
            self._save("last", trainer, pl_module, {})
            if self.best_epoch < 0:
                self._save("best", trainer, pl_module, {})

    def _save(
        self,
        name: str,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        metrics: dict[str, float],
    ) -> None:
        model = (
            self.averaging.averaged(pl_module) if self.averaging else pl_module.model
        )
        save_checkpoint(
            self.directory / name,
            model,  # type: ignore[arg-type]
            pl_module.preprocessor,  # type: ignore[arg-type]
            extra={
                **self.extra,
                "epoch": trainer.current_epoch,
                "global_step": trainer.global_step,
                "metrics": metrics,
            },
        )
