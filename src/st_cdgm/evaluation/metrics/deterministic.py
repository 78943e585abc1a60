"""Errors of the ensemble mean: RMSE, bias, mean absolute error, correlation.

Call shape, array shapes and errors: see :mod:`st_cdgm.evaluation.metrics.blocks`. All
are NaN when nothing is counted. The ensemble mean is the right forecast for these
scores and for no other: it is smoother than any member, so spectra, quantiles and
events are computed member by member elsewhere.
"""

from __future__ import annotations

from typing import Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, ratio, scored
from st_cdgm.registry import register
from st_cdgm.typing import Floats


class MeanErrorScore:
    """Weighted moments of the error of the ensemble mean."""

    def __init__(self) -> None:
        self._error = self._absolute = self._square = self._weight = 0.0

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        error = block.forecast.mean(axis=1) - block.reference
        self._error += float((block.weight * error).sum())
        self._absolute += float((block.weight * np.abs(error)).sum())
        self._square += float((block.weight * error**2).sum())
        self._weight += float(block.weight.sum())

    @property
    def bias(self) -> float:
        """Mean error, forecast minus reference."""
        return ratio(self._error, self._weight)

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return ratio(self._absolute, self._weight)

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return ratio(self._square, self._weight)

    @property
    def rmse(self) -> float:
        """Root mean squared error."""
        return float(np.sqrt(self.mse))


def rmse(forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]) -> float:
    """Root mean squared error of the ensemble mean, in the units of the variable."""
    return scored(MeanErrorScore(), forecast, reference, **cells).rmse


def mse(forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]) -> float:
    """Mean squared error of the ensemble mean, in squared units."""
    return scored(MeanErrorScore(), forecast, reference, **cells).mse


def mae(forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]) -> float:
    """Mean absolute error of the ensemble mean, in the units of the variable."""
    return scored(MeanErrorScore(), forecast, reference, **cells).mae


def bias(forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]) -> float:
    """Mean of forecast minus reference, in the units of the variable."""
    return scored(MeanErrorScore(), forecast, reference, **cells).bias


class CorrelationScore:
    """Sums for the correlation of ensemble mean and reference, cell by cell."""

    def __init__(self) -> None:
        self._origin: Floats | None = None
        self._sums = np.zeros(())
        self._weight = np.zeros(())

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        counted = block.weight > 0
        if self._origin is None:
            # Sums about a typical value do not cancel.
            number = np.maximum(counted.sum(axis=0), 1)
            self._origin = block.reference.sum(axis=0) / number  # (Y, X)
            self._sums = np.zeros((6, *self._origin.shape))
            self._weight = np.zeros_like(self._origin)
        f = np.where(counted, block.forecast.mean(axis=1) - self._origin, 0)
        r = np.where(counted, block.reference - self._origin, 0)
        terms = (counted, f, r, f * f, r * r, f * r)
        self._sums = self._sums + np.stack([term.sum(axis=0) for term in terms])
        self._weight = np.maximum(self._weight, block.weight.max(axis=0))

    @property
    def temporal(self) -> float:
        """Weighted mean over cells of the correlation in time."""
        if self._origin is None:
            return float("nan")
        r = _pearson(self._sums)  # (Y, X)
        weight = np.where(np.isfinite(r), self._weight, 0)
        return ratio(float((weight * np.nan_to_num(r)).sum()), float(weight.sum()))

    @property
    def pooled(self) -> float:
        """Weighted Pearson correlation over all days and cells together."""
        if self._origin is None:
            return float("nan")
        n, f, r, ff, rr, fr = self._sums
        o = self._origin
        absolute = (
            n,
            f + n * o,
            r + n * o,
            ff + 2 * o * f + n * o * o,
            rr + 2 * o * r + n * o * o,
            fr + o * (f + r) + n * o * o,
        )
        w = self._weight
        return float(_pearson(np.stack([(w * term).sum() for term in absolute])))


def _pearson(sums: Floats) -> Floats:
    """Correlation from ``(n, f, r, ff, rr, fr)``; NaN where it is not defined."""
    n, f, r, ff, rr, fr = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        var_f, var_r = ff - f * f / n, rr - r * r / n
        # Below rounding a series is constant and has no correlation.
        varies = (var_f > 1e-12 * ff) & (var_r > 1e-12 * rr) & (n > 1)
        value = (fr - f * r / n) / np.sqrt(var_f * var_r)
    return np.where(varies, value, np.nan)


def correlation(
    forecast: ArrayLike,
    reference: ArrayLike,
    *,
    over: Literal["time", "all"] = "time",
    **cells: Unpack[Cells],
) -> float:
    """Pearson correlation of ensemble mean and reference.

    Parameters
    ----------
    over : {"time", "all"}
        In time at every cell, then the weighted mean over cells with some variation; or
        over all days and cells together.

    Returns
    -------
    float
        In [-1, 1]; NaN where it is not defined.
    """
    if over not in ("time", "all"):
        raise InputError("Unknown `over`.", found=over, expected="time or all")
    score = scored(CorrelationScore(), forecast, reference, **cells)
    return score.temporal if over == "time" else score.pooled


@register("metric", "rmse")
class RmseMetric(Metric):
    """Error of the ensemble mean."""

    score = MeanErrorScore
    title, head = "RMSE of the ensemble mean", "RMSE"
    ideal, place = 0.0, 30
    headline = 3
    number = "rmse"


@register("metric", "mae")
class MaeMetric(Metric):
    """Absolute error of the ensemble mean."""

    score = MeanErrorScore
    title = "mean absolute error of the ensemble mean"
    ideal, place = 0.0, 40
    headline = 2
    number = "mae"


@register("metric", "bias")
class BiasMetric(Metric):
    """Mean error, forecast minus truth."""

    score = MeanErrorScore
    title, head = "bias of the ensemble mean", "bias"
    ideal, place = 0.0, 50
    signed = True
    number = "bias"


@register("metric", "correlation")
class CorrelationMetric(Metric):
    """Correlation in time, cell by cell."""

    score = CorrelationScore
    title, head = (
        "correlation in time of the ensemble mean, annual cycle included",
        "correlation",
    )
    ideal, place = 1.0, 60
    units = "1"
    number = "temporal"
