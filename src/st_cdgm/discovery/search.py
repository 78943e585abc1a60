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
def _states(
    network: CausalNetwork, series: CausalSeries, window: int
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Return H(t), ``(T, Q, n, H)``, and the days that have it: ends of windows."""
    ends = window_ends(series.ordinal, window)
    cell = network.cell
    shape = (len(ends), cell.num_vars, len(series.cells), cell.hidden_dim)
    out, days = torch.zeros(shape), torch.arange(1 - window, 1)
    for part in torch.split(torch.from_numpy(np.flatnonzero(ends)), CHUNK):
        state, _ = network(series.drivers[part[:, None] + days])
        out[part] = torch.unflatten(state, 1, (len(part), -1)).transpose(0, 1)
    return out, ends


def judge_network(
    network: CausalNetwork,
    series: CausalSeries,
    config: DiscoveryConfig,
    *,
    seed: int = 0,
) -> EdgeErrors:
    """Measure, on the held-out years of ``series``, what each edge is worth."""
    series = thinned(series, config.max_cells)
    states, ends = _states(network, series, config.window)
    return edge_errors(
        network.cell,
        states,
        series.targets,
        series.mask,
        _followed(ends, series.ordinal),
        series.train,
        series.year,
        series.season,
        steps=config.head_steps,
        lr=config.head_lr,
        days_per_step=config.head_days,
        min_reliance=config.min_gain / 4,
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
    residual = np.concatenate([e.residual for e in errors])
    days = np.concatenate([e.days for e in errors])
    return judge_edges(
        names,
        np.concatenate([e.full for e in errors]),
        np.concatenate([e.without for e in errors]),
        np.concatenate([e.shadow for e in errors]),
        np.any([e.tested for e in errors], axis=0),
        min_gain=config.min_gain,
        min_t=config.min_t,
        shadow_ratio=config.shadow_ratio,
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
    model : STCDGM
        Trained.
    lr : Tensor
        Standardised predictors. Shape ``(T, C, y, x)``.
    year, season : ndarray
        Calendar. Shape ``(T,)``.
    train : ndarray of bool
        Days the model was trained on; the others, two years or more, judge.
    ordinal : ndarray, optional
        Number of each day; consecutive when absent.
    config : DiscoveryConfig, optional
        ``window``, ``max_cells``, the settings of the heads and the rule are used.
    seed : int
        Of the batches.
    """
    config = config or DiscoveryConfig()
    config.check()
    number = np.arange(len(lr)) if ordinal is None else ordinal
    ends = window_ends(number, config.window)
    nodes = model.lr_shape[0] * model.lr_shape[1]
    most = min(config.max_cells, nodes)
    cells = torch.linspace(0, nodes - 1, most).round().long()
    cell = model.cell
    states = torch.zeros(len(lr), cell.num_vars, most, cell.hidden_dim)
    span = torch.arange(1 - config.window, 1)
    with torch.no_grad():
        for part in torch.split(torch.from_numpy(np.flatnonzero(ends)), CHUNK):
            state = model.rollout(lr[part[:, None] + span]).state
            state = torch.unflatten(state, 1, (len(part), -1))[:, :, cells]
            states[part] = state.transpose(0, 1)
        drivers = torch.unflatten(model.drivers(lr[:, None])[0], 1, (len(lr), -1))
    errors = edge_errors(
        cell,
        states,
        drivers[:, :, cells].transpose(0, 1),
        model.gather_mask,
        _followed(ends, number),
        train,
        year,
        season,
        steps=config.head_steps,
        lr=config.head_lr,
        days_per_step=config.head_days,
        min_reliance=config.min_gain / 4,
        seed=seed,
    )
    return _judge(model.names, [errors], number, config)
