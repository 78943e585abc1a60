"""Radially averaged power spectra of fields, member by member.

Call shape and array shapes: see :mod:`st_cdgm.evaluation.metrics.blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.registry import register
from st_cdgm.typing import Floats, Indices

# Power below this share of the largest reference power counts as this share.
FLOOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Mean spectra of a forecast and its reference.

    Attributes
    ----------
    wavenumber : ndarray
        Cycles per grid cell, ``k / min(Y, X)`` for k = 1 ... min(Y, X) // 2. Shape
        ``(K,)``.
    forecast : ndarray
        Mean power per mode and day of every member, squared units. Shape ``(M, K)``.
    reference : ndarray
        The same of the reference. Shape ``(K,)``.
    """

    wavenumber: Floats
    forecast: Floats
    reference: Floats

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
        self._days, self._shape = 0, (0, 0)

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        counted = block.weight > 0
        days = counted.any(axis=(1, 2))
        self._shape = block.reference.shape[1:]
        self._days += int(days.sum())
        weight = block.weight[days]
        reference = block.reference[days]
        members = np.moveaxis(block.forecast[days], 1, 0)
        power = [_power(member, weight).sum(axis=0) for member in members]
        self._forecast = self._forecast + np.stack(power)  # (M, Y, X // 2 + 1)
        self._reference = self._reference + _power(reference, weight).sum(axis=0)

    @property
    def value(self) -> Spectrum:
        """Mean spectra over the days."""
        number = self._days or np.nan
        wavenumber, _, _ = _rings(self._shape)
        members = self._forecast if self._forecast.ndim else self._forecast[None]
        return Spectrum(
            wavenumber=wavenumber,
            forecast=np.stack([_radial(p, self._shape) for p in members]) / number,
            reference=_radial(self._reference, self._shape) / number,
        )


def _power(fields: Floats, weight: Floats) -> Floats:
    """``|FFT2|^2 / (Y X)^2`` of anomalies, 0 off the mask. ``(t, Y, X // 2 + 1)``."""
    total = weight.sum(axis=(1, 2), keepdims=True)
    mean = (weight * fields).sum(axis=(1, 2), keepdims=True) / total
    anomaly = np.where(weight > 0, fields - mean, 0)
    coefficient = fft.rfft2(anomaly, norm="forward")
    return np.asarray(np.abs(coefficient) ** 2, dtype=np.float64)


def _rings(shape: tuple[int, int]) -> tuple[Floats, Indices, Floats]:
    """Wavenumbers ``(K,)``, ring of each half-plane mode and how often it counts."""
    ny, nx = shape
    short = min(ny, nx)
    radius = np.hypot(np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None])
    ring = np.rint(radius * short).astype(np.int64)  # (Y, X // 2 + 1)
    # Columns of the half plane stand for two modes, but for the first and the Nyquist.
    times = np.full(ring.shape, 2.0)
    times[:, 0] = 1
    if nx % 2 == 0:
        times[:, -1] = 1
    return np.arange(1, short // 2 + 1) / short, ring, times


def _radial(power: Floats, shape: tuple[int, int]) -> Floats:
    """Mean power of the modes on each ring. Shape ``(K,)``."""
    wavenumber, ring, times = _rings(shape)
    length = int(ring.max(initial=0)) + 1
    total = np.bincount(ring.ravel(), (power * times).ravel(), minlength=length)
    number = np.bincount(ring.ravel(), times.ravel(), minlength=length)
    rings = slice(1, wavenumber.size + 1)
    return np.asarray(total[rings] / number[rings])


def spectra(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> Spectrum:
    """Radially averaged power spectra, one per member, mean over days.

    Of each field the weighted mean over the counted cells is removed and cells that are
    not counted are set to 0, the same cells in forecast and reference: the coast then
    leaves the same trace in both. Power is ``|FFT2|^2 / (Y X)^2``, averaged over the
    modes at the same distance from the origin (in cycles per cell), then over days.
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
    number = "value.distance"
