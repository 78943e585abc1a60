"""Codecs: between physical fields and the space in which the model works.

``encode`` and ``decode`` are inverse to each other on admissible fields, and ``decode``
makes the guarantees true by construction, whatever numbers the model produces:
``tasmin <= tas <= tasmax`` and ``pr >= 0`` with exact zeros on dry days.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.data.fit.codecs.quantile_map import QuantileMap
from st_cdgm.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import xarray as xr

PrecipitationTransform = Literal["sqrt", "log1p", "identity", "quantile"]
DatasetFunction = Callable[["xr.Dataset"], "xr.Dataset"]
# Smallest step between two ordered temperatures, in K: softplus has no inverse at 0.
MIN_INCREMENT = 0.01
# More than any day on Earth has brought (1 825 mm): keeps decoded fields finite.
MAX_PRECIPITATION = 1.0e4
# Slope with which scores see values below the wet threshold, so that gradients survive.
DRY_SLOPE = 0.1
# Values within this share below the threshold still count as wet: they are truths at
# the threshold that went through float32 arithmetic.
_EDGE_TOLERANCE = 1.0e-4


@dataclass(frozen=True, kw_only=True)
class TargetCodec:
    r"""Encode and decode target fields, each variable in its own way.

    With the ordered temperatures :math:`T_1 \le T_2 \le \dots` and
    :math:`\mathrm{sp}(u) = \log(1 + e^u)`,

    .. math:: T_1 = u_1, \qquad T_{k+1} = T_k + \mathrm{sp}(u_{k+1}).

    Precipitation is encoded by ``sqrt(x)``, ``log(1 + x / delta)``, ``x`` or as the
    score of its quantile, and decodes to exactly 0 below the wet threshold. Other
    variables pass unchanged.

    Attributes
    ----------
    names : tuple of str
        Variables in channel order.
    ordered : tuple of int
        Channels of the ordered temperatures, coldest first; empty without such a pair.
    precipitation : tuple of int
        Channels that hold precipitation.
    transform : {"sqrt", "log1p", "identity", "quantile"}
        Transform of precipitation.
    delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Smallest amount that is not dry, mm day-1.
    quantiles : tuple of QuantileMap
        For ``quantile``: one per precipitation channel.
    """

    names: tuple[str, ...]
    ordered: tuple[int, ...] = ()
    precipitation: tuple[int, ...] = ()
    transform: PrecipitationTransform = "sqrt"
    delta: float = 0.01
    wet_threshold: float = 0.1
    quantiles: tuple[QuantileMap, ...] = ()

    def __post_init__(self) -> None:
        check_precipitation_options(self.transform, self.delta, self.wet_threshold)
        needed = len(self.precipitation) if self.transform == "quantile" else 0
        assert len(self.quantiles) == needed, "one map per precipitation channel"

    def encode(self, fields: Tensor) -> Tensor:
        """Return the encoded fields.

        Increments below 0.01 K (observations do have ``tasmax < tasmin``) are raised to
        0.01 K and negative precipitation counts as 0.

        Parameters
        ----------
        fields : Tensor
            Shape ``(..., C, Y, X)``, in target units. NaN stays NaN; a temperature
            whose colder neighbour is NaN becomes NaN too.

        Returns
        -------
        Tensor
            Shape ``(..., C, Y, X)``, float32 or wider.
        """
        channels = list(_wide(fields).unbind(-3))
        for lower, upper in reversed(list(pairwise(self.ordered))):
            step = (channels[upper] - channels[lower]).clamp(min=MIN_INCREMENT)
            channels[upper] = _softplus_inverse(step)
        for i, channel in enumerate(self.precipitation):
            channels[channel] = self._encode_amount(channels[channel], i)
        return torch.stack(channels, dim=-3)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return physical fields that keep every guarantee.

        Parameters
        ----------
        encoded : Tensor
            Any values. Shape ``(..., C, Y, X)``.

        Returns
        -------
        Tensor
            Target units. Shape ``(..., C, Y, X)``, float32 or wider.
        """
        channels = list(_wide(encoded).unbind(-3))
        self._decode_temperatures(channels)
        for i, channel in enumerate(self.precipitation):
            channels[channel] = self._decode_amount(channels[channel], i)
        return torch.stack(channels, dim=-3)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return each variable in the scale it is scored in while training.

        Temperatures in degC. Precipitation as the root of the amount, sqrt(mm day-1),
        censored at the wet threshold, below which it falls with a tenth of the slope:
        all dry values are nearly equal, but the gradient does not vanish. Other
        variables as they are.

        Parameters
        ----------
        encoded : Tensor
            Shape ``(..., C, Y, X)``.

        Returns
        -------
        Tensor
            Shape ``(..., C, Y, X)``.
        """
        channels = list(_wide(encoded).unbind(-3))
        self._decode_temperatures(channels)
        for i, channel in enumerate(self.precipitation):
            channels[channel] = self._scored_amount(channels[channel], i)
        return torch.stack(channels, dim=-3)

    @property
    def ordered_names(self) -> tuple[str, ...]:
        """Names of the ordered temperatures, coldest first."""
        return tuple(self.names[i] for i in self.ordered)

    def guarantees(self) -> list[str]:
        """Return, in words, what every decoded field satisfies."""
        out = []
        if self.ordered:
            out.append(" <= ".join(self.ordered_names))
        for i in self.precipitation:
            out.append(
                f"{self.names[i]} >= 0, exactly 0 below {self.wet_threshold:g} mm day-1"
            )
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` needs, as JSON types."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> TargetCodec:
        """Rebuild a codec from :meth:`to_dict`."""
        return cls(
            names=tuple(state["names"]),
            ordered=tuple(state["ordered"]),
            precipitation=tuple(state["precipitation"]),
            transform=state["transform"],
            delta=state["delta"],
            wet_threshold=state["wet_threshold"],
            quantiles=tuple(map(QuantileMap.from_dict, state.get("quantiles", ()))),
        )

    def _decode_temperatures(self, channels: list[Tensor]) -> None:
        # x + softplus(u) >= x holds after rounding as well: rounding is monotone.
        for lower, upper in pairwise(self.ordered):
            channels[upper] = channels[lower] + F.softplus(channels[upper])

    def _encode_amount(self, amount: Tensor, i: int) -> Tensor:
        amount = amount.clamp(0.0, MAX_PRECIPITATION)
        if self.transform == "quantile":
            return self.quantiles[i].encode(amount)
        if self.transform == "sqrt":
            return amount.sqrt()
        return torch.log1p(amount / self.delta) if self.transform == "log1p" else amount

    def _encoded(self, amount: float) -> float:
        """Encode one number."""
        if self.transform == "sqrt":
            return math.sqrt(amount)
        return math.log1p(amount / self.delta) if self.transform == "log1p" else amount

    def _decode_amount(self, u: Tensor, i: int) -> Tensor:
        if self.transform == "quantile":
            edge = self.quantiles[i].edge
        else:
            edge = self._encoded(self.wet_threshold) * (1.0 - _EDGE_TOLERANCE)
        wet = self._wet_amount(u, i).clamp(self.wet_threshold, MAX_PRECIPITATION)
        # Written so that NaN, which is below nothing, stays NaN.
        return torch.where(u < edge, 0.0, wet)

    def _wet_amount(self, u: Tensor, i: int) -> Tensor:
        """Return the amount of a wet value; of any other, some finite number."""
        if self.transform == "quantile":
            knots = self.quantiles[i]
            wet = u.clamp(knots.scores[0], knots.scores[-1])
            return knots.root(wet).square()
        lowest = self._encoded(self.wet_threshold) * (1.0 - _EDGE_TOLERANCE)
        wet = u.clamp(lowest, self._encoded(MAX_PRECIPITATION))
        if self.transform == "sqrt":
            return wet.square()
        return self.delta * torch.expm1(wet) if self.transform == "log1p" else wet

    def _scored_amount(self, u: Tensor, i: int) -> Tensor:
        # The root's slope is infinite at 0, hence a floor under a zero threshold.
        censor = max(self.wet_threshold, 1.0e-4)
        if self.transform == "quantile":
            knots = self.quantiles[i]
            root, dry = knots.roots[0], knots.scores[0]
            wet = knots.root(u.clamp(dry, knots.scores[-1]))
            return torch.where(u < dry, root + DRY_SLOPE * knots.slope * (u - dry), wet)
        root, dry = math.sqrt(censor), self._encoded(censor)
        if self.transform == "sqrt":
            return F.leaky_relu(u - dry, DRY_SLOPE) + root
        wet = u.clamp(dry, self._encoded(MAX_PRECIPITATION))
        if self.transform == "log1p":
            wet, slope = self.delta * torch.expm1(wet), (censor + self.delta) / root / 2
        else:
            slope = 0.5 / root
        return torch.where(u < dry, root + DRY_SLOPE * slope * (u - dry), wet.sqrt())


@dataclass(frozen=True, kw_only=True)
class FunctionCodec(TargetCodec):
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

    def encode(self, fields: Tensor) -> Tensor:
        """Return ``forward`` of the fields. Shape ``(..., C, Y, X)``."""
        return self._apply(self.forward, fields)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return ``inverse`` of the encoded fields. Shape ``(..., C, Y, X)``."""
        return self._apply(self.inverse, encoded)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return the encoded fields: nothing is known about their scale."""
        return _wide(encoded)

    def to_dict(self) -> dict[str, Any]:
        """Refuse: functions cannot be written."""
        raise OutputError(
            "a target transform given as a function cannot be saved",
            variable="target_transform",
            remedy="choose precipitation_codec: sqrt, log1p, identity or quantile",
        )

    def _apply(self, function: DatasetFunction, fields: Tensor) -> Tensor:
        import xarray as xr

        flat = _wide(fields).detach().cpu().reshape(-1, *fields.shape[-3:]).numpy()
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


def check_precipitation_options(
    transform: str, delta: float, wet_threshold: float
) -> None:
    """Raise ConfigError unless the options of precipitation make sense."""
    if transform not in get_args(PrecipitationTransform):
        raise ConfigError(
            "unknown transform of precipitation",
            variable="data.precipitation_codec",
            found=transform,
            expected=", ".join(get_args(PrecipitationTransform)),
        )
    if not (math.isfinite(delta) and delta > 0):
        raise ConfigError(
            "the offset of log1p must be positive",
            variable="data.precipitation_delta",
            found=delta,
            expected="a number above 0, mm day-1",
        )
    if not 0 <= wet_threshold < MAX_PRECIPITATION:
        raise ConfigError(
            "the wet threshold is out of range",
            variable="data.wet_threshold",
            found=wet_threshold,
            expected="a number from 0, mm day-1",
        )


def _wide(fields: Tensor) -> Tensor:
    """Return float32 or wider: half precision would spoil degrees and round trips."""
    narrow = fields.dtype in (torch.float16, torch.bfloat16)
    return fields.float() if narrow else fields


def _softplus_inverse(y: Tensor) -> Tensor:
    """Return u with softplus(u) = y, without overflow for large or loss for small y."""
    return y + torch.log(-torch.expm1(-y))
