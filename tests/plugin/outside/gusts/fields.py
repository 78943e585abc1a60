"""A codec, a baseline and a derived predictor: what the data may be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask
from st_cdgm.data.fit.codecs.contract import Codec
from st_cdgm.data.read.derived.contract import Derived, Plane
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, State


@register("codec", "gust")
class GustCodec(Codec):
    """Logarithms of amounts that are never negative."""

    nonnegative: ClassVar[bool] = True

    def encode(self, fields: Tensor) -> Tensor:
        """Return ``log(1 + x)``."""
        return torch.log1p(fields.clamp(min=0.0))

    def decode(self, encoded: Tensor) -> Tensor:
        """Return ``exp(z) - 1``, 0 where it would be negative."""
        return torch.expm1(encoded.clamp(0.0, 6.0))


@register("baseline", "mean")
class MeanBaseline(Baseline):
    """The mean of the training days, the same on every day."""

    def __init__(self, mean: FloatArray) -> None:
        self.mean = mean

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Average the truth over the training days, 0 where there is none."""
        total = count = 0.0
        for _, _, truth in task.blocks():
            total = total + np.nan_to_num(truth).sum(axis=0, dtype=np.float64)
            count = count + np.isfinite(truth).sum(axis=0)
        return cls((total / np.maximum(count, 1)).astype(np.float32))

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the mean for every day. Shape ``(T, C, Y, X)``."""
        return np.repeat(self.mean[None], len(season), axis=0)

    def to_state(self) -> State:
        """Return the mean."""
        return {}, {"mean": self.mean}

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild it."""
        return cls(np.asarray(arrays["mean"], np.float32))


@register("derived", "wet_warmth")
class WetWarmth(Derived):
    """Temperature above freezing times precipitation, both at the surface."""

    inputs = ("tas", "pr")
    units = "degC mm day-1"
    title = "Warmth times precipitation"

    def function(self, grid: Grid, channels: Sequence[Channel]) -> Plane:
        """Return the product; the temperature comes in kelvin."""
        return lambda t, p: (np.maximum(t - 273.15, 0.0) * p).astype(np.float32)
