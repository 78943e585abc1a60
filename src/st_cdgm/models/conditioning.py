"""What the generator is told: causal tokens, causal maps, and the context of the day.

The recurrent network's states reach the generator on two ways. Averaged over the nodes
they are cross-attention tokens, one per intelligible variable: which situation it is.
As maps, interpolated to the fine grid by coordinates, they say where: without them the
generator cannot place anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Conditioning:
    """Conditioning of the generator for B days.

    Attributes
    ----------
    tokens : Tensor
        One vector per intelligible variable. Shape ``(B, Q, D)``.
    state_maps : Tensor
        Causal states on the fine grid. Shape ``(B, C_m, Y, X)``.
    context : Tensor
        Baseline, static fields, season and validity. Shape ``(B, C_c, Y, X)``.
    mean : Tensor, optional
        Standardised residuals that the generator starts from; see `LinearPath`. Shape
        ``(B, C, Y, X)``.
    """

    tokens: Tensor
    state_maps: Tensor
    context: Tensor
    mean: Tensor | None = None

    def maps(self) -> Tensor:
        """Return all maps. Shape ``(B, C_m + C_c, Y, X)``."""
        return torch.cat([self.state_maps, self.context], dim=1)

    def repeat(self, members: int) -> Self:
        """Repeat each day ``members`` times: day 0 first, all its members."""
        return self._changed(lambda part: part.repeat_interleave(members, dim=0))

    def take(self, index: Tensor) -> Self:
        """Return the days at ``index``."""
        return self._changed(lambda part: part[index])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {key: change(part) for key, part in parts.items() if part is not None}
        return replace(self, **given)

    def shuffled(self, order: Tensor) -> Self:
        """Give each day another day's causal states; its own context stays.

        Whatever is lost by this is what the generator takes from the causal states.
        """
        return replace(self.take(order), context=self.context, mean=self.mean)

    def without_states(self, drop: Tensor) -> Self:
        """Put zeros in the place of the causal states of some days.

        The zeros stand for "states unknown" in classifier-free guidance; baseline,
        static fields, season and validity stay.

        Parameters
        ----------
        drop : Tensor
            Which days. Shape ``(B,)``, bool.
        """
        keep = (~drop).to(self.tokens.device)
        return replace(
            self,
            tokens=torch.where(keep[:, None, None], self.tokens, 0.0),
            state_maps=torch.where(keep[:, None, None, None], self.state_maps, 0.0),
        )


class Prepared(Conditioning):
    """A conditioning that a decoder has adapted and checked, and takes as it is."""


class SpatialConditioner(nn.Module):
    """Turn states on the coarse nodes into maps on the fine grid.

    Parameters
    ----------
    num_vars, hidden_dim : int
        Q and H.
    out_channels : int
        Channels C_m of the maps.
    lr_shape, hr_shape : tuple of int
        Coarse and fine grid.
    index : Tensor
        Coarse node of each corner of each fine cell, int64. Shape ``(Y*X, K)``.
    weight : Tensor
        Interpolation weights, rows sum to 1. Shape ``(Y*X, K)``.
    """

    index: Tensor
    weight: Tensor

    def __init__(
        self,
        num_vars: int,
        hidden_dim: int,
        out_channels: int,
        *,
        lr_shape: tuple[int, int],
        hr_shape: tuple[int, int],
        index: Tensor,
        weight: Tensor,
    ) -> None:
        super().__init__()
        self.lr_shape, self.hr_shape = lr_shape, hr_shape
        self.register_buffer("index", index.long())
        self.register_buffer("weight", weight.float())
        self.mix = nn.Conv2d(num_vars * hidden_dim, out_channels, 1)
        # The recurrent network works node by node. These two layers let a fine cell see
        # gradients around it, also from coarse cells outside the fine domain.
        width = out_channels
        self.spread = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate"),
        )

    def forward(self, state: Tensor) -> Tensor:
        """Map states ``(Q, B*N, H)`` to ``(B, C_m, Y, X)``."""
        q, _, h = state.shape
        y, x = self.lr_shape
        coarse = state.reshape(q, -1, y * x, h).permute(1, 0, 3, 2)  # (B, Q, H, N)
        coarse = self.mix(coarse.reshape(-1, q * h, y, x))
        coarse = coarse + self.spread(coarse)  # (B, C_m, y, x)
        return self.interpolate(coarse)

    def interpolate(self, coarse: Tensor) -> Tensor:
        """Interpolate ``(B, C, y, x)`` to the fine grid by coordinates."""
        # A bag of K nodes for every fine cell. Plain indexing is far slower, and its
        # gradient adds up in the order in which threads come: not reproducible.
        fine = F.embedding_bag(
            self.index,
            coarse.flatten(2).flatten(0, 1).T.contiguous(),  # (y*x, B*C)
            per_sample_weights=self.weight.to(coarse.dtype),
            mode="sum",
        )  # (Y*X, B*C)
        return fine.T.reshape(*coarse.shape[:2], *self.hr_shape)


def context_maps(
    baseline: Tensor, static: Tensor, season: Tensor, valid: Tensor
) -> Tensor:
    """Stack what is known of the day without the causal states.

    Parameters
    ----------
    baseline : Tensor
        Standardised encoded baseline. Shape ``(B, C, Y, X)``.
    static : Tensor
        Standardised static fields. Shape ``(C_s, Y, X)``.
    season : Tensor
        Fraction of the year. Shape ``(B,)``.
    valid : Tensor
        Where the target exists. Shape ``(B, C, Y, X)``, bool.

    Returns
    -------
    Tensor
        Shape ``(B, 2 C + C_s + 2, Y, X)``.
    """
    b, _, y, x = baseline.shape
    angle = (2 * math.pi * season).to(baseline.dtype)
    phase = torch.stack([angle.sin(), angle.cos()], dim=1)  # (B, 2)
    return torch.cat(
        [
            baseline,
            static.to(baseline.dtype).expand(b, -1, -1, -1),
            phase[:, :, None, None].expand(-1, -1, y, x),
            valid.to(baseline.dtype),
        ],
        dim=1,
    )
