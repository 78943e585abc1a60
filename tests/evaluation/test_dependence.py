"""Correlations of departures from the ensemble mean: days, edges, variables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from st_cdgm.evaluation.metrics.blocks import Pair, accumulate, accumulate_all, pair_of
from st_cdgm.evaluation.metrics.calibration.edges import edges
from st_cdgm.evaluation.metrics.calibration.persistence import (
    PersistenceScore,
    lag_one,
)
from st_cdgm.evaluation.metrics.calibration.variables import VariablesScore


def ar1(n, rho, T=400, shape=(6, 8), seed=0):
    """Return n sequences (n, T, Y, X) of unit variance and lag-1 correlation rho."""
    x = np.random.default_rng(seed).normal(size=(n, T, *shape))
    for t in range(1, T):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]
    return x


def members(x):
    return np.moveaxis(x, 0, 1)


# From day to day ---------------------------------------------------------------------


@pytest.mark.parametrize("M", [2, 3, 10])
def test_departures_with_the_memory_of_the_errors(M):
    x = ar1(M + 1, 0.6)
    found = lag_one(members(x[1:]), x[0])
    assert found.members == pytest.approx(0.6, abs=0.03)
    assert found.errors == pytest.approx(0.6, abs=0.03)
    assert found.difference.low < 0 < found.difference.high


@pytest.mark.parametrize("M", [2, 3, 10])
def test_departures_without_memory(M):
    """The mean of few members is noisy: its share is taken off the errors."""
    found = lag_one(members(ar1(M, 0.0, seed=1)), ar1(1, 0.6)[0])
    assert found.members == pytest.approx(0.0, abs=0.03)
    assert found.errors == pytest.approx(0.6, abs=0.05)
    assert found.difference.high < -0.5
    assert found.difference.value == pytest.approx(found.members - found.errors)


def test_a_bias_of_every_cell_is_no_memory():
    truth = ar1(1, 0.0)[0]
    forecast = members(ar1(8, 0.0, seed=1))
    bias = np.random.default_rng(2).normal(size=(6, 8)) * 3
    found = lag_one(forecast, truth + bias)
    assert found.errors == pytest.approx(lag_one(forecast, truth).errors)
    assert abs(found.errors) < 0.03


def test_only_days_that_follow_each_other_are_paired():
    """Days 0, 1, 5, 6: two pairs, whose second day repeats the first."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 4, 4))
    fields = np.stack([first, first, second, second])
    forecast, truth = fields[:, 1:], fields[:, 0]
    score = PersistenceScore()
    pair = Pair(
        forecast=forecast.__getitem__,
        reference=truth.__getitem__,
        shape=forecast.shape,
        weights=np.ones((4, 4)),
        ordinal=np.array([0, 1, 5, 6]),
    )
    accumulate(pair, score)
    assert score.value["lag1"].members == pytest.approx(1.0)


def test_a_cell_counts_on_two_days_or_on_none():
    x = ar1(5, 0.6, T=200)
    truth = x[0].copy()
    lost = np.random.default_rng(1).random(truth.shape) < 0.3
    truth[lost] = np.nan
    found = lag_one(members(x[1:]), truth)
    assert found.members == pytest.approx(0.6, abs=0.04)
    assert found.errors == pytest.approx(0.6, abs=0.04)


def test_one_member_has_no_departures():
    found = lag_one(ar1(1, 0.5)[0], ar1(1, 0.5, seed=1)[0])
    assert np.isnan([found.members, found.errors, found.difference.value]).all()


# From edge to edge -------------------------------------------------------------------


def smooth(n, mode, T=150, shape=(10, 24), seed=0):
    x = np.random.default_rng(seed).normal(size=(n, T, *shape))
    return ndimage.gaussian_filter(x, (0, 0, 2, 2), mode=mode)


def test_noise_that_wraps_is_seen_at_the_edges():
    truth = smooth(1, "reflect")[0]
    found = edges(
        members(smooth(8, ("wrap", "wrap", "reflect", "wrap"), seed=1)), truth
    )
    assert found["rows"].members > 0.7
    assert found["rows"].difference.low > 0.4
    assert abs(found["columns"].difference.value) < 0.25
    honest = edges(members(smooth(8, "reflect", seed=1)), truth)["rows"]
    assert honest.difference.low < 0 < honest.difference.high


def test_the_ends_of_a_row_are_its_first_and_last_counted_cells():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(60, 6, 3, 8))
    fields[:, :, 0, 6] = fields[:, :, 0, 0]  # ends of the first row, equal
    truth = fields[:, 0].copy()
    truth[:, 0, 7] = np.nan
    truth[:, 1, 3:] = np.nan  # too short: no opposite ends
    truth[:, 2] = np.nan
    found = edges(fields[:, 1:], truth)["rows"]
    assert found.members == pytest.approx(1.0)
    assert found.errors == pytest.approx(1.0)


# From variable to variable -----------------------------------------------------------


def of_variables(**pairs):
    score = VariablesScore()
    found = {name: pair_of(*pair) for name, pair in pairs.items()}
    accumulate_all(found, dict.fromkeys(found, ()), (score,))
    return score.value


def test_variables_that_belong_together():
    x, y = ar1(7, 0.3, seed=1), ar1(7, 0.3, seed=2)
    z = 0.5 * x + np.sqrt(0.75) * y
    found = of_variables(
        pr=(members(x[1:]), x[0]),
        tas=(members(z[1:]), z[0]),
        hus=(members(y[1:]), y[0]),
    )
    assert list(found) == ["pr & tas", "pr & hus", "tas & hus"]
    for name, expected in (
        ("pr & tas", 0.5),
        ("pr & hus", 0.0),
        ("tas & hus", 0.75**0.5),
    ):
        assert found[name].members == pytest.approx(expected, abs=0.03)
        assert found[name].errors == pytest.approx(expected, abs=0.03)
        assert found[name].difference.low < 0 < found[name].difference.high


@pytest.mark.parametrize("M", [2, 6])
def test_shared_noise_couples_members_and_not_the_truth(M):
    noise = ar1(M, 0.0, seed=1)
    own = ar1(M, 0.0, seed=4)
    truth, other = ar1(1, 0.0, seed=2)[0], ar1(1, 0.0, seed=3)[0]
    found = of_variables(
        pr=(members(noise), truth), tas=(members(0.8 * noise + 0.6 * own), other)
    )["pr & tas"]
    assert found.members == pytest.approx(0.8, abs=0.02)
    assert found.errors == pytest.approx(0.0, abs=0.05)
    assert found.difference.low > 0.7


def test_cells_that_count_in_both_variables():
    x = ar1(5, 0.0, T=100)
    truth = x[0].copy()
    truth[:, :, :4] = np.nan
    other = members(x[1:]).copy()
    other[..., 4:] *= -1  # where both count, the opposite
    found = of_variables(pr=(members(x[1:]), truth), tas=(other, x[0]))
    assert found["pr & tas"].members == pytest.approx(-1.0)
