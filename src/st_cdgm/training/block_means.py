"""Soft consistency of fine fields with the coarse model: area-weighted block means.

The exact constraint is the sampler's; this is its differentiable counterpart in
training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from st_cdgm.models.constraints import Blocks, complete_blocks

__all__ = ["complete_blocks", "loss_block_mean"]


def loss_block_mean(
    fine: Tensor,
    coarse: Tensor,
    blocks: Blocks,
    *,
    valid: Tensor | None = None,
    min_share: float = 0.5,
) -> Tensor:
    """MSE between the block means of a fine field and its coarse counterpart.

    A soft constraint: the decoded fine field should average, by area, to what the
    coarse model has. Only for a variable whose counterpart is the same quantity.

    Parameters
    ----------
    fine : Tensor
        Decoded, in the counterpart's units, finite where valid. Shape ``(..., Y, X)``.
    coarse : Tensor
        Finite. Shape ``(..., y, x)`` with as many leading axes.
    blocks : Blocks
        Coarse cell and area share of each fine cell; see :func:`complete_blocks`.
    valid : Tensor, optional
        Cells that count, bool, broadcastable to ``fine``; all when absent.
    min_share : float
        Blocks of which less is valid do not count: half a cell of land does not have
        the mean of the whole.

    Returns
    -------
    Tensor
        Scalar, in squared units of the field; 0 where no block counts.
    """
    known = torch.ones_like(fine, dtype=torch.bool) if valid is None else valid
    known = known.expand(fine.shape)
    share = blocks.means(known.to(fine.dtype))  # (..., K)
    total = blocks.means(torch.where(known, fine, 0.0))
    error = total / share.clamp(min=1e-12) - coarse.flatten(-2)
    # A share of exactly min_share must not be lost to rounding.
    weight = share * (share >= min_share - 1e-6)
    loss: Tensor = (weight * error**2).sum() / weight.sum().clamp(min=1e-12)
    return loss
