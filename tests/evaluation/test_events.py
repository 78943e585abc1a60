"""Fractions skill score and F1 of extremes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scores.spatial import fss_2d

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.events import f1_extremes, fss


def test_fss_by_hand_without_zero_padding():
    # D73: one row, window 3, events in cells 0 and 1 of four. Windows at the border
    # hold two cells: P_f = 1/2, 1/3, 0, 0 and P_o = 1/2, 1/3, 1/3, 0.
    forecast, truth = np.zeros((2, 1, 4))
    forecast[0, 0] = truth[0, 1] = 1.0
    P_f, P_o = np.array([[1 / 2, 1 / 3, 0, 0], [1 / 2, 1 / 3, 1 / 3, 0]])
    expected = 1 - ((P_f - P_o) ** 2).sum() / ((P_f**2).sum() + (P_o**2).sum())
    assert fss(forecast, truth, threshold=0.5, window=3) == pytest.approx(expected)


def test_fss_agrees_with_a_library_cell_by_cell():
    rng = np.random.default_rng(0)
    forecast, truth = rng.normal(size=(2, 20, 30))
    theirs = fss_2d(
        xr.DataArray(forecast, dims=("y", "x")),
        xr.DataArray(truth, dims=("y", "x")),
        event_threshold=0.3,
        window_size=(1, 1),
        spatial_dims=("y", "x"),
    )
    ours = fss(forecast, truth, threshold=0.3, window=1)
    assert ours == pytest.approx(float(theirs))


def test_fss_limits():
    truth = np.zeros((2, 9, 9))
    truth[:, 4, 4] = 5
    moved = np.roll(truth, 1, axis=2)
    assert fss(truth, truth, threshold=1, window=3) == 1
    assert fss(moved, truth, threshold=1, window=1) == 0
    assert 0 < fss(moved, truth, threshold=1, window=3) < 1
    both = np.stack([truth, moved], axis=1)  # two members count alike
    assert fss(both, truth, threshold=1, window=1) == pytest.approx(0.5)


def test_fss_without_events_is_not_a_perfect_score():
    # D73
    assert np.isnan(fss(np.zeros((3, 3)), np.zeros((3, 3)), threshold=1, window=3))
    for window in (0, 2, 4):
        with pytest.raises(InputError, match="odd"):
            fss(np.zeros((3, 3)), np.zeros((3, 3)), threshold=1, window=window)


def test_fss_ignores_the_sea():
    truth = np.array([[[5.0, 0.0, np.nan]]])
    forecast = np.array([[[5.0, 0.0, 9.0]]])
    assert fss(forecast, truth, threshold=1, window=3) == 1


def test_f1_by_hand():
    # D72: it is computed. Truth 1 ... 100, threshold p95 = 95.05: events 96 ... 100.
    truth = np.arange(1.0, 101.0).reshape(100, 1, 1)
    forecast = truth.copy()
    forecast[98:] = 0  # two misses
    forecast[0] = 200  # a false alarm
    assert f1_extremes(forecast, truth, percentiles=[95])["p95"] == pytest.approx(6 / 9)
    perfect = f1_extremes(truth, truth)
    assert perfect == {"p95": 1.0, "p99": 1.0}


def test_f1_has_stable_keys_and_no_reward_for_dry_weather():
    # D80
    dry = np.zeros((10, 2, 2))
    scores = f1_extremes(dry, dry, percentiles=[95, 99, 99.9])
    assert list(scores) == ["p95", "p99", "p99.9"]
    assert all(np.isnan(value) for value in scores.values())
    nothing = f1_extremes(dry, np.full_like(dry, np.nan), percentiles=[95, 99.9])
    assert list(nothing) == ["p95", "p99.9"]
    assert all(np.isnan(value) for value in nothing.values())


def test_f1_counts_members():
    # D79: one member right, one without any event
    truth = np.arange(100.0).reshape(100, 1, 1)
    forecast = np.stack([truth, np.zeros_like(truth)], axis=1)
    score = f1_extremes(forecast, truth, percentiles=[90])["p90"]
    assert score == pytest.approx(2 * 10 / (10 + 2 * 10))
