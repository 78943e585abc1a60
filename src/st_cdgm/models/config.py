"""Settings of the model's parts. Not frozen: OmegaConf makes frozen ones read-only."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, replace
from typing import Any

from st_cdgm.errors import ConfigError, check_between, check_choice, check_least
from st_cdgm.registry import names

_LOGGER = logging.getLogger(__name__)

MOST_MEMORY = 0.95  # beyond it a moving average of few steps is none
VP_STEPS = 1000  # noise levels of the variance-preserving schedule


@dataclass(kw_only=True)
class GraphConfig:
    """Heterogeneous graph.

    Attributes
    ----------
    neighbours : int
        8 (all touching cells) or 16 (also the knight's moves).
    wrap : bool
        Join the first and the last longitude (global grids).
    lr_shape, hr_shape : list of int, optional
        Rows and columns of the coarse and the fine grid. They come from the data; what
        is stated here is checked against them.
    include_mid_layer : bool, optional
        Whether there is more than one pressure level. Checked as well.
    static_variables : list of str, optional
        Another name of ``data.static_variables``; an empty list: no static fields.
    """

    neighbours: int = 8
    wrap: bool = False
    lr_shape: list[int] | None = None
    hr_shape: list[int] | None = None
    include_mid_layer: bool | None = None
    static_variables: list[str] | None = None


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
    edges : str
        Which edges between variables the network may use: ``tested``, those that hold
        on parts of the training period that no fit has seen, found before training;
        ``all``; ``learned``, all, the sparsity of the loss decides; or a file with
        the columns (or the JSON list ``edges``) ``source`` and ``target``.
    required, forbidden : list of str
        Edges ``GP500->SURF`` that are there, or not, whatever was found.
    parents : dict or None
        Node type to the node types that may act on it; None: all. What ``edges`` came
        to is written here.
    conditioning : list of str or None
        Node types whose states reach the generator; None: all. The static fields
        always do.
    hidden_dim, driver_dim, reconstruction_dim : int, optional
        Sizes that follow from ``encoder.hidden_dim`` and from the data: the most
        channels that drive a variable. What is stated here is checked against them.
    """

    driver_scope: str = "own"
    dropout: float = 0.0
    detach_interval: int | None = None
    edges: str = "tested"
    required: list[str] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    parents: dict[str, list[str]] | None = None
    conditioning: list[str] | None = None
    hidden_dim: int | None = None
    driver_dim: int | None = None
    reconstruction_dim: int | None = None

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        check_choice("driver_scope", self.driver_scope, ("own", "all"), section="rcn.")


# Sizes by name, in the order of UNetConfig; ``tiny`` is what UNetConfig() has.
UNET_PRESETS: dict[str, tuple[list[int], int, int, int, int]] = {
    "tiny": ([32, 64, 96], 1, 1, 8, 8),
    "base": ([64, 128, 256], 2, 1, 8, 16),
    "large": ([128, 256, 384, 512], 2, 2, 8, 32),
}


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
    preset : str or None
        ``tiny``, ``base`` or ``large``: all sizes above but ``dropout`` by one name.
    """

    block_out_channels: list[int] = field(default_factory=lambda: [32, 64, 96])
    layers_per_block: int = 1
    attention_levels: int = 1
    attention_head_dim: int = 8
    norm_num_groups: int = 8
    dropout: float = 0.0
    preset: str | None = None

    def resolved(self) -> UNetConfig:
        """Return the same sizes without a preset: its values written out.

        Raises
        ------
        ConfigError
            An unknown preset, or sizes that contradict it.
        """
        if self.preset is None:
            return self
        presets = tuple(UNET_PRESETS)
        check_choice("preset", self.preset, presets, section="diffusion.unet.")

        sizes: dict[str, Any] = dict(
            zip([f.name for f in fields(self)], UNET_PRESETS[self.preset], strict=False)
        )
        default = UNetConfig()
        for key, value in sizes.items():
            found = getattr(self, key)
            if found not in (getattr(default, key), value):
                raise ConfigError(
                    f"diffusion.unet.{key} contradicts the preset {self.preset}",
                    variable=f"diffusion.unet.{key}",
                    found=found,
                    expected=value,
                    remedy="set the size to what is expected, or leave out the preset",
                )
        return replace(self, **sizes, preset=None)


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
        Noise range of the sampler, for unit-variance residuals: few steps are spent
        better here than in [0.002, 80].
    p_mean, p_std : float
        Training noise of ``edm``: ln(sigma) ~ N(p_mean, p_std^2).
    spatial_channels : int
        Channels of the state maps handed to the U-Net.
    noise_channels : int
        Noise inputs of ``one_step``, of each group of variables.
    noise_groups : int
        Groups of variables with noise inputs of their own: what is to vary alone
        (precipitation beside temperatures) needs noise that the others need not use.
    noise_scales : list of int
        Length scales (fine cells) of the noise inputs, in turn; 0: the whole domain.
    noise_pattern : str
        ``gaussian`` (stationary), ``blocks`` (constant on blocks), or ``smooth``, the
        wrapped form of earlier checkpoints; see `models.noise`.
    noise_modulation : int
        Random numbers per member and day that scale and shift what the network's
        normalisations give, everywhere alike; without effect before training.
    noise_memory : list of float
        Correlation of a member's noise from one step to the next, of the inputs of each
        of ``noise_scales`` in turn; empty: none. Training chooses it on validation days
        where ``training.fit_noise_memory`` says so. Diffusion models take the first.
    noise_margin : int
        Cells beyond each border that ``one_step`` computes and drops. They have noise
        of their own; beyond them the convolutions see zeros, which narrows the spread.
    train_members : int
        Members per window while ``one_step`` trains.
    pooling_scales : list of int
        Block sizes at which ``one_step`` is scored while training.
    condition_dropout : float
        Share of the training samples whose causal conditioning (tokens and state maps)
        is replaced by zeros, which `guidance_scale` at sampling needs (classifier-free
        guidance).
    self_conditioning : bool
        Hand the network its own previous estimate as further channels.
    linear_components : int
        Leading components of the predictors of the day, and of the day before where
        windows have one, that are mapped linearly to the generator's mean, beside the
        network; 0: none. They see all levels, whatever the graph says.
    linear_start : str
        What that map is before training: ``zero``, or ``ridge``, a regression of the
        training days' residuals.
    use_gradient_checkpointing : bool
        Recompute activations in the backward pass: less memory, more time.
    unet : UNetConfig
        Size of the network.
    in_channels, conditioning_dim, height, width : int, optional
        Sizes that follow from the targets, from ``encoder.conditioning_dim`` and from
        the fine grid. What is stated here is checked against them.
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
    noise_groups: int = 1
    noise_scales: list[int] = field(default_factory=lambda: [1, 4, 16])
    noise_pattern: str = "gaussian"
    noise_modulation: int = 0
    noise_memory: list[float] = field(default_factory=list)
    noise_margin: int = 4
    train_members: int = 3
    pooling_scales: list[int] = field(default_factory=lambda: [1, 2, 4])
    condition_dropout: float = 0.0
    self_conditioning: bool = False
    linear_components: int = 0
    linear_start: str = "zero"
    use_gradient_checkpointing: bool = False
    unet: UNetConfig = field(default_factory=UNetConfig)
    in_channels: int | None = None
    conditioning_dim: int | None = None
    height: int | None = None
    width: int | None = None

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        section = "diffusion."
        kinds = ("edm", "eps", "v")
        check_choice("parameterisation", self.parameterisation, kinds, section=section)
        patterns = ("gaussian", "blocks", "smooth")
        check_choice("noise_pattern", self.noise_pattern, patterns, section=section)
        if not self.one_step:
            known = ("one_step", *names("sampler"))
            check_choice("scheduler_type", self.scheduler_type, known, section=section)

        check_least("linear_components", self.linear_components, 0, section=section)
        starts = ("zero", "ridge")
        check_choice("linear_start", self.linear_start, starts, section=section)

        check_between("steps", self.steps, 2, VP_STEPS, section=section)
        self._check_noise(section)
        # The fair CRPS compares members.
        check_least("train_members", self.train_members, 2, section=section)
        if self.parameterisation == "edm" and self.scheduler_type in ("ddpm", "ddim"):
            _LOGGER.warning(
                "diffusion.scheduler_type %s starts at a noise level of 157, which "
                "parameterisation edm hardly trains; eps and v do",
                self.scheduler_type,
            )
        self.unet.resolved()
        if not 0 <= self.condition_dropout < 1:
            raise ConfigError(
                "diffusion.condition_dropout is out of range",
                variable="diffusion.condition_dropout",
                found=self.condition_dropout,
                expected="0 (off) or more, below 1",
            )
        if self.one_step and (self.condition_dropout or self.self_conditioning):
            raise ConfigError(
                "one_step has no denoiser to guide or to condition on itself",
                variable="diffusion.condition_dropout, diffusion.self_conditioning",
                found=f"{self.condition_dropout}, {self.self_conditioning}",
                expected="0 and false",
                remedy="choose a diffusion sampler as diffusion.scheduler_type",
            )

    def _check_noise(self, section: str) -> None:
        for name, least in (
            ("noise_channels", 1),
            ("noise_groups", 1),
            ("noise_modulation", 0),
            ("noise_margin", 0),
        ):
            check_least(name, getattr(self, name), least, section=section)
        for scale in self.noise_scales:
            check_least("noise_scales", scale, 0, section=section)

        memory, scales = self.noise_memory, self.noise_scales
        if len(memory) not in (0, 1, len(scales)):
            raise ConfigError(
                "diffusion.noise_memory has another length than diffusion.noise_scales",
                variable="diffusion.noise_memory",
                found=f"{len(memory)} values",
                expected=f"none, one, or {len(scales)}",
            )
        for value in memory:
            check_between("noise_memory", value, 0, MOST_MEMORY, section=section)

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
