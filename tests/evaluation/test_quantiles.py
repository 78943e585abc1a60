"""Quantiles of all values from histograms of floating point numbers."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.metrics.quantiles import LEVELS, quantiles


@pytest.mark.parametrize(
    "make",
    [
        lambda rng, shape: rng.normal(3, 8, shape),
        lambda rng, shape: rng.normal(285, 8, shape),
        lambda rng, shape: -rng.gamma(0.3, 9, shape),
        lambda rng, shape: np.clip(rng.normal(0, 5, shape), 0, None) ** 1.5,
    ],
)
def test_quantiles_are_right_to_a_part_of_themselves(make):
    values = make(np.random.default_rng(0), (40, 6, 20, 20))
    found = quantiles(values, values[:, 0])
    expected = np.quantile(values, LEVELS)
    np.testing.assert_allclose(found.forecast, expected, rtol=4e-3, atol=5e-3)
    expected = np.quantile(values[:, 0], LEVELS)
    np.testing.assert_allclose(found.reference, expected, rtol=1e-2, atol=5e-2)


def test_areas_count():
    """Three quarters of the area have 1, the rest 2."""
    field = np.array([[1.0, 2.0]])
    found = quantiles(field, field, weights=np.array([[3.0, 1.0]]))
    at = np.searchsorted(found.reference, 1.5)
    assert LEVELS[at] == 0.9
    assert LEVELS[at - 1] == 0.75


def test_dry_days_are_zero_and_nothing_counted_is_nan():
    rain = np.zeros((3, 4, 4))
    assert (quantiles(rain, rain).reference == 0).all()
    assert (quantiles(-rain, rain).forecast == 0).all()
    assert np.isnan(quantiles(rain, np.full_like(rain, np.nan)).forecast).all()
