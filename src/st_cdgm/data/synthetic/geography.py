"""Grids, coast and orography of the synthetic region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter

from st_cdgm.data.synthetic.config import SyntheticConfig
from st_cdgm.data.synthetic.flow import EARTH_RADIUS, MARGIN, random_stream

F32 = NDArray[np.float32]
COAST_WIDTH = 0.12  # of the land field's spread: how gently the land fraction rises
CONTINENTALITY_KM = 150.0  # reach of the sea's influence
SMOOTH_SLOPE_KM = 20.0  # the flow does not follow smaller hills
MASTER = 256  # cells of the grid on which the land is drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Geography:
    """Both grids and the static fields.

    Attributes
    ----------
    lat_lr, lon_lr, lat_hr, lon_hr : ndarray
        Cell centres in degrees, ascending.
    orog : ndarray
        Height in m, 0 over the sea. Shape ``(Y, X)``.
    sftlf : ndarray
        Land fraction, 0 to 1. Shape ``(Y, X)``.
    inland : ndarray
        Continentality, 0 (sea) to 1. Shape ``(Y, X)``.
    slope_y, slope_x : ndarray
        Slope of the smoothed orography, m per m. Shape ``(Y, X)``.
    orog_lr, inland_lr : ndarray
        Coarse-cell means. Shape ``(y, x)``.
    to_y, to_x : ndarray
        Cubic-spline weights from the coarse window to the fine grid.
        Shapes ``(Y, y + 2m)`` and ``(X, x + 2m)``.
    """

    lat_lr: NDArray[np.float64]
    lon_lr: NDArray[np.float64]
    lat_hr: NDArray[np.float64]
    lon_hr: NDArray[np.float64]
    orog: F32
    sftlf: F32
    inland: F32
    slope_y: F32
    slope_x: F32
    orog_lr: F32
    inland_lr: F32
    to_y: F32
    to_x: F32

    def refine(self, window: F32) -> F32:
        """Interpolate ``(..., y + 2m, x + 2m)`` to the fine grid ``(..., Y, X)``."""
        return np.asarray(self.to_y @ window @ self.to_x.T)


def build_geography(config: SyntheticConfig) -> Geography:
    """Draw the region of ``config``; depends on its seed and grids alone."""
    (y, x), (Y, X) = config.lr_shape, config.hr_shape
    lat_lr, lat_hr = (_centres(config.lat_range, n) for n in (y, Y))
    lon_lr, lon_hr = (_centres(config.lon_range, n) for n in (x, X))
    size_km = cell_size_km(config)
    orog, sftlf = _relief(config, size_km)

    def smooth(field: NDArray[np.float64], km: float) -> NDArray[np.float64]:
        sigma = [km / c for c in size_km]
        return np.asarray(gaussian_filter(field, sigma, mode="nearest"))

    # The flow follows the smoothed slopes, and the sea is felt far inland.
    gentle = smooth(orog, SMOOTH_SLOPE_KM)
    slope_y = np.gradient(gentle, 1e3 * size_km[0], axis=0)
    slope_x = np.gradient(gentle, 1e3 * size_km[1], axis=1)
    inland = np.clip(smooth(sftlf, CONTINENTALITY_KM), 0, 1) * (0.4 + 0.6 * sftlf)

    mean_y, mean_x = _block_mean(Y, y), _block_mean(X, x)
    fields = {
        "orog": orog,
        "sftlf": sftlf,
        "inland": inland,
        "slope_y": slope_y,
        "slope_x": slope_x,
        "orog_lr": mean_y @ orog @ mean_x.T,
        "inland_lr": mean_y @ inland @ mean_x.T,
        "to_y": _spline(y, Y),
        "to_x": _spline(x, X),
    }

    return Geography(
        lat_lr=lat_lr,
        lon_lr=lon_lr,
        lat_hr=lat_hr,
        lon_hr=lon_hr,
        **{name: field.astype(np.float32) for name, field in fields.items()},
    )


def correlated_amplitude(
    shape: tuple[int, int], cell_km: tuple[float, float], length_km: float
) -> F32:
    """Return the Fourier amplitude that turns white into unit-variance coloured noise.

    Amplitude ``1 / (1 + (k L)^2)``: continuous, with detail at all scales below L.
    """
    ky = 2 * np.pi * np.fft.fftfreq(shape[0], cell_km[0])[:, None]
    kx = 2 * np.pi * np.fft.fftfreq(shape[1], cell_km[1])[None, :]
    full = 1 / (1 + (ky**2 + kx**2) * length_km**2)
    full /= np.sqrt(np.mean(full**2))
    return np.asarray(full[:, : shape[1] // 2 + 1], np.float32)


def _centres(bounds: list[float], n: int) -> NDArray[np.float64]:
    edges = np.linspace(bounds[0], bounds[1], n + 1)
    return (edges[:-1] + edges[1:]) / 2


def cell_size_km(config: SyntheticConfig) -> tuple[float, float]:
    """Return the size of a fine cell, ``(dy, dx)`` in km."""
    degree = np.deg2rad(1) * EARTH_RADIUS / 1e3
    dy = degree * np.ptp(config.lat_range) / config.hr_shape[0]
    dx = degree * np.ptp(config.lon_range) / config.hr_shape[1]
    return float(dy), float(dx * np.cos(np.deg2rad(np.mean(config.lat_range))))


def _block_mean(fine: int, coarse: int) -> NDArray[np.float64]:
    """Return the overlap-weighted mean of fine cells, shape ``(coarse, fine)``."""
    f = np.linspace(0, 1, fine + 1)
    c = np.linspace(0, 1, coarse + 1)[:, None]
    overlap = np.minimum(f[1:], c[1:]) - np.maximum(f[:-1], c[:-1])
    return np.asarray(np.clip(overlap, 0, None) * coarse)


def _spline(coarse: int, fine: int) -> NDArray[np.float64]:
    """Return cubic-spline weights, shape ``(fine, coarse + 2 MARGIN)``."""
    nodes = np.arange(-MARGIN, coarse + MARGIN) + 0.5
    points = (np.arange(fine) + 0.5) * coarse / fine
    return np.asarray(CubicSpline(nodes, np.eye(len(nodes)))(points))


def _fractal(
    rng: np.random.Generator, lengths: tuple[float, float], *, slope: float
) -> NDArray[np.float64]:
    """Return a fractal of unit variance on the master grid.

    Drawn on a fixed grid twice as wide as the region (it is periodic), so that the
    same seed gives the same land at every resolution.
    """
    n = 2 * MASTER
    ky = np.fft.fftfreq(n)[:, None] / lengths[0]
    kx = np.fft.rfftfreq(n)[None, :] / lengths[1]
    k = n * np.hypot(ky, kx)
    k[0, 0] = np.inf
    white = fft.rfft2(rng.standard_normal((n, n)))
    field = fft.irfft2(white * k**-slope, s=(n, n))[:MASTER, :MASTER]
    return np.asarray((field - field.mean()) / field.std())


def _relief(
    config: SyntheticConfig, size_km: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return height (m) and land fraction, shape ``(Y, X)``.

    Land is the high part of a fractal tilted towards one side. Mountains follow the
    zero lines of a second fractal (a ridged multifractal) and fade towards the coast.
    """
    extent = [c * n for c, n in zip(size_km, config.hr_shape, strict=True)]
    lengths = (extent[0] / min(extent), extent[1] / min(extent))
    rng = random_stream(config.seed, "land")
    land = _fractal(rng, lengths, slope=1.95)
    angle = rng.uniform(0, 2 * np.pi)
    t = np.linspace(-1, 1, MASTER)
    land += 0.9 * (np.cos(angle) * t[:, None] + np.sin(angle) * t[None, :])
    above = (land - np.quantile(land, 1 - config.land_fraction)) / land.std()

    rng = random_stream(config.seed, "ridges")
    chains, rough = (_fractal(rng, lengths, slope=s) for s in (2.4, 1.4))
    crest = np.exp(-np.abs(chains) / 0.18) * np.exp(0.45 * rough)
    rise = 1 - np.exp(-np.clip(above, 0, None) / 0.4)
    plain = 0.08 + 0.06 * np.clip(above, 0, None)
    height = rise * (plain * np.exp(0.3 * rough) + crest / np.quantile(crest, 0.998))
    sftlf = np.clip(0.5 + above / COAST_WIDTH, 0, 1)

    to_y, to_x = (_block_mean(MASTER, n) for n in config.hr_shape)
    sftlf = np.clip(to_y @ sftlf @ to_x.T, 0, 1)
    orog = np.where(sftlf > 0.5, to_y @ height @ to_x.T, 0)
    return orog * (config.max_height / max(orog.max(), 1e-9)), sftlf
