"""The synthetic climates keep the promises of their equations."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.lagged_climate import (
    CLIPPED_SQUARE,
    DAYS_PER_YEAR,
    LaggedOptions,
    _draw_graph,
    simulate_lagged,
)

from st_cdgm.errors import ConfigError


def small(**kwargs):
    options = {"num_vars": 4, "years": 2, "shape": (4, 5), **kwargs}
    return simulate_lagged(LaggedOptions(**options))


def test_the_record_is_standardised_and_dated():
    climate = small()
    assert climate.fields.shape == (2 * DAYS_PER_YEAR, 4, 4, 5)
    np.testing.assert_allclose(climate.fields.std(axis=(0, 2, 3)), 1.0, rtol=1e-4)
    np.testing.assert_allclose(climate.fields.mean(axis=(0, 2, 3)), 0.0, atol=1e-4)
    assert np.bincount(climate.year).tolist() == [DAYS_PER_YEAR] * 2
    assert climate.season[0] == climate.season[DAYS_PER_YEAR] == 0.0


def test_same_seed_same_climate_other_seed_another():
    first, again, other = small(seed=1), small(seed=1), small(seed=2)
    np.testing.assert_array_equal(first.fields, again.fields)
    assert not np.array_equal(first.fields, other.fields)
    assert not np.array_equal(first.graph, other.graph)


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_are_acyclic_with_the_number_of_links_asked_for(seed):
    options = LaggedOptions(num_vars=6, links=9)
    rng_graph = _draw_graph(options, np.random.default_rng(seed))
    present = (rng_graph != 0).astype(int)
    assert present.sum() == 9
    assert not np.linalg.matrix_power(present, 6).any()  # nilpotent
    size = np.abs(rng_graph[rng_graph != 0])
    assert size.min() >= 0.25
    assert size.max() <= 0.45


def test_cyclic_graphs_have_cycles_sooner_or_later():
    options = LaggedOptions(num_vars=4, links=8, cyclic=True)
    graphs = [_draw_graph(options, np.random.default_rng(s)) != 0 for s in range(5)]
    assert any(np.linalg.matrix_power(g.astype(int), 4).any() for g in graphs)


def test_without_links_each_variable_has_its_own_memory_alone():
    climate = small(links=0, years=6, num_vars=3)
    x = climate.fields.mean(axis=(2, 3))
    own = [np.corrcoef(x[1:, k], x[:-1, k])[0, 1] for k in range(3)]
    assert min(own) > 0.5
    assert max(own) < 0.9
    cross = np.corrcoef(x[1:].T, x[:-1].T)[:3, 3:]
    assert np.abs(cross - np.diag(np.diag(cross))).max() < 0.1


def test_a_link_shows_as_lagged_correlation_with_its_sign():
    graph = np.zeros((2, 2))
    graph[0, 1] = -0.5
    options = LaggedOptions(num_vars=2, years=4, shape=(4, 5), family="linear")
    x = simulate_lagged(options, graph).fields.mean(axis=(2, 3))
    design = np.column_stack([x[:-1, 1], x[:-1, 0]])
    weight = np.linalg.lstsq(design, x[1:, 1], rcond=None)[0]
    assert weight[1] < -0.15
    back = np.linalg.lstsq(
        np.column_stack([x[:-1, 0], x[:-1, 1]]), x[1:, 0], rcond=None
    )
    assert abs(back[0][1]) < 0.1


def test_the_quadratic_link_has_no_linear_part():
    rng = np.random.default_rng(0)
    u = rng.standard_normal(2_000_000)
    g = np.minimum(u * u, 9.0) - CLIPPED_SQUARE
    assert abs(g.mean()) < 3e-3
    assert abs((g * u).mean()) < 5e-3


def test_season_and_noise_are_added_in_the_stated_size():
    plain, seasonal = small(years=4), small(years=4, season=2.0)
    angle = 2 * np.pi * seasonal.season
    x = seasonal.fields.mean(axis=(2, 3))
    amplitude = 2 * np.hypot(*(np.cos(angle) @ x, np.sin(angle) @ x)) / len(x)
    # Two standard deviations of weather: variance 1 + 2, standardised afterwards.
    np.testing.assert_allclose(amplitude, 2 / np.sqrt(3), rtol=0.15)
    noisy = small(years=4, measurement_noise=0.5)
    expected = plain.fields / np.sqrt(1.25)
    assert np.std(noisy.fields - expected) == pytest.approx(
        0.5 / np.sqrt(1.25), rel=0.02
    )


def test_averaging_steps_makes_days_smoother():
    def memory(climate):
        x = climate.fields
        return (x[1:] * x[:-1]).mean()

    assert memory(small(substeps=4, links=0)) > memory(small(links=0))


@pytest.mark.parametrize(
    "options",
    [
        {"family": "cubic"},
        {"links": 100},
        {"substeps": 0},
        {"num_vars": 0},
        {"years": 0},
        {"links": -1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        small(**options)


@pytest.mark.parametrize("graph", [np.zeros((2, 2)), np.eye(4)])
def test_a_graph_that_does_not_fit_is_refused(graph):
    with pytest.raises(ConfigError):
        simulate_lagged(LaggedOptions(num_vars=4, years=1), graph)
