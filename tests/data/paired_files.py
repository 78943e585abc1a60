"""A small pair of records that show the same invented weather."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

CELLS, BLOCK = (6, 9), 5  # coarse grid, fine cells per coarse one
START = "2001-01-01"


def weather(days: int = 400, seed: int = 0) -> np.ndarray:
    """Anomalies that drift and last, deviation 1. Shape ``(days, 30, 45)``."""
    rng = np.random.default_rng(seed)
    shape = (days, CELLS[0] * BLOCK, CELLS[1] * BLOCK)
    noise = gaussian_filter(rng.normal(size=shape), (0, 7, 7), mode="nearest")
    fields = noise / noise.std()
    for t in range(1, days):
        fields[t] = 0.6 * fields[t - 1] + 0.8 * fields[t]
    return fields


def coarse_mean(fields: np.ndarray) -> np.ndarray:
    split = fields.reshape(len(fields), CELLS[0], BLOCK, CELLS[1], BLOCK)
    return split.mean(axis=(2, 4))


def _dataset(fields: dict, width: float, time) -> xr.Dataset:
    shape = next(iter(fields.values()))[0].shape[1:]
    lat = 40.0 + width * (np.arange(shape[0]) + 0.5)
    lon = -5.0 + width * (np.arange(shape[1]) + 0.5)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {n: (dims, v.astype(np.float32), a) for n, (v, a) in fields.items()},
        coords={
            "time": time,
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )


def pair(days: int = 400, *, calendar: str = "noleap") -> tuple[xr.Dataset, xr.Dataset]:
    """Predictors ``tas`` (K), ``pr`` and ``psl`` on 2.5 degrees, targets on 0.5."""
    time = xr.date_range(START, periods=days, calendar=calendar, use_cftime=True)
    year = 8.0 * np.sin(2 * np.pi * np.arange(days) / 365.0)[:, None, None]
    warm, wet = weather(days, 0), weather(days, 1)
    tas = 12.0 + year + 3.0 * warm
    pr = np.maximum(4.0 * wet, 0.0) ** 2 / 4.0
    hr = {
        "tas": (tas, {"units": "degC", "standard_name": "air_temperature"}),
        "pr": (pr, {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}),
    }
    lr = {
        "tas": (
            coarse_mean(tas) + 273.15,
            {"units": "K", "standard_name": "air_temperature"},
        ),
        "pr": (
            coarse_mean(pr) / 86400.0,
            {"units": "kg m-2 s-1", "standard_name": "precipitation_flux"},
        ),
        "psl": (101000.0 - 500.0 * coarse_mean(wet), {"units": "Pa"}),
    }
    return _dataset(lr, 2.5, time), _dataset(hr, 0.5, time)


def change(ds: xr.Dataset, how) -> xr.Dataset:
    """Rearrange the values of all variables."""
    return ds.assign({n: v.copy(data=how(v.values)) for n, v in ds.items()})


def write_pair(folder: Path, lr: xr.Dataset, hr: xr.Dataset) -> tuple[Path, Path]:
    lr.to_netcdf(folder / "lr.nc")
    hr.to_netcdf(folder / "hr.nc")
    return folder / "lr.nc", folder / "hr.nc"
