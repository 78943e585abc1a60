"""What is in a climate file, and what would keep it from being used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import netCDF4
import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from st_cdgm.data.calendars import day_keys, modern_calendar
from st_cdgm.data.grids import Grid
from st_cdgm.data.levels import level_of, level_values, vertical_name
from st_cdgm.data.opening import (
    data_variables,
    file_label,
    open_dataset,
    resolve_paths,
    time_bounds,
    time_name,
)
from st_cdgm.data.quantities import quantity_of
from st_cdgm.data.units import canonical_units, units_convert
from st_cdgm.errors import InputError

__all__ = [
    "FileReport",
    "GridReport",
    "TimeReport",
    "VariableReport",
    "inspect_file",
    "roughness",
]

T = TypeVar("T")

# Above this a temperature, pressure or geopotential looks shuffled, not smooth.
SHUFFLED = 0.5
SMALLEST = 5  # rows and columns from which the measure says something
_SMOOTH = ("temperature", "pressure", "geopotential", "geopotential_height")


@dataclass(frozen=True, kw_only=True)
class GridReport:
    """The horizontal grid of a file; degrees north and east."""

    kind: str
    shape: tuple[int, int]
    lat: tuple[float, float]
    lon: tuple[float, float]
    latitude_order: str
    dimensions: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class TimeReport:
    """The time axis of a file.

    Attributes
    ----------
    first, last : str
        First and last stamp.
    steps : int
        Number of stamps.
    calendar : str
        CF calendar.
    step_hours : float or None
        Median step; None for a single stamp.
    gaps : list of (str, str)
        Neighbouring days with days missing between them.
    """

    first: str
    last: str
    steps: int
    calendar: str
    step_hours: float | None
    gaps: list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class VariableReport:
    """One field of a file, in the units of the file.

    Attributes
    ----------
    name : str
        Variable name.
    dims : tuple of str
        Dimensions.
    units : str or None
        As in the file.
    canonical_units : str
        Units in which it is used as a predictor.
    standard_name : str or None
        As in the file.
    levels : list of float
        Pressures in hPa, empty for a single-level field.
    minimum, maximum : float or None
        Over all values; None where there are none.
    nan_share : float
        Share of missing values, in [0, 1].
    roughness : float or None
        See :func:`roughness`, on the middle step.
    """

    name: str
    dims: tuple[str, ...]
    units: str | None
    canonical_units: str
    standard_name: str | None
    levels: list[float]
    minimum: float | None
    maximum: float | None
    nan_share: float
    roughness: float | None


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """Everything ``st-cdgm inspect`` shows.

    Attributes
    ----------
    file : str
        Path.
    format : str
        ``NETCDF4``, ``NETCDF3_CLASSIC`` ... or ``Zarr``.
    size_bytes : int
        Size on disk.
    grid : GridReport or None
        None where there is no latitude and longitude.
    time : TimeReport or None
        None for a file without a time axis.
    variables : tuple of VariableReport
        The fields; bounds, grid mappings and coordinates are left out.
    problems : tuple of str
        What would keep the file from being used as a predictor or target.
    """

    file: str
    format: str
    size_bytes: int
    grid: GridReport | None
    time: TimeReport | None
    variables: tuple[VariableReport, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return asdict(self)


def inspect_file(path: str | Path) -> FileReport:
    """Describe a NetCDF file, a Zarr directory, or several files of one data set.

    All values are read once, in pieces. What is wrong inside the file is reported
    under ``problems`` and does not stop the inspection.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    InputError
        If it is not readable as NetCDF or Zarr.
    """
    files = resolve_paths(path, role="inspected")
    ds = open_dataset(path, role="inspected")
    problems: list[str] = []
    grid = _try(lambda: _grid_report(ds), problems)
    time = _time_report(ds, problems)
    names = data_variables(ds)
    if not names:
        problems.append("no field on a horizontal grid")
    variables = tuple(_variable_report(ds, name, problems) for name in names)
    return FileReport(
        file=file_label(ds),
        format=_format(files[0]),
        size_bytes=sum(_size(file) for file in files),
        grid=grid,
        time=time,
        variables=variables,
        problems=tuple(dict.fromkeys(problems)),
    )


def roughness(field: NDArray[Any]) -> float | None:
    """Half the mean squared difference of neighbours over the variance.

    Near 0 for a smooth field, near 1 for values in random order. A file whose values
    were shuffled under correct coordinates passes every other check.

    Parameters
    ----------
    field : ndarray
        Shape ``(..., Y, X)``; leading entries are averaged.

    Returns
    -------
    float or None
        None for a constant field or fewer than five rows or columns.
    """
    planes = field.reshape(-1, *field.shape[-2:]).astype(np.float64)
    ratios = []
    if min(field.shape[-2:]) < SMALLEST:
        return None
    for plane in planes:
        squares = np.concatenate(
            [(np.diff(plane, axis=axis) ** 2).ravel() for axis in (0, 1)]
        )
        squares = squares[np.isfinite(squares)]
        known = plane[np.isfinite(plane)]
        variance = float(known.var()) if known.size else 0.0
        if squares.size and variance > 0.0:
            ratios.append(0.5 * float(squares.mean()) / variance)
    return float(np.mean(ratios)) if ratios else None


def _try(make: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return make()
    except InputError as error:
        problems.append(_one_line(error))
        return None


def _one_line(error: InputError) -> str:
    facts = [f"{k} {error.facts[k]}" for k in ("variable", "found") if error.facts[k]]
    return f"{error.problem} ({'; '.join(facts)})" if facts else error.problem


def _grid_report(ds: xr.Dataset) -> GridReport:
    names = data_variables(ds)
    grid = Grid.from_dataset(
        ds, file=file_label(ds), variable=names[0] if names else None
    )
    first, last = float(grid.lat.flat[0]), float(grid.lat.flat[-1])
    return GridReport(
        kind=grid.kind,
        shape=grid.shape,
        lat=(float(grid.lat.min()), float(grid.lat.max())),
        lon=(float(grid.lon.min()), float(grid.lon.max())),
        latitude_order="north to south" if first > last else "south to north",
        dimensions=(grid.y_name, grid.x_name),
    )


def _time_report(ds: xr.Dataset, problems: list[str]) -> TimeReport | None:
    if all(ds[name].ndim == 2 for name in data_variables(ds)):
        return None  # static fields need no time
    name = _try(lambda: time_name(ds), problems)
    if name is None:
        return None
    time = ds[name]
    days = _try(
        lambda: day_keys(time, bounds=time_bounds(ds, name), file=file_label(ds)),
        problems,
    )
    if time.size == 0 or time.dtype != object:
        return None
    stamps = time.values
    steps = [step.total_seconds() / 3600.0 for step in np.diff(stamps)]
    return TimeReport(
        first=stamps[0].isoformat(),
        last=stamps[-1].isoformat(),
        steps=int(time.size),
        calendar=days.calendar if days else modern_calendar(time),
        step_hours=float(np.median(steps)) if steps else None,
        gaps=days.gaps() if days else [],
    )


def _variable_report(ds: xr.Dataset, name: str, problems: list[str]) -> VariableReport:
    da = ds[name]
    levels = _try(lambda: _levels(da, name, file_label(ds)), problems) or []
    smallest, largest, share, rough = _statistics(ds, name, problems)
    units = da.attrs.get("units")
    quantity = quantity_of(name, da.attrs)
    if quantity is not None:
        if units is None:
            problems.append(f"no units (variable {name})")
        elif not units_convert(str(units), quantity):
            problems.append(
                f"units do not fit (variable {name}; found {units!r}, expected "
                f"something that converts to {quantity.units!r})"
            )
        if rough is not None and rough > SHUFFLED and quantity.key in _SMOOTH:
            problems.append(
                f"the field is as rough as shuffled values (variable {name}; roughness "
                f"{rough:.2f}, smooth fields are below {SHUFFLED})"
            )
    if smallest is None:
        problems.append(f"no values (variable {name})")
    return VariableReport(
        name=name,
        dims=tuple(str(d) for d in da.dims),
        units=None if units is None else str(units),
        canonical_units=canonical_units(name, da.attrs),
        standard_name=da.attrs.get("standard_name"),
        levels=levels,
        minimum=smallest,
        maximum=largest,
        nan_share=share,
        roughness=rough,
    )


def _levels(da: xr.DataArray, name: str, file: str) -> list[float]:
    vertical = vertical_name(da)
    if vertical is not None and vertical in da.coords and da.sizes[vertical] > 1:
        return [float(level) for level in level_values(da[vertical], file=file)]
    _, level = level_of(name, da)
    return [] if level is None else [level]


def _statistics(
    ds: xr.Dataset, name: str, problems: list[str]
) -> tuple[float | None, float | None, float, float | None]:
    """Smallest and largest value, share of missing ones, roughness of the middle."""
    da = ds[name]
    if da.size == 0:
        return None, None, 0.0, None
    middle = da
    for dim in da.dims:
        if dim in ds.coords and ds[dim].dtype == object:
            middle = middle.isel({dim: da.sizes[dim] // 2})
    try:
        low, high, share, plane = compute(  # type: ignore[no-untyped-call]
            da.min(), da.max(), da.isnull().mean(), middle
        )
    except (OSError, RuntimeError) as error:
        problems.append(f"the values cannot be read (variable {name}; {error})")
        return None, None, 0.0, None
    rough = roughness(_planes(plane, ds, name))
    if not np.isfinite(float(low)):
        return None, None, float(share), None
    return float(low), float(high), float(share), rough


def _planes(da: xr.DataArray, ds: xr.Dataset, name: str) -> NDArray[Any]:
    """Values with the horizontal dimensions last, where these are known."""
    try:
        grid = Grid.from_dataset(ds, variable=name)
    except InputError:
        return np.asarray(da.values)
    return np.asarray(da.transpose(..., grid.y_name, grid.x_name).values)


def _format(file: Path) -> str:
    if file.is_dir():
        return "Zarr"
    with netCDF4.Dataset(str(file)) as opened:
        return str(opened.data_model)


def _size(file: Path) -> int:
    if file.is_dir():
        return sum(part.stat().st_size for part in file.rglob("*") if part.is_file())
    return file.stat().st_size
