"""Forecasts and truth brought to the same days, cells and units before any score."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr

from st_cdgm.data.files.open import data_variables
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.evaluation.masks import check_rule, hide_unshared, shared_days, summary
from st_cdgm.evaluation.metrics.blocks import Pair
from st_cdgm.evaluation.source import Source, label, open_source

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """The truth and all sources on the same days.

    Attributes
    ----------
    truth : Source
        The reference, with one member; missing where a source is.
    sources : tuple of Source
        The model first, then the others.
    targets : tuple of TargetVariable
        Scored variables, with canonical units.
    days : CalendarDays
        The scored days.
    scored : dict
        What is scored and what is left out; see
        :func:`st_cdgm.evaluation.masks.summary`.
    """

    truth: Source
    sources: tuple[Source, ...]
    targets: tuple[TargetVariable, ...]
    days: CalendarDays
    scored: dict[str, Any] = field(default_factory=dict)

    def pair(self, source: Source, variable: str) -> Pair:
        """Return forecast and truth of one variable behind readers."""
        Y, X = self.truth.grid.shape
        return Pair(
            forecast=lambda days: source.read(variable, days),
            reference=lambda days: self.truth.read(variable, days)[:, 0],
            shape=(len(self.days), source.members, Y, X),
            weights=self.truth.grid.area_weights().astype(np.float64),
            name=f"{variable} of {source.name}",
            network=source.network,
        )


def align(
    forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset, *, mask: str = "common"
) -> Aligned:
    """Bring forecasts and truth to their common days and cells.

    Every source is scored on the days and cells that the truth and *all* sources have,
    so that their numbers can be compared.

    Parameters
    ----------
    forecasts : mapping of str to Dataset
        The model first.
    truth : Dataset
        What they are compared with. Rows and columns of the others are brought into its
        order.
    mask : {"common", "truth", "strict"}
        What happens where one has values and another has not; see
        :mod:`st_cdgm.evaluation.masks`.

    Raises
    ------
    GridMismatchError
        A source has another grid than the truth.
    MissingVariableError
        The first source has a variable without truth, or none in common.
    InputError
        No source, another calendar, other units, no common day, a truth that is an
        ensemble, or a gap that ``mask`` does not allow.
    """
    check_rule(mask)
    if not forecasts:
        raise InputError("There is no forecast to evaluate.")
    names = _scored_variables(next(iter(forecasts.values())), truth)
    reference = open_source("truth", truth, names)
    if reference.members != 1:
        raise InputError(
            "The truth is an ensemble.",
            file=reference.file,
            found=f"{reference.members} members",
            expected="one value per day and cell",
            remedy="select one member, or exchange prediction and truth",
        )

    opened = []
    for name, dataset in forecasts.items():
        source = open_source(name, dataset, names).on_grid(reference.grid)
        _check_like(source, reference)
        opened.append(source)

    # Days first: cells are compared on the scored days only.
    keys, days_left = shared_days(reference, opened, mask)
    reference, *sources = (
        replace(one, index=np.flatnonzero(np.isin(one.days.day, keys)))
        for one in (reference, *opened)
    )
    looked = {name: hide_unshared(reference, sources, name, mask) for name in names}
    hidden = {name: bits for name, (bits, _) in looked.items() if bits is not None}
    scored = summary(mask, len(keys), days_left, [left for _, left in looked.values()])
    _LOGGER.info("%s", scored["text"])
    return Aligned(
        truth=replace(reference, hidden=hidden),
        sources=tuple(sources),
        targets=tuple(_target(reference.fields[name]) for name in names),
        days=reference.days.select(reference.index),
        scored=scored,
    )


def _scored_variables(model: xr.Dataset, truth: xr.Dataset) -> list[str]:
    names, known = data_variables(model), data_variables(truth)
    absent = [name for name in names if name not in known]

    if absent or not names:
        raise MissingVariableError(
            "The truth lacks a variable of the forecast."
            if names
            else "The forecast has no field to score.",
            file=label("truth", truth) if names else label("forecast", model),
            variable=", ".join(absent) or None,
            found=", ".join(known if names else names) or "no variable",
            expected=", ".join(names) or "at least one variable",
            remedy="name the variables alike in forecast and truth"
            if names
            else "give a file that st-cdgm downscale wrote",
        )
    return names


def _check_like(source: Source, truth: Source) -> None:
    """Raise InputError for another calendar or other units than the truth's."""
    if source.days.calendar != truth.days.calendar:
        raise InputError(
            "A forecast has another calendar than the truth.",
            file=source.file,
            found=source.days.calendar,
            expected=truth.days.calendar,
            remedy="bring both to one calendar (xarray: ds.convert_calendar) first",
        )

    for name, values in source.fields.items():
        found = values.attrs.get("units")
        expected = truth.fields[name].attrs.get("units")
        if found != expected:
            raise InputError(
                "A forecast has other units than the truth.",
                file=source.file,
                variable=name,
                found=found,
                expected=expected,
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
