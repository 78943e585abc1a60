"""Sizes that a configuration may state although they follow from the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from st_cdgm.errors import ConfigError
from st_cdgm.models.config import ModelConfig


def check_declared(
    config: ModelConfig,
    *,
    lr_shape: tuple[int, int],
    hr_shape: tuple[int, int],
    target_channels: int,
    groups: Sequence[str],
    driver_dim: int,
) -> None:
    """Refuse a configuration whose stated sizes are not those of the data.

    Parameters
    ----------
    config : ModelConfig
        Sizes that are None are not stated.
    lr_shape, hr_shape : tuple of int
        Coarse and fine grid.
    target_channels : int
        C.
    groups : sequence of str
        Node types of the predictors.
    driver_dim : int
        D.

    Raises
    ------
    ConfigError
        Names every key at fault with the right value.
    """
    levels = [name for name in groups if name != "SURF"]
    right: dict[str, Any] = {
        "graph.lr_shape": list(lr_shape),
        "graph.hr_shape": list(hr_shape),
        "graph.include_mid_layer": len(levels) > 1,
        "rcn.hidden_dim": config.encoder.hidden_dim,
        "rcn.driver_dim": driver_dim,
        "rcn.reconstruction_dim": driver_dim,
        "diffusion.in_channels": target_channels,
        "diffusion.conditioning_dim": config.encoder.conditioning_dim,
        "diffusion.height": hr_shape[0],
        "diffusion.width": hr_shape[1],
    }

    stated = dict(_stated(config))
    wrong = {key: stated[key] for key, value in right.items() if stated[key] != value}
    wrong = {key: value for key, value in wrong.items() if value is not None}
    if wrong:
        raise ConfigError(
            "the configuration states sizes that are not those of the data",
            variable=", ".join(wrong),
            found=", ".join(f"{key}={value}" for key, value in wrong.items()),
            expected=", ".join(f"{key}={right[key]}" for key in wrong),
            remedy="set what is expected, or leave the keys out (null)",
        )


def _stated(config: ModelConfig) -> Iterator[tuple[str, Any]]:
    """Yield what a configuration states, by dotted key."""
    graph, rcn, diffusion = config.graph, config.rcn, config.diffusion
    lr, hr = graph.lr_shape, graph.hr_shape
    yield "graph.lr_shape", None if lr is None else list(lr)
    yield "graph.hr_shape", None if hr is None else list(hr)
    yield "graph.include_mid_layer", graph.include_mid_layer

    yield "rcn.hidden_dim", rcn.hidden_dim
    yield "rcn.driver_dim", rcn.driver_dim
    yield "rcn.reconstruction_dim", rcn.reconstruction_dim
    yield "diffusion.in_channels", diffusion.in_channels
    yield "diffusion.conditioning_dim", diffusion.conditioning_dim
    yield "diffusion.height", diffusion.height
    yield "diffusion.width", diffusion.width
