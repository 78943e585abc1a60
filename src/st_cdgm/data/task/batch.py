"""The one container in which windows travel from the data layer to the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Batch:
    """A batch of training or inference windows.

    Shapes: B batch, T time, C target channel, C_lr predictor channel, Y/X fine grid,
    y/x coarse grid.

    Attributes
    ----------
    lr : Tensor
        Standardised predictors without NaN. Shape ``(B, T, C_lr, y, x)``.
    baseline : Tensor
        Encoded deterministic baseline. Shape ``(B, T, C, Y, X)``.
    season : Tensor
        Fraction of the year elapsed, in [0, 1). Shape ``(B, T)``.
    time : Tensor
        Calendar days as the integers YYYYMMDD. Shape ``(B, T)``, int64.
    static : Tensor
        Standardised static fine fields, the same for the whole batch.
        Shape ``(C_s, Y, X)``; ``C_s`` may be 0.
    valid : Tensor
        Where the target exists. At inference: where the model was trained.
        Shape ``(B, T, C, Y, X)``, bool.
    truth : Tensor or None
        Encoded truth, the baseline where not valid; None at inference.
        Shape ``(B, T, C, Y, X)``.
    """

    lr: Tensor
    baseline: Tensor
    season: Tensor
    time: Tensor
    static: Tensor
    valid: Tensor
    truth: Tensor | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return the batch on ``device``."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if value is not None
        }
        return Batch(**moved)

    def neighbours(self) -> Batch:
        """Cut windows of T + 1 days into two of T days: all earlier, then all later.

        They end on neighbouring days.
        """

        def cut(values: Tensor) -> Tensor:
            return torch.cat([values[:, :-1], values[:, 1:]])

        parts = {
            name: cut(value)
            for name, value in vars(self).items()
            if value is not None and name != "static"
        }
        return Batch(**parts, static=self.static)

    @property
    def batch_size(self) -> int:
        """Number of windows B."""
        return int(self.lr.shape[0])
