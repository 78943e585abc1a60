"""Which target is encoded how: kinds of variables and the codec that fits them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from st_cdgm.data.fit.codecs.quantile_map import AmountCounts, QuantileMap
from st_cdgm.data.fit.codecs.target import (
    MAX_PRECIPITATION,
    PrecipitationTransform,
    TargetCodec,
    check_precipitation_options,
)
from st_cdgm.data.fit.moments import Blocks
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.kinds import ordered_temperatures, precipitation_channels
from st_cdgm.errors import ConfigError


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
        :class:`st_cdgm.data.fit.codecs.quantile_map.QuantileMap`.
    precipitation_delta : float
        Offset of ``log1p``, mm day-1.
    wet_threshold : float
        Amounts below it decode to exactly 0, mm day-1.
    blocks : callable, optional
        Training days, see :data:`st_cdgm.data.fit.moments.Blocks`; read once, and
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
        transform=cast("PrecipitationTransform", precipitation),
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
