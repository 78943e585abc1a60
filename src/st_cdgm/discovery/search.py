"""Which variables act on which the day after: the network's answer, tested.

A network is trained on some years (:mod:`st_cdgm.discovery.network`); every
edge its sparsity penalty left is tested on the others
(:mod:`st_cdgm.discovery.heads`) and judged (:mod:`st_cdgm.discovery.verdicts`).
Every year is held out once. A DAG, where one is wanted, is made of the verdicts
afterwards, by :func:`~st_cdgm.evaluation.graph.matrix.acyclic_threshold`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.discovery.heads import EdgeErrors, edge_errors
from st_cdgm.discovery.network import (
    CausalNetwork,
    DiscoveryConfig,
    thinned,
    train_network,
)
from st_cdgm.discovery.series import CausalSeries, Record, prepare_series, window_ends
from st_cdgm.discovery.verdicts import EdgeVerdicts, judge_edges, slow_common_variance
from st_cdgm.errors import InputError
from st_cdgm.models.st_cdgm import STCDGM

_LOGGER = logging.getLogger(__name__)
CHUNK = 128  # windows whose states are computed at once


@torch.no_grad()
def _end_states(
    ends: NDArray[np.bool_],
    window: int,
    state_of: Callable[[Tensor], Tensor],
    cells: Tensor | slice = slice(None),
) -> Tensor:
    """Return H(t), ``(T, Q, n, H)``, of the days that end a window; 0 elsewhere.

    ``state_of`` takes days of shape ``(B, window)`` to states ``(Q, B * n, H)``.
    """
    span, parts = torch.arange(1 - window, 1), []
    days = torch.from_numpy(np.flatnonzero(ends))
    for part in torch.split(days, CHUNK):
        state = torch.unflatten(state_of(part[:, None] + span), 1, (len(part), -1))
        parts.append(state[:, :, cells].transpose(0, 1))
    states = torch.cat(parts)
    out = states.new_zeros(len(ends), *states.shape[1:])
    out[days] = states
    return out


def judge_network(
    network: CausalNetwork,
    series: CausalSeries,
    config: DiscoveryConfig,
    *,
    seed: int = 0,
) -> EdgeErrors:
    """Measure, on the held-out years of ``series``, what each edge is worth."""
    series = thinned(series, config.max_cells)
    ends = window_ends(series.ordinal, config.window)
    return edge_errors(
        network.cell,
        _end_states(ends, config.window, lambda d: network(series.drivers[d])[0]),
        series.targets,
        series.mask,
        _followed(ends, series.ordinal),
        series.train,
        series.year,
        series.season,
        config=config,
        seed=seed,
    )


def _followed(ends: NDArray[np.bool_], ordinal: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark days with a state whose next entry is the following day."""
    next_day = np.append(np.diff(ordinal) == 1, False)
    return np.asarray(ends & next_day)


def discover_edges(
    record: Record,
    config: DiscoveryConfig | None = None,
    *,
    seed: int = 0,
    on_fold: Callable[[], None] | None = None,
) -> EdgeVerdicts:
    """Find the lagged links between gridded variables.

    Parameters
    ----------
    record : Record
        Fields and calendar, at least two years per fold and four in all.
    config : DiscoveryConfig, optional
        Defaults when absent.
    seed : int
        Of initial weights and batches.
    on_fold : callable, optional
        Called after every fold.

    Returns
    -------
    EdgeVerdicts
        One verdict per ordered pair.

    Raises
    ------
    ConfigError
        A setting is out of range.
    InputError
        The record does not fit together or is too short.
    """
    config = config or DiscoveryConfig()
    config.check()
    record.check()
    years, index = np.unique(record.year, return_inverse=True)
    if len(years) < 2 * config.folds:
        raise InputError(
            "too few years to learn from some and judge by others",
            found=f"{len(years)} years",
            expected=f">= {2 * config.folds} for {config.folds} folds",
        )

    errors = []
    for fold in range(config.folds):
        series = prepare_series(
            record, index % config.folds != fold, harmonics=config.harmonics
        )
        network = train_network(series, config, seed=seed + fold)
        errors.append(judge_network(network, series, config, seed=seed + fold))

        _LOGGER.info("fold %d of %d judged", fold + 1, config.folds)
        if on_fold is not None:
            on_fold()

    return _judge(list(record.fields), errors, series.ordinal, config)


def _judge(
    names: Sequence[str],
    errors: Sequence[EdgeErrors],
    ordinal: NDArray[np.int64],
    config: DiscoveryConfig,
) -> EdgeVerdicts:
    """Put the folds together and apply the rule."""
    full, without, shadow, residual, days = (
        np.concatenate([getattr(e, name) for e in errors])
        for name in ("full", "without", "shadow", "residual", "days")
    )
    return judge_edges(
        names,
        full,
        without,
        shadow,
        np.any([e.tested for e in errors], axis=0),
        config=config,
        slow=slow_common_variance(residual, ordinal[days]),
    )


def judge_model(
    model: STCDGM,
    lr: Tensor,
    year: NDArray[np.int64],
    season: NDArray[np.floating],
    train: NDArray[np.bool_],
    *,
    ordinal: NDArray[np.int64] | None = None,
    config: DiscoveryConfig | None = None,
    seed: int = 0,
) -> EdgeVerdicts:
    """Test the edges of a trained downscaling model on its own states and drivers.

    The model is not changed. Its states are mixed and its drivers have their season, so
    that expect *not identifiable* where a season is shared: shadows have it too.

    Parameters
    ----------
    model, lr : STCDGM, Tensor
        A trained model; standardised predictors ``(T, C, y, x)``.
    year, season, ordinal : ndarray
        Calendar, see `Record`. Shape ``(T,)``.
    train : ndarray of bool
        Days the model was trained on; the others, two years or more, judge.
    config : DiscoveryConfig, optional
        ``window``, ``max_cells``, the settings of the heads and the rule are used.
    seed : int
        Of the batches.
    """
    config = config or DiscoveryConfig()
    config.check()
    number = np.arange(len(lr)) if ordinal is None else ordinal
    ends = window_ends(number, config.window)

    # The states of a few cells speak for all: neighbours say the same.
    nodes = model.lr_shape[0] * model.lr_shape[1]
    cells = torch.linspace(0, nodes - 1, min(config.max_cells, nodes)).round().long()
    states = _end_states(
        ends, config.window, lambda days: model.rollout(lr[days]).state, cells
    )
    with torch.no_grad():
        drivers = torch.unflatten(model.drivers(lr[:, None])[0], 1, (len(lr), -1))

    errors = edge_errors(
        model.cell,
        states,
        drivers[:, :, cells].transpose(0, 1),
        model.gather_mask,
        _followed(ends, number),
        train,
        year,
        season,
        config=config,
        seed=seed,
    )
    return _judge(model.names, [errors], number, config)
