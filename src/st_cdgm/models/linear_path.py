"""A linear path from the large-scale weather to the residual, beside the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearPath(nn.Module):
    """Linear map of leading components of two days to the generator's mean.

    What is linear in the weather of the whole domain need not be learned by the
    network, which is far from linear at first. The components are fixed, the map is
    trained with the rest; until it is set or trained it gives 0.

    Parameters
    ----------
    components : int
        Leading components K of the predictors of one day.
    days : int
        Days they are taken of: 2 where a window has two, else 1.
    inputs : int
        Values of one day's predictors F.
    shape : tuple of int
        Targets, rows and columns ``(C, Y, X)``.
    """

    axes: Tensor
    offset: Tensor

    def __init__(
        self, components: int, days: int, inputs: int, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.days = days
        self.register_buffer("axes", torch.zeros(inputs, components))
        self.register_buffer("offset", torch.zeros(components))
        self.weight = nn.Parameter(torch.zeros(days * components, *shape))

    def features(self, lr: Tensor) -> Tensor:
        """Return the components of the last days. ``(B, T, C, y, x)`` to ``(B, K D)``.

        Those of the last day come first; a window of one day repeats it.
        """
        count = lr.shape[1]
        days = [lr[:, max(count - 1 - lag, 0)].flatten(1) for lag in range(self.days)]
        return torch.cat([day @ self.axes - self.offset for day in days], dim=1)

    def forward(self, lr: Tensor) -> Tensor:
        """Return standardised residuals. ``(B, T, C_lr, y, x)`` to ``(B, C, Y, X)``."""
        return torch.einsum("bk,kcyx->bcyx", self.features(lr), self.weight)
