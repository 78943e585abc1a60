"""The library's U-Net in our sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from st_cdgm.errors import ConfigError
from st_cdgm.models.config import UNetConfig

OWN_SIZES = {f.name for f in fields(UNetConfig)}
# What the decoder sets itself.
FIXED = {"sample_size", "in_channels", "out_channels", "cross_attention_dim"}


def unet_kwargs(
    config: UNetConfig, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Translate our few sizes into the library's arguments.

    Parameters
    ----------
    config : UNetConfig
        Sizes.
    extra : mapping, optional
        Keys of `UNetConfig` change a size (the block types follow); all others go to
        the library as they are.

    Raises
    ------
    ConfigError
        A key that the decoder sets itself.
    """
    extra = dict(extra or {})
    taken = FIXED & set(extra)
    if taken:
        raise ConfigError(
            "unet_kwargs names what the decoder sets itself",
            variable="unet_kwargs",
            found=", ".join(sorted(taken)),
            remedy="leave them out: they follow from the decoder's own arguments",
        )

    changed = {key: extra.pop(key) for key in OWN_SIZES & set(extra)}
    sizes = config.resolved()
    sizes = replace(sizes, **changed).resolved() if changed else sizes
    levels = len(sizes.block_out_channels)
    attention = min(sizes.attention_levels, levels)
    plain = levels - attention

    # The coarsest resolutions attend, on the way down and on the way up.
    return {
        "block_out_channels": tuple(sizes.block_out_channels),
        "layers_per_block": sizes.layers_per_block,
        "down_block_types": ("DownBlock2D",) * plain
        + ("CrossAttnDownBlock2D",) * attention,
        "up_block_types": ("CrossAttnUpBlock2D",) * attention + ("UpBlock2D",) * plain,
        "attention_head_dim": sizes.attention_head_dim,
        "norm_num_groups": sizes.norm_num_groups,
        "dropout": sizes.dropout,
    } | extra


def modulated(numbers: int) -> dict[str, Any]:
    """Arguments of a U-Net whose normalisations are scaled and shifted by numbers.

    Empty for none. The library's class embedding takes them, as do conditional
    normalisations that carry an ensemble's noise (Lang et al. 2024, arXiv:2412.15832).
    """
    if numbers == 0:
        return {}
    return {
        "class_embed_type": "simple_projection",
        "projection_class_embeddings_input_dim": numbers,
        "resnet_time_scale_shift": "scale_shift",
    }
