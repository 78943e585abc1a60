"""What the linear path of a model is before it is trained."""

from __future__ import annotations

import logging

import numpy as np
import torch

from st_cdgm.data.fit.components import PrincipalComponents
from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.ridge import PENALTY_CELLS, choose_penalty, solve_penalised
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.windows import previous_step
from st_cdgm.models.linear_path import LinearPath
from st_cdgm.typing import Floats

logger = logging.getLogger(__name__)


@torch.no_grad()
def start_linear_path(path: LinearPath, pipeline: PipelineViews, start: str) -> None:
    """Take the components from the training days; set the map itself if asked for.

    Parameters
    ----------
    path : LinearPath
        Changed in place.
    pipeline : PipelineViews
        With a training period, whose predictors are read at once.
    start : {"zero", "ridge"}
        ``ridge``: a regression of the standardised residuals, whose penalty is chosen
        by leaving out one year at a time.
    """
    prep = pipeline.preprocessor
    lr = np.concatenate([part["lr"] for part in pipeline.blocks("train")])
    limit, area = path.axes.shape[1], prep.lr_grid.area_weights()
    space = PrincipalComponents.fit(lr, area=area, limit=limit)
    scores = space.transform(lr)
    width = scores.std(axis=0)
    width = np.where(width > 0, width, 1.0)

    # Fewer components than asked for leave columns of zeros.
    axes = space.scale[:, None] * space.axes / width
    path.axes[:, : len(width)] = torch.from_numpy(axes).to(path.axes)
    offset = torch.from_numpy((space.mean @ space.axes) / width)
    path.offset[: len(width)] = offset.to(path.offset)
    if start == "ridge":
        features = np.zeros((len(lr), limit))
        features[:, : len(width)] = scores / width
        weight = _regression(features, path.days, pipeline)
        path.weight.copy_(torch.from_numpy(weight).reshape(path.weight.shape))


def _regression(features: Floats, days: int, pipeline: PipelineViews) -> Floats:
    """Return the map of the training days' residuals. Shape ``(K D, C * Y * X)``."""
    dates = pipeline.days.select(pipeline.indices["train"])
    before = features[previous_step(dates.ordinal)]
    X = np.column_stack([np.ones(len(features)), *(features, before)[:days]])

    # Products with all cells, and some cells for the choice of the penalty.
    valid = np.flatnonzero(pipeline.preprocessor.valid)
    places = np.linspace(0, len(valid) - 1, min(PENALTY_CELLS, len(valid)))
    some, parts, start = valid[np.unique(places.astype(int))], [], 0
    cross = np.zeros((X.shape[1], pipeline.preprocessor.valid.size))
    for part in pipeline.blocks("train"):
        residual = np.nan_to_num(part["residual"].reshape(len(part["residual"]), -1))
        cross += X[start : start + len(residual)].T @ residual
        parts.append(residual[:, some])
        start += len(residual)

    penalty = choose_penalty(X, np.concatenate(parts), year_folds(dates.key))
    logger.info("linear path: penalty %g of the number of days", penalty)
    return solve_penalised(X.T @ X, cross, penalty, len(X))[1:]
