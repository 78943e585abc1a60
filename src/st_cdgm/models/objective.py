"""The objective of the generator, of either kind.

A diffusion model learns to denoise; the error of x0 is weighted by noise level (Karras
et al., or min-SNR) and, where asked for, by cell (focal, extreme). A ``one_step``
generator is scored by proper scores of its ensemble. Either way a variable's loss is
the average over its own valid cells, and a scalar loss the average over variables.

References
----------
Karras et al. 2022, arXiv:2206.00364 (EDM); Hang et al. 2023, arXiv:2303.09556
(min-SNR); Gneiting & Raftery 2007, doi:10.1198/016214506000001437 (proper scores).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.ensemble_loss import (
    joint_energy,
    masked_mean,
    multiscale_crps,
    multiscale_energy,
    spectral_crps,
)
from st_cdgm.models.loss_weights import extreme_weight, focal_weight
from st_cdgm.models.noise_levels import karras_sigmas
from st_cdgm.models.preconditioning import precondition
from st_cdgm.models.truth import Draws, Truth

if TYPE_CHECKING:
    from st_cdgm.models.denoiser import ConditionalDenoiser


Scored = tuple[Tensor, Tensor, Tensor]  # members, truth, where valid
ENSEMBLE_TERMS = ("energy_weight", "joint_weight", "change_weight", "spectral_weight")


class NotFiniteError(ValueError):
    """The conditioning, the prediction or the loss holds NaN or infinity."""


@dataclass(frozen=True)
class GeneratorLoss:
    """Outcome of :meth:`Objective.loss`.

    Attributes
    ----------
    per_variable : Tensor
        Shape ``(C,)``, or ``(B, C)`` day by day.
    members : Tensor or None
        Residuals that ``one_step`` made. Shape ``(B, M, C, Y, X)``.
    """

    per_variable: Tensor
    members: Tensor | None
    _condition: Conditioning
    _made: Tensor

    def check(self) -> GeneratorLoss:
        """Return the loss itself if it is finite.

        Raises
        ------
        NotFiniteError
            The message says where NaN or infinity was first met.
        """
        if bool(torch.isfinite(self.per_variable).all()):
            return self
        for name in ("tokens", "state_maps", "context"):
            if count := _not_finite(getattr(self._condition, name)):
                msg = f"{count} values of the conditioning's {name} are NaN or infinite"
                raise NotFiniteError(msg)

        msg = f"the generator's loss is {self.per_variable.tolist()}"
        if count := _not_finite(self._made):
            total = self._made.numel()
            msg = f"the network predicts NaN or infinity in {count} of {total} cells"
        raise NotFiniteError(msg)


def _not_finite(values: Tensor) -> int:
    return int((~torch.isfinite(values)).sum())


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Which errors of the generator count how much.

    Attributes
    ----------
    use_focal_loss, focal_alpha, focal_gamma : bool, float, float
        Weights of `loss_weights.focal_weight` on the denoising error.
    min_snr_gamma : float or None
        Largest signal-to-noise ratio that counts, of ``eps`` and ``v``; None: the
        decoder's own weights, with 5.
    extreme_weight_factor, extreme_percentiles, extreme_thresholds
        Weights of `loss_weights.extreme_weight`; factor 0: none.
    energy_weight, energy_patch : float, int or None
        Weight of the energy score beside the CRPS, and side of its patches; of
        ``one_step``.
    joint_weight, joint_patch : float, int
        Weight and side of the patches of `ensemble_loss.joint_energy`, which sees the
        variables together.
    change_weight : float
        Weight of the CRPS of the changes from a day to the next; where the truth has
        two days.
    spectral_weight : float
        Weight of `ensemble_loss.spectral_crps`.
    """

    use_focal_loss: bool = False
    focal_alpha: float = 1.0
    focal_gamma: float = 2.0
    min_snr_gamma: float | None = None
    extreme_weight_factor: float = 0.0
    extreme_percentiles: Sequence[float] | None = None
    extreme_thresholds: Tensor | None = None
    energy_weight: float = 0.0
    energy_patch: int | None = None
    joint_weight: float = 0.0
    joint_patch: int = 1
    change_weight: float = 0.0
    spectral_weight: float = 0.0

    @classmethod
    def of(cls, options: Any) -> Objective:
        """Take the attributes of the same names from settings that have them."""
        names = [f.name for f in fields(cls) if hasattr(options, f.name)]
        return cls(**{name: getattr(options, name) for name in names})

    def evenly(self) -> Objective:
        """Return the objective in which every cell counts alike, for validation."""
        return replace(self, use_focal_loss=False, extreme_weight_factor=0.0)

    def check(self, decoder: ConditionalDenoiser, *, section: str = "") -> None:
        """Raise ConfigError for a term that the decoder cannot have.

        ``section`` is put before the names in messages, ``loss.`` for instance.
        """
        one_step = decoder.config.one_step
        if self.use_focal_loss and one_step:
            raise ConfigError(
                "focal weights are for the denoising error; one_step has none",
                variable=f"{section}use_focal_loss",
                found=True,
                expected=False,
            )

        for name in ENSEMBLE_TERMS:
            if getattr(self, name) > 0 and not one_step:
                raise ConfigError(
                    f"the {name.removesuffix('_weight')} score is of an ensemble; a "
                    "denoiser has none in training",
                    variable=f"{section}{name}",
                    found=getattr(self, name),
                    expected="0, or diffusion.scheduler_type: one_step",
                )

        if self.change_weight > 0 and not decoder.noise_memory:
            raise ConfigError(
                "neighbouring days have independent noise: no change can be right",
                variable=f"{section}change_weight",
                found=self.change_weight,
                expected="0, or diffusion.noise_memory above 0, such as [0.4]",
            )

        # Min-SNR weights replace those of the two VP parameterisations.
        if self.min_snr_gamma is None:
            return
        kind = "one_step" if one_step else decoder.config.parameterisation
        if kind not in ("eps", "v"):
            raise ConfigError(
                "min-SNR weights are of noise or v prediction",
                variable=f"{section}min_snr_gamma",
                found=kind,
                expected="diffusion.parameterisation: eps | v",
            )

        if not self.min_snr_gamma > 0:
            raise ConfigError(
                "the bound of the min-SNR weights must be positive",
                variable=f"{section}min_snr_gamma",
                found=self.min_snr_gamma,
                expected="> 0, such as 5",
            )

    def loss(
        self,
        decoder: ConditionalDenoiser,
        truth: Truth,
        conditioning: Conditioning | Tensor,
        draws: Draws,
        *,
        per_day: bool = False,
    ) -> GeneratorLoss:
        """Return the loss per variable, a deterministic function of the draws.

        A variable without any valid cell has a loss of 0 with a gradient of 0.
        """
        condition = decoder.prepare(conditioning)
        if decoder.config.one_step:
            members = _members(decoder, condition, draws.noise, len(truth.residual))
            loss = self._ensemble_loss(decoder, truth, members, per_day=per_day)
            return GeneratorLoss(loss, members, condition, members)

        assert draws.sigma is not None
        error = decoder.denoising_error(
            truth.residual, condition, sigma=draws.sigma, noise=draws.noise
        )
        weighted = self._weighted(decoder, error, truth, draws.sigma)
        loss = masked_mean(weighted, truth.valid.to(error.dtype), per_day=per_day)
        return GeneratorLoss(loss, None, condition, error)

    def _weighted(
        self, decoder: ConditionalDenoiser, error: Tensor, truth: Truth, sigma: Tensor
    ) -> Tensor:
        """Apply the weights of noise levels and cells to ``(B, C, Y, X)``."""
        if self.min_snr_gamma is not None:
            error = error * _min_snr_ratio(decoder, sigma, self.min_snr_gamma)
        if self.use_focal_loss:
            error = error * focal_weight(
                error, truth.valid, alpha=self.focal_alpha, gamma=self.focal_gamma
            )
        importance = self._importance(truth)
        return error if importance is None else error * importance

    def _ensemble_loss(
        self,
        decoder: ConditionalDenoiser,
        truth: Truth,
        members: Tensor,
        *,
        per_day: bool,
    ) -> Tensor:
        """Score members ``(B, M, C, Y, X)`` in cells, blocks and whole fields."""
        scales = decoder.config.pooling_scales
        shown = members if truth.to_fields is None else truth.to_fields(members)
        fields = truth.residual if truth.fields is None else truth.fields
        scored = shown, fields, truth.valid

        # Cells in the scale they are scored in, blocks in physical units.
        totals = scored
        if truth.amounts is not None and truth.to_amounts is not None:
            totals = truth.to_amounts(members), truth.amounts, truth.valid
        loss = self._crps(scored, totals, scales, truth, per_day=per_day)

        # What the scores of single variables and days leave free.
        if self.energy_weight > 0:
            patch = self.energy_patch
            energy = multiscale_energy(*scored, scales, patch=patch, per_day=per_day)
            loss = loss + self.energy_weight * energy

        if self.joint_weight > 0:
            side = self.joint_patch
            joint = joint_energy(*scored, scales, side=side, per_day=per_day)
            loss = loss + self.joint_weight * joint[..., None]

        if self.spectral_weight > 0:
            spectral = spectral_crps(*scored, per_day=per_day)
            loss = loss + self.spectral_weight * spectral

        if self.change_weight > 0 and truth.days == 2:
            changes = multiscale_crps(*_changes(*scored), scales)
            loss = loss + self.change_weight * changes
        return loss

    def _crps(
        self,
        scored: Scored,
        totals: Scored,
        scales: Sequence[int],
        truth: Truth,
        *,
        per_day: bool,
    ) -> Tensor:
        """Average the fair CRPS over scales: cells of one kind, blocks of another."""
        importance = self._importance(truth)
        parts = [
            (fields, [s for s in scales if (s == 1) == cells])
            for fields, cells in ((scored, True), (totals, False))
        ]
        terms = [
            len(chosen)
            * multiscale_crps(*fields, chosen, importance=importance, per_day=per_day)
            for fields, chosen in parts
            if chosen
        ]
        return torch.stack(terms).sum(dim=0) / len(scales)

    def _importance(self, truth: Truth) -> Tensor | None:
        """Weights of extreme cells, of mean 1, or None. Shape ``(B, C, Y, X)``."""
        if self.extreme_weight_factor == 0:
            return None
        values = truth.residual if truth.extreme is None else truth.extreme
        return extreme_weight(
            values.nan_to_num(),
            truth.valid,
            factor=self.extreme_weight_factor,
            percentiles=self.extreme_percentiles,
            thresholds=self.extreme_thresholds,
        )


def _changes(members: Tensor, truth: Tensor, valid: Tensor) -> Scored:
    """Return what changed from the first half of the rows to the second."""
    (m0, m1), (t0, t1), (v0, v1) = (x.chunk(2) for x in (members, truth, valid))
    return m1 - m0, t1 - t0, v0 & v1


def _members(
    decoder: ConditionalDenoiser, condition: Conditioning, noise: Tensor, days: int
) -> Tensor:
    """Generate residuals ``(B, M, C, Y, X)``; scores need float32 at least."""
    count = len(noise) // days
    made = decoder.generate_one_step(noise, condition.repeat(count))
    wide = made.to(torch.promote_types(made.dtype, torch.float32))
    return wide.reshape(days, count, *made.shape[1:])


def _min_snr_ratio(decoder: ConditionalDenoiser, sigma: Tensor, gamma: float) -> Tensor:
    """Return the factor ``(B, 1, 1, 1)`` from the decoder's weights to min(SNR, gamma).

    On the squared error of x0, with SNR = 1 / sigma^2; that is min(SNR, gamma) / SNR on
    the error of the noise and min(SNR, gamma) / (SNR + 1) on that of v.
    """
    own = precondition(decoder.config.parameterisation, sigma, decoder.vp_grid).weight
    wanted = (1 / sigma**2).clamp(max=gamma)
    return (wanted / own)[:, None, None, None]


def clean_estimate(
    decoder: ConditionalDenoiser,
    truth: Truth,
    conditioning: Conditioning | Tensor,
    draws: Draws,
    *,
    steps: int | None = None,
) -> Tensor:
    """Estimate the clean residual with a gradient, for losses of the fields.

    Parameters
    ----------
    decoder : CausalDiffusionDecoder
        Not ``one_step``.
    truth, conditioning, draws
        As for :meth:`Objective.loss`.
    steps : int, optional
        Draw a sample by so many Euler steps, of which the last alone carries the
        gradient: the memory is that of one network call. Without it: the estimate from
        the noise level that is trained at.

    Returns
    -------
    Tensor
        Shape ``(B, C, Y, X)``.

    References
    ----------
    Clark et al., Directly fine-tuning diffusion models on differentiable rewards,
    arXiv:2309.17400 (gradient through the last step alone).
    """
    noise, sigma = draws.noise, draws.sigma
    assert sigma is not None
    if steps is None:
        noisy = truth.residual + sigma[:, None, None, None] * noise
        return decoder.denoise(noisy, sigma, conditioning)

    low, high = decoder.config.sigma_min, decoder.config.sigma_max
    sigmas = karras_sigmas(steps, sigma_min=low, sigma_max=high).tolist()
    x = sigmas[0] * noise
    with torch.no_grad():
        for now, after in zip(sigmas[:-1], sigmas[1:], strict=True):
            level = noise.new_full((len(noise),), now)
            estimate = decoder.denoise(x, level, conditioning)
            x = x + (after - now) * (x - estimate) / now
    return decoder.denoise(x, noise.new_full((len(noise),), sigmas[-1]), conditioning)
