"""Losses, the training loop and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from st_cdgm._lazy import import_name

if TYPE_CHECKING:
    from st_cdgm.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from st_cdgm.training.discovery import discover_edges, judge_model
    from st_cdgm.training.early_stopping import EarlyStopping
    from st_cdgm.training.fit import TrainingResult, train
    from st_cdgm.training.training_loop import train_epoch

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "TrainingResult",
    "discover_edges",
    "judge_model",
    "load_checkpoint",
    "save_checkpoint",
    "train",
    "train_epoch",
]

_HOME = {
    "Checkpoint": "st_cdgm.training.checkpoint",
    "EarlyStopping": "st_cdgm.training.early_stopping",
    "TrainingResult": "st_cdgm.training.fit",
    "discover_edges": "st_cdgm.training.discovery",
    "judge_model": "st_cdgm.training.discovery",
    "load_checkpoint": "st_cdgm.training.checkpoint",
    "save_checkpoint": "st_cdgm.training.checkpoint",
    "train": "st_cdgm.training.fit",
    "train_epoch": "st_cdgm.training.training_loop",
}


def __getattr__(name: str) -> Any:
    return import_name(__name__, name, _HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
