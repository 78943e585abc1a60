"""Directed weighted graphs as matrices: checks, threshold, cycles, edges.

Everywhere ``A[i, j]`` is the weight of the edge i -> j; the diagonal is no edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.errors import InputError
from st_cdgm.typing import Floats


@dataclass(frozen=True)
class Edge:
    """One directed edge with the weight it was learned with."""

    source: str
    target: str
    weight: float


@dataclass(frozen=True)
class AcyclicityReport:
    """Whether a thresholded graph is a DAG, and what would make it one."""

    acyclic: bool  # the graph of all |w| > threshold has no directed cycle
    threshold: float
    n_edges: int  # above the threshold
    cycle: tuple[str, ...]  # one, first name repeated at the end; empty when acyclic
    acyclic_above: float  # smallest threshold, not below this one, that leaves a DAG


def threshold_graph(matrix: Any, threshold: float = 0.0) -> Floats:
    """Return the weights with ``|w| <= threshold`` and the diagonal set to zero.

    Parameters
    ----------
    matrix : array_like
        Weights, ``A[i, j]``: i -> j. Shape ``(Q, Q)``; an array or a torch tensor.
    threshold : float
        Edges must be strictly stronger than this.

    Returns
    -------
    ndarray
        Shape ``(Q, Q)``, float64.

    Raises
    ------
    InputError
        If the matrix is not square, has NaN, or the threshold is negative.
    """
    weights = check_matrix(matrix)
    if not threshold >= 0:
        raise InputError(
            "The edge threshold must not be negative",
            variable="threshold",
            found=threshold,
            expected=">= 0",
        )
    return np.where(np.abs(weights) > threshold, weights, 0.0)


def find_cycle(matrix: Any) -> list[int]:
    """Return the nodes of one directed cycle of the non-zero entries, or ``[]``.

    The first node is repeated at the end. The diagonal is ignored.
    """
    present = threshold_graph(matrix) != 0
    alive = np.ones(len(present), dtype=bool)
    # Peel off nodes that no living node points to; what stays has a parent each.
    while alive.any():
        parents = present[alive].any(axis=0)
        free = alive & ~parents
        if not free.any():
            break
        alive &= ~free
    if not alive.any():
        return []
    return _walk_back(present & alive[:, None], int(np.flatnonzero(alive)[0]))


def _walk_back(present: NDArray[np.bool_], start: int) -> list[int]:
    """Follow parents from ``start`` until a node returns; every node has a parent."""
    path = [start]
    while True:
        parent = int(np.flatnonzero(present[:, path[-1]])[0])
        if parent in path:
            loop = path[path.index(parent) :]
            return [parent, *loop[::-1]]
        path.append(parent)


def acyclic_threshold(matrix: Any, threshold: float = 0.0) -> float:
    """Return the smallest threshold, not below ``threshold``, that leaves a DAG.

    Acyclicity is monotone in the threshold, so a bisection over the sorted weights
    finds it in ``log2(Q^2)`` tests.
    """
    weights = np.abs(threshold_graph(matrix, threshold))
    levels = [threshold, *np.unique(weights[weights > 0]).tolist()]
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if find_cycle(threshold_graph(weights, levels[middle])):
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


def acyclicity_report(
    matrix: Any, var_names: Sequence[str], *, threshold: float = 0.0
) -> AcyclicityReport:
    """Say whether the graph above ``threshold`` is acyclic, and show a cycle if not."""
    names = check_names(matrix, var_names)
    kept = threshold_graph(matrix, threshold)
    cycle = find_cycle(kept)
    return AcyclicityReport(
        acyclic=not cycle,
        threshold=float(threshold),
        n_edges=int(np.count_nonzero(kept)),
        cycle=tuple(names[node] for node in cycle),
        acyclic_above=acyclic_threshold(matrix, threshold),
    )


def graph_edges(
    matrix: Any, var_names: Sequence[str], *, threshold: float = 0.0
) -> list[Edge]:
    """Return the edges with ``|w| > threshold``, strongest first."""
    names = check_names(matrix, var_names)
    kept = threshold_graph(matrix, threshold)
    found = [
        Edge(names[i], names[j], float(kept[i, j])) for i, j in np.argwhere(kept != 0)
    ]
    return sorted(found, key=lambda edge: -abs(edge.weight))


def check_matrix(matrix: Any) -> Floats:
    """Return a finite square matrix with a zero diagonal, as a float64 copy."""
    if hasattr(matrix, "detach"):  # a torch tensor, without importing torch
        matrix = matrix.detach().cpu().numpy()
    weights = np.array(matrix, dtype=np.float64)

    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise InputError(
            "A graph needs a square matrix of weights",
            variable="A_matrix",
            found=f"shape {weights.shape}",
            expected="shape (Q, Q)",
        )
    if not np.isfinite(weights).all():
        raise InputError(
            "The matrix of weights holds NaN or infinity",
            variable="A_matrix",
            found=f"{int((~np.isfinite(weights)).sum())} such entries",
            expected="finite weights",
            remedy="look for a diverged training",
        )

    np.fill_diagonal(weights, 0.0)
    return weights


def check_names(matrix: Any, names: Sequence[str]) -> list[str]:
    """Return one distinct name per row of the matrix."""
    labels = [str(name) for name in names]
    size = len(check_matrix(matrix))
    if len(labels) != size or len(set(labels)) != size:
        raise InputError(
            "A graph needs one distinct name per variable",
            variable="var_names",
            found=labels,
            expected=f"{size} distinct names",
        )
    return labels
