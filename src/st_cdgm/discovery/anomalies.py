"""Anomalies for the search of lagged links: seasons removed, scales made equal.

A common annual cycle makes every series predict every other one, so it has to go before
anything is said about links.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.harmonics import annual_harmonics
from st_cdgm.errors import InputError

Floats = NDArray[np.floating]


def remove_harmonics(
    fields: Floats,
    season: Floats,
    train: NDArray[np.bool_] | None = None,
    *,
    harmonics: int = 3,
) -> NDArray[np.float32]:
    """Subtract mean and annual harmonics, cell by cell.

    Parameters
    ----------
    fields : ndarray
        Any units, finite. Shape ``(T, ...)``.
    season : ndarray
        Fraction of the year elapsed. Shape ``(T,)``.
    train : ndarray of bool, optional
        Days the harmonics are fitted on (least squares); all when absent.
    harmonics : int
        3 removes the cycles of 12, 6 and 4 months; 0 the mean alone.

    Returns
    -------
    ndarray
        Anomalies in the same units. Shape ``(T, ...)``.

    Raises
    ------
    InputError
        The days do not match, or there are too few to fit.
    """
    if len(season) != len(fields) or (train is not None and len(train) != len(fields)):
        raise InputError(
            "season, training days and fields have different lengths",
            found=f"{len(season)} and {len(fields)} days",
            expected="one season and one mark per day",
        )

    design = annual_harmonics(season, harmonics)
    chosen = np.ones(len(fields), bool) if train is None else np.asarray(train, bool)
    if chosen.sum() < 2 * design.shape[1]:
        raise InputError(
            "too few training days for the annual harmonics",
            found=int(chosen.sum()),
            expected=f">= {2 * design.shape[1]}",
        )

    flat = np.asarray(fields, np.float64).reshape(len(fields), -1)
    weights = np.linalg.lstsq(design[chosen], flat[chosen], rcond=None)[0]
    anomalies = flat - design @ weights
    return np.asarray(anomalies.reshape(fields.shape), np.float32)


def standardise(
    fields: Floats, train: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Divide anomalies ``(T, C, y, x)`` by their standard deviation over days, cells.

    That of the training days, or of all. A constant channel stays as it is.
    """
    chosen = fields if train is None else fields[train]
    scale = chosen.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)[0]
    scaled = fields / np.where(scale > 0, scale, 1.0)
    return np.asarray(scaled, np.float32)


def inner_cells(shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat indices of the cells that have all eight neighbours."""
    index = np.arange(shape[0] * shape[1]).reshape(shape)
    return index[1:-1, 1:-1].ravel()


def patches(fields: Floats, radius: int = 1) -> NDArray[np.float32]:
    """Return the neighbourhood of every cell of ``(T, C, y, x)``, 3 x 3 by default.

    The border is continued outwards by its own values. With a side of n = 2 radius + 1,
    the channels of the n^2 cells follow each other row by row: ``(T, y * x, n^2 * C)``.
    """
    t, c, y, x = fields.shape
    side, edge = range(2 * radius + 1), (radius, radius)
    wide = np.pad(fields, ((0, 0), (0, 0), edge, edge), mode="edge")
    shifted = [wide[:, :, i : i + y, j : j + x] for i in side for j in side]
    stacked = np.stack(shifted, axis=1)  # (T, n^2, C, y, x)
    nodes = stacked.reshape(t, len(shifted) * c, y * x).transpose(0, 2, 1)
    return np.ascontiguousarray(nodes, dtype=np.float32)
