"""Whether one edge of the domain knows of the other.

Noise that wraps around makes members alike at opposite edges, where no weather does.
"""

from __future__ import annotations

from functools import cached_property
from typing import Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from st_cdgm.evaluation.metrics.blocks import Block, Cells, scored
from st_cdgm.evaluation.metrics.calibration.dependence import (
    Correlations,
    Dependence,
    DifferenceMetric,
    ErrorsMetric,
    MembersMetric,
    Side,
)
from st_cdgm.registry import register
from st_cdgm.typing import Indices

# Cells are opposite where they are at least this share of the domain apart.
APART = 0.75


class EdgeScore:
    """Departures at both ends of rows and of columns; see :func:`edges`."""

    def __init__(self) -> None:
        self._ends = {"rows": Dependence(), "columns": Dependence()}

    def update(self, block: Block) -> None:
        """Take in a block of days."""
        fields = (block.forecast, block.reference[:, None], block.weight[:, None])
        columns = tuple(np.swapaxes(field, -2, -1) for field in fields)
        for pairs, lines in zip(self._ends.values(), (fields, columns), strict=True):
            forecast, reference, weight = lines
            first, last, apart = _ends(weight[:, 0] > 0)

            sides, weights = [], []
            for place in (first, last):
                members, truth, w = (
                    np.take_along_axis(field, place[:, None, :, None], -1)[..., 0]
                    for field in (forecast, reference, weight)
                )
                centre = members.mean(axis=1, keepdims=True)
                sides.append((members - centre, (truth - centre)[:, 0]))
                weights.append(w[:, 0] * apart)

            # The weight of a pair is between those of its cells.
            root = np.sqrt(np.sqrt(weights[0] * weights[1]))
            one, two = (Side(m * root[:, None], e * root) for m, e in sides)
            pairs.add(block.ordinal, one, two, root)

    @cached_property
    def value(self) -> dict[str, Correlations]:
        """The correlations along rows and along columns."""
        return {name: pairs.correlations() for name, pairs in self._ends.items()}


def _ends(
    counted: NDArray[np.bool_],
) -> tuple[Indices, Indices, NDArray[np.bool_]]:
    """Return the first and the last counted cell of each row, and if they are apart.

    Shapes ``(t, Y)``.
    """
    X = counted.shape[-1]
    first = counted.argmax(axis=-1)
    last = X - 1 - counted[..., ::-1].argmax(axis=-1)
    apart = counted.any(axis=-1) & (last - first >= APART * (X - 1)) & (last > first)
    return first, last, apart


def edges(
    forecast: ArrayLike, reference: ArrayLike, **cells: Unpack[Cells]
) -> dict[str, Correlations]:
    """Correlation of opposite edges, of members' departures and of errors.

    Of every row the first and the last counted cell, if they are at least three
    quarters of the domain apart; pooled over rows, days and members. The same of every
    column. See :mod:`st_cdgm.evaluation.metrics.calibration.dependence`.

    Returns
    -------
    dict
        ``rows`` (west and east on most grids) and ``columns``.
    """
    return scored(EdgeScore(), forecast, reference, **cells).value


for _number, _which in enumerate(("rows", "columns")):

    @register("metric", f"edges_{_which}_members")
    class _EdgeMembersMetric(MembersMetric):
        score, which, place = EdgeScore, _which, 183 + 3 * _number
        title = f"correlation of the ends of {_which}, members' deviations"

    @register("metric", f"edges_{_which}_errors")
    class _EdgeErrorsMetric(ErrorsMetric):
        score, which, place = EdgeScore, _which, 184 + 3 * _number
        title = f"correlation of the ends of {_which}, errors"

    @register("metric", f"edges_{_which}_difference")
    class _EdgeDifferenceMetric(DifferenceMetric):
        score, which, place = EdgeScore, _which, 185 + 3 * _number
        title = f"correlation of the ends of {_which}, members minus errors"
