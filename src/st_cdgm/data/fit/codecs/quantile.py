"""Precipitation as scores of its quantiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from st_cdgm.data.fit.codecs.amounts import DRY_SLOPE, MAX_PRECIPITATION, AmountCodec
from st_cdgm.data.fit.codecs.contract import CodecOptions
from st_cdgm.data.fit.codecs.quantile_map import AmountCounts, QuantileMap
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError
from st_cdgm.registry import register


@register("codec", "quantile")
@dataclass(frozen=True, kw_only=True)
class QuantileCodec(AmountCodec):
    """Scores of a standard normal distribution; see :class:`QuantileMap`.

    Attributes
    ----------
    maps : tuple of QuantileMap
        One per target, fitted over all cells and training days.
    """

    maps: tuple[QuantileMap, ...]
    plain: ClassVar[bool] = False

    @classmethod
    def fit(cls, targets: Sequence[TargetVariable], options: CodecOptions) -> Self:
        """Count the amounts of the training days.

        Raises
        ------
        ConfigError
            If there are none.
        InputError
            If too few values are wet.
        """
        if options.truth is None:
            raise ConfigError(
                "quantiles need training days",
                variable="data.precipitation_codec",
                found="quantile",
                expected="sqrt, log1p or identity where there are none",
            )

        threshold = float(options.wet_threshold)
        counts = [AmountCounts(threshold, MAX_PRECIPITATION) for _ in targets]
        for truth in options.truth():
            for c, count in enumerate(counts):
                count.add(truth[:, c])

        names = tuple(target.name for target in targets)
        maps = tuple(c.fit(name) for c, name in zip(counts, names, strict=True))
        return cls(names=names, wet_threshold=threshold, maps=maps)

    def encode(self, fields: Tensor) -> Tensor:
        """Return scores. Shape ``(..., C, Y, X)``."""
        return self._each(QuantileMap.encode, fields.clamp(0.0, MAX_PRECIPITATION))

    def decode(self, encoded: Tensor) -> Tensor:
        """Return amounts, mm day-1. Shape ``(..., C, Y, X)``."""
        return self._each(self._amount, encoded)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return roots of amounts. Shape ``(..., C, Y, X)``."""
        return self._each(_scored, encoded)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Rebuild a codec from :meth:`to_dict`."""
        maps = [
            QuantileMap(
                roots=tuple(m["roots"]), scores=tuple(m["scores"]), dry=m["dry"]
            )
            for m in state["maps"]
        ]
        return super().from_dict({**state, "maps": maps})

    def _each(
        self, function: Callable[[QuantileMap, Tensor], Tensor], fields: Tensor
    ) -> Tensor:
        pairs = zip(self.maps, fields.unbind(-3), strict=True)
        return torch.stack([function(*pair) for pair in pairs], dim=-3)

    def _amount(self, knots: QuantileMap, u: Tensor) -> Tensor:
        root = knots.root(u.clamp(knots.scores[0], knots.scores[-1]))
        wet = root.square().clamp(self.wet_threshold, MAX_PRECIPITATION)
        return torch.where(u < knots.edge, 0.0, wet)


def _scored(knots: QuantileMap, u: Tensor) -> Tensor:
    root, dry = knots.roots[0], knots.scores[0]
    wet = knots.root(u.clamp(dry, knots.scores[-1]))
    return torch.where(u < dry, root + DRY_SLOPE * knots.slope * (u - dry), wet)
