"""The objective of one batch of the plain training loop.

It says where the loop's batches hold what the step of `losses` needs; the terms are
those of the Lightning module.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from st_cdgm.training.config import LossConfig, PhysicalLossConfig
from st_cdgm.training.losses import generator_terms, loss_graph, loss_reconstruction

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopStep:
    """The modules and what enters their objective.

    The attributes are the arguments of ``train_epoch`` of the same names, but for
    ``loss`` (weights and forms of the terms) and ``look`` (what the physical loss looks
    at), which hold the others.
    """

    encoder: Any
    rcn_runner: Any
    diffusion_decoder: Any
    loss: LossConfig
    look: PhysicalLossConfig
    conditioning_fn: Callable[[Tensor, Tensor | None], Any] | None = None
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

    def __post_init__(self) -> None:
        self.loss.check(section="")
        self.look.check()
        check_choice("decoder_steps", self.decoder_steps, ("last", "all"), section="")
        Objective.of(self.loss).check(self.diffusion_decoder)

        if (self.lat is None) != (self.lon is None):
            raise ConfigError(
                "half of the coordinates are missing",
                variable="lat, lon",
                expected="both, or neither for a plane",
            )
        if self.loss.lambda_phy and self.target_names is None:
            _LOGGER.warning(
                "channels 0 and 1 are taken for eastward and northward wind; pass "
                "target_names"
            )

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        """By the name under which their gradients are clipped and logged."""
        return {
            "rcn": self.rcn_runner.cell,
            "decoder": self.diffusion_decoder,
            "encoder": self.encoder,
        }

    def losses(self, batch: Mapping[str, Any], number: int) -> dict[str, Tensor]:
        """Return the objective of batch ``number`` (``loss_total``) and its terms.

        The terms are unweighted. ``loss_gen`` is left out where no cell of the target
        is valid, ``loss_phy`` where it was not asked for or is not due.

        Raises
        ------
        NotFiniteError
            Conditioning, prediction or loss is not finite.
        """
        loss, drivers = self.loss, batch["lr"]  # (T, N, C_lr)
        # Day 1 is encoded; days 2..T drive, so that none is predicted from itself.
        driven = drivers[1:] if len(drivers) > 1 else drivers
        state = self.encoder.init_state(batch["hetero"])
        rollout = self.rcn_runner.run(state, driven)
        made = rollout.reconstructions
        predicted = len(drivers) > 1 and made[0] is not None
        rec = loss_reconstruction(
            torch.stack(made) if predicted else None,
            driven,
            loss.reconstruction_loss_type,
        )
        # One matrix, used at all steps.
        dag = loss_graph(rollout.dag_matrices[0], loss.graph())

        # The generator, and the physics of what it makes.
        truth, conditioning = self._decoder_days(rollout.states, batch)
        found, phy = generator_terms(
            self.diffusion_decoder,
            truth,
            conditioning,
            Objective.of(loss),
            members=self.members,
            physical=self._physical_loss(truth) if loss.lambda_phy else None,
            look=self.look,
            number=number,
        )
        gen = found.check().per_variable.mean()

        # All terms together.
        total = loss.lambda_gen * gen + loss.beta_rec * rec + loss.gamma_dag * dag
        total = total if phy is None else total + loss.lambda_phy * phy
        if not bool(torch.isfinite(total)):
            msg = (
                f"the loss is {total.item()} (generator {gen.item():.4g}, "
                f"reconstruction {rec.item():.4g}, graph {dag.item():.4g})"
            )
            raise NotFiniteError(msg)
        terms = {"loss_total": total, "loss_rec": rec, "loss_dag": dag}
        terms |= {"loss_gen": gen} if bool(truth.valid.any()) else {}
        return terms if phy is None else terms | {"loss_phy": phy}

    def _physical_loss(self, truth: Truth) -> Callable[[Tensor], Tensor]:
        """Return the loss of members, on the sphere or, without coordinates, a plane.

        The first two channels are wind where they have no names.
        """
        channels, *shape = truth.residual.shape[1:]
        names = self.target_names
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
        wind = WindTerm(pairs, scales, derivatives)
        return lambda members: wind(members, truth.residual, truth.valid)

    def _decoder_days(
        self, states: list[Tensor], batch: Mapping[str, Any]
    ) -> tuple[Truth, Any]:
        """Return what the decoder learns from a batch, D days one after the other."""
        count = len(states) if self.decoder_steps == "all" else 1
        conditioning = self._conditioning(states[-count:], batch)

        # The truth of those days, NaN where there is none.
        days = _last(self.target(batch), count)  # (D, C, Y, X)
        valid, key = torch.isfinite(days), self.extreme_key
        extreme = None if key is None else _last(batch[key], count)
        truth = Truth(torch.where(valid, days, 0.0), valid, extreme=extreme)

        tokens = getattr(conditioning, "tokens", conditioning)
        if tokens.shape[0] != len(days):
            raise InputError(
                "conditioning and target are of different numbers of days",
                variable=self.batch_index_key,
                found=f"{tokens.shape[0]} and {len(days)}",
                remedy="give the graph of each node, or one window per batch",
            )
        return truth, conditioning

    def target(self, batch: Mapping[str, Any]) -> Tensor:
        """Return what the decoder learns; raise InputError for a wrong shape."""
        key = self.residual_key if self.residual_key in batch else "hr"
        target: Tensor = batch[key]
        if target.ndim not in (4, 5):
            raise InputError(
                "the target has the wrong rank",
                variable=key,
                found=tuple(target.shape),
                expected="(T, C, Y, X), or (B, T, C, Y, X)",
            )

        channels = getattr(self.diffusion_decoder, "in_channels", target.shape[-3])
        if target.shape[-3] != channels:
            raise InputError(
                "target and decoder have different numbers of channels",
                variable=key,
                found=target.shape[-3],
                expected=channels,
            )
        return target

    def _conditioning(self, states: list[Tensor], batch: Mapping[str, Any]) -> Any:
        index = batch.get(self.batch_index_key)
        if self.conditioning_fn is not None:
            return joined([self.conditioning_fn(state, index) for state in states])
        project = self.encoder.project_state_tensor
        tokens = joined([project(state, batch_index=index) for state in states])
        if not self.context_keys:
            return tokens

        maps = []
        for key in self.context_keys:
            value = batch[key]
            days = value[None] if value.ndim == 3 else _last(value, len(states))
            maps.append(days.expand(len(tokens), -1, -1, -1).nan_to_num())
        context = torch.cat(maps, dim=1)
        return Conditioning(tokens, context[:, :0], context)


def _last(values: Tensor, days: int) -> Tensor:
    """Return the last days of B windows, or of one, each day of all windows in turn.

    From ``(B, T, C, Y, X)`` or ``(T, C, Y, X)`` to ``(days * B, C, Y, X)``.
    """
    windows = values if values.ndim == 5 else values[None]
    return windows[:, -days:].transpose(0, 1).flatten(0, 1)


def joined(parts: Sequence[Any]) -> Any:
    """Put the conditioning of several days, or its tokens, into one."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    names = ("tokens", "state_maps", "context")
    return Conditioning(*(torch.cat([getattr(p, n) for p in parts]) for n in names))
