"""Options of the synthetic climate, its true causal graph, and interventions on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import ConfigError

LEVELS = ("250", "500", "850", "surf")
GROUPS = ("GP250", "GP500", "GP850", "SURF")
# Streamfunction, temperature and moisture of each level; at the surface the third
# quantity is the ascent that makes rain. Index = 4 * quantity + level.
VARIABLES = (
    *(f"psi_{level}" for level in LEVELS),
    *(f"tau_{level}" for level in LEVELS),
    *(f"hum_{level}" for level in LEVELS[:3]),
    "wet_surf",
)
OPERATORS = ("value", "v", "vorticity")
CALENDARS = ("standard", "noleap", "360_day")
MAX_LAG = 7

DEFAULT_EDGES = (
    # Between levels: what a learned graph of levels should find.
    "psi_250->psi_500:1:0.18",
    "psi_250->hum_500:1:-0.15",
    "psi_500->psi_850:1:0.18",
    "psi_500->tau_850:1:0.15",
    "psi_500->wet_surf:1:0.25:vorticity",
    "psi_850->psi_surf:1:0.18",
    "tau_850->tau_surf:1:0.22",
    "hum_850->wet_surf:1:0.25",
    # Inside a level: southerly wind is warm and moist, cyclones make ascent.
    "psi_250->tau_250:1:0.25:v",
    "psi_250->hum_250:1:0.20:v",
    "psi_500->tau_500:1:0.30:v",
    "psi_500->hum_500:1:0.20:v",
    "psi_850->tau_850:1:0.30:v",
    "psi_850->hum_850:1:0.25:v",
    "psi_surf->tau_surf:1:0.20:v",
    "psi_surf->wet_surf:1:0.20:vorticity",
)


def group_of(variable: str) -> str:
    """Return the node type of a state variable: ``psi_850`` belongs to ``GP850``."""
    return GROUPS[LEVELS.index(variable.rpartition("_")[2])]


@dataclass(frozen=True, kw_only=True)
class Edge:
    """One causal link ``source(t - lag) -> target(t)`` of the synthetic climate.

    Attributes
    ----------
    source, target : str
        State variables.
    lag : int
        Days, 1 to 7.
    strength : float
        Standard deviations of the (uncoupled) target per standard deviation of the
        source, in one day.
    operator : str
        What of the source acts: its ``value``, the meridional wind ``v`` or the
        ``vorticity`` of a streamfunction, each scaled to unit variance.
    """

    source: str
    target: str
    lag: int
    strength: float
    operator: str = "value"

    @classmethod
    def parse(cls, text: str) -> Edge:
        """Read ``source->target:lag:strength[:operator]``.

        Raises
        ------
        ConfigError
            If the text does not have this form or names an unknown variable.
        """
        link, *numbers = text.replace(" ", "").split(":")
        source, _, target = link.partition("->")

        try:
            edge = cls(
                source=source,
                target=target,
                lag=int(numbers[0]),
                strength=float(numbers[1]),
                operator=numbers[2] if len(numbers) == 3 else "value",
            )
        except (IndexError, ValueError):
            edge = None
        if edge is None or len(numbers) > 3:
            raise ConfigError(
                "An edge of the synthetic climate cannot be read.",
                variable="edges",
                found=repr(text),
                expected="source->target:lag:strength[:operator]",
                remedy='Write it like "psi_500->psi_850:1:0.2".',
            )

        edge.check()
        return edge

    def check(self) -> None:
        """Raise `ConfigError` unless the edge can be simulated."""
        wrong = [name for name in (self.source, self.target) if name not in VARIABLES]
        if wrong:
            raise _bad_edge(self, f"unknown variable {wrong[0]!r}", VARIABLES)
        if self.source == self.target:
            raise _bad_edge(self, "a link to itself", "own memory is set by `memory`")

        if not 1 <= self.lag <= MAX_LAG:
            raise _bad_edge(self, f"lag {self.lag}", f"1 to {MAX_LAG} days")
        if not np.isfinite(self.strength):
            raise _bad_edge(self, f"strength {self.strength}", "a finite number")
        if self.operator not in OPERATORS:
            raise _bad_edge(self, f"operator {self.operator!r}", OPERATORS)
        if self.operator != "value" and not self.source.startswith("psi_"):
            raise _bad_edge(
                self, f"{self.operator} of {self.source}", "a source psi_<level>"
            )


def _bad_edge(edge: Edge, found: str, expected: object) -> ConfigError:
    return ConfigError(
        f"The edge {edge.source}->{edge.target} of the synthetic climate is not valid.",
        variable="edges",
        found=found,
        expected=expected,
    )


@dataclass(frozen=True, kw_only=True)
class CausalGraph:
    """The true lagged graph over state variables and its summary over levels.

    Own memory is not an edge. Several links between one pair are allowed; `A` and
    `lag` then show the strongest.
    """

    edges: tuple[Edge, ...]

    @property
    def A(self) -> NDArray[np.float64]:  # noqa: N802 - the paper's symbol
        """Strength of ``i -> j``, 0 without link. Shape ``(12, 12)``."""
        A = np.zeros((len(VARIABLES), len(VARIABLES)))  # A[i, j]: i -> j
        for edge in self.edges:
            ij = VARIABLES.index(edge.source), VARIABLES.index(edge.target)
            if abs(edge.strength) > abs(A[ij]):
                A[ij] = edge.strength
        return A

    @property
    def lag(self) -> NDArray[np.int64]:
        """Lag of ``i -> j`` in days, 0 without link. Shape ``(12, 12)``."""
        A, lag = self.A, np.zeros((len(VARIABLES), len(VARIABLES)), dtype=np.int64)
        for edge in self.edges:
            ij = VARIABLES.index(edge.source), VARIABLES.index(edge.target)
            if edge.strength != 0 and edge.strength == A[ij]:
                lag[ij] = edge.lag
        return lag

    @property
    def group_A(self) -> NDArray[np.float64]:  # noqa: N802
        """Largest absolute strength of level ``i -> j``, diagonal 0. Shape ``(4, 4)``.

        The diagonal is left out: links inside a level are internal to it.
        """
        A = np.zeros((len(GROUPS), len(GROUPS)))  # A[i, j]: i -> j
        for edge in self.edges:
            i = GROUPS.index(group_of(edge.source))
            j = GROUPS.index(group_of(edge.target))
            if i != j:
                A[i, j] = max(A[i, j], abs(edge.strength))
        return A

    @property
    def acyclic(self) -> bool:
        """Whether the summary graph over levels has no cycle."""
        reach = self.group_A != 0
        for _ in GROUPS:
            reach = reach | ((reach.astype(int) @ reach.astype(int)) > 0)
        return not bool(reach.diagonal().any())


@dataclass(frozen=True, kw_only=True)
class Intervention:
    """A forced change of one state variable, everything else (noise too) equal.

    Attributes
    ----------
    variable : str
        State variable, see `VARIABLES`.
    value : float
        Standard deviations of the uncoupled variable.
    kind : str
        ``"set"`` replaces the field by ``value * pattern`` (its causes are cut);
        ``"shift"`` adds that to the field after the day's step.
    start_day, days : int
        First day, counted from the first day of the record, and number of days.
    pattern : str
        ``"uniform"``, or ``"bump"``: a Gaussian at the centre of the region.
    radius_km : float
        Standard radius of the bump.
    """

    variable: str
    value: float
    kind: str = "shift"
    start_day: int = 0
    days: int = 1
    pattern: str = "uniform"
    radius_km: float = 500.0

    def check(self) -> None:
        """Raise `ConfigError` unless the intervention can be carried out."""
        _check_options(
            self,
            "intervention",
            {
                "variable": (self.variable in VARIABLES, VARIABLES),
                "value": (bool(np.isfinite(self.value)), "a finite number"),
                "kind": (self.kind in ("set", "shift"), "set or shift"),
                "start_day": (self.start_day >= 0, "0 or later"),
                "days": (self.days >= 1, "at least 1"),
                "pattern": (self.pattern in ("uniform", "bump"), "uniform or bump"),
                "radius_km": (self.radius_km > 0, "a positive length"),
            },
        )

    def active(self, day: int) -> bool:
        """Whether the change acts on ``day`` of the record."""
        return self.start_day <= day < self.start_day + self.days


def _check_options(
    options: object, where: str, checks: dict[str, tuple[bool, object]]
) -> None:
    """Raise for the first option that is not as expected."""
    for name, (ok, expected) in checks.items():
        if not ok:
            raise ConfigError(
                "An option of the synthetic climate is not valid.",
                variable=f"{where}.{name}",
                found=repr(getattr(options, name)),
                expected=expected,
            )


@dataclass(kw_only=True)
class SyntheticConfig:
    """Options of the synthetic climate.

    Attributes
    ----------
    seed : int
        Same seed, same files. A longer record begins with the shorter one.
    start_year, years : int
        The record runs from 1 January of ``start_year`` for ``years`` whole years.
    calendar : str
        ``standard``, ``noleap`` or ``360_day``.
    lr_shape, hr_shape : list of int
        Coarse ``[y, x]`` and fine ``[Y, X]`` cells; both grids cover the same region.
    lat_range, lon_range : list of float
        Edges of the region, degrees; northern middle latitudes.
    edges : list of str
        The causal graph, ``source->target:lag:strength[:operator]``.
    psi_memory, tau_memory, hum_memory, wet_memory : float
        Share of a quantity kept from one day to the next (along the flow).
    pace : float
        Speed of the systems relative to the wave equation. The default moves them
        by one to three coarse cells a day, so that a day's cause is near its effect.
    spin_up_days : int
        Days simulated before the record.
    land_fraction : float
        Share of land in the region.
    max_height : float
        Highest summit, m.
    temperature_noise : float
        Standard deviation of the local temperature that no predictor tells, K, far
        inland; 60 % of it over the sea.
    precipitation_noise : float
        Standard deviation of the part of the ascent that no predictor tells (the
        predictable part has about 0.7).
    land_only_targets : bool
        Leave targets missing over the sea.
    """

    seed: int = 0
    start_year: int = 2001
    years: int = 6
    calendar: str = "standard"
    lr_shape: list[int] = field(default_factory=lambda: [16, 16])
    hr_shape: list[int] = field(default_factory=lambda: [64, 64])
    lat_range: list[float] = field(default_factory=lambda: [35.0, 55.0])
    lon_range: list[float] = field(default_factory=lambda: [-10.0, 10.0])
    edges: list[str] = field(default_factory=lambda: list(DEFAULT_EDGES))
    psi_memory: float = 0.82
    tau_memory: float = 0.75
    hum_memory: float = 0.65
    wet_memory: float = 0.55
    pace: float = 0.3
    spin_up_days: int = 60
    land_fraction: float = 0.65
    max_height: float = 2800.0
    temperature_noise: float = 1.7
    precipitation_noise: float = 0.45
    land_only_targets: bool = False

    def graph(self) -> CausalGraph:
        """Return the true causal graph."""
        return CausalGraph(edges=tuple(Edge.parse(text) for text in self.edges))

    def memory(self) -> NDArray[np.float64]:
        """Return the daily memory of each variable. Shape ``(12,)``."""
        hum = [self.hum_memory] * 3
        psi, tau = [self.psi_memory] * 4, [self.tau_memory] * 4
        return np.array([*psi, *tau, *hum, self.wet_memory])

    def check(self) -> None:
        """Raise `ConfigError` on the first option that cannot be used."""
        west_to_east = _range_ok(self.lon_range, -360, 360)
        memories = {
            name: (0 <= getattr(self, name) < 1, "0 <= memory < 1")
            for name in ("psi_memory", "tau_memory", "hum_memory", "wet_memory")
        }

        # In the order of the fields; the graph is read last.
        checks: dict[str, tuple[bool, object]] = {
            "seed": (self.seed >= 0, "0 or more"),
            "start_year": (self.start_year >= 1850, "1850 or later"),
            "years": (self.years >= 1, "at least 1"),
            "calendar": (self.calendar in CALENDARS, CALENDARS),
            "lr_shape": (_shape_ok(self.lr_shape, 4), "[y, x], >= 4"),
            "hr_shape": (_finer(self), "[Y, X], no coarser than lr_shape"),
            "lat_range": (_range_ok(self.lat_range, 15, 75), "15 to 75 N"),
            "lon_range": (west_to_east, "W to E"),
            **memories,
            "pace": (0 <= self.pace <= 1, "0 to 1"),
            "spin_up_days": (self.spin_up_days >= 0, "0 or more"),
            "land_fraction": (0 < self.land_fraction <= 1, "(0, 1]"),
            "max_height": (0 <= self.max_height <= 6000, "0 to 6000 m"),
            "temperature_noise": (self.temperature_noise >= 0, ">= 0"),
            "precipitation_noise": (self.precipitation_noise >= 0, ">= 0"),
        }
        _check_options(self, "synthetic", checks)
        self.graph()


def _shape_ok(shape: list[int], least: int) -> bool:
    return len(shape) == 2 and min(shape) >= least


def _finer(config: SyntheticConfig) -> bool:
    lr, hr = config.lr_shape, config.hr_shape
    return _shape_ok(hr, 4) and all(n >= m for n, m in zip(hr, lr, strict=False))


def _range_ok(bounds: list[float], low: float, high: float) -> bool:
    return len(bounds) == 2 and low <= bounds[0] < bounds[1] <= high
