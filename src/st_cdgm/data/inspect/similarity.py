"""Whether two records show the same weather, on the same days, at the same places.

Correlations of anomalies between a coarse field and a fine one averaged over the coarse
cells, for time lags and for ways in which the coarse values may be misplaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from st_cdgm.data.fit.harmonics import HarmonicSums, from_harmonics
from st_cdgm.typing import Floats, Indices

LAGS = tuple(range(-5, 6))  # days
SHIFTS = (-2, -1, 0, 1, 2)  # cells
FEWEST_PAIRS = 20
YEAR = 300  # days from which an annual cycle can be told from weather


def block_means(
    values: NDArray[Any], cell: Indices, cells: int, *, least: float = 0.25
) -> Floats:
    """Average fine values over the coarse cells they lie in.

    Parameters
    ----------
    values : ndarray
        NaN where missing. Shape ``(T, P)``, P fine cells.
    cell : ndarray
        Coarse cell of each fine one. Shape ``(P,)``.
    cells : int
        Number of coarse cells N.
    least : float
        Share of its fine cells that a coarse cell needs to have values.

    Returns
    -------
    ndarray
        Shape ``(T, N)``, NaN where too little is known.
    """
    finite = np.isfinite(values)
    place = (cell, np.arange(len(cell)))
    gather = csr_array((np.ones(len(cell)), place), shape=(cells, len(cell)))
    total = (gather @ np.where(finite, values, 0.0).T).T  # (T, N)
    count = (gather @ finite.T.astype(np.float64)).T
    inside = np.bincount(cell, minlength=cells)
    enough = (count > 0) & (count >= least * inside)
    return np.where(enough, total / np.maximum(count, 1.0), np.nan)


def anomalies(values: Floats, season: NDArray[Any], ordinal: Indices) -> Floats:
    """Subtract annual harmonics, or the mean from records shorter than 300 days.

    Parameters
    ----------
    values : ndarray
        NaN where missing. Shape ``(T, P)``.
    season : ndarray
        Fraction of the year elapsed. Shape ``(T,)``.
    ordinal : ndarray
        Day numbers. Shape ``(T,)``.
    """
    with np.errstate(invalid="ignore"):
        known = np.isfinite(values)
        count = known.sum(axis=0)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.where(count, count, np.nan)
    centred = values - mean
    if not len(ordinal) or np.ptp(ordinal) < YEAR:
        return np.asarray(centred, np.float64)
    sums = HarmonicSums(values.shape[1])
    sums.add(season.astype(np.float32), centred.astype(np.float32))
    fitted = from_harmonics(sums.solve(FEWEST_PAIRS).astype(np.float32), season)
    return np.asarray(centred - fitted, np.float64)


def lag_correlations(fine: Floats, coarse: Floats, index: Indices) -> Floats:
    """Correlation of two series for every lag.

    Parameters
    ----------
    fine : ndarray
        Anomalies. Shape ``(T,)``.
    coarse : ndarray
        Anomalies of the coarse record. Shape ``(S,)``.
    index : ndarray
        Step of ``coarse`` for each day and lag, -1 where there is none. Shape
        ``(T, L)``.

    Returns
    -------
    ndarray
        NaN where fewer than 20 days are shared. Shape ``(L,)``.
    """
    out = np.full(index.shape[1], np.nan)
    for k, steps in enumerate(index.T):
        out[k] = _correlation(fine[steps >= 0], coarse[steps[steps >= 0]])
    return out


def _correlation(a: Floats, b: Floats) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < FEWEST_PAIRS:
        return float("nan")
    a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm > 0.0 else float("nan")


def pattern_correlation(fine: Floats, coarse: Floats) -> float:
    """Correlation over days and cells of anomalies without their mean of the day.

    Parameters
    ----------
    fine, coarse : ndarray
        Anomalies of the same days and cells, NaN where missing. Shape ``(T, N)``.
    """
    both = np.isfinite(fine) & np.isfinite(coarse)
    known = both.sum(axis=1, keepdims=True)
    days = known[:, 0] >= 3
    if not days.any():
        return float("nan")
    parts = []
    for field in (fine, coarse):
        filled = np.where(both, field, 0.0)[days]
        mean = filled.sum(axis=1, keepdims=True) / known[days]
        parts.append(np.where(both[days], filled - mean, 0.0))
    norm = float(np.sqrt((parts[0] ** 2).sum() * (parts[1] ** 2).sum()))
    return float((parts[0] * parts[1]).sum() / norm) if norm > 0.0 else float("nan")


def layouts(fields: Floats) -> Iterator[tuple[str, Floats]]:
    """Ways in which the values of a grid may have been meant; the first: as given.

    Parameters
    ----------
    fields : ndarray
        Shape ``(T, y, x)``.

    Yields
    ------
    str
        What was done to the values, as an expression to mend them.
    ndarray
        The values so arranged, NaN where shifted in. Shape ``(T, y, x)``.
    """
    _, rows, columns = fields.shape
    yield "as given", fields
    yield "latitudes turned: values[..., ::-1, :]", fields[:, ::-1]
    yield "longitudes turned: values[..., :, ::-1]", fields[:, :, ::-1]
    yield "both axes turned: values[..., ::-1, ::-1]", fields[:, ::-1, ::-1]
    if rows != columns:
        yield (
            f"axes exchanged: values.reshape(-1, {columns}, {rows}).swapaxes(1, 2)",
            fields.reshape(-1, columns, rows).swapaxes(1, 2),
        )
        yield (
            f"axes exchanged: values.swapaxes(1, 2).reshape(-1, {rows}, {columns})",
            fields.swapaxes(1, 2).reshape(-1, rows, columns),
        )
    else:
        yield "axes exchanged: values.swapaxes(-1, -2)", fields.swapaxes(1, 2)
    if columns > 3:
        half = columns // 2
        yield (
            f"longitudes moved by half the grid: numpy.roll(values, {half}, axis=-1)",
            np.roll(fields, half, axis=2),
        )
    for up in SHIFTS:
        for right in SHIFTS:
            if (up, right) != (0, 0) and abs(up) < rows and abs(right) < columns:
                yield f"moved by ({up}, {right}) cells", _moved(fields, up, right)


def _moved(fields: Floats, up: int, right: int) -> Floats:
    moved = np.roll(fields, (up, right), axis=(1, 2))
    if up:
        moved[:, slice(up) if up > 0 else slice(up, None)] = np.nan
    if right:
        moved[:, :, slice(right) if right > 0 else slice(right, None)] = np.nan
    return moved
