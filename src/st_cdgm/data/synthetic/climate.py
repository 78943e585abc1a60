"""The synthetic climate: flow, coarse predictors, fine targets and the truth."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import cftime
import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.synthetic.config import (
    GROUPS,
    CausalGraph,
    Intervention,
    SyntheticConfig,
)
from st_cdgm.data.synthetic.fine import (
    TAU_SURF,
    fine_fields,
    rain_rate,
    solar,
    surface_temperature,
    weather_amplitude,
)
from st_cdgm.data.synthetic.flow import (
    MARGIN,
    MEAN_WIND,
    PSI_SD,
    FlowFields,
    Plane,
    run_flow,
)
from st_cdgm.data.synthetic.geography import Geography, build_geography
from st_cdgm.errors import ConfigError

logger = logging.getLogger(__name__)

F32 = NDArray[np.float32]
EPOCH = "days since 1850-01-01"
PRESSURE = {"GP250": 250, "GP500": 500, "GP850": 850}  # hPa
# Mean at 45 N, change per degree north, annual amplitude, and value of one standard
# deviation of tau, all in K.
AIR = {
    "GP250": (221.0, 0.05, 4.0, 2.5),
    "GP500": (252.5, -0.50, 6.5, 2.6),
    "GP850": (278.0, -0.60, 7.5, 2.8),
}
GEOPOTENTIAL = {"GP250": 101200.0, "GP500": 54600.0, "GP850": 14250.0}  # m2 s-2
SEASONAL_GEOPOTENTIAL = {"GP250": 1900.0, "GP500": 1100.0, "GP850": 350.0}
MEAN_HUMIDITY = {"GP250": 0.40, "GP500": 0.45, "GP850": 0.62}  # relative, 0 to 1
DENSITY = 1.2  # kg m-3, turns the surface streamfunction into pressure
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticClimate:
    """A simulated record with everything that is true about it.

    Attributes
    ----------
    config : SyntheticConfig
        Options it was made with.
    graph : CausalGraph
        True graph.
    time : ndarray
        Days since 1850-01-01 in the record's calendar. Shape ``(T,)``, int64.
    season : ndarray
        Fraction of the year elapsed, [0, 1). Shape ``(T,)``.
    geography : Geography
        Grids and static fields.
    lr : dict of str to ndarray
        Predictors: m s-1, K, kg kg-1, m2 s-2, Pa, kg m-2 s-1. Shape ``(T, y, x)``.
    hr : dict of str to ndarray
        Targets: mm day-1, degC. Shape ``(T, Y, X)``.
    static : dict of str to ndarray
        ``orog`` in m, ``sftlf`` 0 to 1. Shape ``(Y, X)``.
    state : ndarray
        Standardised anomalies on the coarse grid. Shape ``(T, 12, y, x)``.
    forcing : ndarray
        The intervention in standard deviations, NaN where none. Shape ``(T, 12)``.
    """

    config: SyntheticConfig
    graph: CausalGraph
    time: NDArray[np.int64]
    season: NDArray[np.float64]
    geography: Geography
    lr: dict[str, F32]
    hr: dict[str, F32]
    static: dict[str, F32]
    state: F32
    forcing: F32


def simulate(
    config: SyntheticConfig, *, intervention: Intervention | None = None
) -> SyntheticClimate:
    """Simulate the climate of ``config``, with or without a forced change.

    The noise is that of the run without the intervention, so the difference of the two
    runs is the true interventional response.

    Raises
    ------
    ConfigError
        If an option cannot be used.
    """
    config.check()
    time, season = _calendar_days(config)
    if intervention is not None:
        intervention.check()
        if intervention.start_day >= len(time):
            raise ConfigError(
                "The intervention begins after the end of the record.",
                variable="intervention.start_day",
                found=intervention.start_day,
                expected=f"less than {len(time)}",
            )

    geography = build_geography(config)
    flow = run_flow(config, len(time), intervention)
    wide = _coarse_fields(config, flow, season, geography)
    hr = fine_fields(config, flow, wide["q_850"], season, geography)

    # The margin served the interpolation to the fine grid; the record is the region.
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    logger.info("synthetic climate: %d days, seed %d", len(time), config.seed)

    return SyntheticClimate(
        config=config,
        graph=config.graph(),
        time=time,
        season=season,
        geography=geography,
        lr={name: np.ascontiguousarray(field[inner]) for name, field in wide.items()},
        hr=hr,
        static={"orog": geography.orog, "sftlf": geography.sftlf},
        state=np.ascontiguousarray(flow.state[inner]),
        forcing=flow.forcing,
    )


def _calendar_days(
    config: SyntheticConfig,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the time stamps and the fraction of the year of every day."""
    years = range(config.start_year, config.start_year + config.years + 1)
    first_days = [cftime.datetime(y, 1, 1, calendar=config.calendar) for y in years]
    starts = [round(cftime.date2num(d, EPOCH, config.calendar)) for d in first_days]
    season = [
        np.arange(end - start) / (end - start)
        for start, end in zip(starts[:-1], starts[1:], strict=True)
    ]
    return np.arange(starts[0], starts[-1], dtype=np.int64), np.concatenate(season)


def _coarse_fields(
    config: SyntheticConfig,
    flow: FlowFields,
    season: NDArray[np.float64],
    geography: Geography,
) -> dict[str, F32]:
    """Give the standardised anomalies of each level their physical form.

    Every channel is made of its own level alone. Weather is stronger in winter.
    """
    sun = solar(season)[:, None, None]
    amplitude = weather_amplitude(sun)
    low, high = config.lat_range
    rows = np.arange(-MARGIN, config.lr_shape[0] + MARGIN) + 0.5
    lat = (rows * (high - low) / config.lr_shape[0] + low)[:, None].astype(np.float32)

    plane = Plane.from_config(config)
    out: dict[str, F32] = {}
    for group, hpa in PRESSURE.items():
        level = _level_fields(group, flow, plane, lat, sun, amplitude)
        out |= {f"{name}_{hpa}": field for name, field in level.items()}
    out |= _surface_fields(flow, plane, lat, sun, amplitude, geography)
    return {name: field.astype(np.float32) for name, field in out.items()}


def _level_fields(
    group: str, flow: FlowFields, plane: Plane, lat: F32, sun: F32, amplitude: F32
) -> dict[str, F32]:
    k = GROUPS.index(group)
    psi, tau, hum = (flow.state[:, 4 * quantity + k] for quantity in range(3))
    mean, gradient, annual, sd = AIR[group]
    north = lat - 45
    t = mean + gradient * north + annual * sun + sd * amplitude * tau
    jet = MEAN_WIND[k] * amplitude

    # The mean slope of the height field is that of the mean wind (geostrophy).
    metres_per_degree = plane.spacing[0] / (lat[1] - lat[0])
    z = GEOPOTENTIAL[group] + SEASONAL_GEOPOTENTIAL[group] * sun
    z = z - plane.f0 * jet * north * metres_per_degree
    z = z + plane.f0 * PSI_SD[k] * amplitude * psi
    logit = np.log(MEAN_HUMIDITY[group] / (1 - MEAN_HUMIDITY[group]))
    relative = 1 / (1 + np.exp(-(logit + 0.7 * hum)))

    return {
        "u": jet + amplitude * flow.wind[:, 0, k],
        "v": amplitude * flow.wind[:, 1, k],
        "t": t,
        "q": relative * _saturation(t, PRESSURE[group]),
        "z": z,
    }


def _surface_fields(
    flow: FlowFields,
    plane: Plane,
    lat: F32,
    sun: F32,
    amplitude: F32,
    geography: Geography,
) -> dict[str, F32]:
    k = GROUPS.index("SURF")
    psi, tau, wet = (flow.state[:, 4 * quantity + k] for quantity in range(3))
    orog, inland = (
        np.pad(field, MARGIN, mode="edge")
        for field in (geography.orog_lr, geography.inland_lr)
    )
    tas = surface_temperature(lat, orog, inland, sun) + 273.15
    ascent = -0.05 - 0.10 * sun + 0.60 * wet + 0.20 * flow.vorticity[:, k]
    return {
        "psl": 101500 + DENSITY * plane.f0 * PSI_SD[k] * amplitude * psi,
        "tas": tas + TAU_SURF * tau,
        "pr": rain_rate(ascent) / SECONDS_PER_DAY,
    }


def _saturation(t: F32, hpa: int) -> F32:
    """Return the saturation specific humidity in kg kg-1 (Bolton 1980).

    doi:10.1175/1520-0493(1980)108<1046:TCOEPT>2.0.CO;2, equation 10.
    """
    celsius = t - 273.15
    vapour = 6.112 * np.exp(17.67 * celsius / (celsius + 243.5))  # hPa
    return np.asarray(0.622 * vapour / (hpa - 0.378 * vapour))
