"""Links from predictors to fields of the fine grid, at the same step and one before.

A fine cell has a regression of its own: the relief decides what the flow does there. It
sees the coarse neighbourhood of every source, at the same step and the step before, and
these in their season. Nothing else: no baseline, no past of the target, so that
"without i" means without anything about i.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.features import (
    FREE,
    SQUARE,
    Basis,
    Columns,
    Design,
    anomalies_of,
    free_features,
    neighbourhoods,
    shifted,
    usable_steps,
)
from st_cdgm.discovery.held_out.losses import Losses, fold_losses
from st_cdgm.discovery.held_out.segments import Segments
from st_cdgm.discovery.series import Record
from st_cdgm.typing import FloatArray, Indices

# A cell has fewer days than a whole grid: fewer components of a neighbourhood, fewer of
# them squared, those of small variance less trusted; and the leading ones by season.
COMPONENTS, SQUARES, TILT, SEASONAL = 12, 3, 2.0, 4
LAGS = (0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetRecord:
    """Target variables at some fine cells.

    Attributes
    ----------
    values : ndarray
        Of Q variables at P cells, as the codec has them. Shape ``(T, P, Q)``, float32.
    names : tuple of str
        The variables.
    node : ndarray
        Coarse cell of the predictors' record nearest to each. Shape ``(P,)``.
    """

    values: FloatArray
    names: tuple[str, ...]
    node: Indices


def target_losses(
    record: Record,
    target: TargetRecord,
    segments: Segments,
    config: DiscoveryConfig,
    on_fold: Callable[[], None] | None = None,
) -> Losses:
    """Return held-out losses (CRPS) of all targets, mean over the cells."""
    parts = []
    for train in segments.folds(config.folds):
        around = [
            neighbourhoods(anomalies_of(field, record.season, train, config))
            for field in record.fields.values()
        ]

        # A regression per cell; what counts is their mean.
        cells = [
            fold_losses(
                _design(record, around, target, p, train, config),
                segments,
                train,
                crps=True,
            )
            for p in range(len(target.node))
        ]
        parts.append(_mean(cells))
        if on_fold is not None:
            on_fold()
    return Losses.joined(parts)


def _mean(cells: list[Losses]) -> Losses:
    """Average over cells that share their steps."""
    names = [f.name for f in fields(Losses) if f.name != "step"]
    means = {name: np.mean([getattr(c, name) for c in cells], axis=0) for name in names}
    return Losses(step=cells[0].step, **means)


def _design(
    record: Record,
    around: list[FloatArray],
    target: TargetRecord,
    cell: int,
    train: NDArray[np.bool_],
    config: DiscoveryConfig,
) -> Design:
    """Make the features of one fine cell."""
    few = replace(
        config,
        components=min(config.components, COMPONENTS),
        squares=min(config.squares, SQUARES),
    )
    columns, past, uniform = Columns(), {}, []
    columns.add(free_features(record, config, train)[:, None], FREE)
    waves = annual_harmonics(record.season, 1)[:, None, 1:].astype(np.float32)

    for i, (patch, field) in enumerate(
        zip(around, record.fields.values(), strict=True)
    ):
        own = patch[:, [target.node[cell]]]
        basis = Basis.fit(own[train], few, channels=field.shape[1], tilt=TILT)
        uniform.append(basis.uniform)
        full, kind, stiff = basis.with_squares(basis.scores(own))

        # The leading components also act by season.
        lead = full[..., : min(SEASONAL, basis.uniform.shape[1])]
        seasonal = np.concatenate([lead * waves[..., [w]] for w in (0, 1)], axis=-1)
        full = np.concatenate([full, seasonal], axis=-1)
        kind = np.concatenate([kind, np.full(seasonal.shape[-1], SQUARE)])
        stiff = np.concatenate([stiff, np.ones(seasonal.shape[-1])])
        for lag in LAGS:
            values = shifted(full, lag) if lag else full
            past[i, lag] = columns.add(values, kind, stiff * (1 + lag) ** 2)

    X, kind, stiff = columns.joined()
    truth = target.values[:, cell, :, None, None]
    Y = anomalies_of(truth, record.season, train, config)[:, :, 0, 0]
    return Design(
        X=X,
        Y=Y[:, None],
        kind=kind,
        stiff=stiff,
        owner=np.arange(len(target.names)),
        past=past,
        memory={},
        same_step={},
        uniform=uniform,
        usable=usable_steps(record.number, train, max(LAGS)),
    )
