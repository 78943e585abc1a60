"""All targets of a task between physical fields and the space of the model.

``encode`` and ``decode`` are inverse to each other on admissible fields, and ``decode``
makes the guarantees true by construction, whatever numbers the model produces:
``tasmin <= tas <= tasmax`` and ``pr >= 0`` with exact zeros on dry days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_cdgm import registry
from st_cdgm.data.fit.codecs.amounts import PRECIPITATION_CODECS
from st_cdgm.data.fit.codecs.contract import Codec
from st_cdgm.errors import InputError


@dataclass(frozen=True)
class CodecPart:
    """One codec and the channels it encodes, in increasing order."""

    channels: tuple[int, ...]
    codec: Codec


@dataclass(frozen=True, kw_only=True)
class TargetCodec:
    """Encode and decode target fields, each variable in its own way.

    Attributes
    ----------
    names : tuple of str
        Variables in channel order.
    parts : tuple of CodecPart
        Together every channel once.
    """

    names: tuple[str, ...]
    parts: tuple[CodecPart, ...]

    def __post_init__(self) -> None:
        found = sorted(c for part in self.parts for c in part.channels)
        if found != list(range(len(self.names))):
            raise InputError(
                "a codec that does not encode every target once",
                variable="codec",
                found=", ".join(map(str, found)),
                expected=", ".join(self.names),
            )

    def encode(self, fields: Tensor) -> Tensor:
        """Return encoded fields, float32 or wider, from fields in target units.

        Both of shape ``(..., C, Y, X)``; NaN stays NaN.
        """
        return self._each("encode", fields)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return fields in target units that keep every guarantee, of any values.

        Both of shape ``(..., C, Y, X)``; float32 or wider.
        """
        return self._each("decode", encoded)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return each variable in the scale it is scored in while training.

        Temperatures in degC, precipitation as the root of the amount; see
        :meth:`st_cdgm.data.fit.codecs.contract.Codec.scored`.
        Shape ``(..., C, Y, X)``.
        """
        return self._each("scored", encoded)

    @property
    def chosen(self) -> dict[str, str]:
        """Registered name of each target's codec."""
        return {
            name: registry.name_of("codec", type(part.codec))
            for part in self.parts
            for name in part.codec.names
        }

    @property
    def ordered(self) -> tuple[int, ...]:
        """Channels of the ordered temperatures, coldest first; empty without any."""
        found = (tuple(p.channels[i] for i in p.codec.ordered()) for p in self.parts)
        return next((channels for channels in found if channels), ())

    @property
    def nonnegative(self) -> tuple[int, ...]:
        """Channels that never decode to less than 0."""
        parts = [part for part in self.parts if part.codec.nonnegative]
        return tuple(sorted(c for part in parts for c in part.channels))

    @property
    def unchanged(self) -> tuple[int, ...]:
        """Channels that are encoded as they are."""
        return tuple(p.channels[i] for p in self.parts for i in p.codec.unchanged())

    @property
    def wet_thresholds(self) -> dict[int, float]:
        """Channel to the smallest amount that is not 0, of codecs that have one."""
        return {
            channel: float(part.codec.wet_threshold)
            for part in self.parts
            if hasattr(part.codec, "wet_threshold")
            for channel in part.channels
        }

    @property
    def differentiable(self) -> bool:
        """Whether all codecs have a gradient."""
        return all(part.codec.differentiable for part in self.parts)

    def guarantees(self) -> list[str]:
        """Return, in words, what every decoded field satisfies."""
        return [said for part in self.parts for said in part.codec.guarantees()]

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`from_dict` needs, as JSON types."""
        return {
            "names": list(self.names),
            "parts": [
                {
                    "codec": registry.name_of("codec", type(part.codec)),
                    "channels": list(part.channels),
                    "state": part.codec.to_dict(),
                }
                for part in self.parts
            ],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TargetCodec:
        """Rebuild a codec from :meth:`to_dict`, or from what version 0.1 wrote.

        Raises
        ------
        ConfigError
            If no codec of a name is registered: a plugin is missing.
        """
        parts = _former_parts(state) if "transform" in state else state["parts"]
        return cls(
            names=tuple(state["names"]),
            parts=tuple(
                CodecPart(
                    tuple(part["channels"]),
                    registry.get("codec", part["codec"]).from_dict(part["state"]),
                )
                for part in parts
            ),
        )

    def _each(self, method: str, fields: Tensor) -> Tensor:
        """Give every codec its own channels, and put the results together."""
        # Half precision would spoil degrees and round trips.
        narrow = fields.dtype in (torch.float16, torch.bfloat16)
        fields = fields.float() if narrow else fields
        out = list(fields.unbind(-3))

        for part in self.parts:
            first, *others = part.channels
            if len(part.channels) == len(self.names):
                own = fields
            elif others:
                own = torch.stack([out[c] for c in part.channels], dim=-3)
            else:
                own = fields.narrow(-3, first, 1)
            made = getattr(part.codec, method)(own).unbind(-3)
            for channel, field in zip(part.channels, made, strict=True):
                out[channel] = field

        return torch.stack(out, dim=-3)


def _former_parts(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a codec as checkpoints before data.codecs have it."""
    names, ordered = state["names"], sorted(state["ordered"])
    rain = list(state["precipitation"])
    rest = [c for c in range(len(names)) if c not in {*ordered, *rain}]

    amounts = {"wet_threshold": state["wet_threshold"]}
    if state["transform"] == "log1p":
        amounts["delta"] = state["delta"]
    if state["transform"] == "quantile":
        amounts["maps"] = state["quantiles"]
    order = {"order": [ordered.index(channel) for channel in state["ordered"]]}

    found: tuple[tuple[str, list[int], dict[str, Any]], ...] = (
        ("temperatures", ordered, order),
        (PRECIPITATION_CODECS[state["transform"]], rain, amounts),
        ("identity", rest, {}),
    )
    return [
        {
            "codec": codec,
            "channels": channels,
            "state": {"names": [names[c] for c in channels], **own},
        }
        for codec, channels, own in found
        if channels
    ]
