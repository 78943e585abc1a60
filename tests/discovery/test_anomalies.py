"""Seasons removed, scales made equal: closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.discovery.anomalies import (
    inner_cells,
    patches,
    remove_harmonics,
    standardise,
)
from st_cdgm.errors import InputError

DAYS = 365 * 4
SEASON = (np.arange(DAYS) % 365) / 365


def cycle(order, phase):
    return np.cos(2 * np.pi * order * SEASON - phase)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_the_first_harmonics_vanish(order):
    fields = (2.0 + 5.0 * cycle(order, 0.7))[:, None] * np.array([1.0, -3.0])
    assert np.abs(remove_harmonics(fields, SEASON)).max() < 1e-4


def test_the_fourth_harmonic_stays():
    fields = cycle(4, 0.0)[:, None]
    np.testing.assert_allclose(remove_harmonics(fields, SEASON), fields, atol=1e-4)


def test_zero_harmonics_remove_the_mean_alone():
    fields = cycle(1, 0.0)[:, None] + 7.0
    np.testing.assert_allclose(
        remove_harmonics(fields, SEASON, harmonics=0), fields - 7.0, atol=1e-4
    )


def test_held_out_days_do_not_change_the_fit():
    rng = np.random.default_rng(0)
    fields = rng.standard_normal((DAYS, 2))
    train = np.arange(DAYS) < 730
    other = fields.copy()
    other[~train] += 100.0
    first = remove_harmonics(fields, SEASON, train)
    second = remove_harmonics(other, SEASON, train)
    np.testing.assert_array_equal(first[train], second[train])
    np.testing.assert_allclose(second[~train] - first[~train], 100.0, atol=1e-3)


def test_weather_survives_in_size():
    weather = np.random.default_rng(0).standard_normal((DAYS, 1))
    left = remove_harmonics(weather + 4.0 * cycle(1, 0.3)[:, None], SEASON)
    assert np.corrcoef(left.ravel(), weather.ravel())[0, 1] > 0.995


@pytest.mark.parametrize(
    ("season", "train"),
    [(SEASON[:-1], None), (SEASON, np.ones(3, bool)), (SEASON, np.zeros(DAYS, bool))],
)
def test_calendars_that_do_not_fit_are_refused(season, train):
    with pytest.raises(InputError):
        remove_harmonics(np.zeros((DAYS, 1)), season, train)


def test_the_scale_is_that_of_training_days_and_constants_stay():
    fields = np.random.default_rng(0).standard_normal((400, 2, 3, 3)) * 5.0
    fields[:, 1] = 0.0
    train = np.arange(400) < 200
    fields[200:, 0] *= 10.0
    out = standardise(fields, train)
    assert out[train, 0].std() == pytest.approx(1.0, abs=1e-5)
    assert out[~train, 0].std() == pytest.approx(10.0, rel=0.1)
    assert not out[:, 1].any()


def test_a_patch_holds_the_nine_cells_row_by_row():
    field = np.arange(12.0).reshape(1, 1, 3, 4)
    found = patches(field)
    assert found.shape == (1, 12, 9)
    assert found[0, 5].tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert found[0, 0].tolist() == [0, 0, 1, 0, 0, 1, 4, 4, 5]
    assert inner_cells((3, 4)).tolist() == [5, 6]


def test_patches_of_several_channels_keep_cells_together():
    field = np.stack([np.arange(9.0), 10 + np.arange(9.0)]).reshape(1, 2, 3, 3)
    assert patches(field)[0, 4, :4].tolist() == [0, 10, 1, 11]
