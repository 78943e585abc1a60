"""Forecasts and truth brought to the same days, grid and units before any score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.open import data_variables, time_bounds, time_name
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.units import to_canonical
from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.evaluation.metrics.blocks import Pair

MEMBER = "realization"

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One ensemble (or the truth) on its own time axis, read lazily.

    Attributes
    ----------
    name : str
        ``truth``, or the key of the forecast.
    file : str
        Where it came from (its name if it came from no file), for messages.
    fields : dict
        Variable name to an array (time, realization, y, x) in canonical units.
    days : CalendarDays
        Days of the source.
    grid : Grid
        Its grid.
    index : ndarray
        Positions of the scored days on the time axis. Shape ``(T,)``.
    """

    name: str
    file: str
    fields: dict[str, xr.DataArray]
    days: CalendarDays
    grid: Grid
    index: NDArray[np.int64]

    @property
    def members(self) -> int:
        """Ensemble size M."""
        return int(next(iter(self.fields.values())).sizes[MEMBER])

    def read(
        self, variable: str, days: slice | NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return scored days of a variable. Shape ``(t, M, Y, X)``."""
        picked = _as_slice(self.index[days])
        block = self.fields[variable].isel({self.fields[variable].dims[0]: picked})
        return block.to_numpy().astype(np.float32, copy=False)


def _as_slice(index: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Evenly spaced positions as a slice, which files read much faster."""
    steps = np.diff(index)
    if index.size < 2 or (steps != steps[0]).any():
        return index
    return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """The truth and all sources on the same days.

    Attributes
    ----------
    truth : Source
        The reference, with one member.
    sources : tuple of Source
        The model first, then the others.
    targets : tuple of TargetVariable
        Scored variables, with canonical units.
    days : CalendarDays
        The scored days.
    """

    truth: Source
    sources: tuple[Source, ...]
    targets: tuple[TargetVariable, ...]
    days: CalendarDays

    def pair(self, source: Source, variable: str) -> Pair:
        """Return forecast and truth of one variable behind readers."""
        Y, X = self.truth.grid.shape
        return Pair(
            forecast=lambda days: source.read(variable, days),
            reference=lambda days: self.truth.read(variable, days)[:, 0],
            shape=(len(self.days), source.members, Y, X),
            weights=self.truth.grid.area_weights().astype(np.float64),
            name=f"{variable} of {source.name}",
        )


def align(forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset) -> Aligned:
    """Bring forecasts and truth to their common days.

    Every source is scored on the days that the truth and *all* sources have, so that
    their numbers can be compared.

    Raises
    ------
    GridMismatchError
        A source has another grid than the truth.
    MissingVariableError
        The first source has a variable without truth, or none in common.
    InputError
        No source, another calendar, other units, or no common day.
    """
    if not forecasts:
        raise InputError("There is no forecast to evaluate.")
    model = next(iter(forecasts.values()))
    names = _scored_variables(model, truth)
    reference = open_source("truth", truth, names)
    opened = []
    for name, dataset in forecasts.items():
        source = open_source(name, dataset, names)
        reference.grid.check_same(source.grid, file=source.file, role="forecast")
        _check_calendar(source, reference)
        _check_units(source, reference)
        opened.append(source)
    keys = _common_days(reference, opened)
    sources = [_restrict(source, keys) for source in (reference, *opened)]
    _check_truth(sources[0])
    return Aligned(
        truth=sources[0],
        sources=tuple(sources[1:]),
        targets=tuple(_target(reference.fields[name]) for name in names),
        days=sources[0].days.select(sources[0].index),
    )


def _scored_variables(model: xr.Dataset, truth: xr.Dataset) -> list[str]:
    names, known = data_variables(model), data_variables(truth)
    absent = [name for name in names if name not in known]
    if absent or not names:
        raise MissingVariableError(
            "The truth lacks a variable of the forecast."
            if names
            else "The forecast has no field to score.",
            file=_label("truth", truth) if names else _label("forecast", model),
            variable=", ".join(absent) or None,
            found=", ".join(known if names else names) or "no variable",
            expected=", ".join(names) or "at least one variable",
            remedy="name the variables alike in forecast and truth"
            if names
            else "give a file that st-cdgm downscale wrote",
        )
    return names


def open_source(name: str, dataset: xr.Dataset, variables: Sequence[str]) -> Source:
    """Check one data set and put its variables in the order (time, member, y, x)."""
    present = [variable for variable in variables if variable in dataset]
    file = _label(name, dataset)
    if not present:
        raise MissingVariableError(
            "A source has none of the scored variables.",
            file=file,
            found=", ".join(data_variables(dataset)),
            expected=", ".join(variables),
        )
    if len(present) < len(variables):
        missing = sorted(set(variables) - set(present))
        _LOGGER.warning("%s is not scored in %s: absent", name, ", ".join(missing))
    grid = read_grid(dataset, file=file, variable=present[0])
    time = time_name(dataset)
    days = day_keys(dataset[time], bounds=time_bounds(dataset, time), file=file)
    fields = {}
    for variable in present:
        field = to_canonical(dataset[variable], file=file, role="hr")
        if MEMBER not in field.dims:
            field = field.expand_dims(MEMBER)
        fields[variable] = field.transpose(time, MEMBER, grid.y_name, grid.x_name)
    index = np.arange(len(days))
    return Source(
        name=name, file=file, fields=fields, days=days, grid=grid, index=index
    )


def _label(name: str, dataset: xr.Dataset) -> str:
    """Return the file behind a data set, or its name."""
    return str(dataset.encoding.get("source", name))


def _check_truth(truth: Source) -> None:
    """Refuse a truth without any value on the scored days, before any score."""
    days = len(truth.index)
    for variable in truth.fields:
        probe = truth.read(variable, np.unique([0, days // 2, days - 1]))
        if np.isfinite(probe).any():
            continue
        blocks = (slice(start, start + 64) for start in range(0, days, 64))
        if not any(np.isfinite(truth.read(variable, b)).any() for b in blocks):
            raise InputError(
                "The truth has no values on the scored days.",
                file=truth.file,
                variable=variable,
                found="missing everywhere",
                expected="finite values on some cells",
                remedy="check fill value, mask and period of the truth file",
            )


def _check_calendar(source: Source, truth: Source) -> None:
    if source.days.calendar != truth.days.calendar:
        raise InputError(
            "A forecast has another calendar than the truth.",
            file=source.file,
            found=source.days.calendar,
            expected=truth.days.calendar,
            remedy="bring both to one calendar (xarray: ds.convert_calendar) first",
        )


def _check_units(source: Source, truth: Source) -> None:
    for name, field in source.fields.items():
        found = field.attrs.get("units")
        expected = truth.fields[name].attrs.get("units")
        if found != expected:
            raise InputError(
                "A forecast has other units than the truth.",
                file=source.file,
                variable=name,
                found=found,
                expected=expected,
            )


def _common_days(truth: Source, sources: Sequence[Source]) -> NDArray[np.int64]:
    keys = truth.days.day
    for source in sources:
        common = np.intersect1d(keys, source.days.day)
        if common.size == 0:
            raise InputError(
                "Forecast and truth have no day in common.",
                file=source.file,
                found=f"{source.name}: {source.days.period()}",
                expected=f"truth (and earlier sources): {truth.days.period()}",
                remedy="evaluate on a period that both cover",
            )
        if common.size < source.days.day.size:
            left = source.days.day.size - common.size
            _LOGGER.info("%d days of %s are not scored", left, source.name)
        keys = common
    return keys


def _restrict(source: Source, keys: NDArray[np.int64]) -> Source:
    index = np.flatnonzero(np.isin(source.days.day, keys))
    return Source(
        name=source.name,
        file=source.file,
        fields=source.fields,
        days=source.days,
        grid=source.grid,
        index=index,
    )


def _target(field: xr.DataArray) -> TargetVariable:
    attrs = field.attrs
    return TargetVariable(
        name=str(field.name),
        units=str(attrs.get("units", "1")),
        standard_name=attrs.get("standard_name"),
        long_name=attrs.get("long_name"),
        cell_methods=attrs.get("cell_methods"),
    )
