"""Which target is encoded how: kinds of variables and the codec that fits them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import cast

from st_cdgm.data.codecs import (
    MAX_PRECIPITATION,
    MIN_INCREMENT,
    DatasetFunction,
    FunctionCodec,
    PrecipitationTransform,
    TargetCodec,
    check_precipitation_options,
)
from st_cdgm.data.fields import Channel, TargetVariable
from st_cdgm.data.normalization import Blocks
from st_cdgm.data.quantile_map import AmountCounts, QuantileMap
from st_cdgm.errors import ConfigError

__all__ = [
    "MAX_PRECIPITATION",
    "MIN_INCREMENT",
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

_LOGGER = logging.getLogger(__name__)

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


def build_codec(
    targets: Sequence[TargetVariable],
    *,
    precipitation: str = "sqrt",
    precipitation_delta: float = 0.01,
    wet_threshold: float = 0.1,
    blocks: Blocks | None = None,
) -> TargetCodec:
    """Choose how each target variable is encoded.

    Parameters
    ----------
    targets : sequence of TargetVariable
        In channel order.
    precipitation : {"sqrt", "log1p", "identity", "quantile"}
        Transform of precipitation; ``quantile`` is fitted to training days, see
        :class:`st_cdgm.data.quantile_map.QuantileMap`.
    precipitation_delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Amounts below it decode to exactly 0, mm day-1.
    blocks : callable, optional
        Training days, see :data:`st_cdgm.data.normalization.Blocks`; read once, and
        only for ``quantile``.

    Returns
    -------
    TargetCodec

    Raises
    ------
    ConfigError
        If an option is out of range, or ``quantile`` has no training days.
    InputError
        If ``quantile`` finds too few wet values.
    """
    check_precipitation_options(precipitation, precipitation_delta, wet_threshold)
    channels = precipitation_channels(targets)
    names = tuple(t.name for t in targets)
    fitted: tuple[QuantileMap, ...] = ()
    if precipitation == "quantile" and channels:
        fitted = _fit_quantiles(blocks, channels, names, float(wet_threshold))
    return TargetCodec(
        names=names,
        ordered=ordered_temperatures(targets),
        precipitation=channels,
        quantiles=fitted,
        transform=cast(PrecipitationTransform, precipitation),
        delta=float(precipitation_delta),
        wet_threshold=float(wet_threshold),
    )


def _fit_quantiles(
    blocks: Blocks | None,
    channels: Sequence[int],
    names: Sequence[str],
    wet_threshold: float,
) -> tuple[QuantileMap, ...]:
    """Fit a map to each precipitation channel, over all cells and training days."""
    if blocks is None:
        raise ConfigError(
            "quantiles need training days",
            variable="data.precipitation_codec",
            found="quantile",
            expected="sqrt, log1p or identity where there are none",
        )
    counts = [AmountCounts(wet_threshold, MAX_PRECIPITATION) for _ in channels]
    for _, _, truth in blocks():
        for channel, count in zip(channels, counts, strict=True):
            count.add(truth[:, channel])
    return tuple(
        count.fit(names[channel])
        for channel, count in zip(channels, counts, strict=True)
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
