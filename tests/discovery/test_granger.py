"""Linear Granger tests: what they find, and what they cannot see."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from benchmarks.causal_methods import naive_granger
from benchmarks.lagged_climate import LaggedOptions, simulate_lagged

from st_cdgm.discovery.anomalies import remove_harmonics, standardise
from st_cdgm.discovery.granger import patch_granger
from st_cdgm.errors import InputError


@functools.cache
def climate(**kwargs):
    options = {"num_vars": 4, "years": 6, "shape": (4, 5), "links": 4, **kwargs}
    return simulate_lagged(LaggedOptions(**options))


def test_it_recovers_the_true_graph():
    source = climate()
    found = patch_granger(source.fields, source.year, source.season, names=source.names)
    np.testing.assert_array_equal(found.edge, source.graph != 0)
    assert found.gain[source.graph != 0].min() > 0.01


def test_the_gain_is_that_of_the_regression_with_and_without_a_parent():
    """Against least squares, written out: one fold, one pair, one cell."""
    source = climate(shape=(3, 3), num_vars=2, links=1, seed=2)
    x = source.fields
    i, k = np.argwhere(source.graph)[0]
    found = patch_granger(x, source.year, source.season, names=source.names)
    gains = []
    for fold in (0, 1):
        held = (source.year % 2 == fold)[1:]
        flat = [x[:-1, j].reshape(len(x) - 1, 9) for j in (k, i)]
        y = x[1:, k, 1, 1].astype(float)
        one = np.ones((len(y), 1))
        errors = []
        for parts in ([flat[0]], flat):
            design = np.hstack([one, *parts]).astype(float)
            w = np.linalg.lstsq(design[~held], y[~held], rcond=None)[0]
            square = (y - design @ w) ** 2
            years = np.unique(source.year[1:][held])
            errors.append(
                [square[held & (source.year[1:] == year)].mean() for year in years]
            )
        gains.append(errors)
    without = np.concatenate([g[0] for g in gains])
    full = np.concatenate([g[1] for g in gains])
    # The ridge term of the implementation is small, not zero.
    expected = (without - full).mean() / full.mean()
    assert found.gain[i, k] == pytest.approx(expected, rel=0.05)


def test_without_links_there_are_no_edges():
    source = climate(links=0)
    found = patch_granger(source.fields, source.year, source.season, names=source.names)
    assert not found.edge.any()


def test_a_season_left_in_fools_the_f_test_and_not_the_rule_with_shadows():
    source = climate(links=0, season=2.0, seed=1)
    assert naive_granger(source.fields).sum() >= 4
    left = patch_granger(source.fields, source.year, source.season, names=source.names)
    assert not left.edge.any()
    assert left.unidentifiable.any()
    anomalies = standardise(remove_harmonics(source.fields, source.season))
    removed = patch_granger(anomalies, source.year, source.season, names=source.names)
    assert not removed.edge.any()
    assert not removed.unidentifiable.any()


def test_a_quadratic_link_is_invisible():
    source = climate(family="quadratic")
    found = patch_granger(source.fields, source.year, source.season, names=source.names)
    assert not found.edge[source.graph != 0].any()


def test_two_lags_see_what_one_cannot():
    """x1 follows x0 with a lag of two days."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((365 * 4, 2, 3, 3))
    x[2:, 1] = 0.5 * x[:-2, 0] + x[2:, 1]
    year, season = np.arange(len(x)) // 365, np.arange(len(x)) % 365 / 365
    one, two = (
        patch_granger(x, year, season, names="ab", lags=lags).edge for lags in (1, 2)
    )
    assert not one.any()
    assert two.tolist() == [[False, True], [False, False]]


def test_the_f_test_finds_a_strong_link():
    source = climate()
    found = naive_granger(source.fields)
    assert found[source.graph != 0].mean() > 0.7
    assert not np.diag(found).any()


@pytest.mark.parametrize(("shape", "years"), [((2, 5), 6), ((4, 5), 3)])
def test_grids_and_records_that_are_too_small_are_refused(shape, years):
    x = np.random.default_rng(0).standard_normal((365 * years, 2, *shape))
    year, season = np.arange(len(x)) // 365, np.arange(len(x)) % 365 / 365
    with pytest.raises(InputError):
        patch_granger(x, year, season, names="ab")
