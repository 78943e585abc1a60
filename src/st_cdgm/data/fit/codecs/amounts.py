"""Precipitation: amounts that are never negative and exactly 0 on dry days."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.data.fit.codecs.contract import Codec
from st_cdgm.errors import ConfigError
from st_cdgm.registry import register

# More than any day on Earth has brought (1 825 mm): keeps decoded fields finite.
MAX_PRECIPITATION = 1.0e4
# Slope with which scores see values below the wet threshold, so that gradients survive.
DRY_SLOPE = 0.1
# Values within this share below the threshold still count as wet: they are truths at
# the threshold that went through float32 arithmetic.
_EDGE_TOLERANCE = 1.0e-4


@register("codec", "amount")
@dataclass(frozen=True, kw_only=True)
class AmountCodec(Codec):
    """Amounts as they are where wet, below the wet threshold exactly 0.

    Negative amounts count as 0. Scores are roots of amounts, sqrt(mm day-1), censored
    at the wet threshold, below which they fall with a tenth of the slope: all dry
    values are nearly equal, but the gradient does not vanish.

    Attributes
    ----------
    wet_threshold : float
        Smallest amount that is not dry, mm day-1.
    """

    wet_threshold: float = 0.1
    nonnegative: ClassVar[bool] = True
    plain: ClassVar[bool] = True

    def encode(self, fields: Tensor) -> Tensor:
        """Return encoded amounts. Shape ``(..., C, Y, X)``."""
        return self._forward(fields.clamp(0.0, MAX_PRECIPITATION))

    def decode(self, encoded: Tensor) -> Tensor:
        """Return amounts, mm day-1. Shape ``(..., C, Y, X)``."""
        edge = self._number(self.wet_threshold) * (1.0 - _EDGE_TOLERANCE)
        inside = encoded.clamp(edge, self._number(MAX_PRECIPITATION))
        wet = self._inverse(inside).clamp(self.wet_threshold, MAX_PRECIPITATION)
        # Written so that NaN, which is below nothing, stays NaN.
        return torch.where(encoded < edge, 0.0, wet)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return roots of amounts. Shape ``(..., C, Y, X)``."""
        # The root's slope is infinite at 0, hence a floor under a zero threshold.
        censor = max(self.wet_threshold, 1.0e-4)
        root, dry = math.sqrt(censor), self._number(censor)
        wet = self._inverse(encoded.clamp(dry, self._number(MAX_PRECIPITATION))).sqrt()
        slope = self._slope(censor, root)
        return torch.where(
            encoded < dry, root + DRY_SLOPE * slope * (encoded - dry), wet
        )

    def guarantees(self) -> list[str]:
        """Return the sign and the threshold in words."""
        below = f"exactly 0 below {self.wet_threshold:g} mm day-1"
        return [f"{name} >= 0, {below}" for name in self.names]

    def _forward(self, amount: Tensor) -> Tensor:
        return amount

    def _inverse(self, encoded: Tensor) -> Tensor:
        return encoded

    def _number(self, amount: float) -> float:
        """Encode one number."""
        return amount

    def _slope(self, censor: float, root: float) -> float:
        """Return the derivative of the root at the threshold."""
        del censor
        return 0.5 / root


@register("codec", "sqrt")
class RootCodec(AmountCodec):
    """Roots of amounts, sqrt(mm day-1)."""

    plain = False

    def scored(self, encoded: Tensor) -> Tensor:
        """Return the roots, censored. Shape ``(..., C, Y, X)``."""
        root = math.sqrt(max(self.wet_threshold, 1.0e-4))
        return F.leaky_relu(encoded - root, DRY_SLOPE) + root

    def _forward(self, amount: Tensor) -> Tensor:
        return amount.sqrt()

    def _inverse(self, encoded: Tensor) -> Tensor:
        return encoded.square()

    def _number(self, amount: float) -> float:
        return math.sqrt(amount)


@register("codec", "log1p")
@dataclass(frozen=True, kw_only=True)
class LogCodec(AmountCodec):
    """Logarithms ``log(1 + x / delta)``.

    Attributes
    ----------
    delta : float
        Offset, mm day-1.
    """

    delta: float = 0.01
    plain: ClassVar[bool] = False

    def _forward(self, amount: Tensor) -> Tensor:
        return torch.log1p(amount / self.delta)

    def _inverse(self, encoded: Tensor) -> Tensor:
        return self.delta * torch.expm1(encoded)

    def _number(self, amount: float) -> float:
        return math.log1p(amount / self.delta)

    def _slope(self, censor: float, root: float) -> float:
        return (censor + self.delta) / root / 2


def check_precipitation_options(
    transform: str, delta: float, wet_threshold: float
) -> None:
    """Raise ConfigError unless the options of precipitation make sense."""
    if transform not in PRECIPITATION_CODECS:
        raise ConfigError(
            "unknown transform of precipitation",
            variable="data.precipitation_codec",
            found=transform,
            expected=", ".join(PRECIPITATION_CODECS),
            remedy="a codec of your own is chosen in data.codecs",
        )

    wet = 0 <= wet_threshold < MAX_PRECIPITATION
    for name, found, fits, expected in (
        ("precipitation_delta", delta, 0 < delta < math.inf, "above 0"),
        ("wet_threshold", wet_threshold, wet, "from 0"),
    ):
        if not fits:
            raise ConfigError(
                "an option of precipitation is out of range",
                variable=f"data.{name}",
                found=found,
                expected=f"a number {expected}, mm day-1",
            )


# What data.precipitation_codec says -> the codec.
PRECIPITATION_CODECS = {
    "sqrt": "sqrt",
    "log1p": "log1p",
    "identity": "amount",
    "quantile": "quantile",
}
