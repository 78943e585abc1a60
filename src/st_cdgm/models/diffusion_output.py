"""What a decoder returns: the residual, and the fields made of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

TRIPLE = ("t_min", "t_mean", "t_max")


class FieldCodec(Protocol):
    """What a codec of the data layer offers the decoder."""

    @property
    def names(self) -> tuple[str, ...]:
        """Variables in channel order."""

    @property
    def ordered(self) -> tuple[int, ...]:
        """Channels of ordered temperatures, coldest first."""

    def decode(self, encoded: Tensor) -> Tensor:
        """Return physical fields ``(..., C, Y, X)``."""


@dataclass(frozen=True)
class DiffusionOutput:
    """One draw, or an ensemble of them; ``M`` is absent unless members were asked for.

    Attributes
    ----------
    residual : Tensor
        What the generator made. Shape ``(B, [M,] C, Y, X)``.
    baseline : Tensor or None
        What the residual is added to. Shape ``(B, C, Y, X)``.
    t_min, t_mean, t_max : Tensor or None
        Shape ``(B, [M,] 1, Y, X)``. None unless a temperature triple was declared:
        three channels alone do not make one.
    fields : dict of str to Tensor
        Every variable by name, shape ``(B, [M,] Y, X)``.
    """

    residual: Tensor
    baseline: Tensor | None
    t_min: Tensor | None = None
    t_mean: Tensor | None = None
    t_max: Tensor | None = None
    fields: dict[str, Tensor] = field(default_factory=dict)

    @property
    def composite(self) -> Tensor:
        """The temperature triple as three channels. Shape ``(B, [M,] 3, Y, X)``.

        Raises
        ------
        ValueError
            No temperature triple was declared.
        """
        if self.t_min is None or self.t_mean is None or self.t_max is None:
            names = ", ".join(self.fields)
            msg = f"there is no temperature triple; see fields: {names}"
            raise ValueError(msg)
        return torch.cat([self.t_min, self.t_mean, self.t_max], dim=-3)


def decode_temperatures(
    raw: Tensor, *, soft: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Turn a minimum and two increments into ordered temperatures.

    .. math:: T = T_{min} + \mathrm{sp}(\delta_1), \qquad
              T_{max} = T + \mathrm{sp}(\delta_2)

    Parameters
    ----------
    raw : Tensor
        Shape ``(..., 3, Y, X)``.
    soft : bool
        True: sp is softplus; False: ReLU.

    Returns
    -------
    tuple of Tensor
        Minimum, mean and maximum, each ``(..., 1, Y, X)``.

    Raises
    ------
    ValueError
        Another number of channels.
    """
    if raw.ndim < 3 or raw.shape[-3] != len(TRIPLE):
        msg = f"need 3 channels (minimum, two increments), found {tuple(raw.shape)}"
        raise ValueError(msg)
    t_min, first, second = torch.split(raw, 1, dim=-3)
    positive = F.softplus if soft else F.relu
    t_mean = t_min + positive(first)
    return t_min, t_mean, t_mean + positive(second)


def encode_temperatures(fields: Tensor) -> Tensor:
    """Return what `decode_temperatures` (soft) turns into the given temperatures.

    ``fields`` are minimum, mean and maximum, shape ``(..., 3, Y, X)``. Steps between
    them below 0.01 are raised to it: softplus has no inverse at 0.
    """
    parts = torch.split(fields, 1, dim=-3)
    steps = [(upper - lower).clamp(min=0.01) for lower, upper in pairwise(parts)]
    # softplus^-1(y) = y + log(1 - exp(-y)), without overflow.
    increments = [y + torch.log(-torch.expm1(-y)) for y in steps]
    return torch.cat([parts[0], *increments], dim=-3)


def compose(
    residual: Tensor,
    baseline: Tensor | None,
    *,
    codec: FieldCodec | None,
    triple: bool,
    decode: bool,
) -> DiffusionOutput:
    """Add the baseline, decode, and name the fields."""
    encoded = residual
    if baseline is not None:
        extra = residual.ndim - baseline.ndim
        encoded = residual + (baseline.unsqueeze(1) if extra else baseline)

    names: Sequence[str]
    ordered: tuple[int, ...] = ()
    if codec is not None:
        channels = codec.decode(encoded) if decode else encoded
        names, ordered = codec.names, codec.ordered if decode else ()
    elif triple:
        channels = torch.cat(decode_temperatures(encoded), -3) if decode else encoded
        names, ordered = TRIPLE, (0, 1, 2)
    else:
        channels = encoded
        names = [f"channel_{i}" for i in range(residual.shape[-3])]

    t_min = t_mean = t_max = None
    if len(ordered) == len(TRIPLE):
        t_min, t_mean, t_max = (channels[..., i : i + 1, :, :] for i in ordered)
    fields = dict(zip(names, channels.unbind(-3), strict=True))
    return DiffusionOutput(residual, baseline, t_min, t_mean, t_max, fields)
