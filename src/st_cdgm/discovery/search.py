"""Which variables act on which: every ordered pair, tested.

Each variable's next step is predicted from the past of all variables around a cell, by
regressions that are solved with all of it, without each variable, and with a shadow of
it, on parts of the record that no fit has seen (:mod:`st_cdgm.discovery.held_out`);
the rule is in :mod:`st_cdgm.discovery.verdicts`. Fields of the fine grid are targets of
their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.features import make_design
from st_cdgm.discovery.held_out.losses import Losses, fold_losses
from st_cdgm.discovery.held_out.segments import Segments
from st_cdgm.discovery.held_out.targets import LAGS, TargetRecord, target_losses
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import LinkGraph, LinkLosses, judge

_LOGGER = logging.getLogger(__name__)


def discover_edges(
    record: Record,
    config: DiscoveryConfig | None = None,
    *,
    target: TargetRecord | None = None,
    on_fold: Callable[[], None] | None = None,
) -> LinkGraph:
    """Find the links between gridded variables, and from them to fine fields.

    Parameters
    ----------
    record : Record
        Fields and calendar; a hundred steps at least.
    config : DiscoveryConfig, optional
        Defaults when absent.
    target : TargetRecord, optional
        Fine fields, on the same steps.
    on_fold : callable, optional
        Called after every fold, of predictors and of targets.

    Returns
    -------
    LinkGraph
        One `Link` per ordered pair.

    Raises
    ------
    ConfigError
        A setting is out of range.
    InputError
        The record does not fit together or is too short.
    """
    config = config or DiscoveryConfig()
    return judge(link_losses(record, config, target=target, on_fold=on_fold), config)


def link_losses(
    record: Record,
    config: DiscoveryConfig,
    *,
    target: TargetRecord | None = None,
    on_fold: Callable[[], None] | None = None,
    seed: int | None = None,
) -> list[LinkLosses]:
    """Measure the losses that :func:`discover_edges` judges; parameters as there.

    With a seed the segments are held out, and stand in for one another, in a random
    order.
    """
    config.check()
    record.check()
    # Steps at which everything is there.
    there = record.present()
    if target is not None:
        there &= np.isfinite(target.values).all(axis=(1, 2))
        target = replace(target, values=target.values[there])
    record = record.select(there)
    segments = Segments.of(record.year, record.season)
    if seed is not None:
        segments = segments.shuffled(seed)

    losses = []
    for train in segments.folds(config.folds):
        losses.append(fold_losses(make_design(record, train, config), segments, train))
        if on_fold is not None:
            on_fold()
    lags = list(range(1, config.max_lag + 1))
    channels = record.channel_names()
    parts = [
        _part(record, record.names, channels, Losses.joined(losses), lags, segments)
    ]

    if target is not None:
        found = target_losses(record, target, segments, config, on_fold)
        own = [(name, name) for name in target.names]
        parts.append(_part(record, target.names, own, found, list(LAGS), segments))
    return parts


def _part(
    record: Record,
    targets: tuple[str, ...],
    channels: list[tuple[str, str]],
    losses: Losses,
    lags: list[int],
    segments: Segments,
) -> LinkLosses:
    return LinkLosses(
        sources=record.names,
        targets=targets,
        source_channels=record.channel_names(),
        target_channels=channels,
        losses=losses,
        number=record.number[losses.step],
        segment=segments.number[losses.step],
        lags=lags,
    )
