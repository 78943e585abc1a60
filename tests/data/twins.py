"""Small synthetic twins of the real tasks: winters, a rotated model, a radar event."""

from __future__ import annotations

from pathlib import Path

import cftime
import numpy as np
import xarray as xr


def winters(first: int, last: int) -> np.ndarray:
    """Return the stamps of December to February of the winters ``first/first+1`` ..."""
    days = xr.date_range(
        f"{first}-12-01", f"{last + 1}-02-28", calendar="standard", use_cftime=True
    )
    return np.array([d for d in days if d.month in (12, 1, 2)])


def minutes(count: int, step: int = 5) -> np.ndarray:
    """Return stamps every ``step`` minutes of one night."""
    return cftime.num2date(step * np.arange(count), "minutes since 2010-08-26")


def smooth(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return noise that hangs together in time and space, with spread about 1."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    for t in range(1, shape[0]):
        noise[t] = 0.8 * noise[t - 1] + 0.6 * noise[t]
    return 0.6 * noise + 0.8 * noise.mean(axis=(1, 2), keepdims=True)


def amounts(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Return rain with dry cells, and some below the wet threshold, mm day-1."""
    return np.maximum(3 * smooth(shape, seed), 0) ** 1.5


def write_winters(folder: Path) -> Path:
    """Write the twin of the winter task; the predictors begin a month later."""
    time = winters(2000, 2005)
    lat, lon = 35 + 2.5 * np.arange(6.0), -15 + 2.5 * np.arange(9.0)
    fine_lat, fine_lon = 36.1 + 0.7 * np.arange(11.0), -9.8 + 0.9 * np.arange(13.0)
    shape, fine = (len(time), 6, 9), (len(time), 11, 13)
    dims = ("time", "lat", "lon")
    lr = xr.Dataset(
        {
            "q_850": (
                dims,
                0.005 + 0.001 * smooth(shape, 1),
                {"units": "kg kg-1", "standard_name": "specific_humidity"},
            ),
            "tas": (
                dims,
                285 + 4 * smooth(shape, 2),
                {"units": "K", "standard_name": "air_temperature"},
            ),
            "pr": (dims, amounts(shape, 3), _rain("mm day-1")),
        },
        coords={"time": time, **_axes(lat, lon)},
    )
    hr = xr.Dataset(
        {
            "tas": (
                dims,
                8 + 5 * smooth(fine, 4),
                {"units": "degC", "standard_name": "air_temperature"},
            ),
            "pr": (dims, amounts(fine, 5), _rain("mm day-1")),
        },
        coords={"time": time, **_axes(fine_lat, fine_lon)},
    )
    sea = np.zeros(fine[1:], bool)
    sea[:4, :5] = True
    hr["tas"] = hr["tas"].where(~sea)
    hr["pr"] = hr["pr"].where(~np.roll(sea, 1, axis=1))
    lr.isel(time=slice(31, None)).astype("float32").to_netcdf(folder / "lr.nc")
    hr.astype("float32").to_netcdf(folder / "hr.nc")
    return folder


def write_rotated(folder: Path, rows: int = 14, columns: int = 15) -> Path:
    """Write the twin of the regional model: rotated pole, winters, no NaN."""
    time = winters(1990, 1993)
    shape = (len(time), rows, columns)
    rlat, rlon = -8 + 0.44 * np.arange(rows), -20 + 0.44 * np.arange(columns)
    lat, lon = _unrotated(rlat, rlon, pole_lat=39.25, pole_lon=-162.0)
    dims = ("time", "rlat", "rlon")
    temperature = {"units": "degree_Celsius", "standard_name": "air_temperature"}
    made = xr.Dataset(
        {
            "pr": (dims, amounts(shape, 6), _rain("mm day-1")),
            "tas": (dims, 6 + 4 * smooth(shape, 7), temperature),
        },
        coords={
            "time": time,
            "rlat": ("rlat", rlat, {"standard_name": "grid_latitude", "axis": "Y"}),
            "rlon": ("rlon", rlon, {"standard_name": "grid_longitude", "axis": "X"}),
            "lat": (("rlat", "rlon"), lat, {"standard_name": "latitude"}),
            "lon": (("rlat", "rlon"), lon, {"standard_name": "longitude"}),
        },
    )
    for name, units in (("rlat", "degrees"), ("rlon", "degrees")):
        made[name].attrs["units"] = units
    made["lat"].attrs["units"], made["lon"].attrs["units"] = (
        "degrees_north",
        "degrees_east",
    )
    made.astype("float32").to_netcdf(folder / "model.nc")
    return folder


def write_radar(folder: Path, side: int = 24) -> Path:
    """Write the twin of the radar event: 5-minute amounts on a plane in km."""
    time = minutes(60)
    keep = np.r_[0:20, 22:60]  # two frames are missing
    shape = (60, side, side)
    dims = ("time", "y", "x")
    rain = np.round(amounts(shape, 8) / 288, 2)  # mm in 5 minutes, packed by 0.01
    made = xr.Dataset(
        {
            "pr": (
                dims,
                rain.astype("float32"),
                _rain("mm", "lwe_thickness_of_precipitation_amount")
                | {"cell_methods": "time: sum"},
            )
        },
        coords={
            "time": time,
            "y": ("y", -3600 - 1.0 * np.arange(side), _plane("y")),
            "x": ("x", 200 + 1.0 * np.arange(side), _plane("x")),
        },
    )
    packed = {"dtype": "u2", "scale_factor": 0.01, "_FillValue": 65535}
    made.isel(time=keep).to_netcdf(folder / "radar.nc", encoding={"pr": packed})
    return folder


def _rain(units: str, standard_name: str = "lwe_precipitation_rate") -> dict[str, str]:
    return {"units": units, "standard_name": standard_name}


def _plane(axis: str) -> dict[str, str]:
    return {"standard_name": f"projection_{axis}_coordinate", "units": "km"}


def _axes(lat: np.ndarray, lon: np.ndarray) -> dict[str, tuple]:
    return {
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }


def _unrotated(
    rlat: np.ndarray, rlon: np.ndarray, *, pole_lat: float, pole_lon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return latitudes and longitudes of a grid with another pole, degrees."""
    phi, lam = np.meshgrid(np.deg2rad(rlat), np.deg2rad(rlon), indexing="ij")
    north = np.deg2rad(pole_lat)
    lat = np.arcsin(
        np.sin(phi) * np.sin(north) + np.cos(phi) * np.cos(lam) * np.cos(north)
    )
    east = np.cos(phi) * np.sin(lam)
    along = np.cos(phi) * np.cos(lam) * np.sin(north) - np.sin(phi) * np.cos(north)
    lon = np.rad2deg(np.arctan2(east, along)) + pole_lon + 180.0
    return np.rad2deg(lat), (lon + 180.0) % 360.0 - 180.0
