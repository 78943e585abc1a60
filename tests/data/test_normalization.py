"""Statistics and filling: hand numbers, constants, never-valid cells, NaN (D5, D7)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.normalization import (
    Moments,
    check_known,
    fill_missing,
    fill_nearest,
    moments,
)
from st_cdgm.errors import ConfigError, InputError

NAN = np.nan


def _result(values, scope):
    values = np.asarray(values, dtype=np.float32)
    return moments([values], values.shape[1:], scope)


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


def test_a_variable_without_any_value_is_named():
    values = np.zeros((3, 2, 2, 2), dtype=np.float32)
    values[:, 1] = NAN
    with pytest.raises(InputError, match="pr") as error:
        check_known(values, ("tas", "pr"), file="hr.nc")
    assert "hr.nc" in str(error.value)
