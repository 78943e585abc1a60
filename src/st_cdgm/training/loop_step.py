"""The objective of one batch in the plain training loop, and its options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.ensemble_loss import multiscale_crps
from st_cdgm.models.loss_weights import extreme_weight, focal_weight, weighted_mean
from st_cdgm.physics.terms import wind_loss
from st_cdgm.training.estimates import check_min_snr, min_snr_ratio, sampled_estimate
from st_cdgm.training.loop_options import Chain, StepOptions
from st_cdgm.training.losses import loss_dag, loss_reconstruction, multiscale_energy

_NOT_FINITE = re.compile(r"\b(nan|inf|infinite|infinity)\b", re.IGNORECASE)


class InvalidBatchError(ArithmeticError):
    """A batch holds, or leads to, numbers that are not finite."""


@dataclass(frozen=True)
class StepLosses:
    """Terms of one batch, unweighted, and their weighted sum.

    ``gen`` is None where no cell of the target is valid, ``phy`` where it was not asked
    for or not due.
    """

    total: Tensor
    gen: Tensor | None
    rec: Tensor
    dag: Tensor
    phy: Tensor | None


@dataclass
class _Day:
    """What the decoder learns from a batch: D days, one after the other."""

    target: Tensor  # (D, C, Y, X), NaN where there is no truth
    conditioning: Any
    extreme: Tensor | None = None
    valid: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.valid = torch.isfinite(self.target)


def loss_diffusion(
    decoder: Any,
    target: Tensor,
    conditioning: Any,
    *,
    use_focal_loss: bool = False,
    focal_alpha: float = 1.0,
    focal_gamma: float = 2.0,
    **options: Any,
) -> Tensor:
    """Return ``decoder.compute_loss``: the generator's loss, scalar.

    Parameters
    ----------
    decoder : CausalDiffusionDecoder
        The generator.
    target : Tensor
        Standardised residual, NaN where there is none. Shape ``(B, C, Y, X)``.
    conditioning : Conditioning or Tensor
        Of B days.
    use_focal_loss, focal_alpha, focal_gamma
        Weights of large errors.
    **options
        Further keywords of ``compute_loss``: ``valid``, ``extreme_weight_factor`` ...
    """
    loss: Tensor = decoder.compute_loss(
        target, conditioning, use_focal_loss, focal_alpha, focal_gamma, **options
    )
    return loss


def step_losses(
    chain: Chain, batch: Mapping[str, Any], options: StepOptions, number: int
) -> StepLosses:
    """Return all terms of the objective for batch ``number``.

    Raises
    ------
    InvalidBatchError
        Conditioning, prediction or loss is not finite.
    """
    drivers = batch["lr"]  # (T, N, C_lr)
    # Day 1 is encoded; days 2..T drive, so that none is predicted from itself.
    driven = drivers[1:] if len(drivers) > 1 else drivers
    rollout = chain.rcn_runner.run(chain.encoder.init_state(batch["hetero"]), driven)
    rec = _reconstruction(rollout, driven, len(drivers) > 1, options)
    dag = loss_dag(
        rollout.dag_matrices[0],  # one matrix, used at all steps
        options.dag_method,
        s=options.dagma_s,
        l1_weight=options.l1_weight,
    )
    day = _decoder_day(chain, rollout.states, batch, options)
    gen, estimate = _generator(chain.decoder, day, options)
    phy = _physical(chain.decoder, day, estimate, options, number)
    total = options.lambda_gen * gen + options.beta_rec * rec
    total = total + options.gamma_dag * dag
    total = total if phy is None else total + options.lambda_phy * phy
    if not bool(torch.isfinite(total)):
        msg = (
            f"the loss is {total.item()} (generator {gen.item():.4g}, reconstruction "
            f"{rec.item():.4g}, graph {dag.item():.4g})"
        )
        raise InvalidBatchError(msg)
    return StepLosses(total, gen if bool(day.valid.any()) else None, rec, dag, phy)


def _reconstruction(
    rollout: Any, driven: Tensor, predicted: bool, options: StepOptions
) -> Tensor:
    """Error of the drivers predicted from the past, averaged over the days."""
    made = rollout.reconstructions
    if not predicted or made[0] is None:
        return driven.new_zeros(())
    return loss_reconstruction(
        torch.stack(made), driven, options.reconstruction_loss_type
    )


def _decoder_day(
    chain: Chain, states: list[Tensor], batch: Mapping[str, Any], options: StepOptions
) -> _Day:
    key = options.residual_key if options.residual_key in batch else "hr"
    target = _checked_target(batch[key], key, chain.decoder)
    steps = range(-1, 0)
    if options.decoder_steps == "all":
        steps = range(-len(states), 0)
    index = batch.get(options.batch_index_key)
    parts = [_conditioning(chain, states[t], index, batch, t, options) for t in steps]
    day = _Day(
        torch.cat([_at(target, t) for t in steps]),
        parts[0] if len(parts) == 1 else _joined(parts),
    )
    if options.extreme_key is not None:
        values = batch[options.extreme_key]
        day.extreme = torch.cat([_at(values, t) for t in steps])
    tokens = getattr(day.conditioning, "tokens", day.conditioning)
    if tokens.shape[0] != len(day.target):
        raise InputError(
            "conditioning and target are of different numbers of days",
            variable=options.batch_index_key,
            found=f"{tokens.shape[0]} and {len(day.target)}",
            remedy="give the graph of each node, or one window per batch",
        )
    if not bool(torch.isfinite(tokens).all()):
        raise InvalidBatchError("the conditioning is not finite")
    return day


def _checked_target(target: Tensor, key: str, decoder: Any) -> Tensor:
    """Return the target as ``(B, T, C, Y, X)``."""
    if target.ndim not in (4, 5):
        raise InputError(
            "the target has the wrong rank",
            variable=key,
            found=tuple(target.shape),
            expected="(T, C, Y, X), or (B, T, C, Y, X)",
        )
    channels = getattr(decoder, "in_channels", target.shape[-3])
    if target.shape[-3] != channels:
        raise InputError(
            "target and decoder have different numbers of channels",
            variable=key,
            found=target.shape[-3],
            expected=channels,
        )
    return target if target.ndim == 5 else target[None]


def _at(values: Tensor, t: int) -> Tensor:
    """Return day ``t`` of a window or of B windows. Shape ``(B, C, Y, X)``."""
    return values[:, t] if values.ndim == 5 else values[None, t]


def _conditioning(
    chain: Chain,
    state: Tensor,
    index: Tensor | None,
    batch: Mapping[str, Any],
    t: int,
    options: StepOptions,
) -> Any:
    if chain.conditioning_fn is not None:
        return chain.conditioning_fn(state, index)
    tokens = chain.encoder.project_state_tensor(state, batch_index=index)
    if not options.context_keys:
        return tokens
    maps = []
    for key in options.context_keys:
        value = batch[key]
        day = value[None] if value.ndim == 3 else _at(value, t)
        maps.append(day.expand(len(tokens), -1, -1, -1).nan_to_num())
    context = torch.cat(maps, dim=1)
    return Conditioning(tokens, context[:, :0], context)


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    names = ("tokens", "state_maps", "context")
    return Conditioning(*(torch.cat([getattr(p, n) for p in parts]) for n in names))


def _generator(
    decoder: Any, day: _Day, options: StepOptions
) -> tuple[Tensor, Tensor | None]:
    """Return the generator's loss, and the members ``(D, M, C, Y, X)`` if it made any.

    Raises
    ------
    InvalidBatchError
        The decoder met numbers that are not finite.
    """
    one_step = getattr(getattr(decoder, "config", None), "one_step", False)
    wrong = ("use_focal_loss", options.use_focal_loss, "a denoiser")
    if not one_step:
        wrong = ("energy_weight", options.energy_weight > 0, "a one_step decoder")
    if wrong[1]:
        raise ConfigError(
            "this decoder has no such loss", variable=wrong[0], expected=wrong[2]
        )
    check_min_snr(decoder, options.min_snr_gamma)
    if one_step:
        return _ensemble(decoder, day, options)
    if options.min_snr_gamma is not None:
        return _denoising(decoder, day, options, options.min_snr_gamma), None
    extreme: dict[str, Any] = {}
    if options.extreme_weight_factor:
        extreme = {
            "extreme_weight_factor": options.extreme_weight_factor,
            "extreme_percentiles": list(options.extreme_percentiles),
            "extreme_values": day.extreme,
        }
    try:
        loss = loss_diffusion(
            decoder,
            day.target,
            day.conditioning,
            use_focal_loss=options.use_focal_loss,
            focal_alpha=options.focal_alpha,
            focal_gamma=options.focal_gamma,
            **extreme,
        )
    except InputError:
        raise
    except ValueError as error:
        if _NOT_FINITE.search(str(error)):
            raise InvalidBatchError(str(error)) from error
        raise
    return loss, None


def _extreme(day: _Day, options: StepOptions) -> Tensor | None:
    """Weights of extreme cells ``(D, C, Y, X)``, or None."""
    if not options.extreme_weight_factor:
        return None
    values = day.target if day.extreme is None else day.extreme
    return extreme_weight(
        values.nan_to_num(),
        day.valid,
        factor=options.extreme_weight_factor,
        percentiles=list(options.extreme_percentiles),
    )


def _denoising(decoder: Any, day: _Day, options: StepOptions, gamma: float) -> Tensor:
    """Return the denoising loss with other min-SNR weights than the decoder's."""
    clean = day.target.nan_to_num()
    sigma = decoder.training_sigma(len(clean), clean.device)
    noise = torch.randn_like(clean)
    error = decoder.denoising_error(clean, day.conditioning, sigma=sigma, noise=noise)
    error = error * min_snr_ratio(decoder, sigma, gamma)
    weight = _extreme(day, options)
    weight = torch.ones_like(error) if weight is None else weight
    if options.use_focal_loss:
        weight = weight * focal_weight(
            error, day.valid, alpha=options.focal_alpha, gamma=options.focal_gamma
        )
    return weighted_mean(error, weight, day.valid)


def _ensemble(decoder: Any, day: _Day, options: StepOptions) -> tuple[Tensor, Tensor]:
    """Score the members of a one-step decoder, in units of the residual."""
    d, m = len(day.target), options.members or decoder.config.train_members
    noise = torch.randn(d * m, *decoder.noise_shape, device=day.target.device)
    given = day.conditioning
    many = (
        given.repeat_interleave(m, dim=0)
        if isinstance(given, Tensor)
        else given.repeat(m)
    )
    members = decoder.generate_one_step(noise, many).float().unflatten(0, (d, m))
    truth, scales = day.target.nan_to_num(), decoder.config.pooling_scales
    importance = _extreme(day, options)
    loss = multiscale_crps(members, truth, day.valid, scales, importance=importance)
    if options.energy_weight > 0:
        energy = multiscale_energy(
            members, truth, day.valid, scales, patch=options.energy_patch
        )
        loss = loss + options.energy_weight * energy
    return loss.mean(), members


def _physical(
    decoder: Any,
    day: _Day,
    members: Tensor | None,
    options: StepOptions,
    number: int,
) -> Tensor | None:
    """MSE of divergence and vorticity, or None where it is off or not due."""
    if options.lambda_phy == 0:
        return None
    pairs = options.pairs(day.target.shape[1])
    if members is None:
        estimate = _estimate(decoder, day, options, number)
        if estimate is None:
            return None
        members = estimate[:, None].float()
    target = day.target
    if options.target_scale is not None:
        scale = options.target_scale.to(target).reshape(target.shape[1], 1, 1)
        members, target = members * scale, target * scale
    operator = options.derivatives(target.shape[-2:])
    terms = [
        wind_loss(
            members[:, :, list(pair)],
            target[:, list(pair)],
            day.valid[:, list(pair)],
            operator,
        )
        for pair in pairs
    ]
    return torch.stack(terms).mean()


def _estimate(
    decoder: Any, day: _Day, options: StepOptions, number: int
) -> Tensor | None:
    """Estimate the clean residual ``(D, C, Y, X)`` with a gradient."""
    clean = day.target.nan_to_num()
    noise = torch.randn_like(clean)
    if options.use_predicted_output:
        if number % options.physical_sample_interval:
            return None
        steps = options.physical_num_steps
        return sampled_estimate(decoder, day.conditioning, noise, steps=steps)
    sigma = decoder.training_sigma(len(clean), clean.device)
    noisy = clean + sigma[:, None, None, None] * noise
    estimate: Tensor = decoder.denoise(noisy, sigma, day.conditioning)
    return estimate
