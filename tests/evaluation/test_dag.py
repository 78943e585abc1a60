"""The learned graph: threshold, cycles, distance, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from st_cdgm.errors import InputError, OutputError
from st_cdgm.evaluation.graph.dag import (
    compute_structural_hamming_distance,
    export_dag,
    export_dag_to_csv,
    export_dag_to_json,
)
from st_cdgm.evaluation.graph.matrix import (
    Edge,
    acyclic_threshold,
    acyclicity_report,
    find_cycle,
    graph_edges,
    threshold_graph,
)

NAMES = ["a", "b", "c"]
# a -> b 0.5, b -> c -0.4, c -> a 0.2 (closes a cycle), a -> c 0.05
CYCLIC = np.array([[9.0, 0.5, 0.05], [0.0, 9.0, -0.4], [0.2, 0.0, 9.0]])

weights = arrays(
    np.float64, (5, 5), elements=st.sampled_from([0.0, 0.0, 0.1, 0.2, -0.3, 0.4])
)


def is_nilpotent(matrix: np.ndarray) -> bool:
    """An acyclic graph has no walk as long as its number of nodes."""
    present = (matrix != 0).astype(float)
    np.fill_diagonal(present, 0)
    return not np.linalg.matrix_power(present, len(present)).any()


@pytest.mark.parametrize(
    ("predicted", "true", "distance"),
    [
        ([], [], 0),
        ([(0, 1)], [(0, 1)], 0),
        ([(0, 1)], [], 1),
        ([], [(0, 1)], 1),
        ([(0, 1)], [(1, 0)], 1),  # one reversal, not an extra and a missing edge
        ([(0, 1), (1, 0)], [(0, 1)], 1),
        ([(0, 1), (1, 0)], [], 2),
        ([(0, 1), (1, 2)], [(1, 0), (2, 1)], 2),
        ([(0, 1), (0, 2)], [(1, 0), (1, 2)], 3),
    ],
)
def test_shd_by_hand(predicted, true, distance):
    """D75: a reversal raised RuntimeError."""
    a, b = np.zeros((3, 3)), np.zeros((3, 3))
    for edge in predicted:
        a[edge] = 0.7
    for edge in true:
        b[edge] = -0.2
    assert compute_structural_hamming_distance(a, b) == distance
    assert compute_structural_hamming_distance(b, a) == distance


def test_shd_threshold_and_diagonal():
    true = np.array([[0.0, 1.0], [0.0, 0.0]])
    predicted = torch.tensor([[5.0, 0.25], [0.125, 5.0]], requires_grad=True)
    assert compute_structural_hamming_distance(predicted, true) == 1
    assert compute_structural_hamming_distance(predicted, true, 0.125) == 0
    assert compute_structural_hamming_distance(predicted, true, 0.25) == 1
    assert predicted[0, 0].item() == 5.0  # the input is left alone
    with pytest.raises(InputError, match="numbers of variables"):
        compute_structural_hamming_distance(np.zeros((2, 2)), np.zeros((3, 3)))


@given(weights, weights, weights)
def test_shd_is_a_metric(a, b, c):
    shd = compute_structural_hamming_distance
    assert shd(a, a) == 0
    assert shd(a, b) == shd(b, a)
    assert shd(a, c) <= shd(a, b) + shd(b, c)


@given(weights)
def test_find_cycle_agrees_with_nilpotency(matrix):
    np.fill_diagonal(matrix, 0)
    cycle = find_cycle(matrix)
    assert (cycle == []) == is_nilpotent(matrix)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1 >= 2
        assert all(matrix[i, j] != 0 for i, j in zip(cycle, cycle[1:], strict=False))


@given(weights)
def test_acyclic_threshold_is_the_smallest(matrix):
    level = acyclic_threshold(matrix)
    assert is_nilpotent(threshold_graph(matrix, level))
    if level > 0:
        assert not is_nilpotent(threshold_graph(matrix, np.nextafter(level, 0)))


def test_acyclicity_report_names_a_cycle():
    report = acyclicity_report(CYCLIC, NAMES)
    assert not report.acyclic
    assert report.n_edges == 4
    # Any rotation of a -> b -> c -> a, or the two-cycle of a and c.
    steps = set(zip(report.cycle, report.cycle[1:], strict=False))
    assert steps <= {("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")}
    assert report.cycle[0] == report.cycle[-1]
    assert report.acyclic_above == 0.2
    above = acyclicity_report(CYCLIC, NAMES, threshold=0.3)
    assert above.acyclic
    assert above.cycle == ()
    assert above.acyclic_above == 0.3


def test_graph_edges_are_sorted_and_directed():
    found = graph_edges(CYCLIC, NAMES, threshold=0.1)
    assert found == [Edge("a", "b", 0.5), Edge("b", "c", -0.4), Edge("c", "a", 0.2)]


def test_csv_has_names_as_header_and_index(tmp_path: Path):
    """D82: no threshold; SPEC 3.4: q x q with names both ways."""
    path = export_dag_to_csv(CYCLIC, NAMES, tmp_path / "x" / "dag.csv", threshold=0.1)
    with path.open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["", *NAMES]
    assert [row[0] for row in rows[1:]] == NAMES
    numbers = np.array([[float(x) for x in row[1:]] for row in rows[1:]])
    np.testing.assert_array_equal(numbers, [[0, 0.5, 0], [0, 0, -0.4], [0.2, 0, 0]])


def test_json_has_edges_variables_and_report(tmp_path: Path):
    """D82: the export says whether it is a DAG."""
    path = export_dag_to_json(torch.tensor(CYCLIC), NAMES, tmp_path / "dag.json")
    content = json.loads(path.read_text())
    assert content["variables"] == NAMES
    assert len(content["edges"]) == 4
    assert {"source": "b", "target": "c", "weight": -0.4} in content["edges"]
    assert content["acyclicity"]["acyclic"] is False
    assert path.read_text().startswith('{\n  "edges"')
    path = export_dag_to_json(CYCLIC, NAMES, path, threshold=0.2)
    content = json.loads(path.read_text())
    assert len(content["edges"]) == 2
    assert content["acyclicity"]["acyclic"] is True


def test_export_dag_cuts_by_the_smallest_threshold(tmp_path: Path):
    files = export_dag(tmp_path, CYCLIC, NAMES, 0.1, None, "none", "a caveat")
    assert {path.name for path in files.values()} == {"dag.json", "dag.csv", "dag.png"}
    content = json.loads(files["json"].read_text())
    assert content["cut"] == [{"source": "c", "target": "a", "weight": 0.2}]
    assert [edge["source"] for edge in content["edges"]] == ["a", "b"]
    assert content["matrix"][0] == [0.0, 0.5, 0.05]  # as learned, but for the diagonal
    assert (content["threshold"], content["constraint"]) == (0.1, "none")
    assert content["note"] == "a caveat"
    assert content["acyclicity"]["acyclic"] is True
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert files["csv"].read_text().splitlines()[3] == "c,0.0,0.0,0.0"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "dag.csv",
        "dag.json",
        "dag.png",
    ]


@pytest.mark.parametrize(
    "cut",
    [
        [Edge("b", "c", -0.4)],
        [{"source": "b", "target": "c"}],
        [("b", "c")],
        [(1, 2)],
        [(np.int64(1), np.int64(2))],
    ],
)
def test_export_dag_takes_the_cut_as_given(tmp_path: Path, cut):
    content = json.loads(
        export_dag(tmp_path, CYCLIC, NAMES, 0.1, cut)["json"].read_text()
    )
    assert content["cut"] == [{"source": "b", "target": "c", "weight": -0.4}]
    assert [edge["source"] for edge in content["edges"]] == ["a", "c"]


def test_export_dag_without_cut_tells_of_the_cycle(tmp_path: Path):
    files = export_dag(tmp_path, CYCLIC, NAMES, 0.1, cut=())
    content = json.loads(files["json"].read_text())
    assert content["cut"] == []
    assert content["acyclicity"]["acyclic"] is False
    assert set(content["acyclicity"]["cycle"]) == set(NAMES)


@pytest.mark.parametrize("cut", [[("a", "nowhere")], [(0, 3)], [("a", "c")]])
def test_export_dag_refuses_a_cut_that_is_no_edge(tmp_path: Path, cut):
    with pytest.raises(InputError, match="cut"):
        export_dag(tmp_path, CYCLIC, NAMES, 0.1, cut)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        (np.zeros((2, 3)), ["a", "b"], "square"),
        (np.zeros((0, 0)), [], "square"),
        (np.full((2, 2), np.nan), ["a", "b"], "NaN"),
        (np.zeros((2, 2)), ["a"], "distinct name"),
        (np.zeros((2, 2)), ["a", "a"], "distinct name"),
    ],
)
def test_unusable_matrices_and_names(tmp_path: Path, matrix, names, message):
    with pytest.raises(InputError, match=message):
        export_dag_to_csv(matrix, names, tmp_path / "dag.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_thresholds_are_not_negative(threshold):
    with pytest.raises(InputError, match="threshold"):
        threshold_graph(CYCLIC, threshold)


def test_unwritable_path_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export_dag_to_csv(CYCLIC, NAMES, tmp_path / "file" / "dag.csv")
