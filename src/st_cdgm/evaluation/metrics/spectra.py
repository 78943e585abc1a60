"""Radially averaged power spectra of anomalies, member by member, without wrapping.

A discrete cosine transform has no jump at the borders of the domain, which a Fourier
transform spreads over all scales. Of the fields what is usual is taken off before:
mountains would hide everything. Days with cells that are not counted have no spectrum;
see :mod:`st_cdgm.evaluation.metrics.variograms`.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.evaluation.resampling import Measured, block_length, bootstrap
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices

# Power below this share of the largest reference power counts as this share.
FLOOR = 1e-12
# Cells; shorter waves are called small scales.
SMALL = 8.0


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Mean spectra of a forecast and its reference.

    Attributes
    ----------
    wavenumber : ndarray
        Cycles per grid cell, ``k / (2 min(Y, X))`` for k = 1 ... min(Y, X) - 1. Shape
        ``(K,)``.
    forecast : ndarray
        Mean power per mode and day of every member, squared units. Shape ``(M, K)``.
    reference : ndarray
        The same of the reference. Shape ``(K,)``.
    small_scales : Measured
        Power of the members at wavelengths under 8 cells against that of the reference,
        in dB, with its interval over days.
    """

    wavenumber: Floats
    forecast: Floats
    reference: Floats
    small_scales: Measured

    @property
    def distance(self) -> float:
        """Mean over members of the RMS distance of the log spectra, in dB."""
        if self.reference.size == 0 or not self.reference.max() > 0:
            return float("nan")
        floor = FLOOR * self.reference.max()
        truth = np.log10(np.maximum(self.reference, floor))
        member = np.log10(np.maximum(self.forecast, floor))
        decibel = 10 * (member - truth)  # (M, K)
        return float(np.sqrt((decibel**2).mean(axis=1)).mean())


class SpectrumScore:
    """Sum over days of the power of every member; see :func:`spectra`."""

    def __init__(self) -> None:
        self._forecast = self._reference = np.zeros(())
        self._small: list[Floats] = []
        self._ordinal: list[Indices] = []
        self._shape = (0, 0)

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        self._shape = block.reference.shape[1:]
        days = block.counted.all(axis=(1, 2))
        normal = block.normal[days]
        small = _wavenumber(self._shape) > 1 / SMALL

        # Of the members, one at a time, and of the truth.
        members = np.moveaxis(block.forecast[days], 1, 0)
        forecast = [_power(member - normal) for member in members]
        reference = _power(block.reference[days] - normal)
        totals = np.stack([power.sum(axis=0) for power in forecast])
        self._forecast = self._forecast + totals  # (M, Y, X)
        self._reference = self._reference + reference.sum(axis=0)

        # Small scales day by day, for their interval.
        shares = np.mean([power[:, small].sum(axis=1) for power in forecast], axis=0)
        self._small.append(np.stack([shares, reference[:, small].sum(axis=1)]))
        self._ordinal.append(block.ordinal[days])

    @cached_property
    def value(self) -> Spectrum:
        """Mean spectra over the days."""
        ordinal = np.concatenate([*self._ordinal, np.empty(0, np.int64)])
        days = ordinal.size or np.nan
        members = self._forecast if self._forecast.ndim else self._forecast[None]
        series = np.concatenate([*self._small, np.zeros((2, 0))], axis=1)
        return Spectrum(
            wavenumber=_rings(self._shape)[0],
            forecast=np.stack([_radial(p, self._shape) for p in members]) / days,
            reference=_radial(self._reference, self._shape) / days,
            small_scales=bootstrap(decibels, series, block_length(ordinal)),
        )


def decibels(sums: Floats) -> Floats:
    """Return ten times the logarithm of the first row over the second. Shape (R,)."""
    positive = (sums > 0).all(axis=0)
    ratio = np.where(positive, sums[0], 1.0) / np.where(positive, sums[1], 1.0)
    return np.where(positive, 10 * np.log10(ratio), np.nan)


def _power(fields: Floats) -> Floats:
    """``F^2 / (Y X)`` of the orthonormal cosine transform. Shape ``(t, Y, X)``."""
    coefficient = fft.dctn(fields, axes=(-2, -1), norm="ortho")
    return np.asarray(coefficient**2 / max(1, fields[0].size if len(fields) else 1))


def _wavenumber(shape: tuple[int, int]) -> Floats:
    """Return the cycles per grid cell of every mode. Shape ``(Y, X)``."""
    ny, nx = shape
    return np.hypot(np.arange(ny)[:, None] / (2 * ny), np.arange(nx) / (2 * nx))


def _rings(shape: tuple[int, int]) -> tuple[Floats, Indices]:
    """Wavenumbers ``(K,)``, and the ring of each mode ``(Y, X)``."""
    short = min(shape)
    ring = np.rint(_wavenumber(shape) * 2 * short).astype(np.int64)
    return np.arange(1, max(short, 1)) / (2 * max(short, 1)), ring


def _radial(power: Floats, shape: tuple[int, int]) -> Floats:
    """Mean power of the modes on each ring. Shape ``(K,)``."""
    wavenumber, ring = _rings(shape)
    length = int(ring.max(initial=0)) + 1
    total = np.bincount(ring.ravel(), power.ravel(), minlength=length)
    number = np.bincount(ring.ravel(), minlength=length)
    rings = slice(1, wavenumber.size + 1)
    return np.asarray(total[rings] / number[rings])


def spectra(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Spectrum:
    """Radially averaged power spectra, one per member, mean over days.

    Power is ``F^2 / (Y X)`` with F the two-dimensional orthonormal cosine transform
    (DCT-II): its sum over modes is the mean square of the field. It is averaged over
    the modes at the same distance from the origin (in cycles per cell), then over days.
    A day with a cell that is not counted is left out; without any other day all is NaN.

    References
    ----------
    Denis et al. (2002), doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2.
    """
    return scored(SpectrumScore(), forecast, reference, **cells).value


def spectrum_distance(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> float:
    """Distance of the log spectra in dB, RMS over wavenumbers, mean over members.

    Arguments as :func:`spectra`. A member with twice the power at every scale is
    3.01 dB away.
    """
    return spectra(forecast, reference, **cells).distance


def power_spectrum(field: ArrayLike, **cells: Unpack[Cells]) -> tuple[Floats, Floats]:
    """Return wavenumber and mean power of fields ``(Y, X)`` or ``(T, Y, X)``."""
    spectrum = spectra(field, field, **cells)
    return spectrum.wavenumber, spectrum.reference


@register("metric", "spectrum_distance")
class SpectrumMetric(Metric):
    """Distance of the log spectra of members and truth."""

    score = SpectrumScore
    title, head = "distance of the log spectra", "spectrum distance"
    ideal, place = 0.0, 140
    units = "dB"
    optional = True
    number = "value.distance"


@register("metric", "small_scale_power")
class SmallScaleMetric(Metric):
    """Power of the members at wavelengths under 8 cells against the truth."""

    score = SpectrumScore
    title = "power at wavelengths under 8 cells, members against truth"
    ideal, place = 0.0, 141
    units = "dB"
    signed, calibration = True, True
    tolerance = 1.0

    def measured(self, score: SpectrumScore) -> Measured:
        """Return the level with its interval."""
        return score.value.small_scales

    def value(self, score: SpectrumScore) -> float:
        """Return the level."""
        return self.measured(score).value
