"""Weather of the fine grid: what the coarse flow makes of it, and local chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import lfilter

from st_cdgm.data.synthetic.config import GROUPS, VARIABLES, SyntheticConfig
from st_cdgm.data.synthetic.flow import MEAN_WIND, FlowFields, random_stream
from st_cdgm.data.synthetic.geography import (
    Geography,
    cell_size_km,
    correlated_amplitude,
)

F32 = NDArray[np.float32]
BLOCK_VALUES = 2_000_000  # fine values per field held at once

TAU_SURF, TAU_850 = 2.3, 2.8  # K per standard deviation
RAIN_SCALE = 6.6  # mm day-1 at unit ascent
RAIN_POWER = 1.6  # of the ascent; above 1 makes the tail heavy
WET = 0.1  # mm day-1; less counts as none
MOIST_850 = 0.0055  # kg kg-1, typical humidity of rain-bearing air
UPSLOPE = 0.03  # m s-1 of forced ascent that counts as one unit
SOIL_MEMORY = 0.85  # per day

# Levels that act on a fine variable on the same day (lag 0): sinks of the graph.
FINE_DRIVERS = dict.fromkeys(
    ("pr", "tas", "tasmin", "tasmax"), ("GP500", "GP850", "SURF")
)


def solar(season: NDArray[np.float64]) -> F32:
    """Return the annual cycle of temperature, -1 (20 January) to 1 (20 July)."""
    return np.cos(2 * np.pi * (season - 0.55)).astype(np.float32)


def surface_temperature(lat: F32, height: F32, inland: F32, sun: F32) -> F32:
    """Return the climate of 2 m temperature in degC; ``sun`` of shape ``(T, 1, 1)``."""
    lapse = (5.6 + 0.8 * sun) / 1000
    annual = (4.0 + 5.0 * inland) * sun
    return np.asarray(13.5 - 0.65 * (lat - 45) + annual - lapse * height, np.float32)


def weather_amplitude(sun: F32) -> F32:
    """Return the strength of wind and temperature anomalies (more in winter)."""
    return np.asarray(1 - 0.2 * sun, np.float32)


def rain_rate(ascent: F32) -> F32:
    """Return mm day-1 from the ascent (0 where it sinks)."""
    return np.asarray(RAIN_SCALE * np.maximum(ascent, 0) ** RAIN_POWER)


class _Noise:
    """One named source of local noise, correlated in space and (AR1) in time."""

    def __init__(
        self, config: SyntheticConfig, name: str, length_km: float, memory: float = 0.0
    ) -> None:
        cell = cell_size_km(config)
        self.crop = tuple(config.hr_shape)
        self.pad = tuple(
            fft.next_fast_len(int(n + np.ceil(4 * length_km / c)), real=True)
            for n, c in zip(config.hr_shape, cell, strict=True)
        )
        self.amplitude = correlated_amplitude(
            (self.pad[0], self.pad[1]), cell, length_km
        )
        self.rng = random_stream(config.seed, name)
        self.memory = memory
        self.last: F32 | None = None

    def draw(self, days: int) -> F32:
        """Return the next ``days`` days, unit variance. Shape ``(days, Y, X)``."""
        white = self.rng.standard_normal((days, *self.pad), dtype=np.float32)
        hat = fft.rfft2(white) * self.amplitude
        out = fft.irfft2(hat, s=self.pad)[:, : self.crop[0], : self.crop[1]]

        if self.memory:
            # The first day of all follows no other.
            first = int(self.last is None)
            before = out[0] if self.last is None else self.last
            scale = np.float32(np.sqrt(1 - self.memory**2))
            own = scale * out[first:]
            out[first:], self.last = _recursive(own, self.memory, before)
        return np.ascontiguousarray(out, np.float32)


def _recursive(x: F32, memory: float, before: F32) -> tuple[F32, F32]:
    """Return ``y(t) = memory y(t-1) + x(t)`` along the first axis, and its last row."""
    if len(x) == 0:
        return x, before
    one, pole = np.ones(1, x.dtype), np.array([1.0, -memory], x.dtype)
    y, _ = lfilter(one, pole, x, axis=0, zi=np.float32(memory) * before[None])
    return y.astype(np.float32), y[-1].astype(np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drivers:
    """The coarse flow on the fine grid, for a block of days. Shapes ``(T, Y, X)``."""

    wet: F32
    hum850: F32
    hum500: F32
    tau_surf: F32
    tau850: F32
    vorticity_surf: F32
    vorticity500: F32
    upslope: F32


def _drivers(
    flow: FlowFields, q850: F32, geo: Geography, days: slice, amplitude: F32
) -> _Drivers:
    def state(name: str) -> F32:
        return geo.refine(flow.state[days, VARIABLES.index(name)])

    def vorticity(group: str) -> F32:
        return geo.refine(flow.vorticity[days, GROUPS.index(group)])

    u, v = (geo.refine(flow.wind[days, k, GROUPS.index("GP850")]) for k in (0, 1))
    mean = np.float32(MEAN_WIND[GROUPS.index("GP850")])
    climb = ((u + mean) * geo.slope_x + v * geo.slope_y) * amplitude  # m s-1
    climb *= geo.refine(q850[days]) / MOIST_850 / UPSLOPE
    return _Drivers(
        wet=state("wet_surf"),
        hum850=state("hum_850"),
        hum500=state("hum_500"),
        tau_surf=state("tau_surf"),
        tau850=state("tau_850") * amplitude,
        vorticity_surf=vorticity("SURF"),
        vorticity500=vorticity("GP500"),
        upslope=np.asarray(1.2 * np.tanh(climb / 1.2), np.float32),
    )


def _precipitation(
    d: _Drivers, noise: dict[str, F32], sun: F32, geo: Geography, chance: float
) -> F32:
    """Return mm day-1: ascent from several levels, then cells that pour or miss."""
    ascent = -0.10 - 0.10 * sun + 0.38 * d.wet + 0.26 * d.hum850
    ascent += 0.22 * d.vorticity_surf + 0.32 * d.vorticity500 + 0.45 * d.upslope
    ascent += 0.12 * geo.orog / 1000  # hills draw more from the same cloud
    ascent += chance * noise["ascent"]
    spread = 0.42 + 0.15 * sun  # showers in summer
    cells = np.exp(spread * noise["cells"] - spread**2 / 2)
    pr = rain_rate(ascent) * cells
    return np.where(pr < WET, 0, pr).astype(np.float32)


def _temperatures(
    d: _Drivers,
    noise: dict[str, F32],
    sun: F32,
    soil: F32,
    geo: Geography,
    chance: float,
) -> tuple[F32, F32, F32]:
    """Return tasmin, tas, tasmax in degC."""
    lat = geo.lat_hr[:, None].astype(np.float32)
    aloft = 0.15 + np.clip(geo.orog / 2000, 0, 0.65)  # summits live in the 850 hPa air
    cloud = 1 / (1 + np.exp(0.2 - 0.8 * d.hum850 - 0.5 * d.hum500 - 0.6 * d.wet))
    tas = surface_temperature(lat, geo.orog, geo.inland, sun)
    tas += (1 - aloft) * TAU_SURF * d.tau_surf + aloft * TAU_850 * d.tau850
    # Cloud shades in summer and keeps warm in winter; wet soil cools in summer.
    tas += (0.45 - cloud) * (0.8 + 2.8 * sun) * (0.3 + 0.7 * geo.inland)
    tas -= 0.5 * np.maximum(sun, 0) * geo.inland * np.tanh(soil - 1)
    tas += chance * (0.6 + 0.4 * geo.inland) * noise["temperature"]

    day_range = (3 + 8 * geo.inland) * (1 + 0.25 * sun) * (1.35 - 0.95 * cloud)
    day_range *= np.exp(0.18 * noise["diurnal"] - 0.12 * np.tanh(soil - 1))
    share = 0.48 + 0.05 * np.tanh(noise["cells"])
    low, high = tas - share * day_range, tas + (1 - share) * day_range
    return low.astype(np.float32), tas.astype(np.float32), high.astype(np.float32)


def fine_fields(
    config: SyntheticConfig,
    flow: FlowFields,
    q850: F32,
    season: NDArray[np.float64],
    geo: Geography,
) -> dict[str, F32]:
    """Make the targets from the flow and the specific humidity at 850 hPa, kg kg-1.

    ``q850`` is of shape ``(T, y + 2m, x + 2m)``, ``season``, the fraction of the year,
    of shape ``(T,)``.

    Returns
    -------
    dict of str to ndarray
        ``pr`` in mm day-1; ``tasmin``, ``tas``, ``tasmax`` in degC; all of shape
        ``(T, Y, X)``.
    """
    days = len(season)
    out = {
        name: np.empty((days, *config.hr_shape), np.float32)
        for name in ("pr", "tasmin", "tas", "tasmax")
    }
    sources = {
        "temperature": _Noise(config, "temperature", 60, memory=0.4),
        "ascent": _Noise(config, "ascent", 90),
        "cells": _Noise(config, "cells", 30),
        "diurnal": _Noise(config, "diurnal", 60),
    }
    sun = solar(season)[:, None, None]
    soil: F32 | None = None

    # Block by block, to hold few fine fields at once; noise and soil go on.
    size = max(1, BLOCK_VALUES // (config.hr_shape[0] * config.hr_shape[1]))
    for start in range(0, days, size):
        block = slice(start, min(start + size, days))
        drivers = _drivers(flow, q850, geo, block, weather_amplitude(sun[block]))
        noise = {name: s.draw(block.stop - start) for name, s in sources.items()}

        pr = _precipitation(drivers, noise, sun[block], geo, config.precipitation_noise)
        if soil is None:
            soil = np.ones_like(pr[0])
        gain = np.float32(1 - SOIL_MEMORY)
        wet_soil, soil = _recursive(gain * np.sqrt(pr), SOIL_MEMORY, soil)

        out["pr"][block] = pr
        out["tasmin"][block], out["tas"][block], out["tasmax"][block] = _temperatures(
            drivers, noise, sun[block], wet_soil, geo, config.temperature_noise
        )

    if config.land_only_targets:
        for field in out.values():
            field[:, geo.sftlf <= 0.5] = np.nan
    return out
