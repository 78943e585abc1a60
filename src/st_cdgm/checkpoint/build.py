"""From a description of the data to a model of the right shape."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import interpolation, nearest_index
from st_cdgm.data.variables.fields import Channel
from st_cdgm.models.config import ModelConfig
from st_cdgm.models.st_cdgm import STCDGM, ModelInputs


def channel_groups(channels: tuple[Channel, ...]) -> dict[str, list[int]]:
    """Channels by node type, bottom-up: the surface first, then falling pressure."""
    order = sorted({c.level for c in channels if c.level is not None}, reverse=True)
    groups: dict[str, list[int]] = {}
    for level in [None, *order]:
        index = [i for i, c in enumerate(channels) if c.level == level]
        if index:
            groups[channels[index[0]].group] = index
    return groups


def build_model(
    preprocessor: Preprocessor,
    config: ModelConfig,
    *,
    baseline_mean: Tensor,
    baseline_std: Tensor,
) -> STCDGM:
    """Build an untrained model for the data that ``preprocessor`` describes."""
    lr, hr = preprocessor.lr_grid, preprocessor.hr_grid
    corners = interpolation(lr, hr)
    coordinates = {
        f"{side}_{axis}": torch.from_numpy(np.array(values, dtype=np.float64))
        for side, grid in (("lr", lr), ("hr", hr))
        for axis, values in (("lat", grid.lat2d), ("lon", grid.lon2d))
    }

    inputs = ModelInputs(
        groups=channel_groups(preprocessor.channels),
        lr_shape=lr.shape,
        hr_shape=hr.shape,
        target_channels=len(preprocessor.targets),
        static=torch.from_numpy(np.array(preprocessor.static, dtype=np.float32)),
        index=torch.from_numpy(corners.index),
        weight=torch.from_numpy(corners.weight),
        parent=torch.from_numpy(nearest_index(lr, hr)),
        baseline_mean=baseline_mean,
        baseline_std=baseline_std,
        history=min(preprocessor.seq_len, 2),
        **coordinates,
    )
    return STCDGM(inputs, config)
