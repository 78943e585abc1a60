"""Errors of the ensemble mean."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics import blocks
from st_cdgm.evaluation.metrics.deterministic import bias, correlation, mae, mse, rmse


def test_errors_by_hand():
    # ensemble means 2, 4, 6 against 1, 4, 8: errors 1, 0, -2
    forecast = np.array([[1.0, 3.0], [4.0, 4.0], [5.0, 7.0]]).reshape(3, 2, 1, 1)
    truth = np.array([1.0, 4.0, 8.0]).reshape(3, 1, 1)
    assert bias(forecast, truth) == pytest.approx(-1 / 3)
    assert mae(forecast, truth) == pytest.approx(1)
    assert mse(forecast, truth) == pytest.approx(5 / 3)
    assert rmse(forecast, truth) == pytest.approx(np.sqrt(5 / 3))


def test_weights_and_holes():
    forecast = np.array([[[1.0, 5.0, np.nan]]])
    truth = np.array([[[0.0, 0.0, np.nan]]])
    assert bias(forecast, truth, weights=[[3.0, 1.0, 7.0]]) == pytest.approx(2.0)
    assert np.isnan(rmse(forecast, np.full_like(truth, np.nan)))


def test_correlation_in_time_and_over_all():
    # D81
    rng = np.random.default_rng(0)
    truth = 280 + rng.normal(size=(50, 2, 3)) + 20 * rng.normal(size=(2, 3))
    forecast = truth[:, None] + rng.normal(size=(50, 4, 2, 3))
    mean = forecast.mean(axis=1)
    cells = [
        np.corrcoef(mean[:, j, i], truth[:, j, i])[0, 1] for j, i in np.ndindex(2, 3)
    ]
    assert correlation(forecast, truth) == pytest.approx(np.mean(cells))
    pooled = np.corrcoef(mean.ravel(), truth.ravel())[0, 1]
    assert correlation(forecast, truth, over="all") == pytest.approx(pooled)


def test_correlation_leaves_out_holes_and_constant_cells(monkeypatch):
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(30, 1, 3))
    forecast = truth + rng.normal(size=(30, 1, 3))
    truth[:, 0, 2] = 4.5  # constant: no correlation there
    truth[::4, 0, 1] = np.nan
    known = np.isfinite(truth[:, 0, 1])
    expected = np.mean(
        [
            np.corrcoef(forecast[:, 0, 0], truth[:, 0, 0])[0, 1],
            np.corrcoef(forecast[known, 0, 1], truth[known, 0, 1])[0, 1],
        ]
    )
    assert correlation(forecast, truth) == pytest.approx(expected)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * 3 * 4)
    assert correlation(forecast, truth) == pytest.approx(expected)


def test_correlation_without_data_or_with_an_unknown_axis():
    nothing = np.full((4, 2, 2), np.nan)
    assert np.isnan(correlation(nothing, nothing))
    assert np.isnan(correlation(nothing, nothing, over="all"))
    assert np.isnan(correlation(nothing[:0], nothing[:0]))
    assert np.isnan(correlation(nothing[:0], nothing[:0], over="all"))
    with pytest.raises(InputError, match="over"):
        correlation(nothing, nothing, over="space")
