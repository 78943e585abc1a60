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

from st_cdgm.errors import ConfigError, GridMismatchError
from st_cdgm.physics.blocks import Blocks


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
    ordered, nonnegative : sequence of int
        Channels whose values are ordered, smallest first (``tasmin, tasmax``), and
        those that are >= 0 (``pr``).
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

    # Back into the cells that they came from, but for blocks that are free.
    out = field.flatten(-2).clone()
    changed = torch.where(bound[..., None], unsorted, out[..., at])
    out[..., table[there]] = changed[..., there]
    return out.reshape(field.shape)
