"""The links that are there are found, and none that are not."""

from __future__ import annotations

import dataclasses
import functools
import json

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from benchmarks.lagged_climate import LaggedOptions, simulate_lagged

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.files import acyclic_cut, cycles, export_graph
from st_cdgm.discovery.held_out.features import make_design
from st_cdgm.discovery.held_out.losses import fold_losses
from st_cdgm.discovery.held_out.segments import Segments
from st_cdgm.discovery.search import discover_edges, link_losses
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import judge
from st_cdgm.errors import ConfigError, InputError

QUICK = DiscoveryConfig(max_cells=4, max_lag=2, squares=3)
CHAIN = ((0, 0.6, 0), (0, 0, 0.6), (0, 0, 0))
NONE = ((0,) * 3,) * 3


@functools.cache
def climate(graph=CHAIN, **kwargs):
    options = {"num_vars": len(graph), "years": 4, "shape": (4, 5), **kwargs}
    return simulate_lagged(LaggedOptions(**options), graph)


def record(source, fields=None, **kwargs):
    fields = source.fields if fields is None else fields
    return Record(
        fields={name: fields[:, [k]] for k, name in enumerate(source.names)},
        year=source.year,
        season=source.season,
        **kwargs,
    )


@functools.cache
def chain():
    return discover_edges(record(climate()), QUICK)


def pairs(graph):
    return {(link.source, link.target) for link in graph.edges}


def test_a_chain_gives_its_edges_with_lag_and_sign_and_no_others():
    """Neither the reverse of an edge nor the indirect link x0 -> x2."""
    graph = chain()
    assert pairs(graph) == {("x0", "x1"), ("x1", "x2")}
    for link in graph.edges:
        assert (link.lag, link.sign, link.verdict) == ("1", 1, "predictive link")
        assert 0 < link.low < link.gain < link.high
        assert link.p <= link.q < 0.01
    assert graph.parents("x2") == ["x1"]
    assert (graph.matrix() > 0).sum() == 2


def test_negative_links_and_longer_lags_are_named():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 3))
    for t in range(2, len(x)):
        x[t, 1] += 0.5 * x[t - 1, 1] - 0.4 * x[t - 2, 0]
        x[t, 2] += 0.3 * x[t - 1, 1] + 0.3 * x[t - 2, 1]
    year, season = np.arange(1500) // 365, np.arange(1500) % 365 / 365
    fields = {f"x{k}": x[:, [k], None, None] for k in range(3)}
    graph = discover_edges(Record(fields=fields, year=year, season=season), QUICK)
    found = {(link.source, link.target): (link.lag, link.sign) for link in graph.edges}
    assert found == {("x0", "x1"): ("2", -1), ("x1", "x2"): ("1,2", 1)}
    strongest = next(link for link in graph.edges if link.source == "x0")
    # In deviations of the target; a penalty draws it in.
    assert -0.4 / x[:, 1].std() - 0.02 < strongest.effect < -0.2


def test_scrambling_a_parent_destroys_its_edge():
    source = climate()
    fields = source.fields.copy()
    # Whole years in another order keep season and memory; only the link is lost.
    fields[:, 0] = np.roll(fields[:, 0], 365, axis=0)
    assert pairs(discover_edges(record(source, fields), QUICK)) == {("x1", "x2")}


def test_without_links_there_are_no_edges():
    assert not discover_edges(record(climate(NONE, seed=3)), QUICK).edges


def test_a_quadratic_link_is_found_by_its_squares_alone():
    source = climate(((0, 0.8), (0, 0)), family="quadratic", seed=5)
    assert pairs(discover_edges(record(source), QUICK)) == {("x0", "x1")}
    linear = dataclasses.replace(QUICK, squares=0)
    assert not discover_edges(record(source), linear).edges


def test_a_season_left_in_makes_no_edges():
    """Shadows know the season as well as parents do."""
    source = climate(((0, 0),) * 2, seed=7, season=3.0)
    left = discover_edges(record(source), dataclasses.replace(QUICK, harmonics=0))
    assert not left.edges
    assert not discover_edges(record(source), QUICK).edges


def test_a_slow_hidden_driver_is_doubtful_and_none_when_it_is_known():
    rng = np.random.default_rng(3)
    steps = 3650
    slow = np.zeros(steps)
    for t in range(1, steps):
        slow[t] = 0.97 * slow[t - 1] + np.sqrt(1 - 0.97**2) * rng.standard_normal()
    x = rng.standard_normal((steps, 3)) + slow[:, None]
    year, season = np.arange(steps) // 365, np.arange(steps) % 365 / 365
    fields = {f"x{k}": x[:, [k], None, None] for k in range(3)}
    plain = Record(fields=fields, year=year, season=season)
    graph = discover_edges(plain, QUICK)
    assert graph.edges
    assert {link.verdict for link in graph.edges} == {"doubtful"}
    # Known, with noise of its own from the day before: nothing is left.
    told = dataclasses.replace(plain, known=slow[:, None])
    assert not discover_edges(told, QUICK).edges


def test_a_link_faster_than_a_step_has_no_direction():
    """x0 acts on x1 at once; its memory alone makes yesterday's x0 a predictor."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3000, 2))
    for t in range(1, len(x)):
        x[t, 0] += 0.8 * x[t - 1, 0]
        x[t, 1] += 0.4 * x[t - 1, 1] + 0.5 * x[t, 0]
    year, season = np.arange(3000) // 365, np.arange(3000) % 365 / 365
    fields = {f"x{k}": x[:, [k], None, None] for k in range(2)}
    graph = discover_edges(Record(fields=fields, year=year, season=season), QUICK)
    verdicts = {(link.source, link.target): link.verdict for link in graph.links}
    assert verdicts[("x0", "x1")] == "within a step"
    assert not graph.edges
    assert graph.same_step == (("x0", "x1"),)


def test_held_out_years_never_enter_a_fit():
    """Anything may stand in the held-out year: what was learned is the same."""
    source = climate()
    rec, segments = record(source), Segments.of(climate().year, climate().season)
    train = segments.folds(4)[1]
    spoilt = source.fields.copy()
    spoilt[~train] = 100 * np.random.default_rng(0).standard_normal(
        spoilt[~train].shape
    )
    effects = [
        fold_losses(make_design(r, train, QUICK), segments, train).effect
        for r in (rec, record(source, spoilt))
    ]
    np.testing.assert_array_equal(*effects)
    # The same in sample: judging by days the fit has seen would be seen here.
    assert not np.array_equal(
        effects[0],
        fold_losses(make_design(rec, ~train, QUICK), segments, train).effect,
    )


def test_a_record_under_four_years_works_with_shorter_parts():
    source = climate(years=2)
    assert pairs(discover_edges(record(source), QUICK)) == {("x0", "x1"), ("x1", "x2")}


def test_gaps_and_missing_cells_are_left_out():
    source = climate()
    fields = source.fields.copy()
    fields[200:260] = np.nan  # a gap
    fields[:, :, 0, 0] = np.nan  # a cell that is never there
    found = discover_edges(record(source, fields), QUICK)
    assert pairs(found) == {("x0", "x1"), ("x1", "x2")}


def test_resampled_blocks_change_intervals_and_keep_the_strong_edges():
    parts = link_losses(record(climate()), QUICK)
    blocks = len(np.unique(parts[0].number // 24))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(blocks, np.full(blocks, 1 / blocks)).astype(float)
    again = judge(parts, QUICK, block_weights=weights)
    assert pairs(again) >= pairs(chain())
    assert again.edges[0].gain != chain().edges[0].gain


def test_the_files_say_the_same(tmp_path):
    written = export_graph(tmp_path, chain(), protocol={"years": [1]})
    dag = json.loads(written["dag.json"].read_text("utf-8"))
    edges = {(e["source"], e["target"]): e for e in dag["edges"]}
    assert set(edges) == pairs(chain())
    assert edges["x0", "x1"]["weight"] == edges["x0", "x1"]["gain"]
    assert dag["cycles"] == []
    table = pd.read_csv(written["dag.csv"], index_col=0)
    np.testing.assert_allclose(table.to_numpy(), chain().matrix())
    listed = pd.read_csv(written["edges.csv"])
    assert len(listed) == 6
    assert (listed["verdict"] == "predictive link").sum() == 2
    network = nx.read_graphml(written["dag.graphml"])
    assert set(network.edges) == pairs(chain())
    assert network.nodes["x0"]["kind"] == "source"


def test_a_cycle_is_kept_and_cut_at_its_weakest_edge_in_the_second_export():
    links = {(k.source, k.target): k for k in chain().links}
    graph = dataclasses.replace(
        chain(),
        links=tuple(
            dataclasses.replace(links[pair], gain=gain, verdict="predictive link")
            for pair, gain in {
                ("x0", "x1"): 0.3,
                ("x1", "x2"): 0.2,
                ("x2", "x0"): 0.1,
            }.items()
        ),
    )
    assert len(cycles(graph)) == 1
    kept, cut = acyclic_cut(graph)
    assert [(e["source"], e["target"]) for e in cut] == [("x2", "x0")]
    assert len(kept) == 2


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"max_lag": 0}, ConfigError, "max_lag"),
        ({"folds": 1}, ConfigError, "folds"),
    ],
)
def test_settings_out_of_range_are_refused(change, error, match):
    with pytest.raises(error, match=match):
        discover_edges(record(climate()), dataclasses.replace(QUICK, **change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fields": {"a": np.zeros((10, 1, 3, 3))}}, "two or more"),
        ({"year": np.zeros(5, np.int64)}, "calendar"),
        ({"ordinal": np.zeros(1460, np.int64)}, "in order"),
        ({"known": np.full((1460, 1), np.nan)}, "driver from outside"),
        ({"fields": {k: np.full((1460, 1, 3, 3), np.nan) for k in "ab"}}, "no cell"),
    ],
)
def test_records_that_do_not_fit_are_refused(change, match):
    with pytest.raises(InputError, match=match):
        discover_edges(dataclasses.replace(record(climate()), **change), QUICK)
