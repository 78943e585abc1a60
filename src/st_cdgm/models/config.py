"""Settings of the model's parts. Not frozen: OmegaConf makes frozen ones read-only."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from st_cdgm.errors import ConfigError

__all__ = [
    "DiffusionConfig",
    "EncoderConfig",
    "GraphConfig",
    "MetaPathConfig",
    "ModelConfig",
    "RCNConfig",
    "UNetConfig",
]

_LOGGER = logging.getLogger(__name__)

VP_STEPS = 1000  # noise levels of the variance-preserving schedule

SCHEDULER_TYPES = (
    "one_step",
    "ddpm",
    "ddim",
    "euler",
    "heun",
    "edm",
    "dpm_solver",
    "dpm_solver++",
    "dpm_solver_sde",
)


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(
            f"{key} has an unknown value", found=value, expected=" | ".join(choices)
        )


@dataclass(kw_only=True)
class GraphConfig:
    """Heterogeneous graph.

    Attributes
    ----------
    neighbours : int
        8 (all touching cells) or 16 (also the knight's moves).
    wrap : bool
        Join the first and the last longitude (global grids).
    """

    neighbours: int = 8
    wrap: bool = False


@dataclass(kw_only=True)
class MetaPathConfig:
    """One intelligible variable: a name and its path source -> relation -> target.

    Attributes
    ----------
    name : str
        Name of the variable, as it appears in the learned graph.
    src, relation, target : str
        Node type, ``spat_adj`` | ``vert_adj`` | ``causes``, node type.
    pool : str
        How nodes become one token: ``mean`` or ``max``.
    """

    name: str
    src: str
    relation: str
    target: str
    pool: str = "mean"


@dataclass(kw_only=True)
class EncoderConfig:
    """Encoder of the intelligible variables.

    Attributes
    ----------
    hidden_dim : int
        Width H of a variable's state on one node.
    conditioning_dim : int
        Width of a cross-attention token.
    metapaths : list of MetaPathConfig
        Empty: one variable per level found in the data, and one for the static fields.
    """

    hidden_dim: int = 64
    conditioning_dim: int = 64
    metapaths: list[MetaPathConfig] = field(default_factory=list)


@dataclass(kw_only=True)
class RCNConfig:
    """Recurrent causal network.

    Attributes
    ----------
    driver_scope : str
        ``own``: a variable is driven by the channels of its source only; ``all``: by
        every channel (then the learned graph carries little).
    dropout : float
        Dropout on the states.
    detach_interval : int or None
        Truncate back-propagation every so many days.
    """

    driver_scope: str = "own"
    dropout: float = 0.0
    detach_interval: int | None = None

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        _check_choice("rcn.driver_scope", self.driver_scope, ("own", "all"))


@dataclass(kw_only=True)
class UNetConfig:
    """Size of the denoiser's U-Net.

    Attributes
    ----------
    block_out_channels : list of int
        Channels per resolution, fine to coarse; each step halves the grid.
    layers_per_block : int
        Residual blocks per resolution.
    attention_levels : int
        How many of the coarsest resolutions attend to the causal tokens.
    attention_head_dim, norm_num_groups : int
        As in the library's U-Net.
    dropout : float
        Dropout inside the residual blocks.
    """

    block_out_channels: list[int] = field(default_factory=lambda: [32, 64, 96])
    layers_per_block: int = 1
    attention_levels: int = 1
    attention_head_dim: int = 8
    norm_num_groups: int = 8
    dropout: float = 0.0


@dataclass(kw_only=True)
class DiffusionConfig:
    """Conditional generator of the fine-scale residual.

    Attributes
    ----------
    scheduler_type : str
        ``one_step`` (one network pass per member, trained by the fair CRPS) or the
        sampler of a diffusion model: ``edm`` (Heun), ``ddpm``, ``dpm_solver++`` ...
    parameterisation : str
        ``edm``, ``eps`` or ``v``; unused by ``one_step``.
    steps : int
        Noise levels that ``eps`` and ``v`` are trained on, evenly taken from the 1 000
        of the VP schedule, whose ends are always among them.
    num_sampling_steps : int or None
        Solver steps at sampling; None: the sampler's own default.
    sigma_min, sigma_max : float
        Noise range of the sampler, for unit-variance residuals.
    p_mean, p_std : float
        Training noise of ``edm``: ln(sigma) ~ N(p_mean, p_std^2).
    spatial_channels : int
        Channels of the state maps handed to the U-Net.
    noise_channels : int
        Noise inputs of ``one_step``.
    noise_scales : list of int
        Length scales (fine cells) of the noise inputs, in turn.
    noise_pattern : str
        ``smooth`` (Gaussian filter) or ``blocks`` (constant on blocks).
    train_members : int
        Members per window while ``one_step`` trains.
    pooling_scales : list of int
        Block sizes at which ``one_step`` is scored while training.
    """

    scheduler_type: str = "one_step"
    parameterisation: str = "edm"
    steps: int = 1000
    num_sampling_steps: int | None = None
    sigma_min: float = 0.01
    sigma_max: float = 20.0
    p_mean: float = -0.5
    p_std: float = 1.2
    spatial_channels: int = 32
    noise_channels: int = 6
    noise_scales: list[int] = field(default_factory=lambda: [1, 4, 16])
    noise_pattern: str = "smooth"
    train_members: int = 3
    pooling_scales: list[int] = field(default_factory=lambda: [1, 2, 4])
    use_gradient_checkpointing: bool = False
    unet: UNetConfig = field(default_factory=UNetConfig)

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        _check_choice("diffusion.scheduler_type", self.scheduler_type, SCHEDULER_TYPES)
        _check_choice(
            "diffusion.parameterisation", self.parameterisation, ("edm", "eps", "v")
        )
        _check_choice(
            "diffusion.noise_pattern", self.noise_pattern, ("smooth", "blocks")
        )
        if not 2 <= self.steps <= VP_STEPS:
            raise ConfigError(
                "diffusion.steps is not a number of levels of the VP schedule",
                variable="diffusion.steps",
                found=self.steps,
                expected=f"2 to {VP_STEPS}",
            )
        if self.parameterisation == "edm" and self.scheduler_type in ("ddpm", "ddim"):
            _LOGGER.warning(
                "diffusion.scheduler_type %s starts at a noise level of 157, which "
                "parameterisation edm hardly trains; eps and v do",
                self.scheduler_type,
            )
        if self.train_members < 2:
            raise ConfigError(
                "the fair CRPS needs at least two members",
                variable="diffusion.train_members",
                found=self.train_members,
                expected=">= 2",
            )

    @property
    def one_step(self) -> bool:
        """Whether the decoder is the one-step ensemble generator."""
        return self.scheduler_type == "one_step"


@dataclass(kw_only=True)
class ModelConfig:
    """All settings needed to rebuild a model from a checkpoint."""

    graph: GraphConfig = field(default_factory=GraphConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    rcn: RCNConfig = field(default_factory=RCNConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        self.rcn.check()
        self.diffusion.check()
