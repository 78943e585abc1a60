"""What is in a climate file, and what would keep it from being used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import netCDF4
import numpy as np
import xarray as xr

from st_cdgm.data.files.open import (
    data_variables,
    file_label,
    open_dataset,
    resolve_sources,
    time_bounds,
    time_name,
)
from st_cdgm.data.files.remote import describe
from st_cdgm.data.inspect.fields import VariableReport, inspect_field
from st_cdgm.data.inspect.roles import Verdict, cell_width, one_line, role_verdicts
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.time.axis import day_keys, modern_calendar
from st_cdgm.errors import InputError

T = TypeVar("T")
MUCH_MISSING = 0.5  # share from which a note says so


# The roles of a file, as the documentation writes them.
ROLES = {"lr": "LR", "hr": "HR", "static": "static"}


@dataclass(frozen=True, kw_only=True)
class GridReport:
    """The horizontal grid of a file; degrees north and east, cells in degrees."""

    kind: str
    shape: tuple[int, int]
    lat: tuple[float, float]
    lon: tuple[float, float]
    latitude_order: str
    dimensions: tuple[str, str]
    cell_width: float


@dataclass(frozen=True, kw_only=True)
class TimeReport:
    """The time axis of a file, from its ``first`` to its ``last`` stamp.

    ``step_hours`` is the median step; of a single stamp the length of its bounds, None
    without. ``gaps`` are neighbouring steps between which others are missing,
    ``missing_steps`` in all.
    """

    first: str
    last: str
    steps: int
    calendar: str
    step_hours: float | None
    gaps: list[tuple[str, str]]
    missing_steps: int = 0


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
        Size on disk; 0 where a server does not tell.
    grid : GridReport or None
        None where there is no latitude and longitude.
    time : TimeReport or None
        None for a file without a time axis.
    variables : tuple of VariableReport
        The fields; bounds, grid mappings and coordinates are left out.
    problems : tuple of str
        What would keep the file from being used as a predictor or target.
    verdicts : tuple of Verdict
        Whether it can be used as predictors, as targets and as static fields, and why.
    notes : tuple of str
        What to know, but what keeps the file from nothing: much is missing, or the
        order of the values cannot be judged.
    """

    file: str
    format: str
    size_bytes: int
    grid: GridReport | None
    time: TimeReport | None
    variables: tuple[VariableReport, ...]
    problems: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain types that JSON can hold."""
        return asdict(self)

    def findings(self) -> list[str]:
        """Return in words what is wrong, what to know, and what it can be used for.

        Remedies only where no role is left.
        """
        lines = []
        for title, found in (("problems", self.problems), ("notes", self.notes)):
            if found:
                lines += [f"  {title}:", *(f"    - {one}" for one in found)]

        useless = not any(verdict.usable for verdict in self.verdicts)
        for verdict in self.verdicts:
            word = "usable" if verdict.usable else "not usable"
            lines.append(f"  {word} as {ROLES[verdict.role]} because {verdict.because}")
            if useless and verdict.remedy:
                lines.append(f"    remedy: {verdict.remedy}")
        return lines

    def __str__(self) -> str:
        names = ", ".join(variable.name for variable in self.variables)
        return "\n".join([self.file, f"  {self.format}: {names}", *self.findings()])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def inspect_file(path: str | Path) -> FileReport:
    """Describe a NetCDF file, a Zarr directory, or several files of one data set.

    Each may lie behind a URL.

    All values are read once, in pieces, and a second time only to find the place of
    values outside the physical range. What is wrong inside the file is reported under
    ``problems`` and does not stop the inspection.

    Raises
    ------
    MissingFileError
        If the path does not exist.
    InputError
        If it is not readable as NetCDF or Zarr.
    """
    sources = resolve_sources(path, role="inspected")
    ds = open_dataset(path, role="inspected")
    problems: list[str] = []
    grid = _try(lambda: _grid_report(ds), problems)
    time = _time_report(ds, problems)
    names = data_variables(ds)
    if not names:
        problems.append("no field on a horizontal grid")

    step = time.step_hours if time else None
    variables = tuple(inspect_field(ds, name, step, problems) for name in names)
    scrambled = [variable.name for variable in variables if variable.order]
    return FileReport(
        file=file_label(ds),
        format=_format(sources[0]),
        size_bytes=sum(_size(source) for source in sources),
        grid=grid,
        time=time,
        variables=variables,
        problems=tuple(dict.fromkeys(problems)),
        verdicts=role_verdicts(ds, step_hours=step, scrambled=scrambled),
        notes=tuple(_notes(variables)),
    )


def _notes(variables: Sequence[VariableReport]) -> Iterator[str]:
    """Yield what to know of the fields, that is no problem."""
    unsure: dict[str, list[str]] = {}
    for one in variables:
        if one.arrangement is not None and one.arrangement.unsure is not None:
            unsure.setdefault(one.arrangement.unsure, []).append(one.name)
        if MUCH_MISSING <= one.nan_share < 1.0:
            yield f"{one.nan_share:.0%} missing, {one.missing} (variable {one.name})"

    for reason, names in unsure.items():
        yield (
            "whether the values are where the coordinates say cannot be judged "
            f"(variable {', '.join(names)}; {reason})"
        )


def _try(make: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return make()
    except InputError as error:
        problems.append(one_line(error))
        return None


def _grid_report(ds: xr.Dataset) -> GridReport:
    names = data_variables(ds)
    grid = read_grid(ds, file=file_label(ds), variable=names[0] if names else None)
    first, last = float(grid.lat.flat[0]), float(grid.lat.flat[-1])
    return GridReport(
        kind=grid.kind,
        shape=grid.shape,
        lat=(float(grid.lat.min()), float(grid.lat.max())),
        lon=(float(grid.lon.min()), float(grid.lon.max())),
        latitude_order="north to south" if first > last else "south to north",
        dimensions=(grid.y_name, grid.x_name),
        cell_width=cell_width(grid),
    )


def _time_report(ds: xr.Dataset, problems: list[str]) -> TimeReport | None:
    if all(ds[name].ndim == 2 for name in data_variables(ds)):
        return None  # static fields need no time
    name = _try(lambda: time_name(ds), problems)
    if name is None:
        return None
    time = ds[name]
    bounds = time_bounds(ds, name)
    days = _try(
        lambda: day_keys(time, bounds=bounds, file=file_label(ds), time_step="native"),
        problems,
    )
    if time.size == 0 or time.dtype != object:
        return None

    stamps = time.values
    return TimeReport(
        first=stamps[0].isoformat(),
        last=stamps[-1].isoformat(),
        steps=int(time.size),
        calendar=days.calendar if days else modern_calendar(time),
        step_hours=_step_hours(stamps, bounds),
        gaps=days.gaps() if days else [],
        missing_steps=int(np.ptp(days.ordinal)) + 1 - len(days) if days else 0,
    )


def _step_hours(stamps: Any, bounds: xr.DataArray | None) -> float | None:
    steps = np.diff(stamps)
    if not len(steps) and bounds is not None and bounds.dtype == object:
        steps = np.diff(bounds.values[0])
    hours = [step.total_seconds() / 3600.0 for step in steps]
    return float(np.median(hours)) if hours else None


def _format(file: str | Path) -> str:
    if isinstance(file, str):
        return describe(file)[0]
    if file.is_dir():
        return "Zarr"
    with netCDF4.Dataset(str(file)) as opened:
        return str(opened.data_model)


def _size(file: str | Path) -> int:
    if isinstance(file, str):
        return describe(file)[1]
    if file.is_dir():
        return sum(part.stat().st_size for part in file.rglob("*") if part.is_file())
    return file.stat().st_size
