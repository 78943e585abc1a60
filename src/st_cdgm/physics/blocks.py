"""Areal means: which fine cells make which coarse one, and with which weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from st_cdgm.errors import GridMismatchError


@dataclass(frozen=True)
class Blocks:
    """Which coarse cell each fine cell belongs to, and with which weight.

    Attributes
    ----------
    index : Tensor
        Number of the coarse cell, -1 for none. Shape ``(Y, X)``, int64.
    weight : Tensor
        Share of the block's valid area; sums to 1 in each block that has any. Shape
        ``(Y, X)``, float64.
    count : int
        Number K of coarse cells.
    """

    index: Tensor
    weight: Tensor
    count: int

    @classmethod
    def from_index(
        cls,
        index: Tensor,
        count: int,
        *,
        area: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Blocks:
        """Make blocks from the coarse cell of each fine cell.

        ``index`` counts from 0 to ``count - 1``, -1 outside; ``area`` is in any unit,
        by default equal. Cells that are not ``valid`` have no value and belong to no
        block. Shape ``(Y, X)`` each.

        Raises
        ------
        GridMismatchError
            Shapes differ, a number is out of range, or an area is not positive.
        """
        inside = index >= 0 if valid is None else (index >= 0) & valid.bool()
        area = torch.ones(index.shape) if area is None else area
        if area.shape != index.shape or inside.shape != index.shape:
            raise GridMismatchError(
                "areas and blocks are on different grids",
                found=f"{tuple(area.shape)} and {tuple(index.shape)}",
            )
        if bool((index >= count).any()) or not bool((area[inside] > 0).all()):
            raise GridMismatchError(
                "blocks need numbers below their count and positive areas",
                found=f"largest number {int(index.max())}, "
                f"smallest area {float(area.min()):g}",
                expected=f"numbers below {count}, areas above 0",
            )

        chosen = torch.where(inside, index.long(), -1)
        mass = torch.where(inside, area.double(), 0.0)
        total = cls(chosen, mass, count).totals(mass)
        share = mass / torch.where(total > 0, total, 1.0)[chosen.clamp(min=0)]
        return cls(chosen, share, count)

    @property
    def filled(self) -> Tensor:
        """Blocks that have a valid cell. Shape ``(K,)``, bool."""
        return self.totals(torch.ones_like(self.weight)) > 0

    def totals(self, fields: Tensor) -> Tensor:
        """Add up the cells of each block: ``(..., Y, X)`` -> ``(..., K)``."""
        inside = (self.index >= 0).flatten().to(fields.device)
        index = self.index.flatten().to(fields.device)[inside]
        out = fields.new_zeros(*fields.shape[:-2], self.count)
        return out.index_add(-1, index, fields.flatten(-2)[..., inside])

    def means(self, fields: Tensor) -> Tensor:
        """Return area-weighted block means: ``(..., Y, X)`` -> ``(..., K)``.

        0 for a block without a valid cell; NaN if one of its cells is NaN.
        """
        return self.totals(fields * self.weight.to(fields))

    def spread(self, blocks: Tensor) -> Tensor:
        """Give each fine cell its block's value, 0 outside: ``(..., K)`` -> fine."""
        index = self.index.to(blocks.device)
        fine = blocks[..., index.clamp(min=0)]
        return torch.where(index >= 0, fine, torch.zeros_like(fine))

    def cells(self) -> Tensor:
        """Return the flat indices of each block's cells, filled up with -1.

        Shape ``(K, cells of the largest block)``.
        """
        index = self.index.flatten()
        inside = index[index >= 0]
        size = torch.bincount(inside, minlength=self.count)
        # Cells of no block come first.
        order = torch.argsort(index, stable=True)[len(index) - len(inside) :]
        rows = torch.split(order, size.tolist())
        return pad_sequence(list(rows), batch_first=True, padding_value=-1)


def pool_valid(values: Tensor, valid: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Average the valid cells of blocks of ``scale`` cells; 0: of the whole domain.

    Of ``values`` and ``valid`` of shapes ``(..., Y, X)``, broadcastable against each
    other, return the block means (0 where a block has no valid cell) and the share of a
    whole block that is valid, each ``(..., ceil(Y/scale), ceil(X/scale))``: a block
    that the border cuts counts by its cells. For ``scale`` 1 both as they are.
    """
    if scale == 1:
        return values, valid

    rows, columns = (scale or size for size in values.shape[-2:])
    pad = (0, -values.shape[-1] % columns, 0, -values.shape[-2] % rows)

    def pool(x: Tensor) -> Tensor:
        flat = F.pad(x.reshape(-1, 1, *x.shape[-2:]), pad)
        pooled = F.avg_pool2d(flat, (rows, columns))
        return pooled.reshape(*x.shape[:-2], *pooled.shape[-2:])

    share = pool(valid)
    return pool(values * valid) / share.clamp(min=1e-6), share


def complete_blocks(
    parent: Tensor,
    shape: Sequence[int],
    count: int,
    *,
    area: Tensor,
    valid: Tensor | None = None,
    least: float = 0.5,
) -> Blocks:
    """Group fine cells by coarse cell, without those that the fine domain cuts.

    ``parent`` is the coarse cell of each fine cell of a grid ``(Y, X)``, row by row,
    from 0 to ``count - 1``, shape ``(Y*X,)``; ``area`` and ``valid`` are those of
    :meth:`Blocks.from_index`. A block with less than the share ``least`` of a typical
    (the median) block's area is left out: its mean is that of a part of the coarse
    cell.
    """
    index = parent.reshape(int(shape[0]), int(shape[1])).long()
    totals = Blocks(index, area, count).totals
    size = totals(area)
    typical = size[size > 0].median()
    if valid is not None:
        size = totals(torch.where(valid, area, 0.0))
    whole = size >= least * typical
    chosen = torch.where(whole[index], index, -1)
    return Blocks.from_index(chosen, count, area=area, valid=valid)


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
    fine, coarse : Tensor
        In the same units, finite where valid. Shapes ``(..., Y, X)`` and ``(..., y,
        x)`` with as many leading axes.
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
