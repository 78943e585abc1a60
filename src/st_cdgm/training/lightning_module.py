"""One training step of the whole chain, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.batch import Batch
from st_cdgm.models.acyclicity import central_path
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.ensemble_loss import fair_crps, masked_mean
from st_cdgm.models.objective import Objective
from st_cdgm.models.st_cdgm import STCDGM, CausalRollout
from st_cdgm.models.truth import Draws, Truth
from st_cdgm.physics.terms import BlockTerm, WindTerm
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.losses import (
    generator_terms,
    keep_graph_in_domain,
    loss_graph,
    loss_reconstruction,
)


def last_day_condition(
    model: STCDGM, batch: Batch, rollout: CausalRollout
) -> Conditioning:
    """Conditioning of each window's last day, the day the generator makes."""
    return model.condition(
        rollout.state,
        baseline=batch.baseline[:, -1],
        season=batch.season[:, -1],
        valid=batch.valid[:, -1],
        lr=rollout.lr,
    )


class STCDGMModule(pl.LightningModule):
    """Objective, optimiser and validation of an :class:`STCDGM`.

    The generator is trained on the last day of each window (days overlap between
    windows: every day is a last day once per epoch), the causal network on days 2..T.

    Parameters
    ----------
    model, preprocessor : STCDGM, Preprocessor
        The model; codec and scales of the targets.
    loss, training : LossConfig, TrainingConfig
        Weights and optimisation.
    total_steps : int
        Updates of the whole training, for the learning-rate schedule.
    amount_std : Tensor, optional
        Spread of the targets around the baseline in physical units, shape ``(C,)``; for
        ``loss.block_units: physical``.

    Raises
    ------
    ConfigError
        A value of ``loss`` out of range, or a term that these data cannot have.
    """

    variable_weight: Tensor
    score_std: Tensor  # yardstick of each variable, (C,)
    amount_std: Tensor | None  # that of areal totals

    def __init__(
        self,
        model: STCDGM,
        preprocessor: Preprocessor,
        *,
        loss: LossConfig,
        training: TrainingConfig,
        total_steps: int,
        amount_std: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.preprocessor = preprocessor
        self.loss_config, self.training_config = loss, training
        self.total_steps = max(total_steps, 1)

        weights = [loss.variable_weights.get(t.name, 1.0) for t in preprocessor.targets]
        self.register_buffer("variable_weight", torch.tensor(weights))
        score_std = torch.as_tensor(preprocessor.score_std, dtype=torch.float32)
        self.register_buffer("score_std", score_std)
        self.register_buffer("amount_std", amount_std, persistent=False)

        self._previous_dag: Tensor | None = None
        self.lr_factor = 1.0  # of `PlateauSchedule`
        self.settings: dict[str, Any] = {}  # of the training, stored with its state
        # Called after every update, when all of it is done.
        self.updated: Callable[[], None] = lambda: None
        self._sums: dict[str, Any] = {"epoch": -1}
        loss.check()
        self.objective = Objective.of(loss)
        self.objective.check(model.decoder, section="loss.")
        self._wind = WindTerm.of(preprocessor) if loss.lambda_phy > 0 else None
        self._blocks = BlockTerm(preprocessor) if loss.lambda_block > 0 else None

    # -- terms of the objective ---------------------------------------------------

    def truth(self, batch: Batch) -> Truth:
        """Return what the generator learns of each window's last day."""
        assert batch.truth is not None
        encoded, valid = batch.truth[:, -1], batch.valid[:, -1]
        baseline, prep = batch.baseline[:, -1], self.preprocessor
        residual = torch.where(valid, prep.residual(encoded, baseline), 0.0)
        scale = self.score_std.view(-1, 1, 1)
        fields = prep.codec.scored(encoded) / scale
        truth = Truth(
            residual,
            valid,
            fields=fields,
            to_fields=lambda members: prep.scored(members, baseline[:, None]) / scale,
            extreme=fields if self.loss_config.extreme_values == "field" else None,
        )
        if self.amount_std is None:
            return truth

        # Blocks are areal totals in physical units.
        unit = self.amount_std.view(-1, 1, 1)
        return replace(
            truth,
            amounts=prep.codec.decode(encoded) / unit,
            to_amounts=lambda members: prep.decode(members, baseline[:, None]) / unit,
        )

    def generator_loss(
        self,
        batch: Batch,
        condition: Conditioning,
        draws: Draws,
        *,
        per_day: bool = False,
    ) -> Tensor:
        """Loss per variable: proper ensemble score (``one_step``) or denoising loss.

        A deterministic function of the weights and the draws. Focal and extreme weights
        are left to training: here every cell counts alike.
        Shape ``(C,)``, or ``(B, C)`` with ``per_day``.
        """
        objective, decoder = self.objective.evenly(), self.model.decoder
        found = objective.loss(
            decoder, self.truth(batch), condition, draws, per_day=per_day
        )
        return found.per_variable

    def ensemble_crps(
        self, batch: Batch, condition: Conditioning, generator: torch.Generator
    ) -> Tensor:
        """Fair CRPS in cells of an ensemble drawn as at inference. Shape ``(C,)``.

        In the scale and units that variables are scored in.
        """
        truth, decoder = self.truth(batch), self.model.decoder
        assert truth.fields is not None
        assert truth.to_fields is not None
        members = self.training_config.validation_members
        shape = (batch.batch_size, members, *decoder.noise_shape)

        def noise() -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.device)

        made = truth.to_fields(decoder.draw_residual(condition, noise).float())
        return masked_mean(fair_crps(made, truth.fields), truth.valid.to(made))

    def fixed_draws(
        self, windows: int, members: int, generator: torch.Generator
    ) -> Draws:
        """Return noise and noise levels that depend on the generator alone."""
        decoder = self.model.decoder
        count = windows * members if decoder.config.one_step else windows
        noise = torch.randn(count, *decoder.noise_shape, generator=generator)
        order = torch.randperm(windows, generator=generator)
        sigma = decoder.validation_sigma(windows)[order]
        return Draws(noise.to(self.device), sigma.to(self.device))

    def physical_loss(
        self, batch: Batch, truth: Truth
    ) -> Callable[[Tensor], Tensor] | None:
        """Return the weighted sum of the physical losses, as a function of residuals.

        Those are of members ``(B, M, C, Y, X)``. None where no such loss is asked for.
        """
        if self._wind is None and self._blocks is None:
            return None

        def loss(members: Tensor) -> Tensor:
            total = truth.residual.new_zeros(())
            if self._wind is not None:
                wind = self._wind(members, truth.residual, truth.valid)
                total = total + self.loss_config.lambda_phy * wind
            if self._blocks is not None:
                baseline, lr = batch.baseline[:, -1], batch.lr[:, -1]
                blocks = self._blocks(members, baseline, lr, truth.valid)
                total = total + self.loss_config.lambda_block * blocks
            return total

        return loss

    def _weighted(self, per_variable: Tensor) -> Tensor:
        """Return the weighted mean over variables."""
        weight = self.variable_weight
        return (per_variable * weight).sum() / weight.sum()

    def reconstruction_loss(self, rollout: CausalRollout) -> Tensor:
        """Error of the drivers predicted from own and parents' past."""
        if rollout.predicted is None:
            return rollout.drivers.new_zeros(())
        return loss_reconstruction(
            rollout.predicted,
            rollout.drivers[1:],
            self.loss_config.reconstruction_loss_type,
            mask=self.model.gather_mask[None, :, None, :],  # (1, Q, 1, D)
        )

    def dag_loss(self) -> Tensor:
        """Acyclicity and sparsity of the effective matrix, once per step.

        The weight mu of score and sparsity falls in stages along the training.
        """
        dag, now, last = self.loss_config.graph(), self.global_step, self.total_steps
        mu = central_path(now, last, factor=dag.mu_factor, stages=dag.mu_stages)
        return loss_graph(
            self.model.effective_dag(), dag, mu=mu, groups=self.model.sources
        )

    # -- Lightning hooks ----------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say of which training the state is, and what the epoch's losses sum to."""
        checkpoint["settings"] = self.settings
        checkpoint["sums"] = self._sums

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the sums of an epoch that was interrupted."""
        self._sums = checkpoint.get("sums", self._sums)

    def epoch_means(self) -> dict[str, float]:
        """Return the losses of the epoch, each the mean over its windows."""
        terms = self._sums.get("terms", {})
        count = self._sums.get("windows", 1)
        return {name: float(value) / count for name, value in terms.items()}

    def _sum_up(self, terms: dict[str, Tensor], windows: int) -> None:
        if self._sums["epoch"] != self.current_epoch:
            self._sums = {"epoch": self.current_epoch, "windows": 0, "terms": {}}
        sums = self._sums["terms"]
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * windows
        self._sums["windows"] += windows

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of generator, causal network and graph losses."""
        cfg = self.loss_config
        days = 2 if cfg.change_weight > 0 else 1
        batch = batch.neighbours() if days == 2 else batch
        lr = batch.lr
        if self.training_config.predictor_noise > 0:
            lr = lr + self.training_config.predictor_noise * torch.randn_like(lr)
        rollout = self.model.rollout(lr)

        # The generator, and the physics of what it makes.
        truth = replace(self.truth(batch), days=days)
        found, loss_phy = generator_terms(
            self.model.decoder,
            truth,
            last_day_condition(self.model, batch, rollout),
            self.objective,
            physical=self.physical_loss(batch, truth),
            look=self.training_config.physical_loss,
            number=batch_idx,
        )
        loss_gen = self._weighted(found.per_variable)

        # All terms together.
        loss_rec, loss_dag = self.reconstruction_loss(rollout), self.dag_loss()
        loss = cfg.lambda_gen * loss_gen + cfg.beta_rec * loss_rec
        loss = loss + cfg.gamma_dag * loss_dag
        terms = {"loss_gen": loss_gen, "loss_rec": loss_rec, "loss_dag": loss_dag}
        if loss_phy is not None:
            loss = loss + loss_phy
            terms["loss_phy"] = loss_phy
        self._check_finite(batch, loss, terms)
        terms = {"train_loss": loss, **terms}
        self._sum_up(terms, batch.batch_size)
        # For other callbacks; the rows of `epoch_means` are written with the state.
        self.log_dict(
            terms,
            on_step=False,
            on_epoch=True,
            batch_size=batch.batch_size,
            logger=False,
        )
        return loss

    def _check_finite(
        self, batch: Batch, loss: Tensor, terms: dict[str, Tensor]
    ) -> None:
        if torch.isfinite(loss):
            return
        first, last = int(batch.time.min()), int(batch.time.max())
        parts = ", ".join(f"{name} {term.item():.4g}" for name, term in terms.items())
        msg = (
            f"the loss is {loss.item()} at step {self.global_step} in a batch with "
            f"days {first} to {last} ({parts}); lower training.lr or look at those days"
        )
        raise FloatingPointError(msg)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the generator's loss, with the same noise at every validation."""
        generator = torch.Generator(device="cpu").manual_seed(batch_idx)
        members = self.training_config.validation_members
        draws = self.fixed_draws(batch.batch_size, members, generator)
        rollout = self.model.rollout(batch.lr)
        condition = last_day_condition(self.model, batch, rollout)
        per_variable = self.generator_loss(batch, condition, draws)

        names = [f"val_{t.name}" for t in self.preprocessor.targets]
        logs = dict(zip(names, per_variable, strict=True))
        logs["val_loss"] = self._weighted(per_variable)
        if self.training_config.monitor == "crps":
            score = self.ensemble_crps(batch, condition, generator)
            logs["val_crps"] = self._weighted(score)
        logs["val_rec"] = self.reconstruction_loss(rollout)
        self.log_dict(logs, on_epoch=True, batch_size=batch.batch_size)

    def configure_optimizers(self) -> Any:
        """AdamW with linear warm-up and cosine decay, stepped per update.

        With ``lr_scheduler`` the decay is that of `PlateauSchedule`.
        """
        cfg = self.training_config
        groups = self._parameter_groups()
        optimizer = torch.optim.AdamW(groups, lr=cfg.lr, betas=(0.9, 0.99))
        warmup = min(cfg.warmup_steps, max(self.total_steps // 10, 1))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup * self.lr_factor
            if cfg.lr_scheduler.enabled:
                return self.lr_factor
            progress = min((step - warmup) / max(self.total_steps - warmup, 1), 1.0)
            cosine = 0.5 * (1 + math.cos(math.pi * progress))
            return cfg.lr_final + (1 - cfg.lr_final) * cosine

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        stepped = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": stepped}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Decay matrices and kernels only; the causal matrix has its own penalty."""
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in self.named_parameters():
            groups[parameter.ndim >= 2 and not name.endswith("A_dag")].append(parameter)
        return [
            {"params": groups[True], "weight_decay": self.training_config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the last feasible causal matrix."""
        self._previous_dag = self.model.cell.effective_dag().detach().clone()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Step control of the causal matrix."""
        if self._previous_dag is not None:
            dag = self.loss_config.graph()
            keep_graph_in_domain(self.model.cell, self._previous_dag, dag)
        self.updated()
