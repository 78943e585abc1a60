"""Whether values are where their coordinates say, judged from the values alone.

Weather has neighbours that resemble each other. A file whose values were written in
another order than its coordinates passes every check of metadata; here it does not.
Only neighbours that both have values are compared; where there are too few of them, or
cells so large that neighbours need not be alike, no verdict is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from st_cdgm.typing import Floats

Order = Literal["swapped axes", "scattered", "displaced", "broken"]
SMALLEST = 5  # rows and columns from which the measures say something
ENOUGH_STEPS = 20  # from which correlations in time are worth something
FEWEST_CELLS, MOST_CELLS = 20, 3000
FEWEST_LINES = 10
FEWEST_PAIRS = 40  # pairs of neighbours with values; 5 x 5 cells have as many
# Neighbours this far apart need not be alike, unless the region is a large one.
COARSE_DEG, COARSE_CELLS = 5.0, 150
# A distant cell must resemble a cell clearly more than all neighbours do.
MARGIN = 0.005
# Lines this many times as far apart as the nearest, or this near, are neighbours.
NEARLY, SIMILAR = 1.5, 0.05
STRUCTURE = 0.5  # correlation of neighbours below which nothing can be said
# Limits, between what sound and scrambled files show.
SHUFFLED, SHUFFLED_ANY = 0.5, 0.85  # roughness of a smooth and of any quantity
MISPLACED, MISPLACED_ANY, MISPLACED_CELLS = 0.01, 0.04, 3
FAR, FAR_ANY = 0.03, 0.12
NOISY = 0.35  # roughness from which chance decides which cells are most alike
ADJACENT = 0.7
SEAM = 50.0
GAIN, GAINED_ROUGHNESS = 1.3, 0.6


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """How the values of a field lie on its grid; None where it cannot be told.

    Attributes
    ----------
    roughness : float or None
        See :func:`roughness`.
    misplaced : float or None
        Share of cells that some distant cell resembles more than any neighbour does,
        by the rank correlation of their values in time. 0 for smooth quantities in
        sound files, up to 0.013 for others.
    far : float or None
        Share of cells that some cell more than two cells away resembles more than any
        at two. 0 for smooth quantities in sound files, up to 0.056 for others.
    adjacent : float or None
        Share of rows, or of columns if smaller, that no other row resembles more than
        the next one does. 0.92 to 1 in sound files.
    seam : float or None
        Largest mean squared step between two rows or columns over the median one.
    swap_gain : float or None
        How many times smoother the field gets by exchanging latitude and longitude in
        memory, the shape kept. Below 1 in sound files.
    swapped : str or None
        The better way of exchanging them, as an expression for a single field.
    unsure : str or None
        Why the order cannot be judged by these measures; None where it can.
    """

    roughness: float | None
    misplaced: float | None = None
    far: float | None = None
    adjacent: float | None = None
    seam: float | None = None
    swap_gain: float | None = None
    swapped: str | None = None
    unsure: str | None = None

    def verdict(self, *, smooth: bool) -> Order | None:
        """Return what is wrong with the order, None if nothing is known to be.

        None also where the measures are :attr:`unsure`.

        A quantity known to be ``smooth``, as temperature, pressure and geopotential,
        is judged with less indulgence.
        """
        if self.unsure is not None:
            return None
        if _above(self.swap_gain, GAIN):
            return "swapped axes"
        if _above(self.roughness, SHUFFLED if smooth else SHUFFLED_ANY):
            return "scattered"
        clear = smooth and not _above(self.roughness, NOISY)
        if (
            _above(self.misplaced, MISPLACED if smooth else MISPLACED_ANY)
            or _above(self.far, FAR if clear else FAR_ANY)
            or (self.adjacent is not None and self.adjacent < ADJACENT)
        ):
            return "displaced"
        return "broken" if smooth and _above(self.seam, SEAM) else None


def _above(value: float | None, limit: float) -> bool:
    return value is not None and value > limit


def roughness(field: NDArray[Any]) -> float | None:
    """Half the mean squared difference of neighbours over the variance.

    Near 0 for a smooth field, near 1 for values in random order. A file whose values
    were shuffled under correct coordinates passes every other check. Leading entries of
    a field ``(..., Y, X)`` are averaged. None for a constant field or fewer than five
    rows or columns.
    """
    planes = field.reshape(-1, *field.shape[-2:]).astype(np.float64)
    ratios = []
    if min(field.shape[-2:]) < SMALLEST:
        return None

    for plane in planes:
        steps = [np.diff(plane, axis=axis).ravel() for axis in (0, 1)]
        squares = np.concatenate(steps) ** 2
        squares = squares[np.isfinite(squares)]
        known = plane[np.isfinite(plane)]
        variance = float(known.var()) if known.size else 0.0
        if squares.size and variance > 0.0:
            ratios.append(0.5 * float(squares.mean()) / variance)

    return float(np.mean(ratios)) if ratios else None


def arrangement(
    planes: NDArray[Any], *, cell_width: float | None = None
) -> Arrangement:
    """Measure how the values lie on the grid.

    ``planes`` are steps or levels of one field, NaN where missing, shape ``(T, Y, X)``.
    With 20 steps or more of a grid of up to 3000 cells, cells are compared through
    their anomalies in time; else rows and columns through their values. Where
    ``cell_width``, degrees, is known, a few very wide cells are not judged.
    """
    rough = roughness(planes)
    if rough is None:
        return Arrangement(roughness=None)

    fields = _scaled(planes)
    gain, swapped = _swap_gain(fields)
    misplaced, far = _best_matches(fields)
    adjacent = seam = None
    if misplaced is None:
        adjacent, seam = _adjacent_lines(fields), _seam(fields)

    return Arrangement(
        roughness=rough,
        misplaced=misplaced,
        far=far,
        adjacent=adjacent,
        seam=seam,
        swap_gain=gain,
        swapped=swapped,
        unsure=_unsure(fields, cell_width),
    )


def _unsure(fields: Floats, cell_width: float | None) -> str | None:
    """Return why chance or the size of the cells decides here, None if it does not."""
    known = np.isfinite(fields)
    pairs = max(
        int((plane[1:] & plane[:-1]).sum() + (plane[:, 1:] & plane[:, :-1]).sum())
        for plane in known
    )
    if pairs < FEWEST_PAIRS:
        return f"only {pairs} pairs of neighbouring cells have values"

    cells = int(known.any(axis=0).sum())
    if cell_width is not None and cell_width > COARSE_DEG and cells < COARSE_CELLS:
        return (
            f"{cells} cells of {cell_width:.3g} degrees are so few and so wide that "
            "neighbours need not be alike"
        )
    return None


def _scaled(planes: NDArray[Any]) -> Floats:
    """Finite values around 0 with deviation 1; also garbage of 1e38 stays finite."""
    fields = planes.astype(np.float64)
    fields = np.where(np.isfinite(fields), fields, np.nan)
    largest = np.nanmax(np.abs(fields))
    fields = fields / largest if largest > 0 else fields
    deviation = np.nanstd(fields)
    return (fields - np.nanmean(fields)) / (deviation or 1.0)


# -- Latitude and longitude exchanged --------------------------------------------------


def _swap_gain(fields: Floats) -> tuple[float | None, str | None]:
    """Compare the field as it is with both ways of exchanging the axes in memory."""
    count, rows, columns = fields.shape
    if rows == columns:
        return None, None  # a transposed square is as smooth as before

    ways = {
        f"values.reshape({columns}, {rows}).T": (
            fields.reshape(count, columns, rows).swapaxes(1, 2)
        ),
        f"values.T.reshape({rows}, {columns})": (
            fields.swapaxes(1, 2).reshape(count, rows, columns)
        ),
    }
    given = _mean_step(fields)
    steps = {way: _mean_step(turned) for way, turned in ways.items()}
    best = min(steps, key=lambda way: steps[way])
    if given == 0.0 or not steps[best] > 0.0:
        return None, None
    gain = given / steps[best]
    believable = 0.5 * steps[best] / float(np.nanvar(fields)) < GAINED_ROUGHNESS
    return (gain if believable else min(gain, 1.0)), best


def _mean_step(fields: Floats) -> float:
    squares = [np.diff(fields, axis=axis).ravel() ** 2 for axis in (1, 2)]
    return float(np.nanmean(np.concatenate(squares)))


# -- Cells through time ----------------------------------------------------------------


def _best_matches(fields: Floats) -> tuple[float | None, float | None]:
    """Shares of cells that resemble a distant cell most: ``misplaced`` and ``far``."""
    count, _, columns = fields.shape
    series = fields.reshape(count, -1)
    index = np.flatnonzero(np.isfinite(series).all(axis=0))
    if count < ENOUGH_STEPS or not FEWEST_CELLS <= len(index) <= MOST_CELLS:
        return None, None
    # By ranks: one common thunderstorm must not make two cells alike.
    anomalies = np.asarray(rankdata(series[:, index], axis=0)) - 0.5 * (count + 1)
    norm = np.sqrt((anomalies**2).sum(axis=0))
    varying = norm > 1e-9 * np.sqrt(count)
    index, anomalies = index[varying], anomalies[:, varying] / norm[varying]
    if len(index) < FEWEST_CELLS:
        return None, None

    alike = anomalies.T @ anomalies  # (cells, cells)
    apart = _cells_apart(index, columns)
    best = {
        name: np.where(here, alike, -np.inf).max(axis=1)
        for name, here in (
            ("beside", apart == 1),
            ("second", apart == 2),
            ("beyond", apart >= 2),
            ("far", apart > 2),
        )
    }

    # An island has nothing to compare with.
    placed = np.isfinite(best["beside"]) & np.isfinite(best["second"])
    if placed.sum() < FEWEST_CELLS:
        return None, None
    if float(np.median(np.maximum(best["beside"], best["beyond"]))) < STRUCTURE:
        return None, None

    # Few independent steps make distant cells alike by chance.
    steps = _independent(anomalies)
    chance = (np.sqrt(2.0 * np.log(len(index))) + 1.0) / np.sqrt(steps)
    if chance >= 1.0:
        return None, None
    lost = placed & _clearly_above(best["beyond"], best["beside"], count)
    lost &= best["beyond"] > chance
    misplaced = float(lost[placed].mean()) if lost.sum() >= MISPLACED_CELLS else 0.0
    far = placed & _clearly_above(best["far"], best["second"], count)
    far &= best["far"] > chance
    return misplaced, float(far[placed].mean())


def _independent(anomalies: Floats) -> float:
    """Return the number of independent steps, of unit anomalies ``(T, cells)``.

    Soil keeps its water for weeks: many steps in a row count as few (Bayley and
    Hammersley 1946, doi:10.2307/2983560, for a first-order process).
    """
    lagged = float(np.median((anomalies[1:] * anomalies[:-1]).sum(axis=0)))
    kept = min(max(lagged, 0.0), 0.99)
    return len(anomalies) * (1.0 - kept) / (1.0 + kept)


def _clearly_above(one: Floats, other: Floats, steps: int) -> NDArray[np.bool_]:
    """Whether correlations differ by more than a standard error."""
    known = np.where(np.isfinite(other), other, 0.0)
    error = (1.0 - known**2) / np.sqrt(steps)
    return np.asarray(one > known + MARGIN + error, np.bool_)


def _cells_apart(index: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Rows or columns between cells, the larger; columns as if on a circle."""
    row, column = np.divmod(index, columns)
    down = np.abs(row[:, None] - row)
    across = np.abs(column[:, None] - column)
    return np.asarray(np.maximum(down, np.minimum(across, columns - across)), np.int64)


# -- Rows and columns ------------------------------------------------------------------


def _adjacent_lines(fields: Floats) -> float | None:
    """Share of lines most similar to the next line, the smaller of rows and columns."""
    shares = [_adjacent(np.moveaxis(fields, axis, 0)) for axis in (1, 2)]
    known = [share for share in shares if share is not None]
    return min(known) if known else None


def _adjacent(lines: Floats) -> float | None:
    flat = lines.reshape(len(lines), -1)
    finite = np.isfinite(flat)
    filled = np.where(finite, flat, 0.0)
    mask = finite.astype(np.float64)
    shared = mask @ mask.T
    square = (filled**2) @ mask.T
    apart = (square + square.T - 2.0 * filled @ filled.T) / np.maximum(shared, 1.0)

    np.fill_diagonal(shared, 0.0)
    apart[shared < 0.2 * flat.shape[1]] = np.inf
    usable = np.isfinite(apart).sum(axis=1) >= FEWEST_LINES
    if usable.sum() < FEWEST_LINES:
        return None

    nearest, at = apart.min(axis=1), apart.argmin(axis=1)
    beside = np.minimum(
        *(np.diagonal(np.roll(apart, shift, axis=1)) for shift in (1, -1))
    )
    typical = float(apart[usable][np.isfinite(apart[usable])].mean())
    # By chance or symmetry a distant line may be a little nearer; the fewer cells with
    # values the two share, the more so.
    share = shared[np.arange(len(at)), at] / flat.shape[1]
    nearly = NEARLY ** (1.0 / np.maximum(share, 0.1))
    at_home = beside <= np.maximum(nearly * nearest, SIMILAR * typical)
    if float(nearest[usable].mean()) > STRUCTURE * typical:
        return None  # lines are unlike wherever they are: nothing can be said
    return float(at_home[usable].mean())


def _seam(fields: Floats) -> float | None:
    """Largest mean squared step between lines over the median one."""
    if not np.isfinite(fields).all():
        return None
    ratios = []
    for axis in (1, 2):
        steps = (np.diff(fields, axis=axis) ** 2).mean(axis=(0, 3 - axis))
        median = float(np.median(steps))
        if len(steps) >= FEWEST_LINES and median > 0.0:
            ratios.append(float(steps.max()) / median)
    return max(ratios) if ratios else None
