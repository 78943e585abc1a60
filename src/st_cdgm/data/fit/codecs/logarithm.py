"""Logarithms of targets that are never negative, and which targets they act on."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.codecs.contract import Codec, CodecOptions
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import TEMPERATURE, is_precipitation
from st_cdgm.errors import ConfigError
from st_cdgm.registry import register

_LOGGER = logging.getLogger(__name__)
# Larger logarithms are cut: they would decode to infinity.
LARGEST = 80.0
NAMES = ("log", "logarithm", "log1p")


@register("codec", "log")
@dataclass(frozen=True, kw_only=True)
class LogarithmCodec(Codec):
    """Natural logarithms ``ln(x + delta)``, in which fields are also scored.

    Attributes
    ----------
    delta : float
        Offset, in the units of the target.
    """

    delta: float = 0.01
    nonnegative: ClassVar[bool] = True

    @classmethod
    def fit(cls, targets: Sequence[TargetVariable], options: CodecOptions) -> Self:
        """Make the codec; refuse targets with negative values on training days."""
        for block in () if options.truth is None else options.truth():
            low = np.where(np.isfinite(block), block, np.inf).min(axis=(0, 2, 3))
            below = [t.name for t, least in zip(targets, low, strict=True) if least < 0]
            if below:
                raise ConfigError(
                    "there is no logarithm of negative values",
                    variable=", ".join(below),
                    found=f"values down to {low.min():g}",
                    expected="0 or more",
                    remedy="leave the target out of data.target_transform, or choose "
                    "another codec in data.codecs",
                )
        return super().fit(targets, options)

    def encode(self, fields: Tensor) -> Tensor:
        """Return the logarithms. Shape ``(..., C, Y, X)``."""
        return torch.log(fields.clamp(min=0.0) + self.delta)

    def decode(self, encoded: Tensor) -> Tensor:
        """Return ``exp(z) - delta``, at least 0. Shape ``(..., C, Y, X)``."""
        return (torch.exp(encoded.clamp(max=LARGEST)) - self.delta).clamp(min=0.0)

    def scored(self, encoded: Tensor) -> Tensor:
        """Return the logarithms themselves. Shape ``(..., C, Y, X)``."""
        return encoded


class Transformed(NamedTuple):
    """The codec of a target and its offset."""

    codec: str
    delta: float


def transform_codecs(
    targets: Sequence[TargetVariable],
    transform: str | Mapping[str, str | None] | None,
    *,
    epsilon: float,
) -> dict[str, Transformed]:
    """Return the codecs that a named transform asks for, by target.

    ``log`` is ``ln(x + epsilon)``, ``log1p`` ``ln(1 + x)``; of precipitation up to a
    constant, with exact zeros below the wet threshold.

    Parameters
    ----------
    targets : sequence of TargetVariable
        In channel order.
    transform : str or mapping, optional
        One transform for all targets that have a logarithm (a warning names the
        others), or one for each target that is named.
    epsilon : float
        Offset of ``log``, in the units of the target.

    Raises
    ------
    ConfigError
        The transform is unknown, what is named is no target, or nothing named has a
        logarithm.
    """
    names = [target.name for target in targets]
    check_transform(transform)
    if transform is None:
        return {}
    if not isinstance(transform, Mapping):
        transform = _of_all(targets, transform)
    asked = {name: how for name, how in transform.items() if how is not None}
    unknown = [name for name in asked if name not in names]
    if unknown:
        raise ConfigError(
            "a transform is asked for what is no target",
            variable="data.target_transform",
            found=", ".join(map(str, unknown)),
            expected=", ".join(names),
        )

    # Amounts of precipitation keep their dry days.
    kinds = {
        target.name: "log1p"
        if is_precipitation(target.name, target.standard_name)
        else "log"
        for target in targets
    }
    return {
        name: Transformed(kinds[name], _offset(how, epsilon))
        for name, how in asked.items()
    }


def check_transform(transform: Any) -> None:
    """Raise ConfigError unless this is a transform, or a mapping of names to some."""
    given = transform.values() if isinstance(transform, Mapping) else [transform]
    for how in given:
        if how is not None and how not in NAMES:
            raise ConfigError(
                "unknown target transform",
                variable="data.target_transform",
                found=how,
                expected="log, log1p, a mapping of targets to these, or (in Python) a "
                "function",
                remedy="choose data.precipitation_codec or data.codecs instead; they "
                "bring their inverse",
            )


def _of_all(targets: Sequence[TargetVariable], transform: str) -> dict[str, str]:
    """Return the targets that a transform named alone acts on; warn of the others."""
    left = [target.name for target in targets if _signed(target)]
    chosen = {t.name: transform for t in targets if t.name not in left}
    if not chosen:
        raise ConfigError(
            "the transform has a meaning for none of the targets",
            variable="data.target_transform",
            found=f"{transform} of {', '.join(left)}",
            expected="a target that is never negative, such as precipitation",
            remedy="leave data.target_transform out",
        )

    if left:
        _LOGGER.warning(
            "target_transform %s acts on %s alone: %s can be negative",
            transform,
            ", ".join(chosen),
            ", ".join(left),
        )
    return chosen


def _signed(target: TargetVariable) -> bool:
    """Whether a target is known to have values below 0: degC, components of wind."""
    row = target.row
    return row is not None and (
        row.quantity is TEMPERATURE or row.component is not None
    )


def _offset(transform: str, epsilon: float) -> float:
    offset = 1.0 if transform == "log1p" else epsilon
    if not 0 < offset < math.inf:
        raise ConfigError(
            "data.transform_epsilon is out of range",
            variable="data.transform_epsilon",
            found=epsilon,
            expected="above 0",
        )
    return offset
