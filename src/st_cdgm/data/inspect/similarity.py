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
    """Average fine values ``(T, P)`` over the coarse cells they lie in, to ``(T, N)``.

    ``cell`` is the coarse cell of each fine one, shape ``(P,)``, N their number. NaN
    where less than a share ``least`` of a cell's fine values is known.
    """
    finite = np.isfinite(values)
    place = (cell, np.arange(len(cell)))
    gather = csr_array((np.ones(len(cell)), place), shape=(cells, len(cell)))
    total = (gather @ np.where(finite, values, 0.0).T).T  # (T, N)
    count = (gather @ finite.T.astype(np.float64)).T
    inside = np.bincount(cell, minlength=cells)
    enough = (count > 0) & (count >= least * inside)
    return np.where(enough, total / np.maximum(count, 1.0), np.nan)


def finite_mean(values: Floats, axis: int) -> Floats:
    """Mean of the finite values, NaN where there are none."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count, total / np.maximum(count, 1), np.nan), np.float64)


def anomalies(values: Floats, season: NDArray[Any], ordinal: Indices) -> Floats:
    """Subtract annual harmonics, or the mean from records shorter than 300 days.

    Values of shape ``(T, P)``, NaN where missing; fractions of the year and day numbers
    of shape ``(T,)``.
    """
    centred = values - finite_mean(values, axis=0)
    if not len(ordinal) or np.ptp(ordinal) < YEAR:
        return np.asarray(centred, np.float64)

    sums = HarmonicSums(values.shape[1])
    sums.add(season.astype(np.float32), centred.astype(np.float32))
    fitted = from_harmonics(sums.solve(FEWEST_PAIRS).astype(np.float32), season)
    return np.asarray(centred - fitted, np.float64)


def lag_correlations(fine: Floats, coarse: Floats, index: Indices) -> Floats:
    """Correlation of two series of anomalies for every lag. Shape ``(L,)``.

    Shapes ``(T,)`` and ``(S,)``; ``index`` is the coarse step of each day and lag, -1
    where there is none, shape ``(T, L)``. NaN where fewer than 20 days are shared.
    """
    return np.array(
        [_correlation(fine[s >= 0], coarse[s[s >= 0]]) for s in index.T], np.float64
    )


def _correlation(a: Floats, b: Floats) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < FEWEST_PAIRS:
        return float("nan")
    return _cosine(a[both] - a[both].mean(), b[both] - b[both].mean())


def _cosine(a: Floats, b: Floats) -> float:
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / norm) if norm > 0.0 else float("nan")


def pattern_correlation(fine: Floats, coarse: Floats) -> float:
    """Correlation over days and cells of anomalies without their mean of the day.

    Of the same days and cells, NaN where missing. Shapes ``(T, N)``.
    """
    both = np.isfinite(fine) & np.isfinite(coarse)
    days = both.sum(axis=1) >= 3
    if not days.any():
        return float("nan")
    shared = (np.where(both, field, np.nan)[days] for field in (fine, coarse))
    parts = (field - finite_mean(field, axis=1)[:, None] for field in shared)
    return _cosine(*(np.nan_to_num(part) for part in parts))


def layouts(fields: Floats) -> Iterator[tuple[str, Floats]]:
    """Ways in which the values of a grid may have been meant; the first: as given.

    Yields what was done to the values, as an expression to mend them, and the values so
    arranged, NaN where shifted in. Shapes ``(T, y, x)``.
    """
    _, rows, columns = fields.shape
    yield "as given", fields
    yield "latitudes turned: values[..., ::-1, :]", fields[:, ::-1]
    yield "longitudes turned: values[..., :, ::-1]", fields[:, :, ::-1]
    yield "both axes turned: values[..., ::-1, ::-1]", fields[:, ::-1, ::-1]

    # Latitude and longitude exchanged in memory; a square shows that in one way only.
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
