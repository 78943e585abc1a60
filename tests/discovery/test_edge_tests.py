"""The rule for edges, on numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from st_cdgm.discovery.verdicts import (
    judge_edges,
    shadow_days,
    slow_common_variance,
    year_t_values,
)
from st_cdgm.errors import InputError

NAMES = ("a", "b")


def errors(gain, shadow, *, years=4, wobble=0.0):
    """Errors in which a gives b this gain, and its shadow that one; b gives a none."""
    full = np.ones((years, 2))
    without, other = np.ones((years, 2, 2)), np.ones((years, 2, 2))
    change = gain + wobble * np.array([1.0, -1.0, 1.0, -1.0])[:years]
    without[:, 0, 1] = 1 + change
    other[:, 0, 1] = 1 + change - shadow
    return full, without, other


def test_a_gain_is_relative_to_the_full_error():
    full, without, shadow = errors(0.1, 0.02)
    verdicts = judge_edges(NAMES, 5 * full, 5 * without, 5 * shadow)
    assert verdicts.gain[0, 1] == pytest.approx(0.1)
    assert verdicts.shadow[0, 1] == pytest.approx(0.02)
    assert verdicts.error == pytest.approx([5.0, 5.0])
    assert verdicts.edge.tolist() == [[False, True], [False, False]]
    found = np.where(verdicts.edge, verdicts.gain, 0.0)
    np.testing.assert_allclose(found, [[0, 0.1], [0, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("gain", "shadow", "wobble", "verdict"),
    [
        (0.1, 0.0, 0.0, "edge"),
        (0.0019, 0.0, 0.0, "none"),  # too small
        (0.0021, 0.0, 0.0, "edge"),
        (0.1, 0.049, 0.0, "edge"),
        (0.1, 0.051, 0.0, "not identifiable"),  # a shadow does half as well
        (0.1, 0.0, 0.0570, "edge"),  # t = 0.1 / (0.057 * sqrt(4/3) / 2) = 3.04
        (0.1, 0.0, 0.0585, "none"),  # t = 2.96
        (-0.1, 0.0, 0.0, "none"),
    ],
)
def test_every_condition_of_the_rule_decides(gain, shadow, wobble, verdict):
    found = judge_edges(NAMES, *errors(gain, shadow, wobble=wobble))
    assert found.verdict(0, 1) == verdict
    assert found.verdict(1, 0) == "none"


def test_the_best_shadow_of_a_target_counts_for_all_its_parents():
    full, without = np.ones((3, 3)), np.ones((3, 3, 3))
    without[:, 0, 2], without[:, 1, 2] = 1.10, 1.05
    shadow = without.copy()
    shadow[:, 0, 2] -= 0.03
    found = judge_edges("abc", full, without, shadow)
    assert [found.verdict(i, 2) for i in range(2)] == ["edge", "not identifiable"]


def test_pairs_that_were_not_tested_are_no_edges():
    tested = np.zeros((2, 2), bool)
    found = judge_edges(NAMES, *errors(0.1, 0.0), tested)
    assert not found.edge.any()
    assert not found.gain.any()


def test_t_is_mean_over_standard_error():
    gains = np.array([0.1, 0.2, 0.3])
    assert year_t_values(gains) == pytest.approx(0.2 / (0.1 / np.sqrt(3)))


def test_verdicts_can_be_written_as_json():
    slow = np.full((2, 2), 4.0)
    found = judge_edges(NAMES, *errors(0.1, 0.0), slow=slow)
    pair = json.loads(json.dumps(found.to_dict()))["pairs"][0]
    assert (pair["source"], pair["target"], pair["verdict"]) == ("a", "b", "doubtful")


@pytest.mark.parametrize("years", [1, 0])
def test_one_year_cannot_judge(years):
    full = np.ones((years, 2))
    with pytest.raises(InputError, match="two or more held-out years"):
        judge_edges(NAMES, full, np.ones((years, 2, 2)), np.ones((years, 2, 2)))


def test_errors_must_fit_the_names():
    with pytest.raises(InputError):
        judge_edges("abc", *errors(0.1, 0.0))


def test_a_shadow_is_the_same_season_of_another_allowed_year():
    year = np.repeat([2001, 2002, 2003], 4)
    season = np.tile([0.0, 0.25, 0.5, 0.75], 3)
    allowed = year != 2002
    found = shadow_days(year, season, allowed)
    assert found.tolist() == [8, 9, 10, 11, -1, -1, -1, -1, 0, 1, 2, 3]


def test_a_shadow_of_a_missing_day_is_the_nearest_in_season():
    year = np.array([1, 1, 1, 2, 2])
    season = np.array([0.1, 0.2, 0.9, 0.18, 0.5])
    found = shadow_days(year, season, np.ones(5, bool))
    assert found.tolist() == [3, 3, 4, 1, 1]


def test_shadows_need_two_years():
    with pytest.raises(InputError, match="two or more years"):
        shadow_days(np.ones(4, int), np.linspace(0, 0.9, 4), np.ones(4, bool))


def red_noise(rng, days, memory):
    out, value = np.empty(days), 0.0
    for t in range(days):
        value = memory * value + np.sqrt(1 - memory**2) * rng.standard_normal()
        out[t] = value
    return out


def test_slow_common_variance_is_seen_and_fast_common_variance_is_not():
    rng = np.random.default_rng(0)
    days = 3650
    own = rng.standard_normal((days, 3))
    assert slow_common_variance(own, np.arange(days)).max() < 3
    fast = own + rng.standard_normal(
        (days, 1)
    )  # shared from day to day, correlation .5
    assert slow_common_variance(fast, np.arange(days)).max() < 3
    slow = own.copy()
    slow[:, :2] += 0.25 * red_noise(rng, days, 0.97)[:, None]
    z = slow_common_variance(slow, np.arange(days))
    assert z[0, 1] > 4
    assert z[0, 1] == z[1, 0]
    assert max(z[0, 2], z[1, 2]) < 3


def test_slow_common_variance_of_a_short_record_is_unknown():
    residual = np.random.default_rng(0).standard_normal((200, 2))
    assert not slow_common_variance(residual, np.arange(200)).any()
