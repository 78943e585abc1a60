"""Targets encoded by a pair of functions on data sets, for experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor

from st_cdgm.data.fit.codecs.contract import Codec, CodecOptions
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError, OutputError
from st_cdgm.registry import register

if TYPE_CHECKING:
    import xarray as xr

DatasetFunction = Callable[["xr.Dataset"], "xr.Dataset"]


@register("codec", "function")
@dataclass(frozen=True, kw_only=True)
class FunctionCodec(Codec):
    """Encode with a pair of functions on data sets.

    It guarantees nothing, has no gradient and cannot be saved: a codec for experiments.
    The functions see the dimensions ``sample``, ``row``, ``column``.

    Attributes
    ----------
    forward, inverse : callable
        From data set to data set, inverse to each other.
    """

    forward: DatasetFunction
    inverse: DatasetFunction
    differentiable: ClassVar[bool] = False

    @classmethod
    def fit(cls, targets: Sequence[TargetVariable], options: CodecOptions) -> Self:
        """Refuse: functions do not come from a configuration."""
        raise ConfigError(
            "a codec of functions is not chosen by name",
            variable="data.codecs",
            found=", ".join(target.name for target in targets),
            remedy="pass the pipeline target_transform and target_inverse_transform",
        )

    def encode(self, fields: Tensor) -> Tensor:
        """Return ``forward`` of the fields. Shape ``(..., C, Y, X)``."""
        return self._apply(self.forward, fields)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return ``inverse`` of the encoded fields. Shape ``(..., C, Y, X)``."""
        return self._apply(self.inverse, encoded)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return the encoded fields: nothing is known about their scale."""
        return encoded

    def to_dict(self) -> dict[str, Any]:
        """Refuse: functions cannot be written."""
        raise OutputError(
            "a target transform given as a function cannot be saved",
            variable="target_transform",
            remedy="choose precipitation_codec: sqrt, log1p, identity or quantile",
        )

    def _apply(self, function: DatasetFunction, fields: Tensor) -> Tensor:
        import xarray as xr

        flat = fields.detach().cpu().reshape(-1, *fields.shape[-3:]).numpy()
        dims = ("sample", "row", "column")
        given = xr.Dataset({n: (dims, flat[:, c]) for c, n in enumerate(self.names)})
        result = function(given)
        if not isinstance(result, xr.Dataset):
            raise TypeError(  # noqa: TRY004 - a caller's function, not an argument
                f"target_transform returned {type(result).__name__}, not a Dataset"
            )

        channels = [
            torch.from_numpy(result[n].transpose(*dims).values) for n in self.names
        ]
        stacked = torch.stack(channels, dim=1).to(fields.device, torch.float32)
        return stacked.reshape(fields.shape)
