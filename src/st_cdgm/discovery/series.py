"""Gridded records made ready for the search of lagged links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from st_cdgm.discovery.anomalies import (
    inner_cells,
    patches,
    remove_harmonics,
    standardise,
    whitening,
)
from st_cdgm.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """Fields of several variables on one grid, day by day.

    Attributes
    ----------
    fields : mapping of str to ndarray
        One entry per intelligible variable, any units, finite. Shape ``(T, C, y, x)``;
        C may differ.
    year, season : ndarray
        Year, and elapsed fraction of it in [0, 1), of each day. Shape ``(T,)``.
    ordinal : ndarray, optional
        Number of each day, so that a gap shows; consecutive days when absent.
        Shape ``(T,)``, int64.
    """

    fields: Mapping[str, NDArray[np.floating]]
    year: NDArray[np.int64]
    season: NDArray[np.floating]
    ordinal: NDArray[np.int64] | None = None

    def check(self) -> None:
        """Raise InputError unless the fields fit together and are finite."""
        shapes = {name: np.shape(field) for name, field in self.fields.items()}
        grids = {(s[0], *s[2:]) for s in shapes.values() if len(s) == 4}
        flat = any(len(s) != 4 for s in shapes.values())
        if len(shapes) < 2 or len(grids) != 1 or flat:
            raise InputError(
                "links are sought between two or more variables on one grid",
                found=", ".join(f"{n} {s}" for n, s in shapes.items()),
                expected="(T, C, y, x), equal but for C",
            )

        # A state is learned of a cell and its eight neighbours.
        days, *grid = next(iter(grids))
        if min(grid) < 3:
            raise InputError(
                "links need cells with all eight neighbours",
                found=tuple(grid),
                expected="a grid of at least 3 x 3",
            )

        # The calendar, and values that can be learned of.
        ordinal = self.year if self.ordinal is None else self.ordinal
        years, seasons, numbers = len(self.year), len(self.season), len(ordinal)
        if {years, seasons, numbers} != {days}:
            raise InputError(
                "the calendar does not fit the fields",
                found=f"{years} years, {seasons} seasons, {numbers} numbers",
                expected=f"{days} each",
            )

        for name, field in self.fields.items():
            if missing := int((~np.isfinite(field)).sum()):
                raise InputError(
                    "a field of the record has missing values",
                    variable=name,
                    found=f"{missing} values",
                    expected="none",
                    remedy="fill or leave out the cells",
                )


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalSeries:
    """Drivers and targets of a causal network, anomalies without units.

    Attributes
    ----------
    names : tuple of str
        Q variables.
    shape : tuple of int
        Grid.
    drivers : Tensor
        Whitened 3 x 3 neighbourhood of each variable's own channels, filled up with
        zeros to a common width. Shape ``(T, Q, N, D)``.
    widths : tuple of int
        Features of each variable that are no filling.
    targets : Tensor
        Standardised anomalies on the inner cells. Shape ``(T, Q, n, R)``.
    mask : Tensor
        1 for a variable's channels, 0 for filling. Shape ``(Q, R)``.
    cells : Tensor
        Flat index of the n inner cells. int64.
    train : ndarray of bool
        Days to learn from; the others judge. Shape ``(T,)``.
    year, season, ordinal : ndarray
        Calendar. Shape ``(T,)``.
    """

    names: tuple[str, ...]
    shape: tuple[int, int]
    drivers: Tensor
    widths: tuple[int, ...]
    targets: Tensor
    mask: Tensor
    cells: Tensor
    train: NDArray[np.bool_]
    year: NDArray[np.int64]
    season: NDArray[np.floating]
    ordinal: NDArray[np.int64]

    def training_ends(self, length: int) -> NDArray[np.int64]:
        """Return the ends of windows that hold training days alone."""
        ends = window_ends(self.ordinal, length)
        inside = np.convolve(self.train, np.ones(length, int))[: len(ends)] == length
        return np.flatnonzero(ends & inside)


def window_ends(ordinal: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """Mark the days that end ``length`` consecutive days. Shape ``(T,)``."""
    ends = np.zeros(len(ordinal), dtype=bool)
    span = ordinal[length - 1 :] - ordinal[: len(ends) - length + 1]
    ends[length - 1 :] = span == length - 1
    return ends


def prepare_series(
    record: Record, train: NDArray[np.bool_], *, harmonics: int = 3
) -> CausalSeries:
    """Remove the season, standardise and whiten, with training days alone.

    Parameters
    ----------
    record : Record
        Fields and calendar.
    train : ndarray of bool
        Training days. Shape ``(T,)``.
    harmonics : int
        Annual harmonics removed; 0 removes the mean alone.

    Raises
    ------
    InputError
        The record does not fit together.
    """
    record.check()
    names = tuple(record.fields)
    seasonless = (
        remove_harmonics(field, record.season, train, harmonics=harmonics)
        for field in record.fields.values()
    )
    anomalies = [standardise(field, train) for field in seasonless]

    days, _, rows, columns = anomalies[0].shape
    nodes, most = rows * columns, max(field.shape[1] for field in anomalies)
    cells = inner_cells((rows, columns))
    drivers = np.zeros((days, len(names), nodes, 9 * most), np.float32)
    targets = np.zeros((days, len(names), len(cells), most), np.float32)
    mask = np.zeros((len(names), most), np.float32)

    # Whitening: the size of a weight then says something about the size of its effect.
    for k, field in enumerate(anomalies):
        patch, c = patches(field), field.shape[1]
        mean, matrix = whitening(patch[train])
        drivers[:, k, :, : 9 * c] = (patch - mean) @ matrix
        flat = field.reshape(days, c, nodes)[:, :, cells]
        targets[:, k, :, :c] = flat.transpose(0, 2, 1)
        mask[k, :c] = 1.0

    ordinal = np.arange(days) if record.ordinal is None else record.ordinal
    return CausalSeries(
        names=names,
        shape=(rows, columns),
        drivers=torch.from_numpy(drivers),
        widths=tuple(9 * field.shape[1] for field in anomalies),
        targets=torch.from_numpy(targets),
        mask=torch.from_numpy(mask),
        cells=torch.from_numpy(cells),
        train=np.asarray(train, bool),
        year=np.asarray(record.year, np.int64),
        season=np.asarray(record.season),
        ordinal=np.asarray(ordinal, np.int64),
    )
