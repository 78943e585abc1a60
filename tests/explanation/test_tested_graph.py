"""Which edges the effect of an edit takes, and what the certificate says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.explanation.graph import TestedGraph, find_graph, parse_lags

EDGES = [
    {"source": "GP500", "target": "GP850", "lag": "1"},
    {"source": "GP850", "target": "SURF", "lag": "1,3"},
    {"source": "GP850", "target": "pr", "lag": "0-1"},
    {"source": "SURF", "target": "tas", "lag": "0"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    content = {"edges": EDGES, "targets": ["pr", "tas"], "same_step": []}
    path = tmp_path / "dag.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


def certify(file: Path, edges: list[tuple[str, str, str]]) -> None:
    rows = [
        dict(zip(("source", "target", "verdict"), edge, strict=True)) for edge in edges
    ]
    text = json.dumps({"edges": rows})
    file.with_name("certificate.json").write_text(text, "utf-8")


def test_lags_are_read_in_all_their_forms():
    assert parse_lags("1") == (1,)
    assert parse_lags("1,3") == (1, 3)
    assert parse_lags("0-2,5") == (0, 1, 2, 5)
    with pytest.raises(ValueError, match="lag"):
        parse_lags("soon")


def test_effects_go_along_the_edges(file):
    graph = TestedGraph.read(file)
    assert graph.descendants({"GP850"}) == {"GP850", "SURF", "pr", "tas"}
    assert graph.descendants({"SURF"}) == {"SURF", "tas"}
    assert len(graph.used({"GP500"}, hold_others=False)) == 4
    assert graph.used({"GP850"}, hold_others=True) == [("GP850", "pr")]
    assert graph.inputs(["SURF", "GP850", "GP500"]) == {
        "SURF": (("SURF", 1), ("GP850", 1), ("GP850", 3)),
        "GP850": (("GP850", 1), ("GP500", 1)),
        "GP500": (("GP500", 1),),
    }


def test_edges_without_certificate_are_refused(file):
    used = TestedGraph.read(file).used({"SURF"}, hold_others=False)
    with pytest.raises(
        InputError, match=r"SURF->tas \(lag 0, not certified\)"
    ) as error:
        TestedGraph.read(file).check_certified(used)
    assert "--allow-uncertified" in str(error.value)

    certify(file, [("SURF", "tas", "certified"), ("GP850", "pr", "unstable")])
    graph = TestedGraph.read(file)
    graph.check_certified(used)
    with pytest.raises(InputError, match=r"GP850->pr \(lag 0,1, unstable\)"):
        graph.check_certified([("GP850", "pr")])


def test_the_graph_of_a_run_is_found(file, tmp_path):
    best = tmp_path / "checkpoints" / "best"
    best.mkdir(parents=True)
    assert find_graph(best) == find_graph(tmp_path) == file
    with pytest.raises(MissingFileError, match="--graph FILE"):
        find_graph(best / "deeper")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"edges": [{"source": 1}]}'])
def test_files_that_are_no_graph_are_refused(file, text):
    file.write_text(text, "utf-8")
    with pytest.raises(InputError):
        TestedGraph.read(file)


def test_a_damaged_certificate_is_told(file):
    file.with_name("certificate.json").write_text('{"edges": [1]}', "utf-8")
    with pytest.raises(InputError, match="certificate"):
        TestedGraph.read(file)


def test_the_graph_of_another_model_is_refused(file):
    graph = TestedGraph.read(file)
    graph.check_nodes(["GP500", "GP850", "SURF"], ["pr", "tas"])
    with pytest.raises(InputError, match="another model"):
        graph.check_nodes(["GP500", "GP850"], ["pr", "tas"])
