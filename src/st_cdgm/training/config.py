"""Settings of losses and optimisation."""

from __future__ import annotations

from dataclasses import dataclass, field

from st_cdgm.errors import ConfigError

__all__ = ["DagConfig", "EarlyStoppingConfig", "LossConfig", "TrainingConfig"]


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


@dataclass(kw_only=True)
class LossConfig:
    """Weights of the training objective.

    Attributes
    ----------
    lambda_gen : float
        Generator: denoising loss, or the fair CRPS of ``one_step``.
    beta_rec : float
        Prediction of each variable's drivers from its own and its parents' past.
    gamma_dag : float
        Acyclicity and sparsity of the graph together.
    variable_weights : dict of str to float
        Weight of a target variable in the generator's loss (default 1 each).
    """

    lambda_gen: float = 1.0
    beta_rec: float = 0.1
    gamma_dag: float = 0.1
    variable_weights: dict[str, float] = field(default_factory=dict)
    dag: DagConfig = field(default_factory=DagConfig)


@dataclass(kw_only=True)
class EarlyStoppingConfig:
    """Stop when the validation loss no longer falls."""

    enabled: bool = False
    patience: int = 7
    min_delta: float = 0.0


@dataclass(kw_only=True)
class TrainingConfig:
    """Optimisation.

    Attributes
    ----------
    epochs : int
        Passes over the training windows.
    batch_size : int
        Windows per update.
    lr : float
        Peak learning rate of AdamW; linear warm-up, then cosine decay to ``lr_final``
        times the peak.
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
    precision : str
        As in Lightning: ``32-true``, ``bf16-mixed`` ...
    accelerator : str
        As in Lightning: ``auto``, ``cpu``, ``gpu``.
    devices : int
        Number of devices.
    num_workers : int
        Loader processes; 0 is right while the data are in memory.
    validation_every : int
        Epochs between validations.
    validation_members : int
        Members of the validation ensemble (``one_step``).
    validation_stride : int
        Every so many validation days are used.
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
    precision: str = "32-true"
    accelerator: str = "cpu"
    devices: int = 1
    num_workers: int = 0
    validation_every: int = 1
    validation_members: int = 8
    validation_stride: int = 3
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        for key in (
            "epochs",
            "batch_size",
            "devices",
            "validation_every",
            "validation_members",
            "validation_stride",
        ):
            _check_least(key, getattr(self, key), 1)
        for key in ("warmup_steps", "num_workers", "weight_decay", "predictor_noise"):
            _check_least(key, getattr(self, key), 0)
        if self.lr <= 0:
            raise ConfigError(
                "training.lr is too small",
                variable="training.lr",
                found=self.lr,
                expected="> 0",
            )
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(
                "training.ema_decay is out of range",
                variable="training.ema_decay",
                found=self.ema_decay,
                expected="0 (off) or more, below 1",
            )


def _check_least(key: str, value: float, least: int) -> None:
    if value < least:
        raise ConfigError(
            f"training.{key} is too small",
            variable=f"training.{key}",
            found=value,
            expected=f">= {least}",
        )
