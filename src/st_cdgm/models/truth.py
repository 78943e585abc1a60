"""What the generator learns of some days, and the random numbers it learns it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from st_cdgm.models.denoiser import ConditionalDenoiser


@dataclass(frozen=True)
class Truth:
    """What the generator learns of B days.

    Attributes
    ----------
    residual : Tensor
        Standardised, finite also where not valid. Shape ``(B, C, Y, X)``.
    valid : Tensor
        Where it counts. Shape ``(B, C, Y, X)``, bool.
    fields : Tensor, optional
        The truth in the scale that ensembles are scored in; default the residual. Shape
        ``(B, C, Y, X)``.
    to_fields : callable, optional
        Brings residuals of members ``(B, M, C, Y, X)`` to that scale.
    amounts, to_amounts : Tensor and callable, optional
        The same in physical units over their spread, in which blocks are averaged: the
        mean of roots of precipitation is not that of an areal total. Default as cells.
    extreme : Tensor, optional
        Whose extremes count more; default the residual. Shape ``(B, C, Y, X)``.
    days : int
        2: the rows are of two neighbouring days, all of the first day, then all of the
        second.
    """

    residual: Tensor
    valid: Tensor
    fields: Tensor | None = None
    to_fields: Callable[[Tensor], Tensor] | None = None
    amounts: Tensor | None = None
    to_amounts: Callable[[Tensor], Tensor] | None = None
    extreme: Tensor | None = None
    days: int = 1


@dataclass(frozen=True)
class Draws:
    """Random numbers of one evaluation.

    Attributes
    ----------
    noise : Tensor
        Standard normal. Shape ``(B, C, Y, X)``; of ``one_step``
        ``(B * M, *noise_shape)``.
    sigma : Tensor or None
        Noise levels, shape ``(B,)``; None for ``one_step``.
    """

    noise: Tensor
    sigma: Tensor | None = None

    @classmethod
    def of(
        cls,
        decoder: ConditionalDenoiser,
        residual: Tensor,
        *,
        members: int | None = None,
        noise: Tensor | None = None,
        sigma: Tensor | None = None,
        days: int = 1,
    ) -> Draws:
        """Draw what is not given: noise levels first, then noise.

        ``members`` is M of ``one_step``, by default the decoder's ``train_members``.
        With two ``days`` (see `Truth`) the noise of the second remembers the first's as
        the decoder's ``noise_memory`` says.
        """
        b, device = len(residual), residual.device
        if decoder.config.one_step:
            if noise is None:
                count = b * (members or decoder.config.train_members)
                noise = torch.randn(count, *decoder.noise_shape, device=device)
                if days == 2:
                    noise = _remembering(noise, decoder.noise_memory)
            return cls(noise)
        sigma = decoder.training_sigma(b, device) if sigma is None else sigma
        return cls(torch.randn_like(residual) if noise is None else noise, sigma)


def _remembering(noise: Tensor, memory: Sequence[float]) -> Tensor:
    """Let the second half of ``(2 N, C, Y, X)`` go on from the first."""
    first, fresh = noise.chunk(2)
    rate = first.new_tensor(memory or [0.0]).reshape(-1, 1, 1)
    return torch.cat([first, rate * first + (1 - rate**2).sqrt() * fresh])
