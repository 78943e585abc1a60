"""Open NetCDF and Zarr lazily, one or many files, with one view of time for all."""

from __future__ import annotations

import difflib
import logging
import re
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import xarray as xr

from st_cdgm.data.files.join import join, label_of
from st_cdgm.data.files.layouts import in_cf_form
from st_cdgm.data.files.lazy import (
    NO_FILE,
    TIMES,
    check_packing,
    on_dask,
    text_attributes,
)
from st_cdgm.data.files.memory import from_memory
from st_cdgm.data.files.remote import RemoteStore, expand_url, local_path, locate_url
from st_cdgm.data.files.remote_files import RemoteFile
from st_cdgm.data.files.sniff import HEAD_BYTES, is_zarr, try_opening, unreadable
from st_cdgm.data.space.coordinates import Located, locate
from st_cdgm.errors import InputError, MissingFileError, MissingVariableError

logger = logging.getLogger(__name__)
Paths = str | Path | Sequence[str | Path] | xr.Dataset
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*(::|://)")
_EATEN_SLASH = re.compile(r"^(https?|s3|gs|gcs|abfs|memory|ftp):/(?!/)")
SHOWN = 8  # file names in a message
NETCDF_ENDINGS = (".nc", ".nc4", ".cdf")
# What readers call the short names of roles.
_ROLES = {"lr": "predictor", "hr": "target", "inspected": "data"}


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedData:
    """A data set, and what was found in it when it was opened.

    Attributes
    ----------
    ds : xarray.Dataset
        Lazy, in the form of the CF conventions.
    located : Located
        Its coordinates and fields.
    file : str
        Where it came from, for messages.
    """

    ds: xr.Dataset
    located: Located
    file: str


def open_dataset(paths: Paths, *, role: str) -> xr.Dataset:
    """Open one file, several files or a glob pattern, without reading the values.

    Time is decoded to cftime dates whatever the calendar. Several files are joined
    along time, and variables in separate files are put side by side.

    Parameters
    ----------
    paths : str, Path, sequence of these, or xarray.Dataset
        NetCDF 3/4 files, a Zarr directory, a folder of ``*.nc``, ``*.nc4`` or ``*.cdf``
        files or a pattern; each of them also behind a URL (``https://``, ``s3://``,
        ``file://`` ...), save that the web has no patterns and folders. Options for
        them come from the environment and configuration files that fsspec knows. A
        data set in memory is taken as if it came from a file.
    role : str
        What the data are for (``"lr"``, ``"hr"``, ``"static"``); used in messages.

    Raises
    ------
    MissingFileError
        If nothing is there or it may not be read.
    InputError
        If a file is not NetCDF or Zarr, is damaged, has undecodable time units, the
        files do not fit together, or a server does not answer.
    """
    return open_located(paths, role=role).ds


def open_located(paths: Paths, *, role: str) -> OpenedData:
    """Open files and keep what was found; parameters as for :func:`open_dataset`."""
    role = _ROLES.get(role, role)
    if isinstance(paths, xr.Dataset):
        ds, located = from_memory(paths)
        return OpenedData(ds=ds, located=located, file=file_label(ds))

    sources = resolve_sources(paths, role=role)
    parts = [_open_one(source, role=role) for source in sources]
    ds, located = parts[0]
    file = str(sources[0])
    if len(parts) > 1:
        ds, file = join(parts, sources, role=role), label_of(sources)
        located = locate(ds)
    ds.encoding["source"] = file
    return OpenedData(ds=ds, located=located, file=file)


def file_label(ds: xr.Dataset) -> str:
    """Name of the file or files behind a data set, for messages."""
    return str(ds.encoding.get("source", NO_FILE))


def is_url(path: object) -> bool:
    """Whether a path is a URL (``s3://...``, ``simplecache::http://...``).

    Raises
    ------
    InputError
        If it was a URL until ``pathlib.Path`` took one of its slashes.
    """
    text = str(path)
    if _EATEN_SLASH.match(text):
        raise InputError(
            "a URL has lost a slash",
            file=text,
            expected="two slashes behind the protocol",
            remedy="pass URLs as text, not as pathlib.Path",
        )
    return isinstance(path, str) and _URL.match(text) is not None


def resolve_paths(paths: Paths, *, role: str = "input") -> list[Path]:
    """Return the local ones of :func:`resolve_sources`; URLs are not looked at.

    Raises
    ------
    MissingFileError
        If a path or pattern matches nothing, or the list is empty.
    """
    role = _ROLES.get(role, role)
    given = [_local(one) for one in _as_sequence(paths, role=role)]
    return [file for one in given if one for file in _expand(one, role=role)]


def resolve_sources(paths: Paths, *, role: str = "input") -> list[str | Path]:
    """Expand patterns and folders into existing local files and URLs.

    Whether a single URL exists shows when it is opened.

    Raises
    ------
    MissingFileError
        If a path or pattern matches nothing, or the list is empty.
    InputError
        If a server cannot be asked for what matches.
    """
    role = _ROLES.get(role, role)
    sources: list[str | Path] = []
    for one in _as_sequence(paths, role=role):
        local = _local(one)
        found = _expand(local, role=role) if local else expand_url(str(one), role=role)
        sources += found
    return sources


def _local(one: str | Path) -> Path | None:
    """Return the local path, None for what a server has."""
    return local_path(one) if isinstance(one, str) and is_url(one) else Path(one)


def _as_sequence(paths: Paths, *, role: str) -> list[str | Path]:
    if isinstance(paths, xr.Dataset):
        return []
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise MissingFileError(
            f"no {role} file is named", expected="at least one path", found="none"
        )
    return given


def _expand(path: Path, *, role: str) -> list[Path]:
    path = path.expanduser()
    if path.is_dir() and not is_zarr(path):
        found = sorted(p for p in path.glob("*") if p.suffix in NETCDF_ENDINGS)
    elif path.exists():
        found = [path]
    else:
        root = Path(path.anchor)
        found = sorted(root.glob(str(path.relative_to(root))))
    if found:
        return found

    is_url(path)  # says so if it was one
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


# -- One file --------------------------------------------------------------------------


def _open_one(source: str | Path, *, role: str) -> tuple[xr.Dataset, Located]:
    where = source if isinstance(source, Path) else locate_url(source, role=role)
    target, options = _reader_of(where)
    version = uuid.uuid4().hex  # data elsewhere is always new
    if isinstance(where, Path):
        state = where.stat()
        version = f"{state.st_mtime_ns} {state.st_size} {where}"
        try_opening(where, role=role)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = xr.open_dataset(target, **options)
            ds = text_attributes(opened)
            check_packing(ds, source)
            if options["engine"] == "zarr":  # listings come in any order
                ds = ds[sorted(ds.data_vars, key=str)]
            ds, located = in_cf_form(on_dask(ds, source, version=version))

    # Each library has its own exceptions.
    except InputError:
        raise
    except PermissionError as error:
        raise MissingFileError(
            f"the {role} file may not be read",
            file=source,
            remedy="check its permissions",
        ) from error
    except ValueError as error:
        raise _time_error(source, target, options, error, role=role) from error
    except Exception as error:
        raise _damaged(source, role=role, error=error) from error

    if not ds.variables and isinstance(source, Path) and source.is_file():
        _check_no_groups(source, role=role)
    ds.set_close(opened.close)
    return ds, located


def _reader_of(where: Path | RemoteFile | RemoteStore) -> tuple[Any, dict[str, Any]]:
    """Return what xarray is to open, and how."""
    target: Any = where
    if isinstance(where, RemoteStore):
        target = where.store
        options = {"engine": "zarr", **where.options}
    elif isinstance(where, RemoteFile):
        options = {"engine": "h5netcdf", "phony_dims": "sort"}
    else:
        options = local_engine(where)
    options |= {"decode_times": TIMES, "decode_timedelta": False}
    return target, options | {"decode_coords": "all", "chunks": None}


def local_engine(path: Path) -> dict[str, Any]:
    """Options with which xarray reads a local file or Zarr directory."""
    if path.is_dir():
        return {"engine": "zarr", "consolidated": (path / ".zmetadata").exists()}
    return {"engine": "netcdf4"}


def _time_error(
    source: str | Path,
    target: Any,
    options: dict[str, Any],
    error: Exception,
    *,
    role: str,
) -> InputError:
    """Tell time units that cannot be decoded from a damaged file."""
    try:
        raw = xr.open_dataset(target, **{**options, "decode_times": False})
    except Exception:  # the first error says it better
        return _damaged(source, role=role, error=error)
    with raw:
        times = {
            str(n): f"{v.attrs.get('units')!r}, calendar {v.attrs.get('calendar')!r}"
            + ("" if v.notnull().all() else ", stamps missing")
            for n, v in raw.variables.items()
            if "since" in str(v.attrs.get("units", ""))
        }

    found = "; ".join(f"{name}: {text}" for name, text in times.items()) or str(error)
    return InputError(
        "the time axis cannot be decoded",
        file=source,
        variable=next(iter(times), None),
        found=found,
        expected="CF time units such as 'days since 1990-01-01', a CF calendar, and "
        "dates that exist in it",
        remedy="mend the time units or calendar (cdo setreftime, cdo setcalendar)",
    )


def _damaged(source: str | Path, *, role: str, error: Exception) -> InputError:
    head = None
    if isinstance(source, Path) and source.is_file():
        with source.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    return unreadable(source, role=role, error=error, head=head)


def _check_no_groups(file: Path, *, role: str) -> None:
    with netCDF4.Dataset(str(file)) as opened:
        groups = sorted(opened.groups)
    if groups:
        raise MissingVariableError(
            f"the {role} file has its variables in groups",
            file=file,
            found=f"nothing at the root, groups {', '.join(groups)}",
            expected="variables at the root of the file",
            remedy="copy one group into a file of its own (ncks -G : -g GROUP in out)",
        )


# -- What is in a data set -------------------------------------------------------------


def time_name(ds: xr.Dataset, located: Located | None = None) -> str:
    """Name of the time dimension; ``located`` where it is known already.

    Raises
    ------
    MissingVariableError
        If there is none with a coordinate.
    """
    found = locate(ds) if located is None else located
    for name in (*found.times, *found.undated):
        return name
    raise MissingVariableError(
        "no time coordinate",
        file=file_label(ds),
        variable="time",
        found=f"dimensions {', '.join(f'{d}={n}' for d, n in ds.sizes.items())}",
        expected="a time dimension with a coordinate in CF units ('days since ...')",
        remedy="add the time coordinate (cdo settaxis,1990-01-01,12:00,1day)",
    )


def data_variables(ds: xr.Dataset) -> list[str]:
    """Names of the real fields; see :class:`Located`."""
    return list(locate(ds).fields)


def time_bounds(ds: xr.Dataset, time: str) -> xr.DataArray | None:
    """Beginning and end of each time step, if in the file. Shape ``(T, 2)``."""
    name = ds[time].attrs.get("bounds", ds[time].encoding.get("bounds"))
    if name not in ds.variables or ds[name].dims[:1] != (time,):
        return None
    return ds[name].load()
