"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

pytest_plugins = ["tests.toy"]


@pytest.fixture(autouse=True)
def restored_process():
    """Undo what a command did to loggers and to Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)
    for name in ("st_cdgm", "py.warnings", "pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        for added in list(logger.handlers):
            logger.removeHandler(added)
            added.close()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real data sets, or a skip that says why."""
    named = os.environ.get("ST_CDGM_DATA")
    root = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (root / "iberia").is_dir():
        pytest.skip(f"real data not found at {root}; set ST_CDGM_DATA to use it")
    return root


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a learnable toy climate: 4 x 5 coarse, 8 x 10 fine, 240 days, sea as NaN.

    The fine temperature is the coarse one plus a fixed pattern whose strength follows
    humidity at 850 hPa; precipitation follows humidity. No file of it is realistic.
    """
    import numpy as np
    import xarray as xr

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    days = xr.date_range("2001-01-01", periods=240, use_cftime=True, calendar="noleap")
    lat, lon = np.arange(40.0, 48.0, 2.0), np.arange(0.0, 10.0, 2.0)
    fine_lat, fine_lon = np.arange(39.5, 47.5, 1.0), np.arange(-0.5, 9.5, 1.0)

    def smooth(amplitude: float) -> np.ndarray:
        noise = rng.normal(size=(240, 4, 5))
        for t in range(1, 240):
            noise[t] = 0.7 * noise[t - 1] + 0.7 * noise[t]
        return amplitude * (noise + noise.mean(axis=(1, 2), keepdims=True))

    humidity, warmth = smooth(0.001) + 0.006, smooth(3.0) + 285.0
    coarse = xr.Dataset(
        {
            "q_850": (("time", "lat", "lon"), humidity, {"units": "kg kg-1"}),
            "z_500": (
                ("time", "lat", "lon"),
                smooth(300.0) + 55000,
                {"units": "m2 s-2"},
            ),
            "tas": (("time", "lat", "lon"), warmth, {"units": "K"}),
        },
        coords={"time": days, "lat": lat, "lon": lon},
    )
    coarse["q_850"].attrs["standard_name"] = "specific_humidity"
    coarse["z_500"].attrs["standard_name"] = "geopotential"
    coarse["tas"].attrs["standard_name"] = "air_temperature"
    near = coarse.interp(lat=np.clip(fine_lat, 40, 46), lon=np.clip(fine_lon, 0, 8))
    pattern = np.sin(fine_lat)[:, None] * np.cos(fine_lon)[None, :]
    wet = (near.q_850.values - 0.006) / 0.001
    middle = near.tas.values - 273.15 + pattern * (3 + wet)
    middle = middle + rng.normal(size=middle.shape)
    spread = 4 + rng.random(middle.shape)
    rain = np.maximum(2 * wet + rng.normal(size=wet.shape), 0) ** 2
    sea = np.zeros((8, 10), dtype=bool)
    sea[:3, :4] = True
    dims = ("time", "lat", "lon")
    targets = {
        "tasmin": (middle - spread, "degC", "air_temperature", "time: minimum"),
        "tasmax": (middle + spread, "degC", "air_temperature", "time: maximum"),
        "pr": (rain, "mm day-1", "lwe_precipitation_rate", "time: sum"),
    }
    fine = xr.Dataset(
        {
            name: (
                dims,
                np.where(sea, np.nan, values).astype("float32"),
                {"units": units, "standard_name": standard, "cell_methods": method},
            )
            for name, (values, units, standard, method) in targets.items()
        },
        coords={"time": days, "lat": fine_lat, "lon": fine_lon},
    )
    static = xr.Dataset(
        {
            "orog": (
                ("lat", "lon"),
                100 * (1 + pattern),
                {"units": "m", "standard_name": "surface_altitude"},
            )
        },
        coords={"lat": fine_lat, "lon": fine_lon},
    )
    for dataset in (coarse, fine, static):
        dataset.lat.attrs = {"units": "degrees_north", "standard_name": "latitude"}
        dataset.lon.attrs = {"units": "degrees_east", "standard_name": "longitude"}
    coarse.to_netcdf(folder / "lr.nc")
    fine.to_netcdf(folder / "hr.nc")
    static.to_netcdf(folder / "static.nc")
    return folder
