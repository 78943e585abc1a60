"""Semivariances of neighbours where cells are missing."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.metrics.variograms import variograms


def coast(fields):
    fields = fields.copy()
    fields[..., 7:] = np.nan
    return fields


def test_semivariances_by_hand():
    """One row, 1 4 2 and a missing cell: differences 3 and 2, then 1."""
    truth = np.array([[[1.0, 4.0, 2.0, np.nan]]])
    forecast = np.array([[[2.0, 8.0, 4.0, 99.0]]])
    found = variograms(forecast, truth)
    np.testing.assert_allclose(found.reference[:2], [(9 + 4) / 4, 1 / 2])
    np.testing.assert_allclose(found.forecast[:2], 4 * found.reference[:2])
    assert np.isnan(found.reference[2:]).all()
    assert found.distance == pytest.approx(10 * np.log10(4))
    assert found.level.value == pytest.approx(10 * np.log10(4))


def test_white_noise_has_the_variance_at_every_distance():
    rng = np.random.default_rng(0)
    truth, members = (
        coast(rng.normal(size=(80, 12, 12))),
        rng.normal(size=(80, 6, 12, 12)),
    )
    found = variograms(members, truth)
    np.testing.assert_allclose(found.forecast, 1.0, atol=0.05)
    np.testing.assert_allclose(found.reference, 1.0, atol=0.05)
    assert found.level.low < 0 < found.level.high
    louder = variograms(np.sqrt(2) * members, truth).level
    assert louder.value == pytest.approx(10 * np.log10(2), abs=0.2)


def test_sea_leaves_the_same_trace_in_forecast_and_truth():
    rng = np.random.default_rng(0)
    field = 15 + rng.normal(size=(4, 12, 12))
    forecast = np.where(np.isnan(coast(field)), 1e5, field)
    assert variograms(forecast, coast(field)).distance == pytest.approx(0, abs=1e-4)


def test_days_on_which_all_cells_count_are_left_to_the_spectrum():
    truth = np.random.default_rng(0).normal(size=(3, 8, 8))
    found = variograms(truth, truth)
    assert np.isnan([found.distance, found.level.value]).all()
    truth[1, 0, 0] = np.nan
    expected = variograms(truth[1], truth[1])
    np.testing.assert_allclose(variograms(truth, truth).reference, expected.reference)
