"""One loss for the generator of either kind, with one rule for missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.ensemble_loss import multiscale_crps
from st_cdgm.models.loss_weights import extreme_weight, focal_weight, weighted_mean

if TYPE_CHECKING:
    from st_cdgm.models.denoiser import ConditionalDenoiser


def decoder_loss(
    decoder: ConditionalDenoiser,
    target: Tensor,
    conditioning: Conditioning | Tensor,
    *,
    focal: tuple[float, float] | None,
    valid: Tensor | None,
    sigma: Tensor | None,
    noise: Tensor | None,
    extreme: dict[str, Any],
    extreme_values: Tensor | None,
    members: int | None,
    per_variable: bool,
) -> Tensor:
    """Return the loss of ``CausalDiffusionDecoder.compute_loss``."""
    prepared = decoder.prepare(conditioning)
    _check_finite(prepared)
    _check_shape(decoder, target)
    mask = torch.isfinite(target) if valid is None else torch.isfinite(target) & valid
    filled = torch.where(mask, target, 0.0)
    weight = torch.ones_like(filled)
    if extreme["factor"]:
        shown = filled if extreme_values is None else extreme_values.nan_to_num()
        weight = extreme_weight(shown, mask, **extreme)
    if decoder.config.one_step:
        if focal is not None:
            raise ConfigError(
                "focal weights are for the denoising error; one_step has none",
                variable="use_focal_loss",
                found=True,
                expected=False,
            )
        loss = _ensemble_loss(
            decoder, filled, prepared, mask, weight=weight, noise=noise, members=members
        )
        loss = loss if per_variable else loss.mean()
    else:
        b, device = len(target), target.device
        sigma = decoder.training_sigma(b, device) if sigma is None else sigma
        noise = torch.randn_like(filled) if noise is None else noise
        error = decoder.prepared_error(filled, prepared, sigma=sigma, noise=noise)
        _check_prediction(error)
        if focal is not None:
            alpha, gamma = focal
            weight = weight * focal_weight(error, mask, alpha=alpha, gamma=gamma)
        loss = weighted_mean(error, weight, mask, per_variable=per_variable)
    if not bool(torch.isfinite(loss).all()):
        msg = f"the generator's loss is {loss.tolist()}"
        raise ValueError(msg)
    return loss


def _ensemble_loss(
    decoder: ConditionalDenoiser,
    target: Tensor,
    condition: Conditioning,
    mask: Tensor,
    *,
    weight: Tensor,
    noise: Tensor | None,
    members: int | None,
) -> Tensor:
    b, m = len(target), members or decoder.config.train_members
    if noise is None:
        noise = torch.randn(b * m, *decoder.noise_shape, device=target.device)
    made = decoder.prepared_one_step(noise, condition.repeat(m))
    _check_prediction(made)
    return multiscale_crps(
        made.reshape(b, m, *made.shape[1:]),
        target,
        mask,
        decoder.config.pooling_scales,
        importance=weight,
    )


def _check_shape(decoder: ConditionalDenoiser, target: Tensor) -> None:
    expected = (decoder.in_channels, decoder.height, decoder.width)
    if target.ndim != 4 or tuple(target.shape[1:]) != expected:
        msg = f"target has shape {tuple(target.shape)}, expected (B, *{expected})"
        raise ValueError(msg)


def _check_finite(condition: Conditioning) -> None:
    for name in ("tokens", "state_maps", "context"):
        part = getattr(condition, name)
        if not bool(torch.isfinite(part).all()):
            count = int((~torch.isfinite(part)).sum())
            msg = f"{count} values of the conditioning's {name} are NaN or infinite"
            raise ValueError(msg)


def _check_prediction(made: Tensor) -> None:
    if not bool(torch.isfinite(made).all()):
        count = int((~torch.isfinite(made)).sum())
        msg = f"the network predicts NaN or infinity in {count} of {made.numel()} cells"
        raise ValueError(msg)
