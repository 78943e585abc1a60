"""The model is trained inside the graph: which edges and which levels it may use."""

from __future__ import annotations

import json

import pytest

from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, InputError, MissingFileError
from st_cdgm.runs.discovery import before_graph, read_edges, restricted

SOURCES, TARGETS = ["SURF", "GP850", "GP500"], ["tas", "pr"]
EDGES = [("GP500", "SURF"), ("SURF", "tas"), ("GP850", "pr")]


def config(*overrides):
    return load_config("demo", list(overrides))


def test_the_edges_that_hold_become_the_models():
    inside = restricted(config(), EDGES, SOURCES, TARGETS)
    assert inside.rcn.parents == {"SURF": ["GP500"], "GP850": [], "GP500": []}
    assert inside.rcn.conditioning == ["SURF", "GP850"]


def test_required_and_forbidden_edges_have_the_last_word():
    asked = config("rcn.required=['GP850->GP500']", "rcn.forbidden=['GP500->SURF']")
    inside = restricted(asked, EDGES, SOURCES, TARGETS)
    assert inside.rcn.parents == {"SURF": [], "GP850": [], "GP500": ["GP850"]}


def test_a_learned_baseline_sees_what_drives_its_target():
    inside = restricted(config("data.baseline_strategy=ridge"), EDGES, SOURCES, TARGETS)
    assert inside.data.baseline_sources == {"tas": ["SURF"], "pr": ["GP850"]}
    plain = restricted(config("data.baseline_strategy=auto"), EDGES, SOURCES, TARGETS)
    assert not plain.data.baseline_sources
    own = config("data.baseline_strategy=ridge", "data.baseline_sources={tas: [850]}")
    assert restricted(own, EDGES, SOURCES, TARGETS).data == own.data


def test_a_learned_baseline_is_fitted_after_the_graph_alone():
    asked = config("data.baseline_strategy=ridge")
    assert before_graph(asked).data.baseline_strategy == "auto"
    for same in (
        config("data.baseline_strategy=climatology"),
        config("data.baseline_strategy=ridge", "rcn.edges=all"),
        config("data.baseline_strategy=ridge", "data.baseline_sources={tas: [850]}"),
        config("data.baseline_strategy=ridge", "data.store=x.zarr"),
    ):
        assert before_graph(same) is same


def test_a_target_without_a_driver_leaves_all_levels_open():
    inside = restricted(config(), EDGES[:2], SOURCES, TARGETS)
    assert inside.rcn.conditioning is None


@pytest.mark.parametrize("text", ["GP850", "GP850->", "GP850->nothing"])
def test_an_edge_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="edge"):
        restricted(config(f"rcn.required=['{text}']"), EDGES, SOURCES, TARGETS)


def test_edges_are_read_from_both_exports(tmp_path):
    rows = [
        {"source": "a", "target": "b", "verdict": "predictive link"},
        {"source": "b", "target": "a", "verdict": "none"},
    ]
    (tmp_path / "dag.json").write_text(json.dumps({"edges": rows}), encoding="utf-8")
    text = "source,target,verdict\na,b,predictive link\nb,a,none\n"
    (tmp_path / "edges.csv").write_text(text, encoding="utf-8")
    assert read_edges(tmp_path / "dag.json") == [("a", "b")]
    assert read_edges(tmp_path / "edges.csv") == [("a", "b")]
    with pytest.raises(MissingFileError):
        read_edges(tmp_path / "none.csv")
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        read_edges(tmp_path / "bad.json")
