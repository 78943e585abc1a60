"""A small downscaling task on disk, for the tests of the data layer."""

from __future__ import annotations

from pathlib import Path

import cftime
import numpy as np
import xarray as xr

from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.time.splits import SplitConfig

SPLITS = {
    "train": ["2001-01-01", "2001-04-30"],
    "validation": ["2001-05-11", "2001-06-20"],
    "test": ["2001-07-01", "2001-08-20"],
}
MAP = {"tasmin": "tas", "tasmax": "tas"}
LR_LAT, LR_LON = np.arange(36.0, 45.0, 2.5), np.arange(-10.0, 1.0, 2.5)
HR_LAT, HR_LON = np.arange(37.0, 42.0, 0.7), np.arange(-9.0, -1.0, 0.9)
SEA = np.zeros((len(HR_LAT), len(HR_LON)), dtype=bool)
SEA[:2, :3] = True


def stamps(days=240, calendar="standard", start="2001-01-01", keep=None):
    first = cftime.datetime(*map(int, start.split("-")), calendar=calendar)
    number = np.arange(days) if keep is None else np.asarray(keep)
    return cftime.num2date(
        number, f"days since {first.strftime('%Y-%m-%d')}", calendar=calendar
    )


def predictors(time, seed=1):
    rng = np.random.default_rng(seed)
    shape = (len(time), len(LR_LAT), len(LR_LON))
    dims = ("time", "lat", "lon")
    level = {"units": "kg kg-1", "standard_name": "specific_humidity"}
    return xr.Dataset(
        {
            "q_850": (dims, 5e-3 + 1e-3 * rng.random(shape, np.float32), level),
            "tas": (
                dims,
                (285 + 5 * rng.standard_normal(shape)).astype(np.float32),
                {"units": "K", "standard_name": "air_temperature"},
            ),
            "pr": (
                dims,
                rng.gamma(0.4, 5, shape).astype(np.float32),
                {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"},
            ),
        },
        coords={"time": list(time), **_axes(LR_LAT, LR_LON)},
    )


def targets(time, seed=2):
    rng = np.random.default_rng(seed)
    shape = (len(time), len(HR_LAT), len(HR_LON))
    dims = ("time", "lat", "lon")
    tasmin = 10 + 4 * rng.standard_normal(shape)
    tasmax = tasmin + rng.uniform(0.5, 12, shape)
    pr = np.where(rng.random(shape) < 0.5, 0, 0.1 + rng.gamma(0.6, 6, shape))
    celsius = {"units": "degC", "standard_name": "air_temperature"}
    fields = {
        "pr": (pr, {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}),
        "tasmin": (tasmin, celsius | {"cell_methods": "time: minimum"}),
        "tasmax": (tasmax, celsius | {"cell_methods": "time: maximum"}),
    }
    return xr.Dataset(
        {
            name: (dims, np.where(SEA, np.nan, values).astype(np.float32), attrs)
            for name, (values, attrs) in fields.items()
        },
        coords={"time": list(time), **_axes(HR_LAT, HR_LON)},
    )


def static():
    rng = np.random.default_rng(3)
    orog = 800 * rng.random(SEA.shape)
    orog[0, 0] = np.nan
    dims = ("lat", "lon")
    return xr.Dataset(
        {
            "orog": (dims, orog.astype(np.float32), {"units": "m"}),
            "sftlf": (dims, (~SEA).astype(np.float32), {"units": "1"}),
        },
        coords=_axes(HR_LAT, HR_LON),
    )


def write(folder: Path, lr=None, hr=None, time=None) -> Path:
    """Write lr.nc, hr.nc and static.nc into ``folder``."""
    time = stamps() if time is None else time
    folder.mkdir(parents=True, exist_ok=True)
    (predictors(time) if lr is None else lr).to_netcdf(folder / "lr.nc")
    (targets(time) if hr is None else hr).to_netcdf(folder / "hr.nc")
    static().to_netcdf(folder / "static.nc")
    return folder


def config(folder: Path, **options) -> DataConfig:
    return DataConfig(
        **{
            "root": str(folder),
            "lr_path": "lr.nc",
            "hr_path": "hr.nc",
            "static_path": "static.nc",
            "seq_len": 4,
            "baseline_map": dict(MAP),
            "splits": SplitConfig(**SPLITS),
            **options,
        }
    )


def _axes(lat, lon):
    return {
        "lat": (
            "lat",
            lat,
            {"units": "degrees_north", "standard_name": "latitude"},
        ),
        "lon": (
            "lon",
            lon,
            {"units": "degrees_east", "standard_name": "longitude"},
        ),
    }


def array_blocks(raw, season, truth, days=256):
    """Return training days in memory as the blocks that baselines are fitted to."""

    def blocks():
        for start in range(0, len(truth), days):
            part = slice(start, start + days)
            yield raw[part], season[part], truth[part]

    return blocks
