"""The synthetic climate as ordinary CF-NetCDF files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.synthetic.climate import EPOCH, SyntheticClimate, simulate
from st_cdgm.data.synthetic.config import GROUPS, VARIABLES, SyntheticConfig, group_of
from st_cdgm.data.synthetic.fine import FINE_DRIVERS
from st_cdgm.errors import OutputError
from st_cdgm.outputs import (
    check_output_directory,
    remove_leftovers,
    sync,
    temporary_directory,
    write_json,
)

TITLE = "Synthetic climate of ST-CDGM (simulated for demonstration, not observed)"
DRAFTS = "synthetic"  # hidden, beside the files
NAMES = {
    "lr": "predictors.nc",
    "hr": "targets.nc",
    "static": "static.nc",
    "truth_json": "truth.json",
}
FILL = np.float32(9.96921e36)
CHUNK_DAYS = 64

Attrs = dict[str, str]
LEVEL_ATTRS: dict[str, Attrs] = {
    "u": {"standard_name": "eastward_wind", "units": "m s-1"},
    "v": {"standard_name": "northward_wind", "units": "m s-1"},
    "t": {"standard_name": "air_temperature", "units": "K"},
    "q": {"standard_name": "specific_humidity", "units": "kg kg-1"},
    "z": {"standard_name": "geopotential", "units": "m2 s-2"},
}


def _attrs(standard_name: str, units: str, long_name: str, cells: str = "") -> Attrs:
    attrs = {"standard_name": standard_name, "units": units, "long_name": long_name}
    return attrs | ({"cell_methods": cells} if cells else {})


SURFACE_ATTRS = {
    "psl": _attrs("air_pressure_at_mean_sea_level", "Pa", "sea-level pressure"),
    "tas": _attrs("air_temperature", "K", "near-surface air temperature"),
    "pr": _attrs("precipitation_flux", "kg m-2 s-1", "precipitation"),
}
HR_ATTRS = {
    "pr": _attrs(
        "lwe_precipitation_rate", "mm day-1", "daily precipitation", "time: mean"
    )
} | {
    name: _attrs(
        "air_temperature",
        "degC",
        f"daily {statistic} near-surface air temperature",
        f"time: {statistic}",
    )
    for name, statistic in {
        "tasmin": "minimum",
        "tas": "mean",
        "tasmax": "maximum",
    }.items()
}
STATIC_ATTRS = {
    "orog": _attrs("surface_altitude", "m", "surface altitude", "area: mean"),
    "sftlf": _attrs("land_area_fraction", "1", "land area fraction", "area: mean"),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticPaths:
    """Where the files of a synthetic climate lie."""

    lr: Path
    hr: Path
    static: Path
    truth_json: Path


def write_synthetic(
    config: SyntheticConfig, directory: str | Path, *, overwrite: bool = False
) -> SyntheticPaths:
    """Simulate ``config`` and write its files; see `write_climate`.

    Raises
    ------
    ConfigError
        If an option cannot be used.
    OutputError
        If files exist and ``overwrite`` is false, or cannot be written.
    """
    config.check()
    _check_target(Path(directory), overwrite)
    check_output_directory(directory)
    return write_climate(simulate(config), directory, overwrite=overwrite)


def write_climate(
    climate: SyntheticClimate, directory: str | Path, *, overwrite: bool = False
) -> SyntheticPaths:
    """Write ``predictors.nc``, ``targets.nc``, ``static.nc`` and ``truth.json``.

    Every file is complete or absent: all are written under temporary names and then
    renamed.

    Raises
    ------
    OutputError
        If files exist and ``overwrite`` is false, or cannot be written.
    """
    folder = Path(directory)
    _check_target(folder, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # All are complete before the first gets its name.
        remove_leftovers(folder / DRAFTS)
        with temporary_directory(folder / DRAFTS) as drafts:
            _write_files(climate, drafts)
            for name in NAMES.values():
                (drafts / name).replace(folder / name)
    except OSError as error:
        raise OutputError(
            "The synthetic climate could not be written.",
            file=folder,
            found=str(error),
            remedy="Check that the folder is writable and the disk has room.",
        ) from error

    return SyntheticPaths(**{key: folder / name for key, name in NAMES.items()})


def truth_document(climate: SyntheticClimate) -> dict[str, Any]:
    """Return what is true about ``climate``, as plain JSON-able values."""
    graph = climate.graph

    # Plain values: what a reader without this package needs to check a learned graph.
    return {
        "format_version": 1,
        "note": (
            "A[i][j] is the strength of i -> j: standard deviations of the uncoupled "
            "target per standard deviation of the source and step of one day; lag in "
            "days, 0 without link. Own memory is not an edge. group_A is the summary "
            "over levels (largest strength, no diagonal). Fine variables follow the "
            "levels in `fine_drivers` on the same day and are sinks."
        ),
        "variables": list(VARIABLES),
        "variable_group": {name: group_of(name) for name in VARIABLES},
        "groups": list(GROUPS),
        "edges": [asdict(edge) for edge in graph.edges],
        "A": graph.A.tolist(),
        "lag": graph.lag.tolist(),
        "group_A": graph.group_A.tolist(),
        "acyclic": graph.acyclic,
        "memory": dict(zip(VARIABLES, climate.config.memory().tolist(), strict=True)),
        "channels": {
            group: [name for name in climate.lr if _channel_group(name) == group]
            for group in GROUPS
        },
        "fine_drivers": {name: list(groups) for name, groups in FINE_DRIVERS.items()},
        "config": asdict(climate.config),
    }


def _channel_group(name: str) -> str:
    level = name.rpartition("_")[2]
    return f"GP{level}" if level.isdigit() else "SURF"


def _check_target(folder: Path, overwrite: bool) -> None:
    present = [name for name in NAMES.values() if (folder / name).exists()]
    if present and not overwrite:
        raise OutputError(
            "The synthetic climate would replace existing files.",
            file=folder,
            found=", ".join(present),
            remedy="Choose another folder, or remove these files first.",
        )


def _write_files(climate: SyntheticClimate, folder: Path) -> None:
    geo = climate.geography
    coarse, fine = _grid(geo.lat_lr, geo.lon_lr), _grid(geo.lat_hr, geo.lon_hr)
    predictors = {name: _predictor_attrs(name) for name in climate.lr}
    for key, dataset, fields, attrs in (
        ("lr", _with_time(coarse, climate), climate.lr, predictors),
        ("hr", _with_time(fine, climate), climate.hr, HR_ATTRS),
        ("static", fine, climate.static, STATIC_ATTRS),
    ):
        named = {
            name: (("time", "lat", "lon")[-field.ndim :], field, attrs[name])
            for name, field in fields.items()
        }
        _save(dataset.assign(named), climate, folder / NAMES[key])
    write_json(folder / NAMES["truth_json"], truth_document(climate))


def _grid(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> xr.Dataset:
    """Return the horizontal coordinates with bounds."""
    dataset = xr.Dataset()
    for name, values, long_name, units, axis in (
        ("lat", lat, "latitude", "degrees_north", "Y"),
        ("lon", lon, "longitude", "degrees_east", "X"),
    ):
        bounds = f"{name}_bnds"
        attrs = _attrs(long_name, units, long_name) | {"axis": axis, "bounds": bounds}
        half = (values[1] - values[0]) / 2
        edges = np.stack([values - half, values + half], axis=1)
        dataset = dataset.assign_coords({name: (name, values, attrs)})
        dataset[bounds] = ((name, "bnds"), edges)
    return dataset


def _save(dataset: xr.Dataset, climate: SyntheticClimate, path: Path) -> None:
    """Write ``dataset`` with the common attributes and encodings."""
    dataset.attrs = {
        "Conventions": "CF-1.8",
        "title": TITLE,
        "institution": "ST-CDGM",
        "source": f"st_cdgm.data.synthetic, seed {climate.config.seed}",
        "history": "made by st_cdgm.data.synthetic",
        "references": "truth.json beside this file gives the true causal graph",
        "comment": "Every value is simulated; no real place or date is meant.",
    }

    # Few days in a chunk: a day is read without the record.
    encoding: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.variables.items():
        if variable.dtype == np.float32:
            chunks = tuple(
                min(CHUNK_DAYS, n) if dim == "time" else n
                for dim, n in zip(variable.dims, variable.shape, strict=True)
            )
            encoding[str(name)] = {
                "zlib": True,
                "complevel": 1,
                "shuffle": True,
                "_FillValue": FILL,
                "chunksizes": chunks,
            }
        else:
            encoding[str(name)] = {"_FillValue": None}

    dataset.to_netcdf(path, engine="netcdf4", format="NETCDF4", encoding=encoding)
    sync(path)


def _with_time(dataset: xr.Dataset, climate: SyntheticClimate) -> xr.Dataset:
    attrs = {
        "standard_name": "time",
        "long_name": "time",
        "axis": "T",
        "units": EPOCH,
        "calendar": climate.config.calendar,
        "bounds": "time_bnds",
    }
    time = climate.time.astype(np.int32)  # CF 1.8 has no 64-bit integers
    dataset = dataset.assign_coords(time=("time", time, attrs))
    dataset["time_bnds"] = (("time", "bnds"), np.stack([time, time + 1], axis=1))
    return dataset


def _predictor_attrs(name: str) -> dict[str, Any]:
    variable, _, level = name.partition("_")
    attrs: dict[str, Any] = {"cell_methods": "time: mean"}
    if not level:
        return attrs | SURFACE_ATTRS[variable]
    what = LEVEL_ATTRS[variable]["standard_name"].replace("_", " ")
    named = {
        "long_name": f"{what} at {level} hPa",
        "pressure_level_hPa": float(level),
    }
    return attrs | LEVEL_ATTRS[variable] | named
