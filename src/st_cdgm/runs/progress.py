"""Training progress on the terminal, as a Lightning callback."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from st_cdgm.runs.console import Advance


class TrainingProgress(Callback):
    """Advance a bar by one for every update."""

    def __init__(self, advance: Advance) -> None:
        self.advance = advance

    def on_train_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> None:
        """Tell the bar how many updates there will be."""
        self.advance(0, int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Advance."""
        self.advance(1, None)
