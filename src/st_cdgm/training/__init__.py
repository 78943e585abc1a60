"""Losses, the training loop and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.checkpoint.directory import (
        Checkpoint,
        load_checkpoint,
        save_checkpoint,
    )
    from st_cdgm.training.early_stopping import EarlyStopping
    from st_cdgm.training.fit import TrainingResult, train
    from st_cdgm.training.training_loop import train_epoch

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "TrainingResult",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "train_epoch",
]

_HOME = {
    "Checkpoint": "st_cdgm.checkpoint.directory",
    "EarlyStopping": "st_cdgm.training.early_stopping",
    "TrainingResult": "st_cdgm.training.fit",
    "load_checkpoint": "st_cdgm.checkpoint.directory",
    "save_checkpoint": "st_cdgm.checkpoint.directory",
    "train": "st_cdgm.training.fit",
    "train_epoch": "st_cdgm.training.training_loop",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
