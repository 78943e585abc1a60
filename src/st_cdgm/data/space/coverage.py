"""How much of one grid another covers, and what is missing on which side."""

from __future__ import annotations

import numpy as np

from st_cdgm.data.space.cells import cell_edges
from st_cdgm.data.space.grid import SAME_DEG, Grid
from st_cdgm.data.space.sphere import is_global, wrap_near
from st_cdgm.typing import Floats


def uncovered(source: Grid, target: Grid, *, whole_cells: bool = False) -> list[str]:
    """Say what of ``target`` lies outside of ``source``; an empty list if nothing.

    Parameters
    ----------
    source, target : Grid
        That of a file and that of a model.
    whole_cells : bool
        Whether cells must be covered up to their bounds, as areal means need it, and
        not only their centres; on regular grids.

    Returns
    -------
    list of str
        One text a side, such as ``the file ends at 12.5 E, the model needs 15 E: 2 of 9
        columns not covered``.
    """
    if not (source.regular and target.regular):
        return _cells_outside(source, target)

    lat_edges, lon_edges = cell_edges(target)
    have_lat, have_lon = cell_edges(source) if whole_cells else (source.lat, source.lon)
    need_lat = _extent(target.lat, lat_edges, whole_cells)
    found = _sides(have_lat, *need_lat, "row", "N", "S")
    if is_global(source.lon):
        return found
    turn = wrap_near(target.lon, source.lon) - target.lon
    west, east = _extent(target.lon, lon_edges, whole_cells)
    return found + _sides(have_lon, west + turn, east + turn, "column", "E", "W")


def _extent(axis: Floats, edges: Floats, whole: bool) -> tuple[Floats, Floats]:
    """Return the lower and the upper bound that each cell of an axis needs."""
    if not whole:
        return axis, axis
    return np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])


def _sides(
    have: Floats, low: Floats, high: Floats, line: str, plus: str, minus: str
) -> list[str]:
    """Compare what a file has along an axis with what each line of cells needs."""
    first, last = float(have.min()), float(have.max())
    found = []
    for verb, bound, need, outside in (
        ("begins", first, low.min(), low < first - SAME_DEG),
        ("ends", last, high.max(), high > last + SAME_DEG),
    ):
        if outside.any():
            found.append(
                f"the file {verb} at {_degrees(bound, plus, minus)}, the model needs "
                f"{_degrees(float(need), plus, minus)}: {int(outside.sum())} of "
                f"{len(low)} {line}s not covered"
            )
    return found


def _degrees(value: float, plus: str, minus: str) -> str:
    turned = (value + 180.0) % 360.0 - 180.0 if plus == "E" and value > 180.0 else value
    return f"{abs(turned):.6g} {plus if turned >= 0 else minus}"


def _cells_outside(source: Grid, target: Grid) -> list[str]:
    """Count cell centres outside, where rows and columns say nothing."""
    inside = source.inside(target, SAME_DEG if source.regular else 0.0)
    count = int((~inside).sum())
    return [f"{count} of {inside.size} cells of the model not covered"] if count else []
