"""Target codecs: between physical fields and the space in which the model works.

``encode`` and ``decode`` are inverse to each other on admissible fields, and ``decode``
makes the guarantees true by construction, whatever numbers the model produces:
``tasmin <= tas <= tasmax`` and ``pr >= 0`` with exact zeros on dry days.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from st_cdgm.data.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "DatasetFunction",
    "FunctionCodec",
    "PrecipitationTransform",
    "TargetCodec",
    "build_codec",
    "check_precipitation_options",
    "is_precipitation",
    "ordered_temperatures",
    "precipitation_channels",
    "temperature_rank",
]

PrecipitationTransform = Literal["sqrt", "log1p", "identity"]
DatasetFunction = Callable[["xr.Dataset"], "xr.Dataset"]

_LOGGER = logging.getLogger(__name__)

# Smallest step between two ordered temperatures, in K: softplus has no inverse at 0.
MIN_INCREMENT = 0.01
# More than any day on Earth has brought (1 825 mm): keeps decoded fields finite.
MAX_PRECIPITATION = 1.0e4
# Slope with which scores see values below the wet threshold, so that gradients survive.
DRY_SLOPE = 0.1
# Values within this share below the threshold still count as wet: they are truths at
# the threshold that went through float32 arithmetic.
_EDGE_TOLERANCE = 1.0e-4

_PRECIPITATION_NAMES = {"pr", "rr", "tp", "precip", "precipitation"}
_PRECIPITATION_STANDARD_NAMES = {
    "precipitation_flux",
    "precipitation_amount",
    "lwe_precipitation_rate",
    "lwe_thickness_of_precipitation_amount",
    "rainfall_flux",
    "rainfall_rate",
    "rainfall_amount",
}
_TEMPERATURE_RANKS = {"tasmin": 0, "tn": 0, "tas": 1, "tg": 1, "tasmax": 2, "tx": 2}
_METHOD_RANKS = {"minimum": 0, "mean": 1, "maximum": 2}


def is_precipitation(name: str, standard_name: str | None) -> bool:
    """Say whether a variable is precipitation, by its CF standard name or its name."""
    return (
        standard_name in _PRECIPITATION_STANDARD_NAMES
        or name.lower() in _PRECIPITATION_NAMES
    )


def temperature_rank(target: TargetVariable) -> int | None:
    """Return 0, 1 or 2 for a daily minimum, mean or maximum temperature, else None.

    The name decides; failing that, the standard name ``air_temperature`` together with
    the statistic over time in ``cell_methods``.
    """
    rank = _TEMPERATURE_RANKS.get(target.name.lower())
    if rank is not None or target.standard_name != "air_temperature":
        return rank
    over_time = re.search(r"\btime: (\w+)", target.cell_methods or "")
    return _METHOD_RANKS.get(over_time[1]) if over_time else None


@dataclass(frozen=True, kw_only=True)
class TargetCodec:
    r"""Encode and decode target fields, each variable in its own way.

    With the ordered temperatures :math:`T_1 \le T_2 \le \dots` and
    :math:`\mathrm{sp}(u) = \log(1 + e^u)`,

    .. math:: T_1 = u_1, \qquad T_{k+1} = T_k + \mathrm{sp}(u_{k+1}).

    Precipitation is encoded by ``sqrt(x)``, ``log(1 + x / delta)`` or ``x`` and decodes
    to exactly 0 below the wet threshold. Other variables pass unchanged.

    Attributes
    ----------
    names : tuple of str
        Variables in channel order.
    ordered : tuple of int
        Channels of the ordered temperatures, coldest first; empty without such a pair.
    precipitation : tuple of int
        Channels that hold precipitation.
    transform : {"sqrt", "log1p", "identity"}
        Transform of precipitation.
    delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Smallest amount that is not dry, mm day-1.
    """

    names: tuple[str, ...]
    ordered: tuple[int, ...] = ()
    precipitation: tuple[int, ...] = ()
    transform: PrecipitationTransform = "sqrt"
    delta: float = 0.01
    wet_threshold: float = 0.1

    def __post_init__(self) -> None:
        check_precipitation_options(self.transform, self.delta, self.wet_threshold)

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
        for channel in self.precipitation:
            channels[channel] = self._encode_amount(channels[channel])
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
        for channel in self.precipitation:
            channels[channel] = self._decode_amount(channels[channel])
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
        for channel in self.precipitation:
            channels[channel] = self._scored_amount(channels[channel])
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
        )

    def _decode_temperatures(self, channels: list[Tensor]) -> None:
        # x + softplus(u) >= x holds after rounding as well: rounding is monotone.
        for lower, upper in pairwise(self.ordered):
            channels[upper] = channels[lower] + F.softplus(channels[upper])

    def _encode_amount(self, amount: Tensor) -> Tensor:
        amount = amount.clamp(0.0, MAX_PRECIPITATION)
        if self.transform == "sqrt":
            return amount.sqrt()
        return torch.log1p(amount / self.delta) if self.transform == "log1p" else amount

    def _encoded(self, amount: float) -> float:
        """Encode one number."""
        if self.transform == "sqrt":
            return math.sqrt(amount)
        return math.log1p(amount / self.delta) if self.transform == "log1p" else amount

    def _decode_amount(self, u: Tensor) -> Tensor:
        edge = self._encoded(self.wet_threshold) * (1.0 - _EDGE_TOLERANCE)
        wet = u.clamp(edge, self._encoded(MAX_PRECIPITATION))
        if self.transform == "sqrt":
            wet = wet.square()
        elif self.transform == "log1p":
            wet = self.delta * torch.expm1(wet)
        # Written so that NaN, which is below nothing, stays NaN.
        return torch.where(u < edge, 0.0, wet.clamp(min=self.wet_threshold))

    def _scored_amount(self, u: Tensor) -> Tensor:
        # The root's slope is infinite at 0, hence a floor under a zero threshold.
        censor = max(self.wet_threshold, 1.0e-4)
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
            remedy="choose precipitation_codec: sqrt, log1p or identity",
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


def build_codec(
    targets: Sequence[TargetVariable],
    *,
    precipitation: str = "sqrt",
    precipitation_delta: float = 0.01,
    wet_threshold: float = 0.1,
) -> TargetCodec:
    """Choose how each target variable is encoded.

    Parameters
    ----------
    targets : sequence of TargetVariable
        In channel order.
    precipitation : {"sqrt", "log1p", "identity"}
        Transform of precipitation.
    precipitation_delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Amounts below it decode to exactly 0, mm day-1.

    Returns
    -------
    TargetCodec

    Raises
    ------
    ConfigError
        If an option is out of range.
    """
    check_precipitation_options(precipitation, precipitation_delta, wet_threshold)
    return TargetCodec(
        names=tuple(t.name for t in targets),
        ordered=ordered_temperatures(targets),
        precipitation=precipitation_channels(targets),
        transform=cast(PrecipitationTransform, precipitation),
        delta=float(precipitation_delta),
        wet_threshold=float(wet_threshold),
    )


def check_precipitation_options(
    transform: str, delta: float, wet_threshold: float
) -> None:
    """Raise ConfigError unless the options of precipitation make sense."""
    if transform not in ("sqrt", "log1p", "identity"):
        raise ConfigError(
            "unknown transform of precipitation",
            variable="data.precipitation_codec",
            found=transform,
            expected="sqrt, log1p or identity",
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


def precipitation_channels(
    variables: Sequence[TargetVariable | Channel],
) -> tuple[int, ...]:
    """Return the indices of targets or predictors that are precipitation."""
    return tuple(
        i for i, v in enumerate(variables) if is_precipitation(v.name, v.standard_name)
    )


def ordered_temperatures(targets: Sequence[TargetVariable]) -> tuple[int, ...]:
    """Return the channels of ordered temperatures, coldest first, or nothing.

    Two or three of daily minimum, mean and maximum, in the same units.
    """
    found = [
        (r, i) for i, t in enumerate(targets) if (r := temperature_rank(t)) is not None
    ]
    ranks = [rank for rank, _ in found]
    if len(found) < 2:
        return ()
    units = {targets[i].units for _, i in found}
    if len(set(ranks)) < len(ranks) or len(units) > 1:
        names = ", ".join(targets[i].name for _, i in found)
        _LOGGER.warning(
            "temperatures %s are not ordered: same statistic or units differ", names
        )
        return ()
    return tuple(i for _, i in sorted(found))


def _wide(fields: Tensor) -> Tensor:
    """Return float32 or wider: half precision would spoil degrees and round trips."""
    narrow = fields.dtype in (torch.float16, torch.bfloat16)
    return fields.float() if narrow else fields


def _softplus_inverse(y: Tensor) -> Tensor:
    """Return u with softplus(u) = y, without overflow for large or loss for small y."""
    return y + torch.log(-torch.expm1(-y))
