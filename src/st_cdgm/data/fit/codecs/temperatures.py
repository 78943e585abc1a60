"""Daily minimum, mean and maximum temperature, in order by construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.data.fit.codecs.contract import Codec, CodecOptions
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import ordered_temperatures
from st_cdgm.errors import ConfigError
from st_cdgm.registry import register

# Smallest step between two ordered temperatures, in K: softplus has no inverse at 0.
MIN_INCREMENT = 0.01


@register("codec", "temperatures")
@dataclass(frozen=True, kw_only=True)
class OrderedTemperatures(Codec):
    r"""The coldest as it is, each warmer one as its increment.

    With :math:`T_1 \le T_2 \le \dots` and :math:`\mathrm{sp}(u) = \log(1 + e^u)`,

    .. math:: T_1 = u_1, \qquad T_{k+1} = T_k + \mathrm{sp}(u_{k+1}).

    Increments below 0.01 K (observations do have ``tasmax < tasmin``) are encoded as
    0.01 K. A temperature whose colder neighbour is NaN becomes NaN too.

    Attributes
    ----------
    order : tuple of int
        Places in ``names``, coldest first.
    """

    order: tuple[int, ...]

    @classmethod
    def fit(cls, targets: Sequence[TargetVariable], options: CodecOptions) -> Self:
        """Take two or three of daily minimum, mean and maximum, of the same units."""
        del options
        names, order = tuple(t.name for t in targets), ordered_temperatures(targets)
        if len(order) != len(targets):
            raise ConfigError(
                "temperatures that have no order",
                variable="data.codecs",
                found=", ".join(names),
                expected="two or three of daily minimum, mean and maximum",
                remedy="leave them out of data.codecs, or give them cell_methods",
            )
        return cls(names=names, order=order)

    def encode(self, fields: Tensor) -> Tensor:
        """Return the coldest and the increments. Shape ``(..., C, Y, X)``."""
        channels = list(fields.unbind(-3))
        for lower, upper in reversed(list(pairwise(self.order))):
            step = (channels[upper] - channels[lower]).clamp(min=MIN_INCREMENT)
            # The inverse of softplus, exact for large and for small steps.
            channels[upper] = step + torch.log(-torch.expm1(-step))
        return torch.stack(channels, dim=-3)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return ordered temperatures. Shape ``(..., C, Y, X)``."""
        channels = list(encoded.unbind(-3))
        # x + softplus(u) >= x holds after rounding as well: rounding is monotone.
        for lower, upper in pairwise(self.order):
            channels[upper] = channels[lower] + F.softplus(channels[upper])
        return torch.stack(channels, dim=-3)

    def guarantees(self) -> list[str]:
        """Return the order in words."""
        return [" <= ".join(self.names[i] for i in self.order)]

    def ordered(self) -> tuple[int, ...]:
        """Return the places, coldest first."""
        return self.order

    def unchanged(self) -> tuple[int, ...]:
        """Return the place of the coldest."""
        return self.order[:1]
