"""Intervals from sums over days."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.resampling import MIN_BLOCKS, bootstrap


def mean(sums):
    return sums[0] / sums[1]


def series(values):
    return np.stack([values, np.ones_like(values)])


@pytest.mark.parametrize(("entries", "block"), [(30, 1), (60, 4), (12, 2)])
def test_a_mean_is_held_about_as_often_as_it_says(entries, block):
    """Of 95 % intervals at least 88 % hold the mean of independent numbers."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        found = bootstrap(mean, series(rng.gamma(2.0, 0.5, entries)), block)
        hits += found.low <= 1.0 <= found.high
    assert hits >= 53


def test_a_longer_memory_needs_longer_blocks():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    values = np.convolve(noise, np.ones(8), "valid")
    short, long = (bootstrap(mean, series(values), block) for block in (1, 16))
    assert long.high - long.low > 1.8 * (short.high - short.low)


def test_numbers_that_do_not_vary_have_no_width():
    found = bootstrap(mean, series(np.full(40, 3.0)), 4)
    assert found == pytest.approx((3.0, 3.0, 3.0))


def test_too_few_entries_have_a_value_alone():
    found = bootstrap(mean, series(np.arange(MIN_BLOCKS * 4 - 1.0)), 4)
    assert found.value == 9.0
    assert np.isnan([found.low, found.high]).all()


def test_a_resample_without_the_statistic_gives_no_interval():
    """One day of twenty counts: resamples without it have no mean."""
    daily = np.zeros((2, 20))
    daily[:, 7] = 2.0, 1.0
    found = bootstrap(mean, daily, 1)
    assert found.value == 2.0
    assert np.isnan([found.low, found.high]).all()
