"""Blocks, Student's t, false discovery rate: tables worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from st_cdgm.discovery.held_out.losses import nested_evidence, normal_crps
from st_cdgm.discovery.statistics import (
    block_means,
    mean_test,
    q_values,
    slow_likeness,
)


def test_a_block_counts_when_half_of_its_steps_are_there():
    number = np.array([0, 1, 2, 3, 4, 9, 10, 11])
    means, first = block_means(np.arange(8.0), number, 4)
    assert means.tolist() == [1.5, 6.0]  # step 4 alone is too few
    assert first.tolist() == [0, 8]


def test_the_test_of_a_mean_is_students():
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((12, 1)) + 0.4
    # An alternating series: neighbours do not widen the interval.
    blocks = np.sort(blocks, axis=0)[[0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6]]
    found = mean_test(blocks)
    expected = stats.ttest_1samp(blocks[:, 0], 0.0, alternative="greater")
    assert found.t[0] == pytest.approx(expected.statistic)
    assert found.p[0] == pytest.approx(expected.pvalue)
    low, high = found.interval()
    interval = stats.ttest_1samp(blocks[:, 0], 0.0).confidence_interval()
    assert (low[0], high[0]) == pytest.approx((interval.low, interval.high))


def test_alike_neighbours_widen_the_interval():
    blocks = np.repeat(np.random.default_rng(0).standard_normal(20), 2)[:, None]
    plain = stats.ttest_1samp(blocks[:, 0], 0.0).statistic
    assert abs(mean_test(blocks).t[0]) < 0.9 * abs(plain)


def test_weights_say_how_often_a_block_counts():
    blocks = np.array([[1.0], [2.0], [4.0]])
    assert mean_test(blocks, np.array([2, 0, 1])).mean == pytest.approx(2.0)


def test_q_values_are_those_of_benjamini_and_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(q_values(p), stats.false_discovery_control(p))


def test_evidence_for_a_feature_that_does_nothing_has_mean_zero():
    """The plain difference of losses is negative by what estimating it costs."""
    rng = np.random.default_rng(2)
    plain, nested = [], []
    for _ in range(400):
        x, y = rng.standard_normal((2, 40))
        slope = (x[:20] @ y[:20]) / (x[:20] @ x[:20])
        guess = slope * x[20:]
        plain.append(np.mean(y[20:] ** 2 - (y[20:] - guess) ** 2))
        nested.append(np.mean(nested_evidence(y[20:], np.zeros(20), guess)))
    error = np.std(nested) / 20
    assert abs(np.mean(nested)) < 3 * error
    assert np.mean(plain) < -3 * error


def test_the_crps_of_a_normal_forecast():
    """Against the integral of the squared difference of distributions."""
    x = np.linspace(-12, 12, 40001)
    for wrong, spread in ((0.0, 1.0), (1.3, 0.7), (-2.0, 2.0)):
        step = (x >= wrong).astype(float)
        expected = np.trapezoid((stats.norm.cdf(x, 0, spread) - step) ** 2, x)
        found = normal_crps(np.array([wrong]), np.array([spread]))[0]
        assert found == pytest.approx(expected, rel=1e-3)


def test_a_slow_part_in_common_shows_in_longer_means():
    rng = np.random.default_rng(0)
    steps = 3000
    fast = rng.standard_normal((steps, 1))
    a, b = (fast + rng.standard_normal((steps, 1)) for _ in range(2))
    slow = np.repeat(rng.standard_normal((steps // 30, 1)), 30, axis=0)
    number = np.arange(steps)
    assert abs(slow_likeness(a, b, number)[0, 0]) < 2
    assert slow_likeness(a + slow, b + slow, number)[0, 0] > 5
