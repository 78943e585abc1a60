"""Which target is encoded how: by configuration, else by the table of variables."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from st_cdgm import registry
from st_cdgm.data.fit.codecs.amounts import (
    PRECIPITATION_CODECS,
    check_precipitation_options,
)
from st_cdgm.data.fit.codecs.contract import CodecOptions
from st_cdgm.data.fit.codecs.logarithm import Transformed
from st_cdgm.data.fit.codecs.target import CodecPart, TargetCodec
from st_cdgm.data.fit.moments import Blocks
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import ordered_temperatures
from st_cdgm.errors import ConfigError
from st_cdgm.typing import FloatArray

_LOGGER = logging.getLogger(__name__)


def build_codec(
    targets: Sequence[TargetVariable],
    *,
    precipitation: str = "sqrt",
    precipitation_delta: float = 0.01,
    wet_threshold: float = 0.1,
    codecs: Mapping[str, str] | None = None,
    transforms: Mapping[str, Transformed] | None = None,
    blocks: Blocks | None = None,
) -> TargetCodec:
    """Choose how each target variable is encoded.

    Parameters
    ----------
    targets : sequence of TargetVariable
        In channel order.
    precipitation : {"sqrt", "log1p", "identity", "quantile"}
        Transform of precipitation; ``quantile`` is fitted to training days, see
        :class:`st_cdgm.data.fit.codecs.quantile_map.QuantileMap`.
    precipitation_delta, wet_threshold : float
        See :class:`st_cdgm.data.fit.codecs.contract.CodecOptions`, mm day-1.
    codecs : mapping, optional
        Target name to the registered name of its codec. Without one, precipitation and
        temperatures in an order have theirs, and others pass unchanged.
    transforms : mapping, optional
        Target name to codec and offset, see
        :func:`st_cdgm.data.fit.codecs.logarithm.transform_codecs`.
    blocks : callable, optional
        Training days, see :data:`st_cdgm.data.fit.moments.Blocks`; read only for
        codecs that are fitted.

    Raises
    ------
    ConfigError
        If an option is out of range, a codec or target has another name, or
        ``quantile`` has no training days.
    InputError
        If ``quantile`` finds too few wet values.
    """
    check_precipitation_options(precipitation, precipitation_delta, wet_threshold)
    transforms = dict(transforms or {})
    asked = _together(dict(codecs or {}), transforms)
    offset = {name: found.delta for name, found in transforms.items()}
    chosen = [
        (codec, offset.get(target.name, precipitation_delta))
        for codec, target in zip(
            _chosen(targets, asked, PRECIPITATION_CODECS[precipitation]),
            targets,
            strict=True,
        )
    ]

    # Temperatures first, as they are in the guarantees.
    parts = []
    for name, delta in sorted(
        dict.fromkeys(chosen), key=lambda part: part[0] != "temperatures"
    ):
        channels = tuple(c for c, own in enumerate(chosen) if own == (name, delta))
        options = CodecOptions(
            wet_threshold=wet_threshold,
            delta=delta,
            truth=None if blocks is None else partial(_truth, blocks, channels),
        )
        codec = registry.get("codec", name).fit([targets[c] for c in channels], options)
        parts.append(CodecPart(channels, codec))

    return TargetCodec(names=tuple(t.name for t in targets), parts=tuple(parts))


def _together(
    codecs: Mapping[str, str], transforms: Mapping[str, Transformed]
) -> dict[str, str]:
    """Return the codecs that are asked for by name and by transform."""
    both = [name for name in transforms if name in codecs]
    if both:
        raise ConfigError(
            "a target has a codec and a transform",
            variable="data.codecs, data.target_transform",
            found=", ".join(both),
            expected="one of them for each target",
        )
    return {**codecs, **{name: found.codec for name, found in transforms.items()}}


def _chosen(
    targets: Sequence[TargetVariable], codecs: Mapping[str, str], precipitation: str
) -> list[str]:
    """Return the registered name of each target's codec."""
    unknown = sorted(set(codecs) - {target.name for target in targets})
    if unknown:
        raise ConfigError(
            "a codec is chosen for what is no target",
            variable="data.codecs",
            found=", ".join(unknown),
            expected=", ".join(target.name for target in targets),
        )

    free = [c for c, target in enumerate(targets) if target.name not in codecs]
    ordered = {free[i] for i in ordered_temperatures([targets[c] for c in free])}
    return [
        codecs.get(target.name)
        or ("temperatures" if c in ordered else _default(target, precipitation))
        for c, target in enumerate(targets)
    ]


def _default(target: TargetVariable, precipitation: str) -> str:
    """Return the codec that the table of variables names."""
    row = target.row
    if row is None or row.quantity is None:
        _LOGGER.warning(
            "the target %s is no variable that is known here, so it is encoded as it "
            "is and nothing keeps it, say, from being negative (codec identity); "
            "choose a codec with data.codecs: {%s: NAME}, NAME being one of %s",
            target.name,
            target.name,
            ", ".join(registry.names("codec")),
        )
        return "identity"
    codec = row.quantity.codec
    return precipitation if codec == "precipitation" else codec


def _truth(blocks: Blocks, channels: Sequence[int]) -> Iterator[FloatArray]:
    """Yield the training days of some targets, block by block."""
    for _, _, truth in blocks():
        yield truth[:, list(channels)]
