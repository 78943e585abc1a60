"""Small synthetic climates whose lagged causal graph is known exactly.

Q fields on a coarse grid follow, with ``i -> k`` the links of a random graph::

    x_k(t) = o_k M_k x_k(t-1) + s_k (sum_i c_ik g(D_ik x_i(t-1) / sd_i) + e_k(t))
    s_k    = sqrt(1 - o_k^2)

o_k is the variable's own memory (.6 to .85), M_k and D_ik are displacements by a
fraction of a cell (bilinear, at most .4 and .8 cells along each axis: advection), e_k
is Gaussian noise, white in time, of unit variance and correlated in space, and sd_i is
the standard deviation of x_i. The families of links:

``mild``       ``g(u) = 1.5 tanh(u / 1.5)``, a saturating response
``linear``     ``g(u) = u``
``quadratic``  ``g(u) = (min(u^2, 9) - m) / sqrt 2``, without any linear part; m is the
               mean of ``min(u^2, 9)`` for a standard normal u

The fields live on a larger periodic domain of which the returned grid is the middle, so
that cells at its edge have neighbours nobody sees, as in any real region.

Departures that a discovery method meets in practice are options: an annual cycle, a
slow driver that is not among the variables, several steps averaged to a day, noise of
measurement, cyclic graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.errors import ConfigError

DAYS_PER_YEAR = 365  # calendar noleap
MARGIN = 4  # unseen cells on every side
SPIN_UP = 120
PILOT_DAYS = 730
SLOW_MEMORY = 0.97
NOISE_WIDTH = 1.0  # cells
# Mean of min(u^2, 9) for a standard normal u.
CLIPPED_SQUARE = 0.99472
FAMILIES = ("mild", "linear", "quadratic")

Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class LaggedOptions:
    """What to simulate.

    Attributes
    ----------
    num_vars : int
        Q.
    years : int
        Length in years of 365 days.
    shape : tuple of int
        Rows and columns of the grid.
    links : int or None
        Number of links; ``round(1.5 Q)`` when absent.
    family : str
        ``mild``, ``linear`` or ``quadratic``.
    strength : tuple of float
        Range of ``|c|``; signs are random. A link's share of the unpredictable
        variance is about c squared.
    cyclic : bool
        Draw links without an order, so that cycles are likely; acyclic otherwise.
    season : float
        Amplitude, in standard deviations, of an annual cycle added to every variable;
        phases differ by up to two months.
    slow_driver : float
        Weight of a hidden, spatially uniform AR(1) driver of memory .97 that acts on a
        random 60 % of the variables, relative to e_k.
    substeps : int
        Steps averaged to one day; memory and noise are per step such that a day's
        memory is o_k.
    measurement_noise : float
        Standard deviation, in units of the field's, of white noise added at the end.
    seed : int
        Of the graph and the noise.
    """

    num_vars: int = 5
    years: int = 10
    shape: tuple[int, int] = (6, 8)
    links: int | None = None
    family: str = "mild"
    strength: tuple[float, float] = (0.25, 0.45)
    cyclic: bool = False
    season: float = 0.0
    slow_driver: float = 0.0
    substeps: int = 1
    measurement_noise: float = 0.0
    seed: int = 0

    def check(self) -> None:
        """Raise ConfigError for a value that cannot be simulated."""
        pairs = self.num_vars * (self.num_vars - 1)
        most = pairs if self.cyclic else pairs // 2
        if self.num_vars < 1 or self.years < 1 or min(self.shape) < 1:
            raise ConfigError(
                "a synthetic climate needs variables, years and cells",
                found=f"{self.num_vars} variables, {self.years} years, {self.shape}",
                expected="at least 1 each",
            )
        if self.family not in FAMILIES:
            raise ConfigError(
                "unknown family of links",
                variable="family",
                found=self.family,
                expected=" | ".join(FAMILIES),
            )
        if self.links is not None and not 0 <= self.links <= most:
            raise ConfigError(
                "that many links do not fit between the variables",
                variable="links",
                found=self.links,
                expected=f"0 .. {most}",
            )
        if self.substeps < 1:
            raise ConfigError(
                "a day has at least one step",
                variable="substeps",
                found=self.substeps,
                expected=">= 1",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class LaggedClimate:
    """A simulated record and the graph that made it.

    Attributes
    ----------
    fields : ndarray
        Standardised per variable. Shape ``(T, Q, y, x)``, float32.
    graph : ndarray
        Strength c with its sign, ``graph[i, k]``: i -> k, 0 without link.
        Shape ``(Q, Q)``.
    year : ndarray
        Number of the year of each day, from 0. Shape ``(T,)``, int64.
    season : ndarray
        Fraction of the year elapsed, [0, 1). Shape ``(T,)``.
    names : tuple of str
        Names of the variables.
    """

    fields: NDArray[np.float32]
    graph: Floats
    year: NDArray[np.int64]
    season: Floats
    names: tuple[str, ...]


def simulate_lagged(
    options: LaggedOptions, graph: ArrayLike | None = None
) -> LaggedClimate:
    """Draw a graph and simulate a record with it.

    Parameters
    ----------
    options : LaggedOptions
        What to simulate.
    graph : array_like, optional
        Strengths c to use instead of a random graph, ``[i, k]``: i -> k.
        Shape ``(Q, Q)``.

    Returns
    -------
    LaggedClimate
        The same for the same options, whatever was drawn before.

    Raises
    ------
    ConfigError
        The options cannot be simulated, or the graph has another size.
    """
    options.check()
    rng = np.random.default_rng([20209, options.seed])
    links = _draw_graph(options, rng)
    if graph is not None:
        links = np.array(graph, dtype=np.float64)
        if links.shape != (options.num_vars,) * 2 or np.diag(links).any():
            raise ConfigError(
                "the given graph does not fit the variables",
                variable="graph",
                found=links.shape,
                expected=f"({options.num_vars}, {options.num_vars}), zero diagonal",
            )
    system = _System(options, links, rng)
    days = options.years * DAYS_PER_YEAR
    x = system.run(days, np.random.default_rng([20210, options.seed]))
    x /= x.std(axis=(0, 2, 3), keepdims=True)
    season = (np.arange(days) % DAYS_PER_YEAR) / DAYS_PER_YEAR
    if options.season:
        phase = rng.uniform(0, 1 / 6, options.num_vars)
        cycle = np.cos(2 * np.pi * (season[:, None] - phase))  # (T, Q)
        x += options.season * cycle[:, :, None, None]
    if options.measurement_noise:
        x += options.measurement_noise * rng.standard_normal(x.shape)
    x -= x.mean(axis=(0, 2, 3), keepdims=True)
    x /= x.std(axis=(0, 2, 3), keepdims=True)
    return LaggedClimate(
        fields=x.astype(np.float32),
        graph=links,
        year=np.arange(days) // DAYS_PER_YEAR,
        season=season,
        names=tuple(f"x{k}" for k in range(options.num_vars)),
    )


def _draw_graph(options: LaggedOptions, rng: np.random.Generator) -> Floats:
    """Choose links among the allowed pairs with equal chance."""
    q = options.num_vars
    rank = rng.permutation(q)
    allowed = ~np.eye(q, dtype=bool)
    if not options.cyclic:
        allowed &= rank[:, None] < rank[None, :]
    pairs = np.argwhere(allowed)
    wanted = round(1.5 * q) if options.links is None else options.links
    chosen = pairs[rng.permutation(len(pairs))[: min(wanted, len(pairs))]]
    graph = np.zeros((q, q))
    low, high = options.strength
    size = rng.uniform(low, high, len(chosen)) * rng.choice([-1.0, 1.0], len(chosen))
    graph[chosen[:, 0], chosen[:, 1]] = size
    return graph


class _System:
    """Parameters of one climate, ready to step."""

    def __init__(
        self, options: LaggedOptions, graph: Floats, rng: np.random.Generator
    ) -> None:
        self.options, q = options, options.num_vars
        self.padded = tuple(n + 2 * MARGIN for n in options.shape)
        self.source, self.target = np.nonzero(graph)
        self.strength = graph[self.source, self.target]
        daily = rng.uniform(0.6, 0.85, q)
        self.memory = daily ** (1 / options.substeps)  # (Q,)
        self.noise_scale = np.sqrt(1 - self.memory**2)
        scale = 1 / options.substeps
        self.own = self._displacements(rng.uniform(-0.4, 0.4, (q, 2)) * scale)
        self.across = self._displacements(
            rng.uniform(-0.8, 0.8, (len(self.source), 2)) * scale
        )
        touched = rng.permutation(q)[: round(0.6 * q)]
        self.slow_weight = np.zeros(q)
        self.slow_weight[touched] = options.slow_driver
        self.sd = np.ones(q)
        for _ in range(3):  # strengths refer to the parents' true spread
            pilot = self.run(PILOT_DAYS, np.random.default_rng([20211, options.seed]))
            self.sd = pilot.std(axis=(0, 2, 3))

    def _displacements(self, shift: Floats) -> tuple[NDArray[np.int64], Floats]:
        """Four cells and weights per displacement. Shapes ``(P, 4, cells)``, 4."""
        rows, cols = np.indices(self.padded)
        whole = np.floor(shift).astype(int)
        part = shift - whole
        index, weight = [], []
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            y = (rows.ravel() + whole[:, :1] + dy) % self.padded[0]
            x = (cols.ravel() + whole[:, 1:] + dx) % self.padded[1]
            index.append(y * self.padded[1] + x)
            weight.append(np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1]))
        return np.stack(index, 1), np.stack(weight, 1)

    def _response(self, u: Floats) -> Floats:
        if self.options.family == "linear":
            return u
        if self.options.family == "mild":
            return 1.5 * np.tanh(u / 1.5)
        return (np.minimum(u * u, 9.0) - CLIPPED_SQUARE) / math.sqrt(2)

    def _noise(self, rng: np.random.Generator, steps: int) -> Floats:
        """Unit-variance noise, smooth over about a cell. Shape ``(S, Q, cells)``."""
        ky = np.fft.fftfreq(self.padded[0])[:, None]
        kx = np.fft.rfftfreq(self.padded[1])[None, :]
        response = np.exp(-2 * (np.pi * NOISE_WIDTH) ** 2 * (ky**2 + kx**2))
        white = rng.standard_normal((steps, self.options.num_vars, *self.padded))
        smooth = np.fft.irfft2(np.fft.rfft2(white) * response, s=self.padded)
        full = np.fft.irfft2(response**2, s=self.padded)[0, 0]
        return (smooth / math.sqrt(full)).reshape(*white.shape[:2], -1)

    def run(self, days: int, rng: np.random.Generator) -> Floats:
        """Simulate ``days`` days after the spin-up. Shape ``(T, Q, y, x)``."""
        sub, q = self.options.substeps, self.options.num_vars
        x = np.zeros((q, self.padded[0] * self.padded[1]))
        slow, out = 0.0, []
        kick = math.sqrt(1 - SLOW_MEMORY**2)
        for start in range(-SPIN_UP, days, DAYS_PER_YEAR):
            length = min(DAYS_PER_YEAR, days - start)
            noise = self._noise(rng, length * sub)
            for d in range(length):
                slow = SLOW_MEMORY * slow + kick * rng.standard_normal()
                total = np.zeros_like(x)
                for e in noise[d * sub : (d + 1) * sub]:
                    x = self._step(x, e, slow)
                    total += x
                if start + d >= 0:
                    out.append(total / sub)
        fields = np.stack(out).reshape(-1, q, *self.padded)
        inner = slice(MARGIN, -MARGIN)
        return fields[:, :, inner, inner]

    def _step(self, x: Floats, e: Floats, slow: float) -> Floats:
        forcing = e + (self.slow_weight * slow)[:, None]
        if len(self.source):
            parents = x / self.sd[:, None]
            moved = _move(parents[self.source], *self.across)
            np.add.at(
                forcing, self.target, self.strength[:, None] * self._response(moved)
            )
        own = self.memory[:, None] * _move(x, *self.own)
        return own + self.noise_scale[:, None] * forcing


def _move(x: Floats, index: NDArray[np.int64], weight: Floats) -> Floats:
    """Displace each field: ``(P, cells)`` by its four cells and weights."""
    gathered = np.take_along_axis(x[:, None, :], index, axis=2)  # (P, 4, cells)
    return np.asarray(np.einsum("pfc,pf->pc", gathered, weight))
