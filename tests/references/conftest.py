"""A small climate with a seasonal cycle and a linear link from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from tests.data.small_task import array_blocks

from st_cdgm.data.fit.baseline.combined import build_baseline
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.fit.statistics import fit_preprocessor
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.variables.fields import Channel, TargetVariable

TARGETS = (
    TargetVariable(name="tasmin", units="degC", standard_name="air_temperature"),
    TargetVariable(name="tasmax", units="degC", standard_name="air_temperature"),
    TargetVariable(name="pr", units="mm day-1", standard_name="lwe_precipitation_rate"),
)
CHANNELS = (
    Channel(
        name="tas",
        variable="tas",
        level=None,
        units="K",
        standard_name="air_temperature",
    ),
    Channel(
        name="pr",
        variable="pr",
        level=None,
        units="mm day-1",
        standard_name="lwe_precipitation_rate",
    ),
)


@dataclass
class World:
    """Training and test days with their preprocessor."""

    train: FieldArrays
    test: FieldArrays
    preprocessor: Preprocessor


def regular(lat, lon):
    return Grid(
        lat=np.asarray(lat, float),
        lon=np.asarray(lon, float),
        y_name="lat",
        x_name="lon",
    )


def simulate(*, years=4, step=3, strategy="lr_interp", gaps=False, seed=0):
    rng = np.random.default_rng(seed)
    time = xr.date_range(
        "2001-01-01", periods=365 * years // step, freq=f"{step}D", use_cftime=True
    )
    days = day_keys(xr.DataArray(time, dims="time", name="time"))
    T = len(days)
    weather = rng.normal(size=(T, 2, 3, 4))
    cycle = -10 * np.cos(2 * np.pi * days.season.astype(float))
    raw = np.empty((T, 2, 3, 4), np.float32)
    raw[:, 0] = 285 + cycle[:, None, None] + 4 * weather[:, 0]
    raw[:, 1] = np.maximum(2 * weather[:, 1], 0) ** 2
    coarse = raw.repeat(2, axis=2).repeat(2, axis=3)  # (T, 2, 6, 8)
    noise = rng.normal(size=(T, 3, 6, 8))
    hr = np.empty((T, 3, 6, 8), np.float32)
    hr[:, 0] = coarse[:, 0] - 273.15 - 4 + 0.5 * noise[:, 0]
    hr[:, 1] = hr[:, 0] + 3 + 0.5 * np.abs(noise[:, 1])
    rain = np.sqrt(coarse[:, 1]) + 0.3 * noise[:, 2]
    hr[:, 2] = np.maximum(rain, 0) ** 2
    hr[:, :, 0, :3] = np.nan
    if gaps:
        hr[1::7, :, 4, 4] = np.nan
        hr[2] = np.nan
    lr_grid, hr_grid = (
        regular([40, 42, 44], [0, 2, 4, 6]),
        regular(np.arange(39.5, 45), np.arange(-0.5, 7)),
    )
    train, test = np.arange(T * 3 // 4), np.arange(T * 3 // 4, T)
    blocks = array_blocks(raw[train], days.season[train], hr[train])
    baseline = build_baseline(
        strategy,
        targets=TARGETS,
        channels=CHANNELS,
        lr_grid=lr_grid,
        hr_grid=hr_grid,
        blocks=blocks,
    )
    preprocessor = fit_preprocessor(
        blocks=blocks,
        channels=CHANNELS,
        targets=TARGETS,
        lr_grid=lr_grid,
        hr_grid=hr_grid,
        static=np.zeros((0, 6, 8), np.float32),
        static_names=(),
        codec=build_codec(TARGETS),
        baseline=baseline,
        calendar=days.calendar,
        seq_len=1,
        periods={},
    )
    everything = FieldArrays.prepared(preprocessor, days, raw, hr)
    return World(everything.select(train), everything.select(test), preprocessor)


@pytest.fixture(scope="session")
def make_world():
    return simulate


@pytest.fixture(scope="session")
def world():
    return simulate()
