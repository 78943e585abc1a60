"""What is usual on the scored days; anomalies and their size are taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from st_cdgm.errors import InputError
from st_cdgm.evaluation.alignment import Aligned
from st_cdgm.evaluation.metrics.blocks import Pair, Reader
from st_cdgm.evaluation.source import Source, open_source
from st_cdgm.typing import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Climate:
    """What is usual for one variable.

    Attributes
    ----------
    normal : callable
        From a slice of the scored days to fields ``(t, Y, X)`` or one field ``(Y, X)``.
    size : float
        Root mean square departure of the truth from it, over days and cells by their
        areas; 1 where the truth never departs.
    """

    normal: Reader
    size: float


def climates(aligned: Aligned, climatology: xr.Dataset | None) -> dict[str, Climate]:
    """Return what is usual for every scored variable.

    Parameters
    ----------
    aligned : Aligned
        The truth on the scored days.
    climatology : Dataset, optional
        Variables (time, y, x) on all scored days, learned on the training days. For a
        variable that it lacks, the mean of the truth over the scored days is usual.

    Raises
    ------
    GridMismatchError
        The climatology has another grid than the truth.
    InputError
        It has no value on a day and cell that is scored.
    """
    names = [target.name for target in aligned.targets]
    source = (
        None if climatology is None else _on_scored_days(aligned, climatology, names)
    )
    found = {}
    for name in names:
        pair = aligned.pair(aligned.truth, name)
        normal = _time_mean(pair)
        if source is not None and name in source.fields:
            normal = _reader(source, name)
        found[name] = Climate(normal=normal, size=_size(pair, normal, name))
    return found


def _on_scored_days(
    aligned: Aligned, climatology: xr.Dataset, names: Sequence[str]
) -> Source:
    """Open the climatology with the cells of the truth, on the scored days."""
    source = open_source("climatology", climatology, names)
    source = source.on_grid(aligned.truth.grid, role="climatology")
    index = np.searchsorted(source.days.key, aligned.days.key)
    known = np.append(source.days.key, -1)[index] == aligned.days.key

    if not known.all():
        raise InputError(
            "The climatology lacks a scored day.",
            file=source.file,
            found=source.days.period(),
            expected=f"all days of {aligned.days.period()}",
        )
    return replace(source, index=index)


def _reader(source: Source, name: str) -> Reader:
    return lambda days: source.read(name, days)[:, 0]


def _time_mean(pair: Pair) -> Reader:
    """Return the mean of the truth over its days, NaN where it has none."""
    total, number = np.zeros((2, *pair.shape[2:]))
    for days in pair.slices():
        truth = pair.reference(days)
        counted = pair.counted(days, truth)
        total += np.where(counted, truth, 0).sum(axis=0, dtype=np.float64)
        number += counted.sum(axis=0)
    mean: Floats = np.where(number > 0, total / np.where(number > 0, number, 1), np.nan)
    return lambda _: mean


def _size(pair: Pair, normal: Reader, name: str) -> float:
    """Return the root mean square departure of the truth from what is usual."""
    square = weight = 0.0
    for days in pair.slices():
        truth = pair.reference(days).astype(np.float64)
        counted = pair.counted(days, truth)
        w = np.where(counted, pair.weights, 0.0)
        square += float((w * np.where(counted, truth - normal(days), 0) ** 2).sum())
        weight += float(w.sum())

    if np.isnan(square):
        raise InputError(
            "The climatology has no value where the truth has one.",
            variable=name,
            expected="a value on every scored day and cell",
        )
    return float(np.sqrt(square / weight)) if square > 0 else 1.0
