"""Settings of losses and optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from st_cdgm.errors import ConfigError, check_choice, check_least
from st_cdgm.models.acyclicity import CONSTRAINTS

# Every name that the acyclicity goes by -> the package's own.
DAG_METHODS = {
    "dagma": "dagma",
    "no_tears": "notears",
    "notears": "notears",
    "none": "none",
}
RECONSTRUCTION_TYPES = ("mse", "cosine", "mse+cosine")


@dataclass(kw_only=True)
class DagConfig:
    """Acyclicity of the learned graph.

    Attributes
    ----------
    constraint : str
        ``dagma``, ``notears`` or ``none``.
    s : float
        Domain parameter of DAGMA: the spectral radius of A*A stays below it.
    mu_factor, mu_stages : float, int
        Central path: the weight of everything but the acyclicity falls by the factor
        from one to the next of so many equal stages.
    l1_weight : float
        Sparsity of the edge weights.
    """

    constraint: str = "dagma"
    s: float = 1.0
    mu_factor: float = 0.3
    mu_stages: int = 4
    l1_weight: float = 0.01

    def check(self, *, section: str = "loss.") -> None:
        """Raise ConfigError for a value out of range; ``section`` is for messages."""
        check_choice("dag.constraint", self.constraint, CONSTRAINTS, section=section)
        check_least("dag.mu_stages", self.mu_stages, 1, section=section)
        check_least("dag.l1_weight", self.l1_weight, 0, section=section)
        _check_range(f"{section}dag.s", self.s, self.s > 0, "> 0")
        fits, expected = 0 < self.mu_factor <= 1, "above 0, at most 1"
        _check_range(f"{section}dag.mu_factor", self.mu_factor, fits, expected)


@dataclass(kw_only=True)
class LossConfig:
    """Weights and forms of the training objective.

    Attributes
    ----------
    lambda_gen, beta_rec, gamma_dag : float
        Generator (denoising loss, or the fair CRPS of ``one_step``); prediction of each
        variable's drivers from its own and its parents' past; acyclicity and sparsity
        of the graph together.
    lambda_phy : float
        Divergence and vorticity of predicted wind against those of the truth, in grid
        cells and standard deviations of the wind. Needs a pair of wind components among
        the targets.
    lambda_block : float
        Block means of the decoded fine fields against their coarse counterparts, in
        variances of these. Needs a target with a coarse counterpart.
    energy_weight, energy_patch : float, int or None
        Energy score of fields beside the CRPS of cells and blocks, of ``one_step``; of
        patches with this side, in cells of each pooling scale, or of whole fields.
    joint_weight, joint_patch : float, int
        Weight of the energy score of all variables together, of patches of so many
        cells of each pooling scale a side; of ``one_step``.
    change_weight : float
        Weight of the fair CRPS of the changes from one day to the next, of
        ``one_step``. Windows are then a day longer and generate their last two days,
        whose noise is as alike as ``diffusion.noise_memory`` says.
    spectral_weight : float
        Weight of the fair CRPS of the logarithm of the power per band of wavelengths.
    block_units : str
        What blocks of cells are averaged in: ``scored`` (as cells are scored,
        precipitation as its root) or ``physical`` (areal totals).
    use_focal_loss, focal_alpha, focal_gamma : bool, float, float
        Weigh cells by alpha (|error| / its root mean square)^gamma; not of
        ``one_step``.
    min_snr_gamma : float or None
        Weigh noise levels by min(SNR, gamma) / SNR (``eps``) or / (SNR + 1) (``v``);
        None: as the decoder does, with 5.
    extreme_weight_factor, extreme_percentiles : float, list of float
        Weigh cells by 1 + factor for every percentile that |value| exceeds, divided by
        the mean weight. The percentiles are those of the valid cells of a variable in
        the batch. 0: off.
    extreme_values : str
        Whose extremes: ``target`` (the standardised residual that is learned) or
        ``field`` (the truth in the scale it is scored in).
    reconstruction_loss_type, dag : str, DagConfig
        ``mse``, ``cosine`` or ``mse+cosine``; acyclicity of the graph.
    dag_method, dagma_s : str or None, float or None
        Other names of ``dag.constraint`` (with ``no_tears`` for ``notears``) and
        ``dag.s``; where given, they decide.
    dag_l1_regularization, dag_l1_weight : bool or None, float or None
        False: ``dag.l1_weight`` counts as 0. A weight given here replaces it.
    variable_weights : dict of str to float
        Weight of a target variable in the generator's loss (default 1 each).
    """

    lambda_gen: float = 1.0
    beta_rec: float = 0.1
    gamma_dag: float = 0.1
    lambda_phy: float = 0.0
    lambda_block: float = 0.0
    energy_weight: float = 0.0
    energy_patch: int | None = None
    joint_weight: float = 0.0
    joint_patch: int = 1
    change_weight: float = 0.0
    spectral_weight: float = 0.0
    block_units: str = "scored"
    use_focal_loss: bool = False
    focal_alpha: float = 1.0
    focal_gamma: float = 2.0
    min_snr_gamma: float | None = None
    extreme_weight_factor: float = 0.0
    extreme_percentiles: list[float] = field(default_factory=lambda: [95.0, 99.0])
    extreme_values: str = "target"
    reconstruction_loss_type: str = "mse"
    dag: DagConfig = field(default_factory=DagConfig)
    dag_method: str | None = None
    dagma_s: float | None = None
    dag_l1_regularization: bool | None = None
    dag_l1_weight: float | None = None
    variable_weights: dict[str, float] = field(default_factory=dict)

    def graph(self) -> DagConfig:
        """Return the acyclicity settings, both sets of names put together."""
        method = DAG_METHODS.get(self.dag_method or "", self.dag_method)
        weight = 0.0 if self.dag_l1_regularization is False else self.dag_l1_weight
        given = {"constraint": method, "s": self.dagma_s, "l1_weight": weight}
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        return replace(self.dag, **changes)

    def check(self, *, section: str = "loss.") -> None:
        """Raise ConfigError for a value out of range; ``section`` is for messages."""
        terms = ("lambda_gen", "beta_rec", "gamma_dag", "lambda_phy", "lambda_block")
        scores = ("energy_weight", "joint_weight", "change_weight", "spectral_weight")
        others = ("extreme_weight_factor", "focal_gamma")
        for key in terms + scores + others:
            check_least(key, getattr(self, key), 0, section=section)
        if self.energy_patch is not None:
            check_least("energy_patch", self.energy_patch, 1, section=section)
        check_least("joint_patch", self.joint_patch, 1, section=section)

        alpha, percentiles = self.focal_alpha, self.extreme_percentiles
        _check_range(f"{section}focal_alpha", alpha, alpha > 0, "> 0")
        fits = bool(percentiles) and all(0 < p < 100 for p in percentiles)
        expected = "one or more numbers between 0 and 100"
        _check_range(f"{section}extreme_percentiles", percentiles, fits, expected)

        for key, choices in (
            ("extreme_values", ("target", "field")),
            ("block_units", ("scored", "physical")),
            ("reconstruction_loss_type", RECONSTRUCTION_TYPES),
            ("dag_method", tuple(DAG_METHODS)),
        ):
            found = getattr(self, key)
            if found is not None:
                check_choice(key, found, choices, section=section)
        self.graph().check(section=section)


@dataclass(kw_only=True)
class EarlyStoppingConfig:
    """Stop when the validation loss no longer falls.

    Attributes
    ----------
    enabled, patience : bool, int
        Whether to stop before the last epoch, and after how many validations without
        improvement.
    min_delta : float
        Least change of the validation loss that counts as an improvement.
    restore_best : bool
        Whether the training, wherever it ends, ends with the weights of the lowest
        validation loss: ``checkpoints/last`` then holds those of ``checkpoints/best``.
        Only where ``enabled``.
    """

    enabled: bool = False
    patience: int = 7
    min_delta: float = 0.0
    restore_best: bool = True

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        section = "training.early_stopping."
        check_least("patience", self.patience, 1, section=section)
        check_least("min_delta", self.min_delta, 0, section=section)


@dataclass(kw_only=True)
class LrSchedulerConfig:
    """Lower the learning rate where the validation loss no longer falls.

    Attributes
    ----------
    enabled : bool
        Take the place of the cosine decay; the warm-up stays.
    mode : str
        ``min``: the validation loss is to fall; ``max``: its negative is to rise, which
        is the same.
    factor, patience, min_lr : float, int, float
        What the learning rate is multiplied by, after how many validations without
        improvement are waited through, and its least value.
    """

    enabled: bool = False
    mode: str = "min"
    factor: float = 0.5
    patience: int = 3
    min_lr: float = 1e-7

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        section = "training.lr_scheduler."
        check_choice("mode", self.mode, ("min", "max"), section=section)
        check_least("patience", self.patience, 0, section=section)
        check_least("min_lr", self.min_lr, 0, section=section)
        fits = 0 < self.factor < 1
        _check_range(f"{section}factor", self.factor, fits, "above 0, below 1")


@dataclass(kw_only=True)
class PhysicalLossConfig:
    """What ``lambda_phy`` and ``lambda_block`` are applied to.

    ``one_step``: always to the members it generates. A diffusion model has the two
    choices below.

    Attributes
    ----------
    use_predicted_output : bool
        False: in every batch, the estimate of the clean field from the noise level that
        the batch is trained at; of a decoder that predicts noise (``eps``) weighted by
        1 / (1 + sigma^2), so that it cannot drown the generator's loss. True: every so
        many batches a sample, whose last solver step alone carries the gradient.
    physical_sample_interval, physical_num_steps : int
        Batches from one sample to the next; solver steps of a sample.
    """

    use_predicted_output: bool = False
    physical_sample_interval: int = 10
    physical_num_steps: int = 15

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        for key in ("physical_sample_interval", "physical_num_steps"):
            check_least(key, getattr(self, key), 1, section="training.physical_loss.")


@dataclass(kw_only=True)
class CheckpointConfig:
    """Which checkpoints a training keeps, beside the ``last`` one.

    Attributes
    ----------
    save_best : bool
        Let ``checkpoints/best`` be that of the best validation; False: of the end.
    save_every, max_checkpoints : int
        Epochs from one copy to the next, 0: none; how many are kept, the newest.
    save_dir : str
        Folder of the copies ``epoch_0005`` ... , in the run directory or absolute.
    """

    save_best: bool = True
    save_every: int = 0
    max_checkpoints: int = 5
    save_dir: str = "models"

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        check_least("save_every", self.save_every, 0, section="checkpoint.")
        check_least("max_checkpoints", self.max_checkpoints, 1, section="checkpoint.")
        _check_range(
            "checkpoint.save_dir", self.save_dir, bool(self.save_dir), "a name"
        )


@dataclass(kw_only=True)
class TrainingConfig:
    """Optimisation.

    Attributes
    ----------
    epochs, batch_size : int
        Passes over the training windows; windows per update.
    lr, lr_final, warmup_steps : float, float, int
        Peak learning rate of AdamW; linear warm-up, then cosine decay to ``lr_final``
        times the peak, unless ``lr_scheduler`` is enabled.
    weight_decay : float
        Decoupled weight decay (not on biases, norms and the causal matrix).
    ema_decay : float
        Decay per update of the averaged weights that are validated and stored; 0: off.
    predictor_noise : float
        Standard deviation of the noise added to the standardised predictors.
    gradient_clipping : float
        Largest gradient norm; 0: off.
    max_minutes : float or None
        Stop after this wall-clock time even if epochs remain.
    state_minutes : float
        Minutes from one state to the next inside an epoch: what a kill can cost.
    precision, accelerator, devices : str, str, int
        As in Lightning: ``32-true``, ``bf16-mixed`` ...; ``auto`` (what there is),
        ``cpu``, ``gpu``; number of devices.
    num_workers : int
        Loader processes; 0 is right while the data are in memory.
    validation_every, validation_stride, validation_members : int
        Epochs between validations; every so many validation days are used; members of
        the validation ensemble (``one_step``).
    monitor : str
        Score of the validation days that decides which checkpoint is the best, when to
        stop and when to lower the learning rate: ``loss`` (the generator's objective,
        with pooled, joint and denoising terms) or ``crps`` (the fair CRPS in cells of
        ``validation_members`` drawn as at inference, each variable in units of the
        spread around the baseline).
    early_stopping, lr_scheduler, physical_loss
        When to stop before the last epoch; a learning rate that follows the validation
        loss; what the physical losses look at.
    ensemble : int
        Networks K that are trained one after the other, with seeds of their own, and
        pooled: member m of an ensemble is made by network m modulo K.
    variants : list of dict
        What differs between the networks, by dotted keys, in turn: ``{}`` is the
        configuration itself, ``{diffusion.unet.dropout: 0.2}`` another network,
        ``{data.baseline_strategy: climatology}`` another baseline. Unlike networks err
        unlike.
    fit_noise_memory : bool
        Choose ``diffusion.noise_memory`` on validation days after the training, where
        it is not given.
    fit_bias, fit_spread : bool
        Find on validation days, after the training, what the mean of each target is
        off by (with a cross-fitted baseline also its trend over training and validation
        years), and a factor of the spread of each target and length scale. The
        checkpoint holds both; ``inference.calibrate`` applies them.
    device : str, optional
        ``cpu``, ``cuda`` or ``auto``: another name of ``accelerator``, which also holds
        for ``inference.device``.
    use_amp : bool, optional
        True: another name of ``precision: bf16-mixed``; False: of ``32-true``.
    log_every : int
        Updates from one line of losses in ``logs/metrics.csv`` to the next.
    """

    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    lr_final: float = 0.01
    warmup_steps: int = 100
    weight_decay: float = 0.01
    ema_decay: float = 0.995
    predictor_noise: float = 0.0
    gradient_clipping: float = 1.0
    max_minutes: float | None = None
    state_minutes: float = 5.0
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    num_workers: int = 0
    validation_every: int = 1
    validation_members: int = 8
    validation_stride: int = 3
    monitor: str = "loss"
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    lr_scheduler: LrSchedulerConfig = field(default_factory=LrSchedulerConfig)
    physical_loss: PhysicalLossConfig = field(default_factory=PhysicalLossConfig)
    ensemble: int = 1
    variants: list[dict[str, Any]] = field(default_factory=list)
    fit_noise_memory: bool = True
    fit_bias: bool = False
    fit_spread: bool = False
    device: str | None = None
    use_amp: bool | None = None
    log_every: int = 1

    @property
    def monitored(self) -> str:
        """Name of the score in the logs."""
        return f"val_{self.monitor}"

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        sizes = ("epochs", "batch_size", "devices", "ensemble", "log_every")
        validation = ("validation_every", "validation_members", "validation_stride")
        for key in sizes + validation:
            check_least(key, getattr(self, key), 1, section="training.")
        for key in ("warmup_steps", "num_workers", "weight_decay", "predictor_noise"):
            check_least(key, getattr(self, key), 0, section="training.")

        check_choice("monitor", self.monitor, ("loss", "crps"), section="training.")
        if self.monitor == "crps":
            number = self.validation_members
            check_least("validation_members", number, 2, section="training.")

        _check_range("training.lr", self.lr, self.lr > 0, "> 0")
        minutes = self.state_minutes
        _check_range("training.state_minutes", minutes, minutes > 0, "> 0")
        fits = 0 <= self.ema_decay < 1
        expected = "0 (off) or more, below 1"
        _check_range("training.ema_decay", self.ema_decay, fits, expected)


def _check_range(key: str, found: object, fits: bool, expected: str) -> None:
    """Raise ConfigError unless the value fits."""
    if not fits:
        raise ConfigError(
            f"{key} is out of range", variable=key, found=found, expected=expected
        )
