"""The objective of one batch in the plain training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from st_cdgm.errors import InputError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.objective import NotFiniteError, Truth
from st_cdgm.training.loop_options import Chain, StepOptions
from st_cdgm.training.losses import generator_terms, loss_dag, loss_reconstruction


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

    # The generator, and the physics of what it makes.
    truth, conditioning = _decoder_days(chain, rollout.states, batch, options)
    gen, phy = _generator(chain.decoder, truth, conditioning, options, number)

    # All terms together.
    total = options.lambda_gen * gen + options.beta_rec * rec
    total = total + options.gamma_dag * dag
    total = total if phy is None else total + options.lambda_phy * phy
    if not bool(torch.isfinite(total)):
        msg = (
            f"the loss is {total.item()} (generator {gen.item():.4g}, reconstruction "
            f"{rec.item():.4g}, graph {dag.item():.4g})"
        )
        raise InvalidBatchError(msg)
    known = bool(truth.valid.any())
    return StepLosses(total, gen if known else None, rec, dag, phy)


def _generator(
    decoder: Any,
    truth: Truth,
    conditioning: Any,
    options: StepOptions,
    number: int,
) -> tuple[Tensor, Tensor | None]:
    """Return the generator's loss and the physical one, if it is asked for and due."""
    options.objective.check(decoder)
    physical = None
    if options.lambda_phy:
        wind = options.wind(truth.residual.shape[1], truth.residual.shape[-2:])

        def physical(members: Tensor) -> Tensor:
            return wind(members, truth.residual, truth.valid)

    found, phy = generator_terms(
        decoder,
        truth,
        conditioning,
        options.objective,
        members=options.members,
        physical=physical,
        look=options.look,
        number=number,
    )
    try:
        return found.check().per_variable.mean(), phy
    except NotFiniteError as error:
        raise InvalidBatchError(str(error)) from error


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


def _decoder_days(
    chain: Chain, states: list[Tensor], batch: Mapping[str, Any], options: StepOptions
) -> tuple[Truth, Any]:
    """Return what the decoder learns from a batch, D days one after the other."""
    key = options.residual_key if options.residual_key in batch else "hr"
    target = _checked_target(batch[key], key, chain.decoder)
    steps = range(-1, 0)
    if options.decoder_steps == "all":
        steps = range(-len(states), 0)

    # The conditioning of each day.
    index = batch.get(options.batch_index_key)
    parts = [_conditioning(chain, states[t], index, batch, t, options) for t in steps]
    conditioning = parts[0] if len(parts) == 1 else _joined(parts)

    # Its truth, NaN where there is none.
    days = torch.cat([_at(target, t) for t in steps])  # (D, C, Y, X)
    valid, extreme = torch.isfinite(days), None
    if options.extreme_key is not None:
        values = batch[options.extreme_key]
        extreme = torch.cat([_at(values, t) for t in steps])
    truth = Truth(torch.where(valid, days, 0.0), valid, extreme=extreme)

    tokens = getattr(conditioning, "tokens", conditioning)
    if tokens.shape[0] != len(days):
        raise InputError(
            "conditioning and target are of different numbers of days",
            variable=options.batch_index_key,
            found=f"{tokens.shape[0]} and {len(days)}",
            remedy="give the graph of each node, or one window per batch",
        )
    return truth, conditioning


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
