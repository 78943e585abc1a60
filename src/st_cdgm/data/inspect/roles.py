"""What a file can be used for: predictors, targets or static fields, and why."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from st_cdgm.data.files.open import data_variables, file_label
from st_cdgm.data.read.cubes import ChannelCube, TargetCube
from st_cdgm.data.read.readers import read_channels, read_static, read_targets
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import unit_vectors
from st_cdgm.data.variables.table import quantity_of
from st_cdgm.errors import InputError, MissingVariableError

FileRole = Literal["lr", "hr", "static"]
FEWEST_DAYS = 60  # days from which anything can be learned
WIDEST_TARGET = 1.01  # degrees; wider cells are those of driving models
FEWEST_LINES = 8  # rows and columns of a target grid
SHOWN = 6  # names in a sentence


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a file can be used in one role: predictors, targets or static fields.

    ``because`` is what speaks for it, or the first thing that speaks against it;
    ``remedy`` is what can be done where it cannot.
    """

    role: FileRole
    usable: bool
    because: str
    remedy: str | None = None


def role_verdicts(
    ds: xr.Dataset, *, step_hours: float | None, scrambled: Collection[str] = ()
) -> tuple[Verdict, Verdict, Verdict]:
    """Try the file in each role as the training would; little of it is read.

    ``scrambled`` are variables whose values are not where their coordinates say;
    ``step_hours`` is the length of a time step where it is known.
    """
    with _quiet():
        return (
            _as_timed("lr", ds, step_hours, scrambled),
            _as_timed("hr", ds, step_hours, scrambled),
            _as_static(ds, scrambled),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the readers log from being said three times."""
    logger = logging.getLogger("st_cdgm.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def one_line(error: InputError) -> str:
    """Return problem, variable and what was found of an error, in one line."""
    facts = [f"{k} {error.facts[k]}" for k in ("variable", "found") if error.facts[k]]
    return f"{error.problem} ({'; '.join(facts)})" if facts else error.problem


def number(value: Any) -> float | None:
    """Return a finite value as a float, None for another."""
    return float(value) if np.isfinite(value) else None


def cell_width(grid: Grid) -> float:
    """Typical width of a cell in degrees: north to south if regular, else all ways."""
    if grid.regular and len(grid.lat) > 1:
        return float(np.median(np.abs(np.diff(grid.lat))))
    xyz = unit_vectors(grid.lat2d, grid.lon2d)
    chords = [np.linalg.norm(np.diff(xyz, axis=a), axis=-1).ravel() for a in (0, 1)]
    both = [float(np.median(c)) for c in chords if c.size]
    return float(np.rad2deg(np.mean(both))) if both else 1.0


def _refused(role: FileRole, because: str | InputError, remedy: Any = None) -> Verdict:
    """Return a verdict against a role, for a reason or because of an error."""
    if isinstance(because, InputError):
        remedy = because.facts["remedy"]
        because = one_line(because)
    remedy = None if remedy is None else str(remedy)
    return Verdict(role=role, usable=False, because=because, remedy=remedy)


def _misplaced(role: FileRole, scrambled: Collection[str]) -> Verdict | None:
    if not scrambled:
        return None
    because = (
        f"{_listed(sorted(scrambled))}: the values are not where the coordinates say"
    )
    return _refused(role, because, "mend the file, or leave these variables out")


# -- Predictors and targets ------------------------------------------------------------


def _as_timed(
    role: Literal["lr", "hr"],
    ds: xr.Dataset,
    step_hours: float | None,
    scrambled: Collection[str],
) -> Verdict:
    cube: ChannelCube | TargetCube
    try:
        cube = read_channels(ds) if role == "lr" else read_targets(ds)
    except InputError as error:
        return _refused(role, error)
    against = _misplaced(role, scrambled)
    if against is None and isinstance(cube, TargetCube):
        against = _unfit_target(cube)
    if against is not None:
        return against

    because = _facts(cube, step_hours)
    if len(cube.days) < FEWEST_DAYS:
        because += "; enough to downscale, too few days to train on"
    return Verdict(role=role, usable=True, because=because)


def _unfit_target(cube: TargetCube) -> Verdict | None:
    days, width, shape = len(cube.days), cell_width(cube.grid), cube.grid.shape

    if days < FEWEST_DAYS:
        because = f"{_plural(days, 'day')}: too few to learn from"
        remedy = f"take at least {FEWEST_DAYS} days, better several years"
    elif width > WIDEST_TARGET:
        because = f"cells of {width:.3g} degrees are those of a driving model"
        remedy = f"take targets of at most {WIDEST_TARGET:.0f} degree"
    elif min(shape) < FEWEST_LINES:
        because = f"a grid of {shape[0]} x {shape[1]} cells is too small"
        remedy = f"take at least {FEWEST_LINES} rows and columns"
    else:
        return None

    return _refused("hr", because, remedy)


def _facts(cube: ChannelCube | TargetCube, step_hours: float | None) -> str:
    days, grid = cube.days, cube.grid
    kind = "target" if isinstance(cube, TargetCube) else "channel"
    made = ""
    if step_hours is not None and 0.0 < step_hours < 23.0:
        made = f" made of steps of {_hours(step_hours)}"
    return (
        f"{_plural(len(days), 'day')}{made} ({days.period()}), "
        f"{_plural(len(cube.names), kind)} ({_listed(cube.names)}), {_cells(grid)}"
    )


def _cells(grid: Grid) -> str:
    rows, columns = grid.shape
    return f"{rows} x {columns} cells of {cell_width(grid):.2g} degrees"


def _hours(step: float) -> str:
    return f"{step:.3g} h" if step >= 1.0 else f"{60.0 * step:.3g} min"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


# -- Static fields ---------------------------------------------------------------------


def _as_static(ds: xr.Dataset, scrambled: Collection[str]) -> Verdict:
    try:
        constant, changing = _by_change(ds)
        if changing and not constant:
            return _refused(
                "static",
                f"{_listed(changing)}: weather, which changes with time",
                "take orography, land fraction or the like on the grid of the targets",
            )

        first = constant[0] if constant else None
        grid = read_grid(ds, file=file_label(ds), variable=first)
        if not constant:
            raise MissingVariableError(
                "no field on a horizontal grid",
                found=", ".join(map(str, ds.data_vars)) or "no variables",
            )
        names, _ = read_static(ds, variables=constant, grid=grid)
    except InputError as error:
        return _refused("static", error)

    because = f"{_plural(len(names), 'field')} without change in time "
    because += f"({_listed(names)}), {_cells(grid)}"
    return _misplaced("static", set(constant) & set(scrambled)) or Verdict(
        role="static", usable=True, because=because
    )


def _by_change(ds: xr.Dataset) -> tuple[list[str], list[str]]:
    """Fields that do not change with time and are no weather, and the others."""
    constant: list[str] = []
    changing: list[str] = []
    for name in data_variables(ds):
        quantity = quantity_of(name, ds[name].attrs)
        weather = quantity is not None and quantity.weather
        (changing if weather or _changes(ds[name]) else constant).append(name)
    return constant, changing


def _changes(da: xr.DataArray) -> bool:
    """Compare the first, middle and last step; a full comparison follows on reading."""
    dated = [d for d in da.dims if d in da.coords and da[d].dtype == object]
    for dim in dated:
        count = da.sizes[dim]
        first, *others = (
            np.asarray(da.isel({dim: i}).values)
            for i in sorted({0, count // 2, count - 1} & {*range(count)})
        )
        if not all(np.array_equal(first, o, equal_nan=True) for o in others):
            return True
    return False
