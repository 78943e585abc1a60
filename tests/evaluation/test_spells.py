"""Wet and dry sequences by hand."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.evaluation.metrics.blocks import Pair, accumulate
from st_cdgm.evaluation.metrics.spells import (
    SpellScore,
    TransitionScore,
    spells,
    transitions,
)

nan = np.nan
#      wet days:   1  1        1     1  1  1
DAYS = np.array([0, 2, 5, 0, 0, 1, 0.9, 3, 4, 8])


def column(days):
    return np.asarray(days, float)[:, None, None] * np.ones((1, 1, 2))


def scored(score, members, truth, ordinal=None, year=None):
    forecast = np.stack([column(m) for m in members], axis=1)
    reference = column(truth)
    pair = Pair(
        forecast=forecast.__getitem__,
        reference=reference.__getitem__,
        shape=forecast.shape,
        weights=np.ones((1, 2)),
        ordinal=ordinal,
        year=year,
    )
    accumulate(pair, score)
    return score.value


def test_probabilities_of_the_next_day():
    """First days wet: 2, 5, 1, 3, 4; the next one is wet after 2, 3 and 4."""
    found = transitions(column(DAYS)[:, None], column(DAYS))
    assert found["wet_wet"].compared.forecast == pytest.approx(3 / 5)
    assert found["wet_wet"].compared.reference == pytest.approx(3 / 5)
    assert found["dry_dry"].compared.forecast == pytest.approx(1 / 4)
    assert found["wet_wet"].difference.value == 0


def test_members_are_read_one_by_one_and_gaps_are_not_crossed():
    members = [DAYS, np.zeros(10), np.full(10, 7.0)]
    ordinal = np.r_[0:2, 10:18]  # the pair 2, 5 is none
    found = scored(TransitionScore(), members, DAYS, ordinal)
    # wet first days: 4 (5, 1, 3, 4) + 0 + 8; followed by wet: 2 + 0 + 8
    assert found["wet_wet"].compared.forecast == pytest.approx(10 / 12)
    assert found["wet_wet"].compared.reference == pytest.approx(2 / 4)
    assert found["dry_dry"].compared.forecast == pytest.approx((1 + 8 + 0) / (4 + 8))
    assert found["wet_wet"].difference.value == pytest.approx(10 / 12 - 2 / 4)


def test_the_interval_holds_no_difference_of_the_same_climate():
    rng = np.random.default_rng(0)
    wet = rng.random((400, 6, 5, 5))
    rain = np.where(ndimage_mean(wet) < 0.5, 5.0, 0.0)
    found = transitions(rain[:, 1:], rain[:, 0])["wet_wet"]
    assert found.compared.forecast > 0.6  # wet days keep together
    assert found.difference.low < 0 < found.difference.high
    mixed = rain[rng.permutation(400)]
    assert transitions(mixed[:, 1:], rain[:, 0])["wet_wet"].difference.high < -0.1


def ndimage_mean(values):
    """Return the mean of two consecutive days."""
    return 0.5 * (values + np.roll(values, 1, axis=0))


def test_indices_of_one_year():
    found = spells(column(DAYS)[:, None], column(DAYS))
    assert {name: pair.reference for name, pair in found.items()} == {
        "cdd": 2.0,
        "cwd": 3.0,
        "rx1day": 8.0,
        "rx5day": pytest.approx(1 + 0.9 + 3 + 4 + 8),
    }
    assert all(pair.ratio == pytest.approx(1) for pair in found.values())


def test_means_over_members_and_years():
    """The second year has days 5 to 9: one member is dry, the other as the truth."""
    year = np.array([2001] * 5 + [2002] * 5)
    found = scored(SpellScore(), [DAYS, np.zeros(10)], DAYS, year=year)
    assert found["cdd"].reference == (2 + 1) / 2
    assert found["cdd"].forecast == (2 + 5 + 1 + 5) / 4
    assert found["cwd"].reference == (2 + 3) / 2
    assert found["rx1day"].reference == (5 + 8) / 2
    assert found["rx5day"].reference == pytest.approx((7 + 16.9) / 2)
    assert found["rx5day"].forecast == pytest.approx((7 + 16.9) / 4)


def test_a_gap_ends_spells_and_sums():
    ordinal = np.r_[0:8, 20:22]
    found = scored(SpellScore(), [DAYS], DAYS, ordinal)
    assert found["cwd"].reference == 2
    assert found["rx5day"].reference == pytest.approx(2 + 5 + 0 + 0 + 1)


def test_a_day_without_truth_is_neither_wet_nor_dry():
    truth = column(DAYS)
    truth[8, 0, 0] = nan
    found = spells(column(DAYS)[:, None], truth)
    assert found["cwd"].reference == (2 + 3) / 2 or found["cwd"].reference < 3
    short = spells(column(DAYS[:4])[:, None], column(DAYS[:4]))
    assert np.isnan(short["rx5day"].reference)  # no five days
    assert short["cwd"].reference == 2
