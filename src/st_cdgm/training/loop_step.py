"""What the plain training loop trains, and the objective of one of its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError, InputError, check_choice
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.objective import NotFiniteError, Objective
from st_cdgm.models.truth import Truth
from st_cdgm.physics.derivatives import WindDerivatives
from st_cdgm.physics.terms import WindTerm
from st_cdgm.physics.wind import wind_pairs
from st_cdgm.training.config import (
    DAG_METHODS,
    RECONSTRUCTION_TYPES,
    PhysicalLossConfig,
)
from st_cdgm.training.losses import generator_terms, loss_dag, loss_reconstruction


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What enters the objective; the arguments of ``train_epoch`` of the same names.

    ``objective`` holds the weights of the generator's errors, ``look`` what the
    physical loss looks at.
    """

    lambda_gen: float
    beta_rec: float
    gamma_dag: float
    lambda_phy: float = 0.0
    dag_method: str = "dagma"
    dagma_s: float = 1.0
    dag_l1_regularization: bool = False
    dag_l1_weight: float = 0.01
    reconstruction_loss_type: str = "mse"
    objective: Objective = field(default_factory=Objective)
    extreme_key: str | None = None
    members: int | None = None
    decoder_steps: str = "last"
    context_keys: Sequence[str] = ()
    residual_key: str = "residual"
    batch_index_key: str = "batch_index"
    dx: float = 1.0
    dy: float = 1.0
    lat: ArrayLike | None = None
    lon: ArrayLike | None = None
    target_names: Sequence[TargetVariable | Channel | str] | None = None
    target_scale: Tensor | None = None
    look: PhysicalLossConfig = field(default_factory=PhysicalLossConfig)

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        for name, choices in (
            ("dag_method", tuple(DAG_METHODS)),
            ("reconstruction_loss_type", RECONSTRUCTION_TYPES),
            ("decoder_steps", ("last", "all")),
        ):
            check_choice(name, getattr(self, name), choices, section="")

        self.look.check()
        if (self.lat is None) != (self.lon is None):
            raise ConfigError(
                "half of the coordinates are missing",
                variable="lat, lon",
                expected="both, or neither for a plane",
            )

    @property
    def l1_weight(self) -> float:
        """Weight of ``sum |A|``; 0 unless it was asked for."""
        return self.dag_l1_weight if self.dag_l1_regularization else 0.0

    def wind(self, channels: int, shape: Sequence[int]) -> WindTerm:
        """Return the physical loss, on the sphere or on a plane without coordinates."""
        names = self.target_names
        # The first two channels where they have no names.
        pairs = [(0, 1)][: channels - 1] if names is None else wind_pairs(names)
        if not pairs:
            raise ConfigError(
                "the physical loss needs wind among the targets",
                variable="lambda_phy",
                found=f"{channels} channel" if names is None else list(map(str, names)),
                expected="eastward and northward wind",
                remedy="set lambda_phy to 0 for other variables",
            )

        scale = torch.ones(channels) if self.target_scale is None else self.target_scale
        scales = [scale.reshape(channels, 1, 1)[[u, v]] for u, v in pairs]
        if self.lat is not None and self.lon is not None:
            derivatives = WindDerivatives.spherical(self.lat, self.lon)
        else:
            derivatives = WindDerivatives.planar(shape, self.dx, self.dy)
        return WindTerm(pairs, scales, derivatives)


@dataclass(frozen=True)
class Chain:
    """The modules of the loop: encoder, recurrent network, decoder."""

    encoder: Any
    rcn_runner: Any
    decoder: Any
    conditioning_fn: Callable[[Tensor, Tensor | None], Any] | None = None

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """By the name under which their gradients are clipped and logged."""
        return {
            "rcn": self.rcn_runner.cell,
            "decoder": self.decoder,
            "encoder": self.encoder,
        }


def step_losses(
    chain: Chain, batch: Mapping[str, Any], options: StepOptions, number: int
) -> dict[str, Tensor]:
    """Return the objective of batch ``number`` (``loss_total``) and its terms.

    The terms are unweighted. ``loss_gen`` is left out where no cell of the target is
    valid, ``loss_phy`` where it was not asked for or is not due.

    Raises
    ------
    NotFiniteError
        Conditioning, prediction or loss is not finite.
    """
    drivers = batch["lr"]  # (T, N, C_lr)
    # Day 1 is encoded; days 2..T drive, so that none is predicted from itself.
    driven = drivers[1:] if len(drivers) > 1 else drivers
    rollout = chain.rcn_runner.run(chain.encoder.init_state(batch["hetero"]), driven)
    rec, made = driven.new_zeros(()), rollout.reconstructions
    if len(drivers) > 1 and made[0] is not None:
        kind = options.reconstruction_loss_type
        rec = loss_reconstruction(torch.stack(made), driven, kind)
    dag = loss_dag(
        rollout.dag_matrices[0],  # one matrix, used at all steps
        options.dag_method,
        s=options.dagma_s,
        l1_weight=options.l1_weight,
    )

    # The generator, and the physics of what it makes.
    truth, conditioning = _decoder_days(chain, rollout.states, batch, options)
    options.objective.check(chain.decoder)
    found, phy = generator_terms(
        chain.decoder,
        truth,
        conditioning,
        options.objective,
        members=options.members,
        physical=_physical(truth, options),
        look=options.look,
        number=number,
    )
    gen = found.check().per_variable.mean()

    # All terms together.
    total = options.lambda_gen * gen + options.beta_rec * rec
    total = total + options.gamma_dag * dag
    total = total if phy is None else total + options.lambda_phy * phy
    if not bool(torch.isfinite(total)):
        msg = (
            f"the loss is {total.item()} (generator {gen.item():.4g}, reconstruction "
            f"{rec.item():.4g}, graph {dag.item():.4g})"
        )
        raise NotFiniteError(msg)
    known = bool(truth.valid.any())
    terms = {"loss_total": total, "loss_rec": rec, "loss_dag": dag}
    terms |= {"loss_gen": gen} if known else {}
    return terms if phy is None else terms | {"loss_phy": phy}


def _physical(truth: Truth, options: StepOptions) -> Callable[[Tensor], Tensor] | None:
    """Return the physical loss of members, if it is asked for."""
    if not options.lambda_phy:
        return None
    wind = options.wind(truth.residual.shape[1], truth.residual.shape[-2:])

    def loss(members: Tensor) -> Tensor:
        return wind(members, truth.residual, truth.valid)

    return loss


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
    parts = [_conditioning(chain, states[t], batch, t, options) for t in steps]
    conditioning = joined(parts)

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
    batch: Mapping[str, Any],
    t: int,
    options: StepOptions,
) -> Any:
    index = batch.get(options.batch_index_key)
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


def joined(parts: Sequence[Any]) -> Any:
    """Put the conditioning of several days, or its tokens, into one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    names = ("tokens", "state_maps", "context")
    return Conditioning(*(torch.cat([getattr(p, n) for p in parts]) for n in names))
