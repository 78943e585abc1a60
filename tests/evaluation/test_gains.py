"""Gains over the best reference and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.evaluation.gains import (
    DailyScore,
    Gain,
    gains_of,
    percent,
    relative_gain,
)
from st_cdgm.evaluation.resampling import RESAMPLES, SEED, block_length

nan = math.nan


def daily(values, weight=None):
    values = np.asarray(values, dtype=np.float64)
    weight = np.ones_like(values) if weight is None else np.asarray(weight, float)
    return DailyScore(value=values, weight=weight)


def gamma(days, seed=0):
    return np.random.default_rng(seed).gamma(4.0, 0.25, size=days)


@pytest.mark.parametrize("block", [1, 4, 10])
def test_a_constant_gain_has_an_interval_without_width(block):
    reference = gamma(53)
    found = relative_gain(daily(0.8 * reference), daily(reference), block=block)
    assert found == pytest.approx((0.2, 0.2, 0.2))


def test_equal_forecasts_are_a_tie():
    scores = {("m", "pr"): daily(gamma(60)), ("a", "pr"): daily(gamma(60))}
    (gain,) = gains_of(scores, ["m", "a"], ["pr"], block=10)
    assert (gain.gain, gain.low, gain.high) == (0, 0, 0)
    assert gain.outcome == "ties"


def test_noise_of_either_sign_is_no_clear_difference():
    low, high = relative_gain(daily(gamma(90)), daily(gamma(90, seed=1)), block=3)[1:]
    assert low < 0 < high


def test_two_sources_exchanged_flip_the_sign():
    good, poor = 0.8 * gamma(60) + 0.05 * gamma(60, seed=1), gamma(60)
    scores = {("m", "pr"): daily(good), ("a", "pr"): daily(poor)}
    (won,) = gains_of(scores, ["m", "a"], ["pr"], block=5)
    (lost,) = gains_of(scores, ["a", "m"], ["pr"], block=5)
    assert (won.outcome, won.reference) == ("wins", "a")
    assert (lost.outcome, lost.reference) == ("loses", "m")
    # 1 - a / b and 1 - b / a: bounds change places, the days drawn are the same
    assert 1 - lost.gain == pytest.approx(1 / (1 - won.gain))
    assert 1 - lost.high == pytest.approx(1 / (1 - won.low), rel=1e-3)
    assert 1 - lost.low == pytest.approx(1 / (1 - won.high), rel=1e-3)


def test_bounds_of_a_binomial_by_hand():
    """One bad day of five: resamples hold it K times, K binomial, gain 1 - K.

    P(K = 0) = 0.33, P(K >= 3) = 0.058, P(K >= 4) = 0.007: the quantiles are -2 and 1.
    """
    found = relative_gain(daily([0, 0, 0, 0, 5]), daily(np.ones(5)), block=1)
    assert found == (0.0, -2.0, 1.0)


@pytest.mark.parametrize(("days", "block"), [(23, 4), (24, 4), (17, 1), (50, 10)])
def test_sums_over_blocks_equal_days_drawn_one_by_one(days, block):
    model, reference = gamma(days), gamma(days, seed=1)
    rng = np.random.default_rng(SEED)
    starts = rng.integers(0, days - block + 1, size=(RESAMPLES, -(-days // block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(RESAMPLES, -1)[:, :days]
    gains = 1 - model[index].mean(axis=1) / reference[index].mean(axis=1)
    expected = np.quantile(gains, [0.025, 0.975])
    found = relative_gain(daily(model), daily(reference), block=block)[1:]
    assert found == pytest.approx(tuple(expected))


def test_blocks_widen_the_interval_of_weather_that_lasts():
    spells = np.repeat(gamma(40), 10)
    widths = []
    for block in (1, 10):
        _, low, high = relative_gain(daily(spells), daily(np.ones(400)), block=block)
        widths.append(high - low)
    # Independent spells of ten days: about sqrt(10) times; drawn blocks straddle two.
    assert 2 < widths[1] / widths[0] < 3.2


def test_days_count_by_their_weight_and_days_without_truth_not_at_all():
    model = daily([1.0, 3.0, nan, 1.0, 1.0, 1.0], [1, 3, 0, 1, 1, 1])
    reference = daily([2.0, 2.0, nan, 2.0, 2.0, 2.0], [1, 3, 0, 1, 1, 1])
    gain, low, high = relative_gain(model, reference, block=1)
    assert gain == pytest.approx(1 - 13 / 14)
    assert low < gain < high
    (made,) = gains_of({("m", "v"): model, ("a", "v"): reference}, "ma", "v", block=1)
    assert made.days == 5


def test_few_days_have_no_interval():
    """Eleven days in blocks of ten could be drawn in two ways only."""
    found = relative_gain(daily(np.full(11, 0.5)), daily(np.ones(11)), block=10)
    assert found[0] == 0.5
    assert np.isnan(found[1:]).all()
    gain = Gain(
        variable="v", reference="a", gain=0.5, low=nan, high=nan, days=11, block=10
    )
    assert gain.outcome == "unclear"
    assert gain.words == (
        "no clear difference (50 % better; 11 scored days are too few for an interval)"
    )


def test_a_reference_without_error_or_truth():
    zeros, ones = daily(np.zeros(9)), daily(np.ones(9))
    assert np.isnan(relative_gain(ones, zeros, block=1)).all()
    rarely = daily([9.0, 0, 0, 0, 0, 0, 0, 0, 0])  # 0 in some resamples
    gain, low, high = relative_gain(ones, rarely, block=1)
    assert gain == 0
    assert np.isnan([low, high]).all()
    nothing = daily(np.full(9, nan), np.zeros(9))
    assert gains_of({("m", "v"): nothing, ("a", "v"): nothing}, "ma", "v", block=1) == (
        []
    )


def test_the_best_reference_of_each_variable_is_taken():
    scores = {
        ("m", "pr"): daily(np.full(9, 1.0)),
        ("m", "tas"): daily(np.full(9, 1.0)),
        ("a", "pr"): daily(np.full(9, 2.0)),
        ("b", "pr"): daily(np.full(9, 4.0)),
        ("b", "tas"): daily(np.full(9, 0.5)),
        ("b", "hus"): daily(np.full(9, 0.5)),
    }
    gains = gains_of(scores, ["m", "a", "b"], ["pr", "tas", "hus"], block=1)
    found = [(g.variable, g.reference, g.gain, g.low, g.high) for g in gains]
    assert found == [("pr", "a", 0.5, 0.5, 0.5), ("tas", "b", -1.0, -1.0, -1.0)]
    assert gains_of(scores, ["m"], ["pr"], block=1) == []


@pytest.mark.parametrize(
    ("ordinal", "block"),
    [
        (np.arange(365), 10),
        (np.arange(0, 365, 3), 3),
        (np.arange(0, 365, 5), 2),
        (np.arange(0, 365, 30), 1),
        (np.array([0, 1, 2, 900, 901, 902]), 10),  # a gap between periods
        (np.array([7]), 10),
    ],
)
def test_blocks_are_about_ten_days(ordinal, block):
    assert block_length(ordinal) == block


def test_words():
    def words(gain, low, high):
        return Gain(
            variable="v",
            reference="a",
            gain=gain,
            low=low,
            high=high,
            days=365,
            block=10,
        ).words

    assert words(0.21, 0.17, 0.25) == "21 % better (95 % interval 17 to 25 %)"
    assert words(-0.05, -0.12, -0.02) == "5.0 % worse (95 % interval 2.0 to 12 %)"
    assert words(0.007, -0.008, 0.021) == (
        "tie (0.70 % better; 95 % interval 0.80 % worse to 2.1 % better)"
    )
    assert words(nan, nan, nan) == "cannot be compared: a score is missing"
    assert percent(-0.5) == "50 %"


@settings(max_examples=25, deadline=None)
@given(
    st.integers(5, 80),
    st.integers(1, 12),
    st.floats(0.1, 10.0),
    st.integers(0, 1000),
)
def test_units_do_not_matter_and_bounds_are_ordered(days, block, factor, seed):
    model, reference = gamma(days, seed), gamma(days, seed + 1)
    found = relative_gain(daily(model), daily(reference), block=block)
    scaled = relative_gain(
        daily(factor * model), daily(factor * reference), block=block
    )
    assert scaled == pytest.approx(found, nan_ok=True, rel=1e-9, abs=1e-12)
    if days >= 5 * block:
        assert found[1] <= found[2] < 1
    else:
        assert np.isnan(found[1:]).all()


def test_dictionary_and_back():
    made = Gain(
        variable="v", reference="a", gain=0.5, low=0.25, high=0.75, days=9, block=1
    )
    assert Gain.from_dict(made.to_dict()) == made
    stored = {**made.to_dict(), "low": None, "high": None}
    assert not Gain.from_dict(stored).has_interval
