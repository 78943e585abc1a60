"""Predictors, targets and static fields: from files to checked, lazy cubes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.lazy import readable
from st_cdgm.data.files.open import (
    OpenedData,
    Paths,
    open_located,
    time_bounds,
    time_name,
)
from st_cdgm.data.read.channels import as_list, check_available, select_channels
from st_cdgm.data.read.cubes import (
    ChannelCube,
    LazyCube,
    TargetCube,
    all_missing,
)
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import DAY
from st_cdgm.data.time.steps import time_steps
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.levels import Fields, channel_name
from st_cdgm.data.variables.table import quantity_of, variable_of
from st_cdgm.data.variables.units import Role, check_plausible, to_canonical
from st_cdgm.errors import InputError, MissingVariableError

DAYS_AT_ONCE = 64  # while looking for a value


def read_channels(
    paths: Paths,
    *,
    variables: Sequence[str] | None = None,
    role: Role = "lr",
    time_step: str = "daily",
) -> ChannelCube:
    """Open predictors and label them channel by channel; nothing big is read.

    Parameters
    ----------
    paths : str, Path or sequence of these
        See :func:`st_cdgm.data.files.open.open_dataset`.
    variables : sequence of str, optional
        Channels (``q_850``) or variables (``q``: all its levels), in this order. None
        takes every field with a time axis.
    role : {"lr", "hr"}
        Decides the units of temperatures.
    time_step : {"daily", "native"}
        ``daily`` makes days of shorter steps, each variable by its ``cell_methods``
        (see :mod:`st_cdgm.data.time.daily`); days without all their steps are left
        out. ``native`` keeps the steps, which must be constant. In both,
        precipitation is in mm day-1: an amount over a step becomes the step's rate.

    Raises
    ------
    MissingVariableError
        If a variable or level is absent; the message lists what is there.
    InputError
        If grid, time, units or levels cannot be used, or a field has no values.
    """
    fields, cube = _timed_fields(paths, variables, "channel", role, time_step)
    return ChannelCube(channels=tuple(channel for channel, _ in fields), **vars(cube))


def read_targets(
    paths: Paths, *, variables: Sequence[str] | None = None, time_step: str = "daily"
) -> TargetCube:
    """Open fine-grid targets; parameters and errors as for :func:`read_channels`."""
    fields, cube = _timed_fields(paths, variables, "variable", "hr", time_step)
    targets = []
    for channel, da in fields:
        one = TargetVariable(
            name=channel.name,
            units=channel.units,
            standard_name=channel.standard_name,
            long_name=da.attrs.get("long_name"),
            cell_methods=da.attrs.get("cell_methods"),
        )
        vars(one)["row"] = channel.row
        targets.append(one)
    return TargetCube(targets=tuple(targets), **vars(cube))


def read_static(
    path: Paths, *, variables: Sequence[str] | None = None, grid: Grid
) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """Read static fine fields, which share the grid of the targets.

    All ``variables`` if None, none if the list is empty.

    Returns
    -------
    names : tuple of str
        One per field; a further axis (level, land-use class) gives one field per
        entry, ``frac_1``, ``frac_2``.
    values : ndarray
        Canonical units, NaN where missing. Shape ``(C_s, Y, X)``, float32.

    Raises
    ------
    GridMismatchError
        If the file is on another grid.
    MissingVariableError
        If a variable is absent.
    InputError
        If a field changes with time or has no values.
    """
    opened = open_located(path, role="static")
    ds, file = opened.ds, opened.file
    available = opened.located.fields
    names = available if variables is None else as_list(variables)
    if not names:
        return (), np.zeros((0, *grid.shape), np.float32)
    check_available(names, available, available, file=file)

    known = [quantity_of(name, ds[name].attrs) for name in names]
    fields = [
        to_canonical(ds[name], file=file, role="static", quantity=quantity)
        for name, quantity in zip(names, known, strict=True)
    ]

    # A field may give several planes.
    labels: list[str] = []
    planes: list[NDArray[np.float32]] = []
    compared: tuple[Hashable, ...] = ()
    for name, da in zip(names, fields, strict=True):
        if da.dims != compared:  # fields on the same dimensions share their grid
            own = read_grid(ds, file=file, variable=name, located=opened.located)
            grid.check_same(own, file=file, role="static")
            compared = da.dims

        if not da.size:
            raise all_missing(name, file)
        for label, plane in _static_planes(da, name, own, file=file):
            labels.append(label)
            planes.append(plane)

    return tuple(labels), np.stack(planes)


# -- Fields -------------------------------------------------------------------------


def _timed_fields(
    paths: Paths,
    variables: Sequence[str] | None,
    axis: str,
    role: Role,
    time_step: str,
) -> tuple[Fields, LazyCube]:
    """Return what is asked for, and a cube of it with a second axis of this name."""
    opened = open_located(paths, role=role)
    ds, located, file = opened.ds, opened.located, opened.file
    time = time_name(ds, located)
    bounds = time_bounds(ds, time)
    available = [name for name in located.fields if time in ds[name].dims]
    if not available:
        read_grid(ds, file=file)  # the usual reason, with its own message
        raise MissingVariableError(
            "no field with a time axis",
            file=file,
            found=", ".join(map(str, ds.data_vars)) or "no variables",
            expected=f"variables on {time}, latitude and longitude",
        )

    # Which channels, on which days, on which grid.
    fields = select_channels(ds, available, variables, file=file)
    steps = time_steps(
        ds[time],
        bounds=bounds,
        time_step=time_step,
        ends=_stamped_at_end(fields),
        file=file,
    )
    grid = _common_grid(opened, fields)

    # Their values: one per day, in canonical units.
    dims = (time, grid.y_name, grid.x_name)
    fields = [(c, _drop_single(da, dims, c.name, file=file)) for c, da in fields]
    fields = [(c, da.transpose(*dims)) for c, da in fields]
    if steps.step_seconds < DAY:
        fields = [(c, steps.apply(da, c.name)) for c, da in fields]
    fields = _canonical(fields, file, role)
    array: Any = dask.array  # its stubs leave these two untyped
    planes = array.stack([array.asarray(da.data) for _, da in fields], axis=1)
    values = labelled(planes, axis, [channel.name for channel, _ in fields])
    return fields, LazyCube(grid=grid, days=steps.days, values=values, file=file)


def _stamped_at_end(fields: Fields) -> bool:
    """Whether ECMWF says of all fields that they cover the time up to their stamp."""
    kinds = {da.attrs.get("GRIB_stepType", "instant") for _, da in fields}
    return bool(kinds) and kinds <= {"accum", "avg", "max", "min"}


# -- Shape, units, values --------------------------------------------------------------


def _common_grid(opened: OpenedData, fields: Fields) -> Grid:
    ds, file = opened.ds, opened.file
    first = str(fields[0][1].name)
    grid = read_grid(ds, file=file, variable=first, located=opened.located)
    for name in dict.fromkeys(str(da.name) for _, da in fields[1:]):
        if {grid.y_name, grid.x_name} <= set(ds[name].dims):
            continue
        raise InputError(
            "two variables are on different grids",
            file=file,
            variable=name,
            found=f"{name} on {tuple(ds[name].dims)}",
            expected=f"({grid.y_name}, {grid.x_name}) as {first}",
            remedy="regrid the file to one grid, or name variables of one grid only",
        )

    return grid


def _canonical(fields: Fields, file: str, role: Role) -> Fields:
    """Fields ``(time, y, x)`` in canonical units, and what they are."""
    names = [channel.name for channel, _ in fields]
    rows = [variable_of(channel.name, da.attrs) for channel, da in fields]
    known = [None if row is None else row.quantity for row in rows]
    planes = [
        to_canonical(da, file=file, role=role, name=name, quantity=quantity)
        for name, (_, da), quantity in zip(names, fields, known, strict=True)
    ]

    # Units that contradict some of the values are wrong.
    some = _some_values(planes, names, file)
    for name, da, quantity, values in zip(names, planes, known, some, strict=True):
        check_plausible(values, name, da.attrs, file=file, quantity=quantity)

    made: Fields = []
    for (channel, _), da, row in zip(fields, planes, rows, strict=True):
        units, standard_name = da.attrs["units"], da.attrs.get("standard_name")
        one = replace(channel, units=str(units), standard_name=standard_name)
        vars(one)["row"] = row  # told by all attributes of the file
        made.append((one, da.astype(np.float32)))
    return made


def _drop_single(
    da: xr.DataArray, keep: tuple[str, ...], name: str, *, file: str
) -> xr.DataArray:
    for dim in [str(d) for d in da.dims if d not in keep]:
        if da.sizes[dim] != 1:
            raise InputError(
                "a variable has a further dimension",
                file=file,
                variable=name,
                found=f"{tuple(da.dims)} with {dim} of {da.sizes[dim]}",
                expected=f"{keep}, or one pressure dimension besides",
                remedy=f"select one entry of {dim} (xarray: ds.isel({dim}=0))",
            )
        da = da.isel({dim: 0}, drop=True)
    return da


def _some_values(
    planes: list[xr.DataArray], names: list[str], file: str
) -> list[NDArray[Any]]:
    """Read the first, middle and last day; others only where they are empty."""
    parts = []
    for da in planes:
        time, length = da.dims[0], da.sizes[da.dims[0]]
        # One by one: a list of days would read whole chunks for each.
        days = sorted({0, length // 2, length - 1})
        parts.append([da.isel({time: slice(day, day + 1)}) for day in days])
    with readable(", ".join(names), file):
        values = [*map(np.concatenate, parts)]

    return [
        some if np.isfinite(some).any() else _any_values(da, name, file)
        for some, da, name in zip(values, planes, names, strict=True)
    ]


def _any_values(da: xr.DataArray, name: str, file: str) -> NDArray[Any]:
    """Read on until there is a value."""
    time, length = da.dims[0], da.sizes[da.dims[0]]
    for start in range(0, length, DAYS_AT_ONCE):
        part = da.isel({time: slice(start, start + DAYS_AT_ONCE)})
        values = _values(part, name, file)
        if np.isfinite(values).any():
            return values
    raise all_missing(name, file)


def _values(da: xr.DataArray, name: str, file: str) -> NDArray[Any]:
    with readable(name, file):
        return np.asarray(da.values)


def labelled(array: Any, axis: str, names: Sequence[str]) -> xr.DataArray:
    """Return the values of a cube with this second axis."""
    dims = ("time", axis, "y", "x")
    return xr.DataArray(array, dims=dims, coords={axis: list(names)})


def _static_planes(
    da: xr.DataArray, name: str, grid: Grid, *, file: str
) -> list[tuple[str, NDArray[np.float32]]]:
    """One plane per entry of a further axis; a constant time axis is dropped."""
    dated = [d for d in da.dims if d in da.coords and da[d].dtype == object]
    for dim in dated:
        da = _constant(da, str(dim), name, file=file)
    extra = [str(d) for d in da.dims if d not in (grid.y_name, grid.x_name)]
    ordered = da.transpose(*extra, grid.y_name, grid.x_name)
    values = _values(ordered, name, file).astype(np.float32)
    planes = []

    for index in np.ndindex(values.shape[: len(extra)]):
        label = name
        for dim, i in zip(extra, index, strict=True):
            if da.sizes[dim] > 1:
                numbered = dim in da.coords and np.issubdtype(da[dim].dtype, np.number)
                entry = float(da[dim].values[i]) if numbered else float(i)
                label = channel_name(label, entry)
        if not np.isfinite(values[index]).any():
            raise all_missing(label, file)

        planes.append((label, values[index]))

    return planes


def _constant(da: xr.DataArray, time: str, name: str, *, file: str) -> xr.DataArray:
    """Return the first step, provided that all steps are the same."""
    first = da.isel({time: 0}, drop=True)
    steps = _values(da.transpose(time, ...), name, file)
    if all(np.array_equal(step, steps[0], equal_nan=True) for step in steps):
        return first
    raise InputError(
        "a static field changes with time",
        file=file,
        variable=name,
        found=f"{da.sizes[time]} time steps that differ",
        expected="one field without time axis",
        remedy="select or average the time steps (cdo timmean)",
    )
