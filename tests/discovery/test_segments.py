"""Which part judges, and which day may stand in for which."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.discovery.held_out.segments import Segments, shadow_days
from st_cdgm.errors import InputError

DAYS = 365


def years(count):
    number = np.arange(count * DAYS)
    return number // DAYS + 2001, number % DAYS / DAYS


def test_every_year_is_held_out_once():
    segments = Segments.of(*years(7))
    assert segments.yearly
    held = [np.unique(segments.number[~train]) for train in segments.folds(5)]
    assert sorted(np.concatenate(held).tolist()) == list(range(7))
    assert len(held) == 5


def test_a_short_record_is_cut_into_ten_parts():
    segments = Segments.of(*years(2))
    assert not segments.yearly
    assert np.bincount(segments.number).tolist() == [73] * 10
    assert segments.place.max() < 1


def test_under_a_hundred_steps_nothing_can_be_judged():
    with pytest.raises(InputError, match="too few steps"):
        Segments.of(np.zeros(99, np.int64), np.zeros(99))


def test_a_shadow_has_the_season_and_another_year():
    year, season = years(4)
    segments = Segments.of(year, season)
    for train in segments.folds(4):
        other = segments.shadows(train)
        assert (year[other] != year).all()
        np.testing.assert_array_equal(season[other], season)
        # What the fit learns from comes from what it may learn from.
        assert train[other[train]].all()


def test_one_segment_has_no_shadows():
    with pytest.raises(InputError, match="two or more"):
        shadow_days(np.zeros(5, np.int64), np.zeros(5), np.ones(5, bool))
