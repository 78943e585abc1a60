"""Sound files and directories for damage to start from: raw, and preprocessed."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# -- Climate files ---------------------------------------------------------------------


def _dataset() -> Any:
    import xarray as xr

    rng = np.random.default_rng(0)
    days = xr.date_range("2001-01-30", periods=6, calendar="noleap", use_cftime=True)
    dims, shape = ("time", "lat", "lon"), (6, 5, 7)
    ds = xr.Dataset(
        {
            "tas": (dims, rng.normal(280, 4, shape).astype("f4"), {"units": "K"}),
            "pr": (dims, rng.random(shape) * 9, {"units": "mm day-1"}),
            "q": (
                ("time", "plev", "lat", "lon"),
                rng.random((6, 2, 5, 7)) * 0.01,
                {"units": "kg kg-1", "standard_name": "specific_humidity"},
            ),
            "lat_bnds": (("lat", "bnds"), np.zeros((5, 2))),
        },
        coords={
            "time": days,
            "plev": ("plev", [85000.0, 50000.0], {"units": "Pa"}),
            "lat": ("lat", np.linspace(50, 40, 5), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(-5, 7, 7), {"units": "degrees_east"}),
        },
    )
    ds.lat.attrs["bounds"] = "lat_bnds"
    return ds


_PACKED = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -1}
_CHUNKED = {"zlib": True, "chunksizes": (2, 5, 7), "fletcher32": True}

# -- A task ----------------------------------------------------------------------------

DAYS = 60
SPLITS = {
    "train": ["2001-01-01", "2001-02-10"],
    "validation": ["2001-02-12", "2001-02-19"],
    "test": ["2001-02-21", "2001-03-01"],
}


def _task() -> dict[str, Any]:
    """Predictors, targets and static fields of a small task, 5 x 7 to 10 x 14 cells."""
    import xarray as xr

    rng = np.random.default_rng(1)
    days = xr.date_range("2001-01-01", periods=DAYS, calendar="noleap", use_cftime=True)

    def axes(rows: int, columns: int) -> dict[str, Any]:
        return {
            "lat": ("lat", np.linspace(50, 40, rows), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(-5, 7, columns), {"units": "degrees_east"}),
        }

    dims, coarse, fine = ("time", "lat", "lon"), (DAYS, 5, 7), (DAYS, 10, 14)
    rain = {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}
    celsius = {"units": "degC", "standard_name": "air_temperature"}
    lr = {
        "tas": (dims, rng.normal(285, 5, coarse).astype("f4"), {"units": "K"}),
        "pr": (dims, rng.gamma(0.4, 5, coarse).astype("f4"), rain),
        "q_850": (dims, (5e-3 + 1e-3 * rng.random(coarse)), {"units": "kg kg-1"}),
    }
    low = rng.normal(10, 4, fine)
    high = low + rng.uniform(0.5, 12, fine)
    wet = np.where(rng.random(fine) < 0.5, 0, 0.1 + rng.gamma(0.6, 6, fine))
    wet[:, :2, :3] = np.nan
    hr = {
        "pr": (dims, wet.astype("f4"), rain),
        "tasmin": (dims, low, celsius | {"cell_methods": "time: minimum"}),
        "tasmax": (dims, high, celsius | {"cell_methods": "time: maximum"}),
    }
    orog = {"orog": (dims[1:], 800 * rng.random(fine[1:]), {"units": "m"})}
    return {
        "lr": xr.Dataset(lr, coords={"time": days, **axes(5, 7)}),
        "hr": xr.Dataset(hr, coords={"time": days, **axes(10, 14)}),
        "fine": xr.Dataset(orog, coords=axes(10, 14)),
    }


def task_pipeline(folder: Path, **other: Any) -> Any:
    """The pipeline over ``lr.nc``, ``hr.nc`` and ``fine.nc``; any may be given."""
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.time.splits import SplitConfig

    paths = {"lr": folder / "lr.nc", "hr": folder / "hr.nc", "fine": folder / "fine.nc"}
    paths |= {key: other.pop(key) for key in paths if key in other}
    options = {
        "seq_len": 3,
        "normalize": True,
        "baseline_map": {"tasmin": "tas", "tasmax": "tas"},
        "splits": SplitConfig(**SPLITS),
        **other,
    }
    return NetCDFDataPipeline(paths["lr"], paths["hr"], paths["fine"], **options)


ZARR = {"chunk_size_time": 32, "block_size": 1}  # two blocks
SHARDS = {"shard_size": 16}

# -- All of them -----------------------------------------------------------------------


def write_seeds(folder: Path) -> None:
    """One sound file or directory of every kind, see :func:`seed_path`."""
    made = {kind: seed_path(folder, kind) for kind in PLACES}
    ds = _dataset()
    ds.to_netcdf(made["classic"], format="NETCDF3_64BIT", unlimited_dims=["time"])
    ds.to_netcdf(made["netcdf4"], encoding={"tas": _CHUNKED, "pr": _CHUNKED})
    ds.to_netcdf(made["packed"], encoding={"tas": _PACKED}, unlimited_dims=["time"])
    static = ds[["tas"]].isel(time=0, drop=True).rename(tas="orog")
    static.orog.attrs["units"] = "m"
    static.to_netcdf(made["static"])
    ds.to_zarr(made["zarr2"], zarr_format=2, consolidated=True)
    ds.to_zarr(made["zarr3"], zarr_format=3, consolidated=False)
    for kind, own in _task().items():
        own.to_netcdf(made[kind])
    _write_prepared(folder, made)


def _write_prepared(folder: Path, made: dict[str, Path]) -> None:
    from st_cdgm.data.store.preprocess import create_shards, write_zarr

    with _silence():
        plain = task_pipeline(folder)
        other = task_pipeline(
            folder, precipitation_codec="quantile", baseline_strategy="regression"
        )
        write_zarr(plain, made["stores"], **ZARR)
        write_zarr(other, made["other stores"])
        create_shards(plain, made["shards"], **SHARDS)


@contextmanager
def _silence() -> Iterator[None]:
    logger = logging.getLogger("st_cdgm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


PLACES = {
    "classic": "classic.nc",
    "netcdf4": "netcdf4.nc",
    "packed": "packed.nc",
    "static": "static.nc",
    "zarr2": "v2.zarr",
    "zarr3": "v3.zarr",
    "lr": "lr.nc",
    "hr": "hr.nc",
    "fine": "fine.nc",
    "stores": "stores",
    "other stores": "other_stores",
    "shards": "shards",
}


def seed_path(folder: Path, kind: str) -> Path:
    """Where :func:`write_seeds` puts the sound one of a kind."""
    return folder / PLACES[kind]


def copy(source: Path, path: Path) -> None:
    """Copy a file or a directory in place of what is there."""
    remove(path)
    (shutil.copytree if source.is_dir() else shutil.copy)(source, path)


def remove(path: Path) -> None:
    """Remove whatever is there, if anything."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forge(directory: Path) -> None:
    """Let the metadata list the files as they are, so that damage is met later."""
    from st_cdgm.data.store.manifest import METADATA
    from st_cdgm.outputs import digest

    file = directory / METADATA
    try:
        metadata = json.loads(file.read_text("utf-8"))
        listed = list(metadata["checksums"])
    except (OSError, ValueError, LookupError, TypeError):
        return
    there = [name for name in listed if (directory / name).is_file()]
    metadata["checksums"] = {name: digest(directory / name) for name in there}
    file.write_text(json.dumps(metadata), encoding="utf-8")
