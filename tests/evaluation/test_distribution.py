"""Wet days, quantiles, histograms, Wasserstein."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics import distribution
from st_cdgm.evaluation.metrics.distribution import (
    histogram_distance,
    quantile_change,
    quantile_ratio,
    wet_day_frequency,
)
from st_cdgm.evaluation.metrics.wasserstein import sliced_wasserstein


def test_wet_days_by_hand():
    # members, not their mean (D79): the mean 0.75 would be dry
    forecast = np.array([[0.0, 1.5], [1.0, 0.99]]).reshape(2, 2, 1, 1)
    truth = np.array([2.0, 0.0]).reshape(2, 1, 1)
    wet = wet_day_frequency(forecast, truth)
    assert (wet.forecast, wet.reference, wet.difference) == (0.5, 0.5, 0.0)
    assert wet_day_frequency(forecast, truth, threshold=1.2).forecast == 0.25


def test_quantile_of_every_cell_then_the_area_mean():
    rng = np.random.default_rng(0)
    truth = rng.gamma(0.5, 4.0, size=(200, 2, 3))
    forecast = rng.gamma(0.5, 6.0, size=(200, 4, 2, 3))
    weights = np.array([[1.0, 2.0, 0.0], [1.0, 1.0, 3.0]])
    tail = np.quantile(np.moveaxis(forecast, 1, 0).reshape(-1, 2, 3), 0.99, axis=0)
    expected_f = np.average(tail, weights=weights)
    expected_r = np.average(np.quantile(truth, 0.99, axis=0), weights=weights)
    change = quantile_change(forecast, truth, weights=weights)
    assert change.forecast == pytest.approx(expected_f)
    assert change.reference == pytest.approx(expected_r)
    assert change.difference == pytest.approx(expected_f - expected_r)
    ratio = quantile_ratio(forecast, truth, weights=weights)
    assert ratio == pytest.approx(expected_f / expected_r)


def test_quantile_with_gaps_counts_the_days_of_each_cell(monkeypatch):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 3, 2))
    forecast = rng.normal(size=(40, 3, 3, 2))
    truth[:, 0, 0] = np.nan
    truth[::2, 2, 1] = np.nan
    known = np.isfinite(truth)
    total, weight = 0.0, 0.0
    for j, i in np.ndindex(3, 2):
        days = known[:, j, i]
        if days.any():
            total += days.mean() * np.quantile(forecast[days, :, j, i], 0.9)
            weight += days.mean()
    assert quantile_change(forecast, truth, q=0.9).forecast == pytest.approx(
        total / weight
    )
    monkeypatch.setattr(distribution, "QUANTILE_BYTES", 1)  # row by row
    assert quantile_change(forecast, truth, q=0.9).forecast == pytest.approx(
        total / weight
    )


def test_quantile_without_a_positive_truth():
    assert np.isnan(quantile_ratio(np.ones((9, 1, 1)), np.zeros((9, 1, 1))))
    assert np.isnan(quantile_ratio(np.ones((9, 1, 1)), np.full((9, 1, 1), np.nan)))
    with pytest.raises(InputError):
        quantile_ratio(np.ones((9, 1, 1)), np.ones((9, 1, 1)), q=99)


def test_histogram_distance_covers_both_ranges():
    # D79: the range of the prediction alone would hide what lies outside it.
    truth = np.array([[[0.0, 10.0]]])
    assert histogram_distance(truth, truth) == 0
    apart = np.array([[[100.0, 110.0]]])
    assert histogram_distance(apart, truth) == pytest.approx(2)
    half = np.array([[[0.0, 110.0]]])
    assert histogram_distance(half, truth) == pytest.approx(1)
    assert histogram_distance(np.ones((1, 2, 2)), np.ones((1, 2, 2))) == 0
    assert np.isnan(histogram_distance(truth, np.full_like(truth, np.nan)))
    with pytest.raises(InputError):
        histogram_distance(truth, truth, bins=0)


def test_histogram_ignores_the_sea():
    truth = np.array([[[1.0, 2.0, np.nan]]])
    forecast = np.array([[[1.0, 2.0, 500.0]]])
    assert histogram_distance(forecast, truth) == 0


def test_wasserstein_is_a_distance_of_distributions():
    # D77: the same values at other places are the same distribution of single values
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, 8, 8))

    def distance(forecast, **options):
        return sliced_wasserstein(
            forecast, truth, rng=np.random.default_rng(1), **options
        )

    shuffled = rng.permutation(truth.ravel()).reshape(truth.shape)
    assert distance(truth) == pytest.approx(0)
    assert distance(shuffled, patch=1) == pytest.approx(0)
    assert distance(shuffled) > 0.05
    assert distance(truth + 2, patch=1) == pytest.approx(2)
    assert distance(truth + 2) == distance(truth + 2)  # the generator decides
    # a Gaussian of twice the width: |2 - 1| in every direction
    wide = 2 * rng.normal(size=(200, 12, 12))
    narrow = rng.normal(size=(200, 12, 12))
    gap = sliced_wasserstein(wide, narrow, rng=np.random.default_rng(2))
    assert gap == pytest.approx(1, abs=0.03)


def test_wasserstein_uses_whole_patches_of_counted_cells():
    truth = np.zeros((1, 4, 4))
    truth[0, 0, 0] = np.nan
    forecast = np.zeros((1, 4, 4))
    forecast[0, 0, 0] = 1e3
    rng = np.random.default_rng(0)
    assert sliced_wasserstein(forecast, truth, rng=rng, patch=2) == 0
    assert np.isnan(sliced_wasserstein(forecast, truth, rng=rng, patch=5))
    assert np.isnan(sliced_wasserstein(forecast, truth * np.nan, rng=rng))
    with pytest.raises(InputError):
        sliced_wasserstein(forecast, truth, rng=rng, patch=0)
