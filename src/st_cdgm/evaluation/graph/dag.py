"""The learned graph on disk, and its distance to a known one.

Everywhere ``A[i, j]`` is the weight of the edge i -> j; the diagonal is no edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from st_cdgm.errors import InputError
from st_cdgm.evaluation.graph.matrix import (
    Edge,
    acyclic_threshold,
    acyclicity_report,
    check_matrix,
    check_names,
    graph_edges,
    threshold_graph,
)
from st_cdgm.outputs import to_json, write_bytes
from st_cdgm.typing import Floats

# An edge, a mapping with source and target, or a pair of names or of indices.
CutEdge = Edge | Mapping[str, Any] | tuple[Any, Any]
CAVEAT = (
    "Edges are lagged predictive relations between groups of inputs, as this model "
    "uses them. They are not proof of physical causes: a slow common driver, such as "
    "the annual cycle, which is not removed, or one that is not among the inputs, can "
    "make an edge, and groups that carry the same information can hide one. Weights "
    "are relative to this training and carry no test of significance."
)


def export_dag_to_csv(
    A_matrix: Any,
    var_names: Sequence[str],
    output_path: str | Path,
    *,
    threshold: float = 0.0,
) -> Path:
    """Write the matrix as CSV with the names as header and index.

    Parameters
    ----------
    A_matrix : array_like
        Weights, ``A[i, j]``: row i acts on column j. Shape ``(Q, Q)``.
    var_names : sequence of str
        Q distinct names.
    output_path : str or Path
        File to write; its directory is created.
    threshold : float
        Entries with ``|w| <= threshold``, and the diagonal, are written as 0.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    InputError
        If the matrix or the names cannot be used.
    OutputError
        If the file cannot be written.
    """
    names = check_names(A_matrix, var_names)
    table = pd.DataFrame(threshold_graph(A_matrix, threshold), names, names)
    return write_bytes(output_path, table.to_csv(lineterminator="\n").encode())


def export_dag_to_json(
    A_matrix: Any,
    var_names: Sequence[str],
    output_path: str | Path,
    *,
    threshold: float = 0.0,
) -> Path:
    """Write ``edges``, ``variables`` and an acyclicity report as JSON.

    Parameters, returns and errors are those of `export_dag_to_csv`. With the default
    threshold every non-zero weight is an edge, and the report says so when that graph
    has a cycle.
    """
    names = check_names(A_matrix, var_names)
    edges = graph_edges(A_matrix, names, threshold=threshold)
    content = {
        "edges": [asdict(edge) for edge in edges],
        "variables": names,
        "threshold": float(threshold),
        "acyclicity": asdict(acyclicity_report(A_matrix, names, threshold=threshold)),
    }
    return write_bytes(output_path, f"{to_json(content)}\n".encode())


def export_dag(
    run_dir: str | Path,
    matrix: Any,
    names: Sequence[str],
    threshold: float = 0.0,
    cut: Sequence[CutEdge] | None = None,
    constraint: str = "none",
    note: str = CAVEAT,
    *,
    possible: int | None = None,
    name: str = "dag",
) -> dict[str, Path]:
    """Write ``dag.json``, ``dag.csv`` and ``dag.png`` into a run directory.

    Parameters
    ----------
    run_dir : str or Path
        Run directory.
    matrix : array_like
        Effective weights, ``A[i, j]``: i -> j. Shape ``(Q, Q)``.
    names : sequence of str
        Q distinct names.
    threshold : float
        Weights with ``|w| <= threshold`` are no edges.
    cut : sequence, optional
        Edges above the threshold that were removed to obtain a DAG: `Edge`, mappings
        with ``source`` and ``target``, or pairs of names or of indices. None: the
        edges removed by the smallest threshold that leaves a DAG. Empty: none removed.
    constraint : str
        Acyclicity constraint used in training, ``dagma``, ``no_tears`` or ``none``.
    note : str
        Caveat shown beside the graph.
    possible : int, optional
        Edges that the model allows; None: all between two different variables.
    name : str
        What the files are called instead of ``dag``.

    Returns
    -------
    dict of str to Path
        Files written, by suffix: ``json``, ``csv``, ``png``.

    Raises
    ------
    InputError
        If the matrix, the names or an entry of ``cut`` cannot be used.
    OutputError
        If a file cannot be written.
    """
    # Matplotlib is needed for the picture alone.
    from st_cdgm.evaluation.graph.plots import plot_dag_heatmap
    from st_cdgm.evaluation.report.plots import figure_png

    folder = Path(run_dir)
    labels = check_names(matrix, names)
    weights = threshold_graph(matrix, threshold)
    removed = _cut_pairs(weights, labels, threshold, cut)
    graph = weights.copy()
    for i, j in removed:
        graph[i, j] = 0.0

    content = {
        "variables": labels,
        "matrix": check_matrix(matrix).tolist(),
        "threshold": float(threshold),
        "possible": len(labels) * (len(labels) - 1) if possible is None else possible,
        "edges": [asdict(edge) for edge in graph_edges(graph, labels)],
        "cut": [
            {"source": labels[i], "target": labels[j], "weight": float(weights[i, j])}
            for i, j in removed
        ],
        "constraint": constraint,
        "note": note,
        # The smallest threshold above which the learned matrix has no cycle.
        "acyclic_above": float(acyclic_threshold(weights, threshold)),
        "acyclicity": asdict(acyclicity_report(graph, labels)),
    }

    picture = figure_png(plot_dag_heatmap(graph, labels, show=False))
    return {
        "json": write_bytes(folder / f"{name}.json", f"{to_json(content)}\n".encode()),
        "csv": export_dag_to_csv(graph, labels, folder / f"{name}.csv"),
        "png": write_bytes(folder / f"{name}.png", picture),
    }


def _cut_pairs(
    weights: Floats,
    names: Sequence[str],
    threshold: float,
    cut: Sequence[CutEdge] | None,
) -> list[tuple[int, int]]:
    """Return the removed edges as index pairs, those of the smallest DAG threshold."""
    if cut is None:
        limit = acyclic_threshold(weights, threshold)
        weak = (weights != 0) & (np.abs(weights) <= limit)
        return [(int(i), int(j)) for i, j in np.argwhere(weak)]

    pairs = []
    for entry in cut:
        i, j = (_node(end, names) for end in _ends(entry))
        if weights[i, j] == 0:
            raise InputError(
                "A cut edge is not among the edges above the threshold",
                variable="cut",
                found=f"{names[i]} -> {names[j]}",
                expected=f"an edge with |weight| > {threshold:g}",
            )
        pairs.append((i, j))
    return pairs


def _ends(entry: CutEdge) -> tuple[Any, Any]:
    if isinstance(entry, Edge):
        return entry.source, entry.target
    if isinstance(entry, Mapping):
        return entry.get("source"), entry.get("target")
    return entry[0], entry[1]


def _node(node: Any, names: Sequence[str]) -> int:
    """Return the index of a node given by name or index."""
    if node in names:
        return list(names).index(node)
    if isinstance(node, int | np.integer) and 0 <= int(node) < len(names):
        return int(node)
    raise InputError(
        "A cut edge names an unknown variable",
        variable="cut",
        found=node,
        expected=f"one of {', '.join(names)}",
    )


def compute_structural_hamming_distance(
    A_pred: Any, A_true: Any, threshold: float = 0.0
) -> int:
    """Count the edge operations that turn one graph into the other.

    ``SHD = |extra| + |missing| + |reversed|``, a reversal counted once [1]_.

    Parameters
    ----------
    A_pred, A_true : array_like
        Weights, ``A[i, j]``: i -> j. Shape ``(Q, Q)``. The diagonal is ignored.
    threshold : float
        An edge is ``|w| > threshold``, in both matrices.

    Returns
    -------
    int
        0 for equal graphs.

    Raises
    ------
    InputError
        If the matrices are not square, hold NaN, or differ in size.

    References
    ----------
    .. [1] Tsamardinos, Brown and Aliferis (2006), Machine Learning 65, 31-78,
       doi:10.1007/s10994-006-6889-7.
    """
    predicted = threshold_graph(A_pred, threshold) != 0
    true = threshold_graph(A_true, threshold) != 0
    if predicted.shape != true.shape:
        raise InputError(
            "The graphs have different numbers of variables",
            variable="A_pred",
            found=predicted.shape,
            expected=true.shape,
        )
    # i -> j where the truth has j -> i counts as extra and as missing: take one off.
    extra = predicted & ~true
    missing = true & ~predicted
    reversed_pairs = int(np.count_nonzero(extra & missing.T))
    return int(extra.sum() + missing.sum()) - reversed_pairs
