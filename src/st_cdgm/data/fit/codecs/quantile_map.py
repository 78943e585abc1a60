"""Precipitation to scores of a standard normal distribution, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from st_cdgm.errors import InputError

KNOTS = 100
# Wet values that a fit needs, and those left beyond the last quantile.
MIN_WET = 200
_TAIL = 100
# Dry shares outside leave one side without room in the scores.
_DRY_SHARES = (ndtr(-3.0), ndtr(3.0))
# Two quantiles closer than this are one: observations are rounded to 0.1 mm.
_SMALLEST_STEP = 2.0e-3  # sqrt(mm day-1)
_BINS_PER_ROOT = 1000


@dataclass(frozen=True, kw_only=True)
class QuantileMap:
    r"""Amounts as scores: the wet part of a normal distribution, one value when dry.

    With the share :math:`p` of dry values and the distribution :math:`F` of the wet
    ones, :math:`u(x) = \Phi^{-1}(p + (1 - p) F(x))` for wet amounts, and for dry ones
    the mean of the normal distribution below :math:`\Phi^{-1}(p)`. Between about a
    hundred quantiles :math:`u` is linear in the root of the amount. Beyond the last
    one, which leaves 100 training values above it, the root of the amount grows
    linearly with the mean slope of the last unit of score, so that the tail cannot blow
    up.

    Attributes
    ----------
    roots : tuple of float
        Roots of amounts, strictly increasing from the root of the wet threshold to that
        of the largest amount allowed, sqrt(mm day-1).
    scores : tuple of float
        Their scores, strictly increasing.
    dry : float
        Score of a dry value, below all others.
    """

    roots: tuple[float, ...]
    scores: tuple[float, ...]
    dry: float

    def encode(self, amount: Tensor) -> Tensor:
        """Return scores. Any shape, mm day-1; NaN stays NaN."""
        root = amount.clamp(min=0.0).sqrt()
        wet = _piecewise(root, self.roots, self.scores).clamp(min=self.scores[0])
        # A truth at the threshold that went through float32 is wet (see the codec).
        dry = (amount < self.roots[0] ** 2 * (1.0 - 1.0e-4)) | (amount <= 0)
        return torch.where(dry, self.dry, wet)

    def root(self, score: Tensor) -> Tensor:
        """Return the root of the amount, linear below the first knot too."""
        return _piecewise(score, self.scores, self.roots)

    @property
    def edge(self) -> float:
        """Score from which a value is wet."""
        return self.scores[0] - 1.0e-4 * (self.scores[0] - self.dry)

    @property
    def slope(self) -> float:
        """Mean growth of the root per unit of score over the quantiles."""
        rise = self.roots[-2] - self.roots[0]
        return rise / (self.scores[-2] - self.scores[0])


def _piecewise(x: Tensor, xs: Sequence[float], ys: Sequence[float]) -> Tensor:
    """Interpolate linearly; the outer segments go on beyond the ends."""
    at, to = (torch.as_tensor(k, dtype=x.dtype, device=x.device) for k in (xs, ys))
    upper = torch.searchsorted(at, x.detach().contiguous(), right=True)
    upper = upper.clamp(1, len(xs) - 1)
    lower = upper - 1
    share = (x - at[lower]) / (at[upper] - at[lower])
    return to[lower] + share * (to[upper] - to[lower])


class AmountCounts:
    """Counts of amounts in bins of 0.001 sqrt(mm day-1): quantiles of any record.

    Between the smallest wet amount and the largest amount, mm day-1.
    """

    def __init__(self, wet_threshold: float, largest: float) -> None:
        self.wet_threshold, self.largest = wet_threshold, largest
        self.dry = 0
        bins = int(np.ceil(np.sqrt(largest) * _BINS_PER_ROOT)) + 1
        self._wet = np.zeros(bins, dtype=np.int64)

    def add(self, amounts: NDArray[np.float32]) -> None:
        """Add amounts, mm day-1; NaN and infinity are left out. Any shape."""
        known = amounts[np.isfinite(amounts)].astype(np.float64)
        wet = known[(known >= self.wet_threshold) & (known > 0)]
        self.dry += len(known) - len(wet)
        index = np.sqrt(np.minimum(wet, self.largest)) * _BINS_PER_ROOT
        self._wet += np.bincount(index.astype(np.int64), minlength=len(self._wet))

    def fit(self, name: str) -> QuantileMap:
        """Return the map; the name of the target is for errors.

        Raises
        ------
        InputError
            If there are fewer than 200 wet values.
        """
        wet = int(self._wet.sum())
        if wet < MIN_WET:
            raise InputError(
                "too few wet values to fit quantiles to",
                variable=name,
                found=f"{wet} of {wet + self.dry} training values are wet",
                expected=f"at least {MIN_WET}",
                remedy="lengthen the training period or use precipitation_codec sqrt",
            )

        share = float(np.clip(self.dry / (wet + self.dry), *_DRY_SHARES))
        first = float(ndtri(share))
        top = float(ndtri(share + (1 - share) * (1 - _TAIL / max(wet, 2 * _TAIL))))
        scores = np.linspace(first, top, KNOTS + 1)
        levels = (ndtr(scores) - share) / (1 - share)
        roots = self._quantiles(np.clip(levels, 0, 1))
        roots[0] = np.sqrt(self.wet_threshold)
        scores, roots = _increasing(scores, roots, np.sqrt(self.largest))

        dry = -np.exp(-0.5 * first**2) / np.sqrt(2 * np.pi) / share
        return QuantileMap(
            roots=tuple(map(float, roots)), scores=tuple(map(float, scores)), dry=dry
        )

    def _quantiles(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return quantiles of the roots of the wet amounts."""
        total = np.concatenate([[0], np.cumsum(self._wet)])
        filled = np.flatnonzero(self._wet)
        edges, below = filled / _BINS_PER_ROOT, total[filled] / total[-1]
        # Middle of the bins, where half of a bin's values lie below.
        middle = below + 0.5 * self._wet[filled] / total[-1]
        return np.interp(levels, middle, edges + 0.5 / _BINS_PER_ROOT)


def _increasing(
    scores: NDArray[np.float64], roots: NDArray[np.float64], largest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return knots with strictly increasing roots, and the last one far beyond them."""
    kept = [0]
    for i in range(1, len(roots)):
        if roots[i] - roots[kept[-1]] >= _SMALLEST_STEP:
            kept.append(i)
    scores, roots = scores[kept], roots[kept]

    if len(kept) < 2:  # one amount only
        scores = np.append(scores, scores[0] + 1.0)
        roots = np.append(roots, roots[0] + 1.0)

    reach = min(1.0, scores[-1] - scores[0])
    slope = (roots[-1] - np.interp(scores[-1] - reach, scores, roots)) / reach
    end = max(largest, roots[-1] + 1.0)
    return (
        np.append(scores, scores[-1] + (end - roots[-1]) / slope),
        np.append(roots, end),
    )
