"""Losses, the training loop and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_cdgm._lazy import attach

if TYPE_CHECKING:
    from st_cdgm.checkpoint.directory import Checkpoint as Checkpoint
    from st_cdgm.checkpoint.directory import load_checkpoint as load_checkpoint
    from st_cdgm.checkpoint.directory import save_checkpoint as save_checkpoint
    from st_cdgm.training.early_stopping import EarlyStopping as EarlyStopping
    from st_cdgm.training.fit import TrainingResult as TrainingResult
    from st_cdgm.training.fit import train as train
    from st_cdgm.training.training_loop import train_epoch as train_epoch

__getattr__, __dir__, __all__ = attach(__name__)
