"""Open NetCDF and Zarr lazily, one or many files, with one view of time for all."""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, cast

import cf_xarray  # noqa: F401  (registers the .cf accessor)
import cftime
import numpy as np
import xarray as xr

from st_cdgm.data.coordinates import bounds_variables, horizontal_coordinates
from st_cdgm.errors import InputError, MissingFileError, MissingVariableError

__all__ = [
    "data_variables",
    "file_label",
    "open_dataset",
    "resolve_paths",
    "time_bounds",
    "time_name",
]

logger = logging.getLogger(__name__)

Paths = str | Path | Sequence[str | Path]

SHOWN = 8  # file names in a message
SAME_COORDINATE = 1e-3  # coordinates of two files closer than this are the same

# What readers call the short names of roles.
_ROLES = {"lr": "predictor", "hr": "target", "inspected": "data"}

_ZARR_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
_SIGNATURES = {
    b"GRIB": ("GRIB", "convert it: cdo -f nc4 copy in.grib out.nc"),
    b"PK\x03\x04": ("a ZIP archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first (gunzip)"),
    b"<": ("a web page", "download it again: the server sent a page, not the data"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the data: git lfs pull"),
}


def open_dataset(paths: Paths, *, role: str) -> xr.Dataset:
    """Open one file, several files or a glob pattern, without reading the values.

    Time is decoded to cftime dates whatever the calendar. Several files are joined
    along time, and variables in separate files are put side by side.

    Parameters
    ----------
    paths : str, Path or sequence of these
        NetCDF 3/4 files, a Zarr directory, a folder of ``*.nc`` files or a pattern.
    role : str
        What the data are for (``"lr"``, ``"hr"``, ``"static"``); used in messages.

    Raises
    ------
    MissingFileError
        If nothing is there or it may not be read.
    InputError
        If a file is not NetCDF or Zarr, is damaged, has undecodable time units, or the
        files do not fit together.
    """
    role = _ROLES.get(role, role)
    files = resolve_paths(paths, role=role)
    parts = [_open_one(file, role=role) for file in files]
    ds = parts[0] if len(parts) == 1 else _combine(parts, files, role=role)
    ds.encoding["source"] = _label(files)
    return ds


def file_label(ds: xr.Dataset) -> str:
    """Name of the file or files behind a data set, for messages."""
    return str(ds.encoding.get("source", "data set in memory"))


def resolve_paths(paths: Paths, *, role: str = "input") -> list[Path]:
    """Expand patterns and folders into existing files.

    Raises
    ------
    MissingFileError
        If a path or pattern matches nothing, or the list is empty.
    """
    role = _ROLES.get(role, role)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise MissingFileError(
            f"no {role} file is named", expected="at least one path", found="none"
        )
    files: list[Path] = []
    for one in given:
        files += _expand(Path(one).expanduser(), role=role)
    return files


def _expand(path: Path, *, role: str) -> list[Path]:
    if path.is_dir() and not _is_zarr(path):
        found = sorted(path.glob("*.nc"))
    elif path.exists():
        found = [path]
    else:
        found = _matches(path)
    if found:
        return found
    raise MissingFileError(
        f"the {role} file does not exist",
        file=path,
        found=_nearby(path),
        expected="a NetCDF file, a Zarr directory, or a pattern that matches some",
        remedy="check the path (a relative one starts at the current folder)",
    )


def _nearby(path: Path) -> str:
    """Describe what lies beside an absent file, the most similar names first."""
    if not path.parent.is_dir():
        return f"no folder {path.parent}"
    names = sorted(p.name for p in path.parent.iterdir() if p.name[:1] != ".")
    alike = difflib.get_close_matches(path.name, names, n=3)
    shown = [*alike, *(name for name in names if name not in alike)]
    more = ", ..." if len(shown) > SHOWN else ""
    return f"in {path.parent.absolute()}: {', '.join(shown[:SHOWN]) or 'nothing'}{more}"


def _matches(pattern: Path) -> list[Path]:
    """Existing files that match a pattern, sorted."""
    root = Path(pattern.anchor)
    relative = pattern.relative_to(root)
    if not any(mark in str(relative) for mark in "*?["):
        return []
    return sorted(root.glob(str(relative)))


def _is_zarr(path: Path) -> bool:
    return path.suffix == ".zarr" or any((path / mark).exists() for mark in _ZARR_MARKS)


def _label(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} ... ({len(files)} files)"


def _open_one(file: Path, *, role: str) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    options: dict[str, Any] = {
        "engine": "zarr" if file.is_dir() else "netcdf4",
        "decode_times": coder,
        "decode_timedelta": False,
        "decode_coords": "all",
        "chunks": "auto",
    }
    if file.is_dir():
        options["consolidated"] = (file / ".zmetadata").exists()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return xr.open_dataset(file, **options)
    except PermissionError as error:
        raise MissingFileError(
            f"the {role} file may not be read",
            file=file,
            remedy="check its permissions",
        ) from error
    except ValueError as error:
        raise _time_error(file, options, error) from error
    except Exception as error:
        raise _unreadable(file, role=role, error=error) from error


def _time_error(file: Path, options: dict[str, Any], error: Exception) -> InputError:
    """Tell time units that cannot be decoded from a damaged file."""
    try:
        raw = xr.open_dataset(file, **{**options, "decode_times": False})
    except Exception:  # the first error says it better
        return _unreadable(file, role="input", error=error)
    with raw:
        times = {
            str(n): f"{v.attrs.get('units')!r}, calendar {v.attrs.get('calendar')!r}"
            for n, v in raw.variables.items()
            if "since" in str(v.attrs.get("units", ""))
        }
    found = "; ".join(f"{name}: {text}" for name, text in times.items()) or str(error)
    return InputError(
        "the time axis cannot be decoded",
        file=file,
        variable=next(iter(times), None),
        found=found,
        expected="CF time units such as 'days since 1990-01-01', a CF calendar, and "
        "dates that exist in it",
        remedy="mend the time units or calendar (cdo setreftime, cdo setcalendar)",
    )


def _unreadable(file: Path, *, role: str, error: Exception) -> InputError:
    found, remedy = (
        f"{type(error).__name__}: {error}",
        "check or download the file again",
    )
    if file.is_file():
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(64).lstrip()
        if size == 0:
            found = "an empty file (0 bytes)"
        for signature, (kind, way_out) in _SIGNATURES.items():
            if head.startswith(signature):
                found, remedy = kind, way_out
    return InputError(
        f"the {role} file cannot be read",
        file=file,
        found=found,
        expected="a complete NetCDF 3/4 file or Zarr directory",
        remedy=remedy,
    )


# -- Several files ---------------------------------------------------------------------


def _combine(
    parts: Sequence[xr.Dataset], files: Sequence[Path], *, role: str
) -> xr.Dataset:
    _check_one_calendar(parts, files)
    snapped = [_snap_coordinates(part, parts[0]) for part in parts]
    try:
        combined = xr.combine_by_coords(
            snapped,
            compat="override",
            coords="minimal",
            data_vars="minimal",
            join="exact",
            combine_attrs="override",
        )
    except (ValueError, TypeError, KeyError) as error:
        found = str(error).splitlines()[0]
        raise _misfit(found, files, role=role) from error
    for name, index in combined.indexes.items():
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise _misfit(f"{name} {twice} is in two files", files, role=role)
    return cast(xr.Dataset, combined)


def _misfit(found: str, files: Sequence[Path], *, role: str) -> InputError:
    return InputError(
        f"the {role} files do not fit together",
        file=_label(files),
        found=found,
        expected="the same grid and levels in all files, and periods that follow each "
        "other without overlap",
        remedy="pass only files of one grid; cut overlapping periods (cdo seldate)",
    )


def _check_one_calendar(parts: Sequence[xr.Dataset], files: Sequence[Path]) -> None:
    calendars: dict[str, Path] = {}
    for part, file in zip(parts, files, strict=True):
        for name in _time_candidates(part)[:1]:
            if part[name].size:
                calendars.setdefault(str(part[name].dt.calendar), file)
    if len(calendars) > 1:
        raise InputError(
            "the files have different calendars",
            file=_label(files),
            found=", ".join(f"{c} in {f.name}" for c, f in calendars.items()),
            expected="one calendar",
            remedy="convert them to one calendar first (xarray: convert_calendar)",
        )


def _snap_coordinates(part: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """Give ``part`` the first file's coordinates where they differ by rounding only."""
    same: dict[Hashable, Any] = {}
    for name, index in part.indexes.items():
        other = first.indexes.get(name)
        if other is None or len(other) != len(index) or index.dtype.kind not in "fiu":
            continue
        if np.allclose(
            index.to_numpy(), other.to_numpy(), rtol=0.0, atol=SAME_COORDINATE
        ):
            same[name] = first[name]
    return part.assign_coords(same)


# -- What is in a data set -------------------------------------------------------------


def time_name(ds: xr.Dataset) -> str:
    """Name of the time dimension.

    Raises
    ------
    MissingVariableError
        If there is none with a coordinate.
    """
    candidates = _time_candidates(ds) or [
        str(name)
        for name in cast(Any, ds).cf.coordinates.get("time", []) + ["time"]
        if name in ds.dims and name in ds.coords
    ]
    if candidates:
        return candidates[0]
    raise MissingVariableError(
        "no time coordinate",
        file=file_label(ds),
        variable="time",
        found=f"dimensions {', '.join(f'{d}={n}' for d, n in ds.sizes.items())}",
        expected="a time dimension with a coordinate in CF units ('days since ...')",
        remedy="add the time coordinate (cdo settaxis,1990-01-01,12:00,1day)",
    )


def time_bounds(ds: xr.Dataset, time: str) -> xr.DataArray | None:
    """Beginning and end of each time step, if in the file. Shape ``(T, 2)``."""
    name = ds[time].attrs.get("bounds", ds[time].encoding.get("bounds"))
    if name not in ds.variables or ds[name].dims[:1] != (time,):
        return None
    return ds[name].load()


def _time_candidates(ds: xr.Dataset) -> list[str]:
    """Dimension coordinates that hold decoded dates."""
    names = []
    for name in ds.dims:
        if name not in ds.coords:
            continue
        values = ds.indexes[name] if name in ds.indexes else ds[name].values
        dated = np.issubdtype(ds[name].dtype, np.datetime64) or (
            len(values) > 0 and isinstance(values[0], cftime.datetime)
        )
        if dated:
            names.append(str(name))
    return names


def data_variables(ds: xr.Dataset) -> list[str]:
    """Names of the real fields: numbers on both horizontal dimensions.

    Cell bounds, grid mappings, coordinates stored as variables, text and helper
    variables such as Gaussian weights or date codes are left out. Without any latitude
    and longitude in the data set, numbers with at least two dimensions count.
    """
    bounds = bounds_variables(ds)
    pair = horizontal_coordinates(ds)
    coordinates = set(pair or ())
    names = []
    for name, variable in ds.data_vars.items():
        if str(name) in bounds | coordinates or "grid_mapping_name" in variable.attrs:
            continue
        if variable.dtype.kind not in "fiub":
            continue
        on_grid = (
            variable.ndim >= 2
            if pair is None
            else horizontal_coordinates(ds, str(name)) is not None
        )
        if on_grid:
            names.append(str(name))
    return names
