"""How unlike neighbouring cells are, where the coast leaves no room for a spectrum.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.evaluation.metrics.spectra import decibels
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray, Floats, Indices

LAGS = (1, 2, 3, 4)  # cells


@dataclass(frozen=True, kw_only=True)
class Variogram:
    """Semivariances of a forecast and its reference at `LAGS`, squared units.

    Attributes
    ----------
    forecast, reference : ndarray
        Mean over days, and over members. Shape ``(4,)``.
    level : Measured
        Mean over the lags of the forecast's against the reference's in dB, with its
        interval over days.
    """

    forecast: Floats
    reference: Floats
    level: Measured

    @property
    def distance(self) -> float:
        """RMS distance over the lags that there are, in dB."""
        there = np.isfinite(self.reference)
        level = decibels(np.stack([self.forecast, self.reference])[:, there])
        return float(np.sqrt((level**2).mean())) if there.any() else float("nan")


class VariogramScore:
    """Squared differences of neighbours day by day; see :func:`variograms`."""

    def __init__(self) -> None:
        self._series: list[Floats] = []
        self._ordinal: list[Indices] = []

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        days = ~block.counted.all(axis=(1, 2))
        if not days.any():
            return

        normal = block.normal[days]
        members = (block.forecast[days] - normal[:, None]).astype(np.float32)
        truth = (block.reference[days] - normal).astype(np.float32)[:, None]
        root = np.sqrt(block.root[days].astype(np.float32))[:, None]

        M = members.shape[1]
        series = []
        for lag in LAGS:
            sums = np.zeros((3, len(members)))

            for far, near in _neighbours(lag):
                weight = root[far] * root[near]  # its square is the weight of the pair
                sums[0] += _squares((members[far] - members[near]) * weight) / M
                sums[1] += _squares((truth[far] - truth[near]) * weight)
                sums[2] += _squares(weight)
            series.append(sums)
        self._series.append(np.stack(series))
        self._ordinal.append(block.ordinal[days])

    @cached_property
    def value(self) -> Variogram:
        """Mean semivariances over the days."""
        empty = np.zeros((len(LAGS), 3, 0))
        series = np.concatenate([*self._series, empty], axis=-1)  # (lags, 3, t)
        ordinal = np.concatenate([*self._ordinal, np.empty(0, np.int64)])
        forecast, reference, weight = series.sum(axis=-1).T

        # A small grid does not have all lags.
        there = weight > 0
        flat = series[there, :2].reshape(2 * int(there.sum()), series.shape[-1])

        def level(sums: Floats) -> Floats:
            lags = sums.reshape(len(sums) // 2, 2, sums.shape[-1])
            levels = np.array([decibels(lag) for lag in lags])
            return levels.mean(axis=0) if len(lags) else np.full(1, np.nan)

        number = np.where(there, 2 * weight, np.nan)
        return Variogram(
            forecast=forecast / number,
            reference=reference / number,
            level=bootstrap(level, flat, block_length(ordinal)),
        )


def _neighbours(lag: int) -> list[tuple[Any, Any]]:
    """Return which cells, and those before them, along columns and rows."""
    far, near = slice(lag, None), slice(None, -lag)
    return [
        ((..., far, slice(None)), (..., near, slice(None))),
        ((..., far), (..., near)),
    ]


def _squares(values: FloatArray) -> Floats:
    """Return the sum of squares of every day. Shape ``(t,)``."""
    flat = values.reshape(len(values), -1)
    return np.asarray(np.einsum("ti,ti->t", flat, flat), dtype=np.float64)


def variograms(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Variogram:
    """Semivariance of values 1 to 4 cells apart along rows and columns.

    Half the mean squared difference over pairs of which both cells are counted, by the
    root of the product of their areas, over days and, in the forecast, members. Days on
    which every cell is counted are left out: they have a spectrum.
    """
    return scored(VariogramScore(), forecast, reference, **cells).value


@register("metric", "variogram_distance")
class VariogramMetric(Metric):
    """Distance of the logs of the variograms of members and truth."""

    score = VariogramScore
    title, head = "distance of the log variograms, 1-4 cells", "variogram distance"
    ideal, place = 0.0, 142
    units = "dB"
    optional = True
    number = "value.distance"


@register("metric", "small_scale_variogram")
class SmallScaleVariogramMetric(Metric):
    """Differences of neighbours, members against truth, where no spectrum exists."""

    score = VariogramScore
    title = "variogram at 1-4 cells, members against truth"
    ideal, place = 0.0, 143
    units = "dB"
    signed, calibration = True, True
    tolerance = 1.0

    def measured(self, score: VariogramScore) -> Measured:
        """Return the level with its interval."""
        return score.value.level

    def value(self, score: VariogramScore) -> float:
        """Return the level."""
        return self.measured(score).value
