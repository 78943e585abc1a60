"""What the plain training loop trains, and the options of its objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError
from st_cdgm.models.objective import Objective
from st_cdgm.physics.derivatives import WindDerivatives
from st_cdgm.physics.terms import WindTerm
from st_cdgm.physics.wind import wind_pairs
from st_cdgm.training.config import (
    DAG_METHODS,
    RECONSTRUCTION_TYPES,
    PhysicalLossConfig,
)


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
        for name, value, choices in (
            ("dag_method", self.dag_method, tuple(DAG_METHODS)),
            (
                "reconstruction_loss_type",
                self.reconstruction_loss_type,
                RECONSTRUCTION_TYPES,
            ),
            ("decoder_steps", self.decoder_steps, ("last", "all")),
        ):
            if value not in choices:
                raise ConfigError(
                    f"{name} has an unknown value",
                    variable=name,
                    found=value,
                    expected=" | ".join(choices),
                )
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
            return WindTerm(
                pairs, scales, WindDerivatives.spherical(self.lat, self.lon)
            )
        return WindTerm(pairs, scales, WindDerivatives.planar(shape, self.dx, self.dy))


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
