"""Proper scores of small patches of all variables together.

Values are taken as departures from what is usual, in units of their usual size, so that
variables count alike: ``z = (x - normal) / size``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import combinations, product
from typing import Any

import numpy as np

from st_cdgm.evaluation.gains import DailyScore
from st_cdgm.evaluation.metrics.base import ALL, JointMetric
from st_cdgm.evaluation.metrics.blocks import Block
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, Floats, Indices

PATCH = 4  # cells a side
# Cells between the two values of a pair: neighbours, and opposite sides of a patch.
LAGS = (1, PATCH - 1)


class _Patches:
    """A score of every day: a weighted mean over what a day holds."""

    def __init__(self) -> None:
        self._sums: list[Floats] = []
        self._ordinal: list[Indices] = []

    def update(self, blocks: Mapping[str, Block]) -> None:
        """Take in the same days of every variable."""
        self._sums.append(np.stack(self.sums(*_standardised(blocks))))
        self._ordinal.append(next(iter(blocks.values())).ordinal)

    def sums(
        self, members: FloatArray, truth: FloatArray, weight: FloatArray
    ) -> tuple[Floats, Floats]:
        """Return the weighted sum of the score, and of the weights, for each day.

        Parameters
        ----------
        members : ndarray
            Shape ``(t, V, M, Y, X)``, 0 where not counted.
        truth, weight : ndarray
            Shape ``(t, V, Y, X)`` and ``(t, Y, X)``, of the cells where all count.
        """
        raise NotImplementedError

    @property
    def daily(self) -> DailyScore:
        """The score of every day."""
        total, weight = np.concatenate(self._sums, axis=1)
        mean = total / np.where(weight > 0, weight, 1.0)
        return DailyScore(value=np.where(weight > 0, mean, np.nan), weight=weight)

    @cached_property
    def value(self) -> Measured:
        """The mean over days with its interval."""
        series = np.concatenate(self._sums, axis=1)
        block = block_length(np.concatenate(self._ordinal))
        return bootstrap(lambda s: s[0] / s[1], series, block)


def _standardised(
    blocks: Mapping[str, Block],
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return members, truth and weights of the cells that count in all variables."""
    weight = np.min([block.weight for block in blocks.values()], axis=0)
    t, M, Y, X = next(iter(blocks.values())).forecast.shape
    members = np.empty((t, len(blocks), M, Y, X), np.float32)
    truth = np.empty((t, len(blocks), Y, X), np.float32)

    for v, block in enumerate(blocks.values()):
        scale = np.where(weight > 0, 1 / block.size, 0.0)
        members[:, v] = (block.forecast - block.normal[:, None]) * scale[:, None]
        truth[:, v] = (block.reference - block.normal) * scale
    return members, truth, weight.astype(np.float32)


class PatchEnergyScore(_Patches):
    r"""Fair energy score of patches of 4 x 4 cells of all variables.

    .. math:: \overline{\|Z_i - z\|} - \frac{\sum_{ij} \|Z_i - Z_j\|}{2 M (M - 1)}

    with the norm the root of the mean square over the patch's cells, by their areas,
    and variables. Patches do not overlap; one at the border, or with cells that are not
    counted, counts by the area of those it has. One member has no second term.

    References
    ----------
    Gneiting and Raftery (2007), doi:10.1198/016214506000001437.
    """

    def sums(
        self, members: FloatArray, truth: FloatArray, weight: FloatArray
    ) -> tuple[Floats, Floats]:
        """Return sum and weight of each day."""
        t, V, M = members.shape[:3]
        error = (members - truth[:, :, None]) * np.sqrt(weight)[:, None, None]
        vectors = np.moveaxis(_patches(error), (3, 4), (1, 2))  # (t, y, x, V, M, 16)
        vectors = np.moveaxis(vectors, 4, 3).reshape(-1, M, V * PATCH**2)
        area = _patches(weight).sum(axis=-1).ravel()

        # All distances between members from their inner products.
        inner = vectors @ vectors.swapaxes(1, 2)  # (t y x, M, M)
        square = np.diagonal(inner, axis1=1, axis2=2)
        apart = square[:, :, None] + square[:, None, :] - 2 * inner
        pairs = np.sqrt(apart.clip(min=0)).sum(axis=(1, 2), dtype=np.float64)
        score = np.sqrt(square).mean(axis=1, dtype=np.float64)
        score -= pairs / (2 * M * (M - 1)) if M > 1 else 0.0

        # The norm is a mean over area and variables; a patch weighs by its area.
        total = score * np.sqrt(area / V)
        return total.reshape(t, -1).sum(axis=1), area.reshape(t, -1).sum(axis=1)


def _patches(fields: FloatArray) -> FloatArray:
    """Cut fields ``(..., Y, X)`` into ``(..., y, x, 16)``, with zeros at the border."""
    Y, X = fields.shape[-2:]
    edge = [(0, 0)] * (fields.ndim - 2) + [(0, -Y % PATCH), (0, -X % PATCH)]
    whole = np.pad(fields, edge)
    y, x = whole.shape[-2] // PATCH, whole.shape[-1] // PATCH
    cut = whole.reshape(*fields.shape[:-2], y, PATCH, x, PATCH).swapaxes(-3, -2)
    return cut.reshape(*fields.shape[:-2], y, x, PATCH**2)


class PatchVariogramScore(_Patches):
    r"""Fair variogram score of order p = 1/2, mean over pairs of values.

    .. math:: \Big(|z_i - z_j|^p - \overline{|Z_i - Z_j|^p}\Big)^2 - \frac{s^2}{M}

    with :math:`s^2` the variance of :math:`|Z_i - Z_j|^p` over the M members: an
    ensemble is not punished for being small. Pairs are values of one variable 1 and 3
    cells apart along rows and columns, and of two variables in one cell; both kinds
    weigh the same, a pair by the areas of its cells.

    References
    ----------
    Scheuerer and Hamill (2015), doi:10.1175/MWR-D-14-00269.1.
    """

    def sums(
        self, members: FloatArray, truth: FloatArray, weight: FloatArray
    ) -> tuple[Floats, Floats]:
        """Return sum and weight of each day."""
        space, variables = np.zeros((2, 2, len(weight)))
        for axis, lag in product((0, 1), LAGS):
            far, near = _cuts(axis, lag)
            space += _variogram(
                members[far] - members[near],
                truth[far] - truth[near],
                np.sqrt(weight[far] * weight[near])[:, None],
            )
        for i, j in combinations(range(members.shape[1]), 2):
            variables += _variogram(
                members[:, i : i + 1] - members[:, j : j + 1],
                truth[:, i : i + 1] - truth[:, j : j + 1],
                weight[:, None],
            )

        # The mean of what there is of the two kinds, a day weighs by its area.
        kinds = np.stack([space, variables])  # (2, sum and weight, t)
        known = kinds[:, 1] > 0
        means = np.where(known, kinds[:, 0] / np.where(known, kinds[:, 1], 1.0), 0.0)
        score = means.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        area = np.where(known.any(axis=0), weight.sum(axis=(1, 2)), 0.0)
        return score * area, area


def _cuts(axis: int, lag: int) -> tuple[Any, Any]:
    """Return the cells that have one ``lag`` cells before them, and these.

    Along the last axis but one for ``axis`` 0, along the last for 1.
    """
    after = (slice(None),) * (1 - axis)
    return (..., slice(lag, None), *after), (..., slice(None, -lag), *after)


def _variogram(members: FloatArray, truth: FloatArray, weight: FloatArray) -> Floats:
    """Return the weighted sum of the score over pairs, and the weights. ``(2, t)``.

    Differences of members ``(t, v, M, y, x)`` and of the truth ``(t, v, y, x)``.
    """
    M = members.shape[2]
    size = np.abs(members)
    second = size.mean(axis=2)  # the square of the root
    mean = np.sqrt(size, out=size).mean(axis=2)
    score = (np.sqrt(np.abs(truth)) - mean) ** 2
    if M > 1:
        score -= (second - mean**2) / (M - 1)

    weights = np.broadcast_to(weight, score.shape)
    axes = (1, 2, 3)
    return np.stack(
        [(weights * score).sum(axes, np.float64), weights.sum(axes, np.float64)]
    )


class _PatchMetric(JointMetric):
    ideal, units = 0.0, "1"

    def rows(self, score: _Patches) -> dict[str, Measured]:
        """Return the one number about all variables."""
        return {ALL: score.value}


@register("metric", "patch_energy")
class PatchEnergyMetric(_PatchMetric):
    """Energy score of 4 x 4 cells of all variables, standardised."""

    score, place = PatchEnergyScore, 310
    title = f"fair energy score of {PATCH} x {PATCH} cells"
    head = "energy score"


@register("metric", "patch_variogram")
class PatchVariogramMetric(_PatchMetric):
    """Variogram score of neighbours and of variables, standardised."""

    score, place = PatchVariogramScore, 311
    title = "fair variogram score of neighbours and variables"
    head = "variogram score"
