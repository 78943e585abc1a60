"""Stochastic Rossby waves on four levels, and what they carry.

The streamfunction of each level obeys the linear, stochastically forced barotropic
vorticity equation on a periodic beta plane; temperature and moisture are carried by
the level's own wind. Levels act on each other only through the edges of the causal
graph, with a lag, so that the true graph between levels is known exactly.

In standardised units, for level ``l`` and Fourier mode ``k``,

    psi_l(t+1) = rho exp(-i w_l) psi_l(t) + sum_e s_e O_e x_e(t + 1 - lag_e) + noise,
    w_l = pace * k_x (U_l - beta / (k^2 + k_d^2)),

and the scalars follow the same line with semi-Lagrangian advection in place of the
phase rotation. See Vallis (2017), Atmospheric and Oceanic Fluid Dynamics, chapter 6,
doi:10.1017/9781107588417.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from st_cdgm.data.synthetic.config import (
    GROUPS,
    LEVELS,
    MAX_LAG,
    VARIABLES,
    Intervention,
    SyntheticConfig,
)
from st_cdgm.errors import ConfigError

Array = NDArray[np.float64]

EARTH_RADIUS = 6.371e6  # m
OMEGA = 7.292e-5  # s-1
DAY = 86400.0  # s
DEFORMATION_RADIUS = 1.0e6  # m
MEAN_WIND = np.array([18.0, 11.0, 6.0, 3.0])  # m s-1, 250 hPa ... surface
PSI_SD = np.array([8.5e6, 6.0e6, 4.0e6, 5.0e6])  # m2 s-1
MARGIN = 4  # flow cells kept around the region, for interpolation to the fine grid
RUNAWAY = 1000.0  # standard deviations; weather stays below 10
BLOCK = 64  # days of noise drawn at once

# Named sources of noise; a new one comes last.
STREAMS = ("flow", "land", "ridges", "temperature", "ascent", "cells", "diurnal")


def random_stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one named source of noise."""
    number = STREAMS.index(name) + 1
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """The periodic beta plane; its cells are the coarse cells, about 2.5 times as many.

    ``shape`` is ``(ny, nx)``, ``spacing`` ``(dy, dx)`` in m; ``f0`` (s-1) and ``beta``
    (m-1 s-1) are the Coriolis parameter and its gradient at the central latitude.
    """

    shape: tuple[int, int]
    spacing: tuple[float, float]
    f0: float
    beta: float

    @classmethod
    def from_config(cls, config: SyntheticConfig) -> Plane:
        """Lay the plane around the region of ``config``."""
        lat0 = np.deg2rad(sum(config.lat_range) / 2)
        dlat = np.deg2rad(np.ptp(config.lat_range)) / config.lr_shape[0]
        dlon = np.deg2rad(np.ptp(config.lon_range)) / config.lr_shape[1]
        ny, nx = (
            max(8 * round(2.5 * n / 8), n + 2 * MARGIN + (n % 2))
            for n in config.lr_shape
        )
        return cls(
            shape=(ny + ny % 2, nx + nx % 2),
            spacing=(EARTH_RADIUS * dlat, EARTH_RADIUS * np.cos(lat0) * dlon),
            f0=2 * OMEGA * np.sin(lat0),
            beta=2 * OMEGA * np.cos(lat0) / EARTH_RADIUS,
        )

    def wavenumbers(self) -> tuple[Array, Array]:
        """Return ``(k_y, k_x)`` in m-1, shapes ``(ny, 1)`` and ``(1, nx // 2 + 1)``."""
        (ny, nx), (dy, dx) = self.shape, self.spacing
        ky = 2 * np.pi * np.fft.fftfreq(ny, dy)[:, None]
        kx = 2 * np.pi * np.fft.rfftfreq(nx, dx)[None, :]
        return np.asarray(ky, np.float64), np.asarray(kx, np.float64)

    def window(self, lr_shape: list[int]) -> tuple[slice, slice]:
        """Return the region with its margin, as slices of the plane."""
        starts = [
            (n - m) // 2 - MARGIN for n, m in zip(self.shape, lr_shape, strict=True)
        ]
        ys, xs = (
            slice(s, s + m + 2 * MARGIN) for s, m in zip(starts, lr_shape, strict=True)
        )
        return ys, xs


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowFields:
    """Standardised anomalies on the coarse cells of the region with its margin.

    Attributes
    ----------
    state : ndarray
        Shape ``(T, 12, y + 2m, x + 2m)``, in the order of `VARIABLES`, float32.
    wind : ndarray
        Rotational wind ``(u, v)`` of each level in m s-1.
        Shape ``(T, 2, 4, y + 2m, x + 2m)``, float32.
    vorticity : ndarray
        Vorticity of each level, unit variance. Shape ``(T, 4, y + 2m, x + 2m)``.
    forcing : ndarray
        The intervention, standard deviations at the centre of its pattern; NaN where
        none acts. Shape ``(T, 12)``.
    """

    state: NDArray[np.float32]
    wind: NDArray[np.float32]
    vorticity: NDArray[np.float32]
    forcing: NDArray[np.float32]


class _Spectral:
    """Operators of the plane in Fourier space, with unit-variance scaling."""

    def __init__(self, plane: Plane, config: SyntheticConfig) -> None:
        ky, kx = plane.wavenumbers()
        k2 = ky**2 + kx**2
        self.shape = plane.shape
        self.rho = config.memory()
        # Streamfunction steep (smooth), scalars flatter (fronts and filaments).
        self.psi_spectrum = _spectrum(plane, scale=0.9e6, power=3.0)
        self.scalar_spectrum = _spectrum(plane, scale=0.6e6, power=2.2)
        wavy = plane.beta / (k2 + DEFORMATION_RADIUS**-2)
        speed = MEAN_WIND[:, None, None] - wavy
        self.propagator = config.psi_memory * np.exp(
            -1j * config.pace * DAY * kx * speed
        )

        variance = self.psi_spectrum
        self.v_scale = 1 / np.sqrt(np.sum(_both_sides(variance * kx**2)))
        self.vorticity_scale = 1 / np.sqrt(np.sum(_both_sides(variance * k2**2)))
        self.to_u, self.to_v, self.to_vorticity = -1j * ky, 1j * kx, -k2

    def noise(self, rng: np.random.Generator, days: int) -> tuple[Array, Array]:
        """Draw forcing: psi as Fourier coefficients, scalars on the grid."""
        white = rng.standard_normal((days, len(VARIABLES), *self.shape))
        hat = fft.rfft2(white, norm="ortho")
        n = self.shape[0] * self.shape[1]
        innovation = np.sqrt(1 - self.rho**2)[:, None, None]
        psi = hat[:, :4] * np.sqrt(self.psi_spectrum * n) * innovation[:4]
        scalars = hat[:, 4:] * np.sqrt(self.scalar_spectrum * n) * innovation[4:]
        return psi, fft.irfft2(scalars, s=self.shape, norm="ortho")

    def derive(self, psi_hat: Array) -> Array:
        """Return psi, u, v, vorticity per unit psi. Shape ``(4, 4, ny, nx)``."""
        operators = (1, self.to_u, self.to_v, self.to_vorticity)
        stack = np.stack([operator * psi_hat for operator in operators])
        return np.asarray(fft.irfft2(stack, s=self.shape, norm="ortho"))


def _spectrum(plane: Plane, *, scale: float, power: float) -> Array:
    """Return the variance per mode of a unit-variance field, ``(1 + k^2 L^2)^-p``."""
    ky, kx = plane.wavenumbers()
    out = (1 + (ky**2 + kx**2) * scale**2) ** -power
    out[0, 0] = 0.0
    # The highest modes have no well-defined derivative.
    out[plane.shape[0] // 2, :] = 0.0
    out[:, -1] = 0.0
    return np.asarray(out / _both_sides(out).sum())


def _both_sides(half: Array) -> Array:
    """Count the modes that a real transform leaves out."""
    out = np.array(half)
    out[:, 1:-1] *= 2
    return out


def _advect(fields: Array, wind: Array, plane: Plane, pace: float) -> Array:
    """Carry ``fields`` (2, 4, ny, nx) one day along ``wind`` (2, 4, ny, nx), m s-1.

    Semi-Lagrangian; the bilinear value at the departure point also mixes a little.
    """
    (ny, nx), (dy, dx) = plane.shape, plane.spacing
    u, v = wind
    y = np.arange(ny)[:, None] - pace * DAY / dy * v
    x = np.arange(nx)[None, :] - pace * DAY / dx * (u + MEAN_WIND[:, None, None])
    j, i = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    fy, fx = y - j, x - i
    level = np.arange(len(LEVELS))[:, None, None] * (ny * nx)
    flat = fields.reshape(2, -1)

    def at(dj: int, di: int) -> Array:
        return flat[:, level + (j + dj) % ny * nx + (i + di) % nx]

    south = (1 - fx) * at(0, 0) + fx * at(0, 1)
    north = (1 - fx) * at(1, 0) + fx * at(1, 1)
    return np.asarray((1 - fy) * south + fy * north)


class _Forced:
    """The pattern of an intervention on the plane."""

    def __init__(self, what: Intervention, plane: Plane) -> None:
        self.what = what
        self.index = VARIABLES.index(what.variable)
        pattern = np.ones(plane.shape)
        if what.pattern == "bump":
            y, x = (
                (np.arange(n) - (n - 1) / 2) * d
                for n, d in zip(plane.shape, plane.spacing, strict=True)
            )
            square = y[:, None] ** 2 + x**2
            pattern = np.exp(-square / (2 * (1e3 * what.radius_km) ** 2))
        self.field = what.value * pattern

    def apply(self, state: Array, day: int) -> bool:
        """Change ``state`` in place; say whether anything was done."""
        if not self.what.active(day):
            return False
        if self.what.kind == "set":
            state[self.index] = self.field
        else:
            state[self.index] += self.field
        return True


class _Flow:
    """State of the plane and its daily step."""

    def __init__(
        self, config: SyntheticConfig, plane: Plane, forced: _Forced | None
    ) -> None:
        self.plane, self.pace, self.forced = plane, config.pace, forced
        self.ops = _Spectral(plane, config)
        self.edges = config.graph().edges

        self.psi_hat = np.zeros((4, plane.shape[0], plane.shape[1] // 2 + 1), complex)
        self.state = np.zeros((len(VARIABLES), *plane.shape))
        self.derived = np.zeros((4, 4, *plane.shape))
        self.past: deque[tuple[Array, Array, Array]] = deque(maxlen=MAX_LAG)
        self._remember()

    def _remember(self) -> None:
        v = self.derived[2] * self.ops.v_scale
        vorticity = self.derived[3] * self.ops.vorticity_scale
        self.past.appendleft((self.state, v, vorticity))

    def _coupling(self) -> Array:
        out = np.zeros_like(self.state)
        for edge in self.edges:
            if edge.lag <= len(self.past):
                value, v, vorticity = self.past[edge.lag - 1]
                what = {"value": value, "v": v, "vorticity": vorticity}[edge.operator]
                source = what[VARIABLES.index(edge.source)]
                out[VARIABLES.index(edge.target)] += edge.strength * source
        return out

    def step(self, psi_noise: Array, scalar_noise: Array, day: int) -> bool:
        """Advance by one day; say whether the intervention acted."""
        ops, coupling = self.ops, self._coupling()
        psi_hat = ops.propagator * self.psi_hat + psi_noise
        psi_hat += fft.rfft2(coupling[:4], norm="ortho")

        wind = self.derived[1:3] * PSI_SD[:, None, None]
        scalars = self.state[4:].reshape(2, 4, *self.plane.shape)
        carried = _advect(scalars, wind, self.plane, self.pace)

        state = np.empty_like(self.state)
        state[:4] = fft.irfft2(psi_hat, s=self.plane.shape, norm="ortho")
        state[4:] = carried.reshape(8, *self.plane.shape) * ops.rho[4:, None, None]
        state[4:] += coupling[4:] + scalar_noise

        acted = self.forced is not None and self.forced.apply(state, day)
        if acted:
            psi_hat = fft.rfft2(state[:4], norm="ortho")
        self.psi_hat, self.state, self.derived = psi_hat, state, ops.derive(psi_hat)
        self._remember()
        return acted


def _check_bounded(state: Array) -> None:
    largest = float(np.abs(state).max())
    if not largest < RUNAWAY:
        raise ConfigError(
            "The levels of the synthetic climate grow without bound.",
            variable="edges",
            found=f"an anomaly of {largest:.3g} standard deviations",
            remedy="Weaken the links that form a cycle, or shorten the memory.",
        )


def run_flow(
    config: SyntheticConfig, days: int, intervention: Intervention | None = None
) -> FlowFields:
    """Simulate the coupled levels for ``days`` days after the spin-up.

    The noise depends on the seed alone, so a run with an intervention differs from
    one without by the response and by nothing else.

    Raises
    ------
    ConfigError
        If the edges make the levels grow without bound.
    """
    plane = Plane.from_config(config)
    ys, xs = plane.window(config.lr_shape)
    window = (ys.stop - ys.start, xs.stop - xs.start)
    forced = None if intervention is None else _Forced(intervention, plane)
    flow = _Flow(config, plane, forced)
    rng = random_stream(config.seed, "flow")

    state = np.empty((days, len(VARIABLES), *window), np.float32)
    wind = np.empty((days, 2, len(GROUPS), *window), np.float32)
    vorticity = np.empty((days, len(GROUPS), *window), np.float32)
    forcing = np.full((days, len(VARIABLES)), np.nan, np.float32)

    # Days below 0 are the spin-up: simulated, not kept.
    for block in range(-config.spin_up_days, days, BLOCK):
        _check_bounded(flow.state)
        psi_noise, scalar_noise = flow.ops.noise(rng, BLOCK)

        for k in range(min(BLOCK, days - block)):
            day = block + k
            acted = flow.step(psi_noise[k], scalar_noise[k], day)
            if day < 0:
                continue

            if acted and forced is not None:
                forcing[day, forced.index] = forced.what.value
            state[day] = flow.state[:, ys, xs]
            wind[day] = (flow.derived[1:3] * PSI_SD[:, None, None])[..., ys, xs]
            vorticity[day] = (flow.derived[3] * flow.ops.vorticity_scale)[:, ys, xs]

    _check_bounded(flow.state)
    return FlowFields(state=state, wind=wind, vorticity=vorticity, forcing=forcing)
