"""Block means that must hold: exactly while sampling, or on decoded fields.

Inside the sampler the constraint is linear in what is sampled, the standardised
residual x0 of an encoded field f = b + s x0: with blocks of area weights w,
sum_i w_i f_i = c. `BlockMeanProjection` moves each estimate of x0 to the nearest point
that satisfies it, so that the sample satisfies it to rounding. For white x0 (more
generally, if the blocks' weights are eigenvectors of the covariance of x0) the
projected denoiser is the exact denoiser of x0 given the block means, and the sampler
draws from that conditional distribution. Otherwise the block means are still exact but
the distribution within the blocks is an approximation: for a correlation length of half
a block and block means 2.3 standard deviations off, the mean of a cell is wrong by up
to 0.17 of its conditional standard deviation, its spread by less than 3 %.

A codec that is not linear (root of precipitation, softplus of temperature increments)
has no linear constraint in encoded space: `match_block_means` adjusts decoded fields.
Adding to a temperature moves all that are ordered above it; increments and
precipitation are scaled, so that order, signs and dry cells survive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.errors import ConfigError, GridMismatchError, check_least


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

        Parameters
        ----------
        index : Tensor
            From 0 to ``count - 1``, -1 outside. Shape ``(Y, X)``.
        area : Tensor, optional
            Cell areas in any unit; default equal. Shape ``(Y, X)``.
        valid : Tensor, optional
            Cells that have a value; the others belong to no block. Shape ``(Y, X)``.

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

    @classmethod
    def from_factor(
        cls,
        shape: tuple[int, int],
        factor: int,
        *,
        area: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Blocks:
        """Make square blocks of ``factor`` cells, row by row; the last may be cut."""
        check_least("factor", factor, 1)
        rows, columns = (-(-n // factor) for n in shape)
        y = torch.arange(shape[0]) // factor
        x = torch.arange(shape[1]) // factor
        index = y[:, None] * columns + x[None, :]
        return cls.from_index(index, rows * columns, area=area, valid=valid)

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
        order = torch.argsort(index, stable=True)
        order = order[index[order] >= 0]
        block = index[order]
        size = torch.bincount(block, minlength=self.count)
        first = torch.cumsum(size, 0) - size
        table = index.new_full((self.count, int(size.max())), -1)
        place = torch.arange(len(order), device=index.device) - first[block]
        table[block, place] = order
        return table


def pool_valid(values: Tensor, valid: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Average the valid cells of blocks of ``scale`` cells; 0: of the whole domain.

    Parameters
    ----------
    values, valid : Tensor
        Shapes ``(..., Y, X)``, broadcastable against each other.

    Returns
    -------
    tuple of Tensor
        Block means (0 where a block has no valid cell) and the share of a whole block
        that is valid, each ``(..., ceil(Y/scale), ceil(X/scale))``: a block that the
        border cuts counts by its cells. For ``scale`` 1 both as they are.
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

    Parameters
    ----------
    parent : Tensor
        Coarse cell of each fine cell, row by row. Shape ``(Y*X,)``, int64.
    shape : sequence of int
        Fine grid ``(Y, X)``.
    count : int
        Number of coarse cells.
    area : Tensor
        Of the fine cells, in any unit. Shape ``(Y, X)``.
    valid : Tensor, optional
        Fine cells that have a value; the others belong to no block. Shape ``(Y, X)``.
    least : float
        A block with less than this share of a typical (the median) block's area is
        left out: its mean is that of a part of the coarse cell.
    """
    index = parent.reshape(int(shape[0]), int(shape[1])).long()
    size = Blocks(index, area, count).totals(area)
    typical = size[size > 0].median()
    if valid is not None:
        size = Blocks(index, area, count).totals(torch.where(valid, area, 0.0))
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


@dataclass(frozen=True)
class BlockMeanProjection:
    r"""Orthogonal projection of residuals onto given block means of the field.

    With the row :math:`a_i = w_i s_i` of a block and the residual mean
    :math:`r = c - \sum_i w_i b_i` it must have,

    .. math:: x_i \leftarrow x_i + \frac{a_i}{\sum_j a_j^2}
              \left(r - \sum_j a_j x_j\right).

    Cells outside the blocks, and blocks whose ``coarse`` is NaN, stay as they are.

    Parameters
    ----------
    blocks : Blocks
        Blocks and area weights.
    coarse : Tensor
        Block means c of the encoded field; NaN: free. Shape ``(B, C, K)`` or
        ``(B, C, y, x)``.
    baseline : Tensor, optional
        Encoded baseline b, default 0. Shape ``(B, C, Y, X)``.
    scale : Tensor or float
        Standard deviation s of the residual. Broadcastable to ``(C, Y, X)``.

    Raises
    ------
    GridMismatchError
        The coarse field has another number of cells than there are blocks.
    """

    blocks: Blocks
    coarse: Tensor
    baseline: Tensor | None = None
    scale: Tensor | float = 1.0

    def __post_init__(self) -> None:
        if self.coarse.ndim == 4:
            object.__setattr__(self, "coarse", self.coarse.flatten(2))
        if self.coarse.shape[-1] != self.blocks.count:
            raise GridMismatchError(
                "the coarse field does not fit the blocks",
                found=f"{self.coarse.shape[-1]} coarse cells",
                expected=f"{self.blocks.count} blocks",
            )

    def __call__(self, x0: Tensor) -> Tensor:
        """Project estimates ``(B, M, C, Y, X)``."""
        scale = torch.as_tensor(self.scale, dtype=x0.dtype, device=x0.device)
        row = self.blocks.weight.to(x0) * scale * x0.new_ones(x0.shape[-3:])
        norm = self.blocks.totals(row.square())  # (C, K)
        goal = self.coarse.to(x0.device, torch.float64)
        if self.baseline is not None:
            goal = goal - self.blocks.means(self.baseline.to(goal))
        missing = goal.to(x0.dtype)[:, None] - self.blocks.totals(row * x0)
        step = missing / torch.where(norm > 0, norm, 1.0)
        step = torch.where(torch.isfinite(missing) & (norm > 0), step, 0.0)
        return x0 + row * self.blocks.spread(step)


def match_block_means(
    fields: Tensor,
    coarse: Tensor,
    blocks: Blocks,
    *,
    ordered: Sequence[int] = (),
    nonnegative: Sequence[int] = (),
    wet_threshold: float | Mapping[int, float] = 0.0,
) -> Tensor:
    """Adjust decoded fields until their block means are the given ones.

    ==============  ========================================  ========================
    channels        adjustment per block                      kept
    ==============  ========================================  ========================
    ``ordered``     coldest: a shift; differences between     order, gradients of the
                    neighbours in the order: a factor         coldest, signs
    nonnegative     a factor; cells that fall below the wet   dry cells stay dry, rank
                    threshold become 0 and the rest makes up  of the wet cells
    others          a shift                                   gradients
    ==============  ========================================  ========================

    Parameters
    ----------
    fields : Tensor
        Decoded fields. Shape ``(B, ..., C, Y, X)``, for instance with members.
    coarse : Tensor
        Block means; NaN: free. Shape ``(B, ..., C, K)`` or with fewer leading axes.
    blocks : Blocks
        Blocks and area weights.
    ordered : sequence of int
        Channels whose values are ordered, smallest first (``tasmin, tasmax``).
    nonnegative : sequence of int
        Channels that are >= 0 (``pr``).
    wet_threshold : float or mapping of int to float
        Smallest amount that is not 0, in the fields' units: one for all ``nonnegative``
        channels, or one for each (0 where none is given).

    Returns
    -------
    Tensor
        float64. A block that must be wet but has no wet cell becomes uniform. A block
        whose amount cannot be expressed by cells at or above the threshold becomes
        dry; its mean is then too small, by less than ``wet_threshold`` times the weight
        of its wettest cell (by less than the threshold itself if it has no wet cell).
        A block with a NaN in a valid cell is left alone.

    Raises
    ------
    ConfigError
        Coarse means that contradict the order, or are negative.
    """
    wide, coarse = fields.double(), coarse.double()
    channels = list(wide.unbind(-3))
    means = list(coarse.unbind(-2))
    _check_coarse(means, ordered, nonnegative)
    plain = set(range(len(channels))) - set(ordered[1:]) - set(nonnegative)
    for c in plain:
        channels[c] = _shifted(channels[c], means[c], blocks)

    originals = wide.unbind(-3)
    for lower, upper in pairwise(ordered):
        step = originals[upper] - originals[lower]
        scaled = _scaled(step, means[upper] - means[lower], blocks, 0.0)
        channels[upper] = channels[lower] + scaled
    for c in nonnegative:
        one = wet_threshold
        least = one.get(c, 0.0) if isinstance(one, Mapping) else one
        channels[c] = _scaled(channels[c], means[c], blocks, least)

    return torch.stack(channels, dim=-3)


def _check_coarse(
    means: list[Tensor], ordered: Sequence[int], nonnegative: Sequence[int]
) -> None:
    for c in nonnegative:
        if bool((means[c] < 0).any()):
            raise ConfigError(
                "a coarse amount is negative",
                variable=f"channel {c}",
                found=float(means[c][means[c] < 0].min()),
                expected=">= 0",
            )

    for lower, upper in pairwise(ordered):
        if bool((means[upper] < means[lower]).any()):
            raise ConfigError(
                "coarse means contradict the order of their channels",
                variable=f"channels {lower} and {upper}",
                found=f"{int((means[upper] < means[lower]).sum())} blocks",
                remedy="give NaN there, which leaves those blocks free",
            )


def _shifted(field: Tensor, mean: Tensor, blocks: Blocks) -> Tensor:
    missing = mean.to(field.device) - blocks.means(field)
    bound = torch.isfinite(missing) & blocks.filled.to(field.device)
    return field + blocks.spread(torch.where(bound, missing, 0.0))


def _scaled(field: Tensor, mean: Tensor, blocks: Blocks, threshold: float) -> Tensor:
    """Scale each block's cells to its mean, the lightest ones to 0.

    With the cells in falling order, keeping the first k needs the factor
    ``mean / sum of those``. The lightest cell kept falls with k, so that the largest
    admissible k is the number of admissible ones.
    """
    table = blocks.cells().to(field.device)  # (K, n)
    there = table >= 0
    at = table.clamp(min=0)
    weight = torch.where(there, blocks.weight.to(field).flatten()[at], 0.0)
    values = torch.where(there, field.flatten(-2)[..., at], 0.0)  # (..., K, n)
    bound = torch.isfinite(mean.to(field.device) + values.sum(-1)) & there.any(-1)
    goal = torch.where(bound, mean.to(field.device), 0.0)[..., None]
    dry = (values <= 0).all(-1, keepdim=True)
    # A block that must be wet but is dry becomes uniform, or stays dry.
    values = torch.where(dry & there & (goal >= threshold), 1.0, values)
    amount, order = values.nan_to_num().sort(dim=-1, descending=True)
    kept = torch.cumsum(amount * weight.expand_as(values).gather(-1, order), dim=-1)
    factor = goal / torch.where(kept > 0, kept, torch.inf)
    admissible = (factor * amount >= threshold) & (kept > 0)
    number = admissible.sum(-1, keepdim=True)
    chosen = factor.gather(-1, (number - 1).clamp(min=0))
    rank = torch.arange(values.shape[-1], device=field.device)
    scaled = torch.where(rank < number, amount * chosen, 0.0)
    unsorted = torch.zeros_like(scaled).scatter(-1, order, scaled)

    return _put_back(field, unsorted, table, bound)


def _put_back(field: Tensor, values: Tensor, table: Tensor, bound: Tensor) -> Tensor:
    """Write the cells ``(..., K, n)`` of the bound blocks into the field."""
    change = (table >= 0) & bound[..., None]
    flat = field.flatten(-2)
    source = torch.where(change, values, flat[..., table.clamp(min=0)])
    there = (table >= 0).flatten()
    out = flat.clone()
    out[..., table.flatten()[there]] = source.flatten(-2)[..., there]
    return out.reshape(field.shape)
