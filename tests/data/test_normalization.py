"""Statistics and filling: hand numbers, constants, never-valid cells, NaN (D5, D7)."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.fit.moments import (
    Moments,
    fill_missing,
    fill_nearest,
    rooted,
)
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.fit.robust import RobustMoments
from st_cdgm.errors import ConfigError

NAN = np.nan


def _result(values, scope):
    values = np.asarray(values, dtype=np.float32)
    running = Moments(values.shape[1:])
    running.add(values)
    return running.result(scope)


@given(seed=st.integers(0, 1000), pieces=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_both_scopes_equal_numpy_and_do_not_depend_on_the_chunks(seed, pieces):
    rng = np.random.default_rng(seed)
    # A large mean beside a small spread, as geopotential has.
    values = (56000 + 30 * rng.standard_normal((23, 2, 3, 4))).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = NAN
    values[:, :, 0, 0] = NAN
    running = {scope: Moments((2, 3, 4)) for scope in ("per_variable", "per_gridpoint")}
    for chunk in np.array_split(values, pieces):
        for one in running.values():
            one.add(chunk)
    exact = values.astype(np.float64)
    mean, std = running["per_variable"].result("per_variable")
    assert mean[:, 0, 0] == pytest.approx(np.nanmean(exact, axis=(0, 2, 3)), rel=1e-6)
    assert std[:, 0, 0] == pytest.approx(np.nanstd(exact, axis=(0, 2, 3)), rel=1e-4)
    mean, std = running["per_gridpoint"].result("per_gridpoint")
    # All cells but the first, which never has a value.
    cells = exact.reshape(23, 2, 12)[:, :, 1:]
    got_mean, got_std = (a.reshape(2, 12)[:, 1:] for a in (mean, std))
    assert got_mean == pytest.approx(np.nanmean(cells, axis=0), rel=1e-6)
    assert got_std == pytest.approx(np.nanstd(cells, axis=0), rel=1e-4)


def test_shapes_follow_the_scope():
    values = np.zeros((5, 2, 3, 4))
    assert _result(values, "per_variable")[0].shape == (2, 1, 1)
    assert _result(values, "per_gridpoint")[0].shape == (2, 3, 4)


@pytest.mark.parametrize("scope", ["per_variable", "per_gridpoint"])
def test_a_channel_without_variation_gets_std_one(scope):
    mean, std = _result(np.full((7, 1, 2, 2), 273.15), scope)
    assert mean == pytest.approx(np.float32(273.15))
    assert (std == 1).all()


def test_a_cell_never_valid_gets_mean_zero_and_std_one():
    values = np.random.default_rng(0).normal(8, 2, (50, 1, 2, 2))
    values[:, 0, 1, 1] = NAN
    mean, std = _result(values, "per_gridpoint")
    assert (mean[0, 1, 1], std[0, 1, 1]) == (0, 1)
    assert std[0, 0, 0] == pytest.approx(values[:, 0, 0, 0].std(), rel=1e-5)


def test_the_std_of_a_cell_is_at_least_a_tenth_of_the_channels_median():
    up_down = np.array([1.0, -1.0])[:, None, None, None]
    values = up_down * np.array([4.0, 4.0, 4.0, 0.1, 0.0]).reshape(1, 1, 1, 5)
    _, std = _result(values, "per_gridpoint")
    # Median of the cells that vary: 4.
    assert std.ravel() == pytest.approx([4.0, 4.0, 4.0, 0.4, 0.4])


def test_unknown_scope_is_refused():
    with pytest.raises(ConfigError, match="per_variable, per_gridpoint"):
        Moments((1, 1, 1)).result("per_planet")


def test_nearest_fill_by_hand():
    field = np.array([[1, NAN, NAN, 4], [1, NAN, NAN, 4]], dtype=np.float32)
    assert fill_nearest(field).tolist() == [[1, 1, 4, 4], [1, 1, 4, 4]]
    empty = np.full((2, 2), NAN)
    assert np.isnan(fill_nearest(empty)).all()


@pytest.mark.parametrize(
    ("strategy", "filled"), [("zero", 7.0), ("mean", 3.0), ("interpolate", 5.0)]
)
def test_fill_strategies_by_hand(strategy, filled):
    values = np.array([[1.0, 3.0, 5.0, NAN]], dtype=np.float32)[None, None]
    out = fill_missing(values, np.full((1, 1, 1), 7.0, np.float32), strategy)
    assert out.ravel().tolist() == [1, 3, 5, filled]
    assert np.isnan(values).sum() == 1


@pytest.mark.parametrize("strategy", ["zero", "mean", "interpolate"])
def test_a_day_without_any_value_takes_the_training_mean(strategy):
    values = np.full((2, 1, 2, 2), NAN, dtype=np.float32)
    values[1] = np.inf
    mean = np.full((1, 1, 1), 7.0, dtype=np.float32)
    assert (fill_missing(values, mean, strategy) == 7).all()


def test_nothing_missing_returns_the_input_itself():
    values = np.ones((2, 1, 2, 2), dtype=np.float32)
    assert fill_missing(values, np.zeros((1, 1, 1), np.float32), "mean") is values


def test_unknown_fill_strategy_is_refused():
    values = np.ones((2, 1, 2, 2), dtype=np.float32)
    with pytest.raises(ConfigError, match="nan_fill_strategy"):
        fill_missing(values, values[0], "guess")


@pytest.mark.parametrize("strategy", ["zero", "mean", "interpolate"])
def test_what_was_given_stays(strategy):
    values = np.array([[1.0, np.inf, 5.0, NAN, -np.inf]], np.float32)[None, None]
    mean = np.full((1, 1, 1), 7.0, np.float32)
    out = fill_missing(values, mean, strategy)
    valid = np.array([True, False, True, False, False])[None, None, None]
    assert np.isfinite(out).all()
    assert np.array_equal(out[valid], values[valid])
    whole = np.ones((2, 1, 2, 2), np.float32)
    assert fill_missing(whole, mean, strategy) is whole


def _fill_slowly(values, mean, strategy):
    """Fill field by field, as the definition says."""
    out = values.copy()
    for t, c in np.ndindex(values.shape[:2]):
        field = values[t, c]
        known = np.isfinite(field)
        neutral = np.broadcast_to(mean[c], field.shape)
        if strategy == "zero" or not known.any():
            out[t, c] = np.where(known, field, neutral)
        elif strategy == "mean":
            out[t, c] = np.where(known, field, field[known].mean(dtype=np.float64))
        else:
            out[t, c] = fill_nearest(np.where(known, field, np.nan))
    return out


@pytest.mark.parametrize("strategy", ["zero", "mean", "interpolate"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_filling_all_fields_at_once_equals_filling_each(strategy, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(280, 9, (6, 3, 4, 5)).astype(np.float32)
    values[:, 0, :2] = NAN  # below ground on every day
    values[rng.random((6, 3)) < 0.2] = NAN  # days without the variable
    scattered = rng.random(values.shape) < 0.1
    values[scattered] = rng.choice([NAN, np.inf], scattered.sum())
    mean = rng.normal(280, 9, (3, 4, 5)).astype(np.float32)
    found = fill_missing(values, mean, strategy)
    assert np.allclose(found, _fill_slowly(values, mean, strategy), rtol=1e-6)
    alone = [fill_missing(values[t : t + 1], mean, strategy)[0] for t in range(6)]
    assert np.array_equal(found, np.stack(alone))


# -- Robust statistics -----------------------------------------------------------------


def _robust(values, pieces=1, **options):
    running = RobustMoments(values.shape[1:], **options)
    for chunk in np.array_split(np.asarray(values, np.float32), pieces):
        running.add(chunk)
    return running


@given(seed=st.integers(0, 1000), pieces=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_in_memory_the_robust_statistics_are_those_of_numpy(seed, pieces):
    rng = np.random.default_rng(seed)
    values = (56000 + 300 * rng.standard_normal((23, 2, 3, 4))).astype(np.float32)
    values[rng.random(values.shape) < 0.2] = NAN
    running = _robust(values, pieces)
    assert running._sketch is None
    assert np.array_equal(running.count, np.isfinite(values).sum(axis=0))
    for scope, axes in (("per_variable", (0, 2, 3)), ("per_gridpoint", (0,))):
        median, scale = running.result(scope)
        low, middle, high = np.nanpercentile(
            values.astype(np.float64), [25, 50, 75], axis=axes, keepdims=True
        )
        assert median == pytest.approx(middle[0], rel=1e-6)
        assert scale == pytest.approx((high - low)[0] / 1.349, rel=1e-4)


@pytest.mark.parametrize("scope", ["per_variable", "per_gridpoint"])
@pytest.mark.parametrize("pieces", [1, 40])
def test_beyond_memory_the_robust_statistics_keep_their_stated_error(scope, pieces):
    rng = np.random.default_rng(1)
    days = 4000
    season = np.cos(2 * np.pi * np.arange(days) / 365)[:, None, None, None]
    offset = np.array([56000.0, 280.0])[:, None, None]
    values = offset + np.array([900.0, 8.0])[:, None, None] * (
        season + rng.standard_normal((days, 2, 2, 3)) + np.arange(3.0)
    )
    values[:, 0, 0, 0] = NAN
    values[::50, 1] = 1e20  # a fill value that nobody declared
    exact = _robust(values)
    sketch = _robust(values, pieces, memory=6 * 2 * 4 * 300)
    assert exact._sketch is None
    assert sketch._sketch is not None
    (median, scale), (found, width) = exact.result(scope), sketch.result(scope)
    assert (np.abs(found - median) <= 0.03 * scale).all()
    assert width == pytest.approx(scale, rel=0.04)


def test_the_sketch_does_not_depend_on_the_blocks_after_it_began():
    values = np.random.default_rng(2).normal(size=(900, 1, 2, 2)).astype(np.float32)
    a, b = (
        RobustMoments((1, 2, 2), memory=100 * 16),
        RobustMoments((1, 2, 2), memory=100 * 16),
    )
    for running, size in ((a, 7), (b, 113)):
        running.add(values[:101])
        for start in range(101, 900, size):
            running.add(values[start : start + size])
    for scope in ("per_variable", "per_gridpoint"):
        assert np.array_equal(a.result(scope), b.result(scope))


def test_robust_scale_of_constants_dry_climates_and_empty_cells():
    rng = np.random.default_rng(3)
    values = np.zeros((200, 3, 1, 3), np.float32)
    values[:, 0] = 273.15
    values[::10, 1] = rng.gamma(1, 5, (20, 1, 3))  # rain on a tenth of the days
    values[:, 2] = rng.normal(0, 2, (200, 1, 3))
    values[:, 2, 0, 2] = NAN
    median, scale = _robust(values).result("per_gridpoint")
    assert (scale[0] == 1).all()
    assert median[0] == pytest.approx(273.15)
    assert scale[1] == pytest.approx(values[:, 1].std(axis=0), rel=0.3)
    assert (median[2, 0, 2], scale[2, 0, 2]) == (0, 1)
    none_at_all, one = RobustMoments((2, 2, 2)).result("per_variable")
    assert (none_at_all == 0).all()
    assert (one == 1).all()


def test_outliers_move_mean_and_std_but_not_median_and_scale():
    values = np.random.default_rng(4).normal(5, 2, (500, 1, 2, 2))
    values[::100] = 1e6
    assert _result(values, "per_variable")[1] > 1e4
    median, scale = _robust(values).result("per_variable")
    assert median.item() == pytest.approx(5, abs=0.2)
    assert scale.item() == pytest.approx(2, rel=0.1)


@given(
    seed=st.integers(0, 1000), scope=st.sampled_from(["per_variable", "per_gridpoint"])
)
@settings(max_examples=20, deadline=None)
def test_robust_standardising_can_be_undone(seed, scope):
    rng = np.random.default_rng(seed)
    values = rng.normal([[[250.0]], [[5e4]]], [[[9.0]], [[900.0]]], (40, 2, 3, 4))
    values = values.astype(np.float32)
    median, scale = _robust(values).result(scope)
    back = (values - median) / scale * scale + median
    # Two roundings of a number up to 5e4 in float32.
    assert np.allclose(back, values, rtol=3e-7, atol=0)


def _preprocessor(values, scope, root=()):
    """A preprocessor of which only the predictors' part is filled in."""
    entered = rooted(values, root)
    mean, std = _result(entered, scope)
    fill = mean.copy()
    fill[list(root)] **= 2
    others = dict.fromkeys(f.name for f in fields(Preprocessor))
    known = {"lr_mean": mean, "lr_std": std, "lr_fill": fill, "lr_root": root}
    return Preprocessor(**{**others, **known, "nan_fill": "zero"})


@pytest.mark.parametrize("scope", ["per_variable", "per_gridpoint"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_standardised_predictors_can_be_made_physical_again(scope, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal([[[250.0]], [[5e4]]], [[[9.0]], [[900.0]]], (40, 2, 3, 4))
    rain = np.maximum(rng.normal(0, 8, (40, 1, 3, 4)), 0) ** 1.5
    values = np.concatenate([values, rain], axis=1).astype(np.float32)
    made = _preprocessor(values, scope, root=(2,))
    standardised = made.standardise_lr(values)
    assert np.abs(standardised).max() < 20
    back = made.physical_lr(standardised)
    # Subtraction, division and their inverses round to float32 (6e-8) of numbers as
    # large as the value; a root's relative error doubles when it is squared.
    assert np.allclose(back[:, :2], values[:, :2], rtol=5e-7)
    assert np.allclose(back[:, 2], values[:, 2], rtol=2e-6, atol=2e-5)


def test_unknown_scope_of_robust_statistics_is_refused():
    with pytest.raises(ConfigError, match="per_variable, per_gridpoint"):
        RobustMoments((1, 1, 1)).result("per_planet")
