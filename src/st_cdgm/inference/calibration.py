"""What was found on validation days, put right at inference: bias and spread.

The deviation of a member from the expected field is split by length scale, each part is
multiplied by a factor, and the mean error is added; all of it in encoded space, so that
decoding keeps what the codec guarantees. The expected field is the mean of members that
nobody asks for, whose random numbers depend on the day alone. So a member still depends
on its own random numbers only: members stay independent of each other, given the
predictors, and the first ones do not depend on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.time.calendar import CLOCK

KEY = "calibration"  # in the description of a checkpoint
SCALES = (4, 16)  # sides in cells of the blocks between which deviations are split
# Members whose mean is the expected field: numbers and seed that no user gives.
EXPECTED_MEMBERS = range(1_000_000, 1_000_012)
EXPECTED_SEED = 20_010_521
# A trend goes on for so many years beyond the record it was found in.
YEARS_BEYOND = 10.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Factors of spread and shifts of the mean of every target, in encoded space.

    Attributes
    ----------
    factors : dict
        Target to the factor of each part of :class:`Bands`, small scales first; targets
        that are not named keep their spread.
    shift : dict
        Target to what is added to its encoded fields.
    trend : dict
        Target to what more is added per year after ``year``.
    year : float
        For which ``shift`` holds.
    years : tuple of float
        Between which the trend goes on.
    """

    factors: dict[str, list[float]] = field(default_factory=dict)
    shift: dict[str, float] = field(default_factory=dict)
    trend: dict[str, float] = field(default_factory=dict)
    year: float = 0.0
    years: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Self | None:
        """Return what a checkpoint's description holds, None without any."""
        found = meta.get(KEY)
        if not found:
            return None
        return cls(**{**found, "years": tuple(found["years"])})

    def to_meta(self) -> dict[str, Any]:
        """Return JSON types."""
        return asdict(self) | {"years": list(self.years)}

    def __str__(self) -> str:
        every = [factor for factors in self.factors.values() for factor in factors]
        said = [f"spread x {min(every):.2f} to {max(every):.2f}"] if every else []
        said += ["bias"] if self.shift else []
        return ", ".join(said + (["trend"] if self.trend else []))

    def applied(
        self,
        residual: Tensor,
        days: NDArray[np.int64],
        preprocessor: Preprocessor,
        expected: Callable[[], Tensor],
    ) -> Tensor:
        """Return standardised residuals put right.

        Parameters
        ----------
        residual : Tensor
            Of members. Shape ``(B, M, C, Y, X)``.
        days : ndarray
            Keys of the days. Shape ``(B,)``.
        preprocessor : Preprocessor
            Targets, valid cells, scale of residuals.
        expected : callable
            Returns the expected residual, shape ``(B, C, Y, X)``; called where a factor
            is other than 1.
        """
        names = [target.name for target in preprocessor.targets]
        if any(factor != 1 for name in names for factor in self.factors.get(name, ())):
            bands = Bands.of(preprocessor)
            table = [self.factors.get(n, [1.0] * bands.count) for n in names]
            factors = torch.tensor(table).to(residual)
            mean = expected()[:, None]
            residual = mean + bands.scaled(residual - mean, factors)

        # What is added to encoded fields, in units of the residual.
        years = np.clip(year_of(days), *self.years) - self.year
        none = np.zeros(len(days))
        rows = [self.shift.get(n, 0.0) + years * self.trend.get(n, 0.0) for n in names]
        shift = torch.from_numpy(np.stack([none + row for row in rows], axis=1))
        scale = torch.as_tensor(preprocessor.residual_std).to(residual)
        return residual + shift.to(residual)[:, None, :, None, None] / scale


def year_of(days: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the years of keys of days or shorter steps, as numbers. ``(T,)``."""
    day = np.where(days >= 100 * CLOCK, days // CLOCK, days)
    return np.asarray(day // 10_000, dtype=np.float64)


class Bands:
    """Fields as a sum of parts of different length scales.

    The first part is what smoothing over ``SCALES[0]`` cells takes away, the next what
    further smoothing takes away, the last the mean over the domain. Cells that are not
    valid take no part.

    Parameters
    ----------
    valid : ndarray
        Shape ``(C, Y, X)``, bool.
    scales : sequence of int
        Widths in cells, increasing.
    """

    def __init__(self, valid: NDArray[np.bool_], scales: Sequence[int]) -> None:
        self.valid = torch.from_numpy(np.asarray(valid, dtype=np.float32))
        self.scales = tuple(scales)
        self.count = len(self.scales) + 2
        rows, columns = valid.shape[-2:]
        self._kernels = [(_gaussian(rows, s), _gaussian(columns, s)) for s in scales]

    @classmethod
    def of(
        cls, preprocessor: Preprocessor, valid: NDArray[np.bool_] | None = None
    ) -> Bands:
        """Return the parts of a task's fields: of the scales that its grid has."""
        cells = np.asarray(preprocessor.valid if valid is None else valid)
        return cls(cells, [s for s in SCALES if 2 * s <= max(cells.shape[-2:])])

    def split(self, fields: Tensor) -> list[Tensor]:
        """Return the parts, each of shape ``(..., C, Y, X)``, 0 on invalid cells."""
        valid = self.valid.to(fields)
        left = fields * valid
        whole = self._mean(left, valid)
        smooth = [left, *(self._smooth(left, valid, k) for k in self._kernels), whole]
        following = [*smooth[1:], torch.zeros_like(whole)]
        return [a - b for a, b in zip(smooth, following, strict=True)]

    def scaled(self, fields: Tensor, factors: Tensor) -> Tensor:
        """Multiply each part by its factor, shape ``(C, parts)``, and add them."""
        parts = self.split(fields)
        weighted = [p * f[:, None, None] for p, f in zip(parts, factors.T, strict=True)]
        return torch.stack(weighted).sum(dim=0)

    def _smooth(
        self, fields: Tensor, valid: Tensor, kernel: tuple[Tensor, Tensor]
    ) -> Tensor:
        rows, columns = (part.to(fields) for part in kernel)
        weight = rows @ valid @ columns.T
        return valid * (rows @ fields @ columns.T) / weight.clamp(min=1e-6)

    @staticmethod
    def _mean(fields: Tensor, valid: Tensor) -> Tensor:
        cells = valid.sum(dim=(-2, -1), keepdim=True).clamp(min=1)
        return valid * fields.sum(dim=(-2, -1), keepdim=True) / cells


def _gaussian(size: int, scale: int) -> Tensor:
    """Return smoothing as wide as means over ``scale`` cells. Shape ``(N, N)``."""
    apart = torch.arange(size)[:, None] - torch.arange(size)
    return torch.exp(-0.5 * apart**2 / (scale**2 / 12))
