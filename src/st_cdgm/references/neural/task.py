"""What the neural references learn: inputs of a day, encoded targets, days held out.

All of them see the same: the predictors of the day and of the day before, the season
and the static fields. All of them predict encoded targets, standardised cell by cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import Interpolation, interpolation
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.models.ensemble_loss import fair_crps
from st_cdgm.references.days import mask_invalid, training_days


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Encoded targets, standardised cell by cell over the training days.

    Attributes
    ----------
    preprocessor : Preprocessor
        Codec, yardsticks of the losses, valid cells.
    cells : Tensor
        Cells that are learned. A temperature is encoded as a step from its colder
        neighbour: where a cell has truth in one variable, all are learned, and the
        baseline stands in for the others. Shape ``(C, Y, X)``, bool.
    mean, std : Tensor
        Of the encoded truth over the training days. Shape ``(C, Y, X)``.
    """

    preprocessor: Preprocessor
    cells: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def fit(
        cls, days: FieldArrays, truth: NDArray[np.float32], preprocessor: Preprocessor
    ) -> Self:
        """Take mean and spread of complete training fields ``(T, C, Y, X)``."""
        encoded = _encoded(days, truth, preprocessor)
        valid = preprocessor.valid
        std = encoded.std(dim=0, correction=0)
        return cls(
            preprocessor=preprocessor,
            cells=torch.from_numpy(valid.any(axis=0)).expand(valid.shape),
            mean=encoded.mean(dim=0),
            std=torch.where(std > 0, std, 1.0),
        )

    def encode(self, days: FieldArrays, truth: NDArray[np.float32]) -> Tensor:
        """Return complete fields as the networks learn them, 0 where nothing is."""
        encoded = _encoded(days, truth, self.preprocessor)
        return torch.where(self.cells, (encoded - self.mean) / self.std, 0.0)

    def decode(self, standardised: Tensor) -> NDArray[np.float32]:
        """Return fields in target units, NaN on cells without training truth.

        Both of shape ``(..., C, Y, X)``.
        """
        encoded = standardised * self.std + self.mean
        fields = self.preprocessor.codec.decode(encoded).numpy()
        return mask_invalid(fields.astype(np.float32), self.preprocessor)

    def crps(self, members: Tensor, truth: Tensor, group: list[int]) -> Tensor:
        """Return the mean fair CRPS of some channels, in units of their yardsticks.

        Both are standardised, ``(B, M, C_group, Y, X)`` and ``(B, C_group, Y, X)``; the
        scale is that of the model's own training scores (``Preprocessor.score_std``).
        """
        pair = self._scored(members, group), self._scored(truth, group)
        return fair_crps(*pair)[:, self.cells[group]].mean()

    def _scored(self, standardised: Tensor, group: list[int]) -> Tensor:
        """Return ``(..., C_group, Y, X)`` in the scale of training scores."""
        whole = self.mean.expand(*standardised.shape[:-3], -1, -1, -1).clone()
        whole[..., group, :, :] += standardised * self.std[group]
        scored = self.preprocessor.codec.scored(whole)[..., group, :, :]
        yardstick = torch.as_tensor(self.preprocessor.score_std)[group]
        return scored / yardstick[:, None, None]

    @property
    def groups(self) -> list[list[int]]:
        """Channels that are encoded together: all temperatures, each other target."""
        return [list(part.channels) for part in self.preprocessor.codec.parts]


def _encoded(
    days: FieldArrays, truth: NDArray[np.float32], preprocessor: Preprocessor
) -> Tensor:
    whole = np.where(np.isfinite(truth), truth, days.baseline)
    return preprocessor.codec.encode(torch.from_numpy(whole))


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """Predictors of the day and of the day before as maps on the fine grid.

    Attributes
    ----------
    static : Tensor
        Standardised static fields. Shape ``(C_s, Y, X)``.
    to_fine : Interpolation
        From the coarse to the fine grid.
    """

    static: Tensor
    to_fine: Interpolation

    @classmethod
    def of(cls, preprocessor: Preprocessor) -> Self:
        """Take grids and static fields; the predictors are standardised already."""
        return cls(
            static=torch.from_numpy(preprocessor.static),
            to_fine=interpolation(preprocessor.lr_grid, preprocessor.hr_grid),
        )

    def maps(self, coarse: Tensor, season: Tensor) -> Tensor:
        """Return what a convolutional network sees of B days.

        Parameters
        ----------
        coarse : Tensor
            Of :func:`two_days`. Shape ``(B, 2 C_lr, y, x)``.
        season : Tensor
            Sine and cosine. Shape ``(B, 2)``.

        Returns
        -------
        Tensor
            Shape ``(B, 2 C_lr + C_s + 2, Y, X)``.
        """
        fine = torch.from_numpy(self.to_fine.apply(coarse.numpy()))
        b, (y, x) = len(fine), fine.shape[-2:]
        phase = season[:, :, None, None].expand(-1, -1, y, x)
        return torch.cat([fine, self.static.expand(b, -1, -1, -1), phase], dim=1)


def two_days(days: FieldArrays) -> NDArray[np.float32]:
    """Return the predictors of each day, then of the day before.

    Shape ``(T, 2 C_lr, y, x)``.
    """
    return np.concatenate([days.lr, days.lagged(1)], axis=1)


def phase_of_year(days: FieldArrays) -> Tensor:
    """Return cosine and sine of the season. Shape ``(T, 2)``."""
    waves = annual_harmonics(days.season, 1)[:, 1:]
    return torch.from_numpy(waves.astype(np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Days to learn from or to be judged by.

    Attributes
    ----------
    days : FieldArrays
        The days. Length T.
    coarse, season : Tensor
        See :meth:`Inputs.maps`. Shapes ``(T, 2 C_lr, y, x)`` and ``(T, 2)``.
    target : Tensor
        Of :meth:`Targets.encode`. Shape ``(T, C, Y, X)``.
    """

    days: FieldArrays
    coarse: Tensor
    season: Tensor
    target: Tensor

    @classmethod
    def of(
        cls, days: FieldArrays, truth: NDArray[np.float32], targets: Targets
    ) -> Self:
        """Encode the truth ``(T, C, Y, X)`` and look up the days before."""
        return cls(
            days=days,
            coarse=torch.from_numpy(two_days(days)),
            season=phase_of_year(days),
            target=targets.encode(days, truth),
        )

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Everything that a network is trained with.

    Attributes
    ----------
    inputs, targets : Inputs and Targets
        What goes in, what comes out.
    train, held_out : Examples
        Days to learn from, and days that say when to stop.
    """

    inputs: Inputs
    targets: Targets
    train: Examples
    held_out: Examples

    @classmethod
    def of(
        cls,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None,
    ) -> Self:
        """Prepare a task; without validation days the last training year is held out.

        Raises
        ------
        InputError
            Training or validation days without truth.
        """
        days, truth = training_days(train, preprocessor)
        if validation is None:
            last = year_folds(days.day)[-1]
            rest = np.setdiff1d(np.arange(len(days)), last)
            later, later_truth = days.select(last), truth[last]
            days, truth = days.select(rest), truth[rest]
        else:
            later, later_truth = training_days(validation, preprocessor)

        targets = Targets.fit(days, truth, preprocessor)
        return cls(
            inputs=Inputs.of(preprocessor),
            targets=targets,
            train=Examples.of(days, truth, targets),
            held_out=Examples.of(later, later_truth, targets),
        )

    @property
    def maps_seen(self) -> int:
        """Number of input maps."""
        channels = self.train.coarse.shape[1] + self.train.season.shape[1]
        return int(channels + len(self.inputs.static))

    def maps(self, examples: Examples, index: Tensor | slice) -> Tensor:
        """Return the input maps of some days; see :meth:`Inputs.maps`."""
        return self.inputs.maps(examples.coarse[index], examples.season[index])
