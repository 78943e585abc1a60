"""The generator's part of the objective: scores, weights of cells, physics."""

from __future__ import annotations

import torch
from torch import Tensor

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.batch import Batch
from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.ensemble_loss import masked_mean, multiscale_crps
from st_cdgm.models.loss_weights import extreme_weight, focal_weight
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.physics.terms import BlockTerm, WindTerm
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.estimates import check_min_snr, min_snr_ratio, sampled_estimate
from st_cdgm.training.losses import multiscale_energy


def _last_day(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Return target, validity and encoded baseline of the day that is made."""
    assert batch.target is not None
    return batch.target[:, -1], batch.valid[:, -1], batch.baseline[:, -1]


class GeneratorObjective:
    """Losses of the generator on each window's last day.

    Part of ``STCDGMModule``, which sets the attributes.

    Attributes
    ----------
    model, preprocessor : STCDGM, Preprocessor
        The model, and the codec and scales of its targets.
    loss_config, training_config : LossConfig, TrainingConfig
        Weights, and what the physical losses look at.
    score_std : Tensor
        Yardstick of each variable. Shape ``(C,)``.
    """

    model: STCDGM
    preprocessor: Preprocessor
    loss_config: LossConfig
    training_config: TrainingConfig
    score_std: Tensor

    def _prepare_terms(self) -> None:
        """Check the settings against the task, and build the physical losses."""
        loss = self.loss_config
        loss.check()
        self._check_generator_terms()
        prep = self.preprocessor
        self._wind = WindTerm(prep) if loss.lambda_phy > 0 else None
        self._blocks = BlockTerm(prep) if loss.lambda_block > 0 else None

    def _check_generator_terms(self) -> None:
        loss, one_step = self.loss_config, self.model.decoder.config.one_step
        check_min_snr(self.model.decoder, loss.min_snr_gamma)
        if loss.use_focal_loss and one_step:
            raise ConfigError(
                "focal weights are for the denoising error; one_step has none",
                variable="loss.use_focal_loss",
                found=True,
                expected=False,
            )
        if loss.energy_weight > 0 and not one_step:
            raise ConfigError(
                "the energy score is of an ensemble; a denoiser has none in training",
                variable="loss.energy_weight",
                found=loss.energy_weight,
                expected="0, or diffusion.scheduler_type: one_step",
            )

    def generator_loss(
        self,
        batch: Batch,
        condition: Conditioning,
        *,
        members: int,
        noise: Tensor | None = None,
        sigma: Tensor | None = None,
        per_day: bool = False,
    ) -> Tensor:
        """Loss per variable: proper ensemble score (``one_step``) or denoising loss.

        Given ``noise`` (and ``sigma``), it is a deterministic function of the weights.
        Focal and extreme weights are left to training: here every cell counts alike.

        Returns
        -------
        Tensor
            Shape ``(C,)``, or ``(B, C)`` with ``per_day``.
        """
        sigma, noise = self._random_numbers(batch, members, sigma, noise)
        if self.model.decoder.config.one_step:
            residual = self._members(condition, noise, members)
            return self._ensemble_loss(batch, residual, None, per_day=per_day)
        assert sigma is not None
        return self._denoising_loss(
            batch, condition, sigma, noise, weighted=False, per_day=per_day
        )

    def _random_numbers(
        self, batch: Batch, members: int, sigma: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        """Draw what is not given: noise levels of a diffusion model, then noise."""
        decoder, b, device = self.model.decoder, batch.batch_size, batch.lr.device
        if decoder.config.one_step:
            if noise is None:
                noise = torch.randn(b * members, *decoder.noise_shape, device=device)
            return None, noise
        sigma = decoder.training_sigma(b, device) if sigma is None else sigma
        if noise is None:
            noise = torch.randn(b, *decoder.noise_shape, device=device)
        return sigma, noise

    def _members(self, condition: Conditioning, noise: Tensor, members: int) -> Tensor:
        """Generate standardised residuals ``(B, M, C, Y, X)`` in one pass."""
        out = self.model.decoder.generate_one_step(noise, condition.repeat(members))
        return out.float().reshape(-1, members, *out.shape[1:])

    def _ensemble_loss(
        self,
        batch: Batch,
        residual: Tensor,
        importance: Tensor | None,
        *,
        per_day: bool = False,
    ) -> Tensor:
        target, valid, baseline = _last_day(batch)
        scale = self.score_std.view(-1, 1, 1)
        scored = self.preprocessor.scored(residual, baseline[:, None]) / scale
        truth = self.preprocessor.scored(target, baseline) / scale
        scales = self.model.decoder.config.pooling_scales
        loss = multiscale_crps(
            scored, truth, valid, scales, importance=importance, per_day=per_day
        )
        cfg = self.loss_config
        if cfg.energy_weight > 0:
            loss = loss + cfg.energy_weight * multiscale_energy(
                scored, truth, valid, scales, patch=cfg.energy_patch, per_day=per_day
            )
        return loss

    def _denoising_loss(
        self,
        batch: Batch,
        condition: Conditioning,
        sigma: Tensor,
        noise: Tensor,
        *,
        weighted: bool,
        per_day: bool = False,
    ) -> Tensor:
        target, valid, _ = _last_day(batch)
        error = self.model.decoder.denoising_error(
            target, condition, sigma=sigma, noise=noise
        )
        cfg = self.loss_config
        if cfg.min_snr_gamma is not None:
            error = error * min_snr_ratio(self.model.decoder, sigma, cfg.min_snr_gamma)
        if weighted and cfg.use_focal_loss:
            error = error * focal_weight(
                error, valid, alpha=cfg.focal_alpha, gamma=cfg.focal_gamma
            )
        importance = self._importance(batch) if weighted else None
        if importance is not None:
            error = error * importance
        return masked_mean(error, valid.to(error.dtype), per_day=per_day)

    def _importance(self, batch: Batch) -> Tensor | None:
        """Weights of extreme cells, of mean 1, or None. Shape ``(B, C, Y, X)``."""
        cfg = self.loss_config
        if cfg.extreme_weight_factor == 0:
            return None
        target, valid, baseline = _last_day(batch)
        values = target
        if cfg.extreme_values == "field":
            values = self.preprocessor.scored(target, baseline)
        return extreme_weight(
            values,
            valid,
            factor=cfg.extreme_weight_factor,
            percentiles=cfg.extreme_percentiles,
        )

    def training_terms(
        self, batch: Batch, condition: Conditioning, batch_idx: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return the generator's weighted loss per variable and the physical loss."""
        decoder = self.model.decoder
        members = self.model.config.diffusion.train_members
        sigma, noise = self._random_numbers(batch, members, None, None)
        if decoder.config.one_step:
            estimate: Tensor | None = self._members(condition, noise, members)
            assert estimate is not None
            loss = self._ensemble_loss(batch, estimate, self._importance(batch))
        else:
            assert sigma is not None
            loss = self._denoising_loss(batch, condition, sigma, noise, weighted=True)
            estimate = self._estimate(batch, condition, sigma, noise, batch_idx)
        return loss, None if estimate is None else self.physical_loss(batch, estimate)

    def _estimate(
        self,
        batch: Batch,
        condition: Conditioning,
        sigma: Tensor,
        noise: Tensor,
        batch_idx: int,
    ) -> Tensor | None:
        """Return what the physical losses look at ``(B, 1, C, Y, X)``, if anything."""
        if self._wind is None and self._blocks is None:
            return None
        decoder, cfg = self.model.decoder, self.training_config.physical_loss
        if not cfg.use_predicted_output:
            x = _last_day(batch)[0] + sigma[:, None, None, None] * noise
            return decoder.denoise(x, sigma, condition)[:, None]
        if batch_idx % cfg.physical_sample_interval:
            return None
        steps = cfg.physical_num_steps
        return sampled_estimate(decoder, condition, noise, steps=steps)[:, None]

    def physical_loss(self, batch: Batch, estimate: Tensor) -> Tensor | None:
        """Weighted sum of the physical losses of residuals ``(B, M, C, Y, X)``."""
        target, valid, baseline = _last_day(batch)
        terms = []
        if self._wind is not None:
            loss = self._wind(estimate.float(), target, valid)
            terms.append(self.loss_config.lambda_phy * loss)
        if self._blocks is not None:
            loss = self._blocks(estimate.float(), baseline, batch.lr[:, -1], valid)
            terms.append(self.loss_config.lambda_block * loss)
        return torch.stack(terms).sum() if terms else None
