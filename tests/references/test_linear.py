"""Ridge regression: penalty, folds, held-out residuals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_cdgm.data.fit import ridge
from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.ridge import (
    PENALTIES,
    choose_penalty,
    held_out_residuals,
    solve_ridge,
)
from st_cdgm.references import encoded, linear
from st_cdgm.references.base import build_reference


def problem(T=120, K=6, P=4, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(T), rng.normal(size=(T, K - 1))])
    Y = X @ rng.normal(size=(K, P)) + noise * rng.normal(size=(T, P))
    return X, Y


def test_ridge_solves_the_penalised_problem():
    X, Y = problem()
    penalty = np.array([0.0] + [0.05 * len(X)] * 5)
    beta = solve_ridge(X.T @ X, X.T @ Y, penalty)
    gradient = X.T @ (X @ beta - Y) + penalty[:, None] * beta
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    # the intercept is free: the mean error is 0 however strong the penalty
    strong = solve_ridge(X.T @ X, X.T @ Y, 1e8 * (penalty > 0))
    np.testing.assert_allclose((Y - X @ strong).mean(axis=0), 0, atol=1e-9)


def test_folds_are_years_or_spells_dealt_out():
    day = np.array([19990101, 19991231, 20000615, 20010101, 20010102])
    assert [f.tolist() for f in year_folds(day)] == [[0, 1], [2], [3, 4]]
    short = year_folds(20010101 + np.arange(12))
    expected = [[0, 5, 10], [1, 6, 11], [2, 7], [3, 8], [4, 9]]
    assert [f.tolist() for f in short] == expected
    # A year: no fold takes a season away, neighbours mostly stay together.
    folds = year_folds(np.full(365, 20010101))
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(365))
    for fold in folds:
        assert np.diff(fold).max() == 41
        assert (np.diff(fold) == 1).mean() > 0.85
    assert len(year_folds(np.array([20010101, 20010102]))) == 2
    # Of many years few folds are made, each with early and late years.
    day = 10000 * np.repeat(np.arange(1990, 1997), 2) + 101
    expected = [[0, 1, 6, 7, 12, 13], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert [f.tolist() for f in year_folds(day, most=3)] == expected
    # Steps shorter than a day.
    hours = np.array([19990101060000, 19991231120000, 20000615000000, 20010101180000])
    assert [f.tolist() for f in year_folds(hours)] == [[0, 1], [2], [3]]


def test_residuals_come_from_fits_that_had_not_seen_the_fold():
    X, Y = problem()
    folds = np.array_split(np.arange(120), 4)
    residual = held_out_residuals(X, Y, folds, 0.01)
    rest = np.setdiff1d(np.arange(120), folds[2])
    penalty = [0.0] + [0.01 * len(rest)] * 5
    beta = solve_ridge(X[rest].T @ X[rest], X[rest].T @ Y[rest], penalty)
    np.testing.assert_allclose(
        residual[folds[2]], Y[folds[2]] - X[folds[2]] @ beta, atol=1e-5
    )
    changed = Y.copy()
    changed[folds[2]] += 100  # the fold's own truth moves its residual by just that
    moved = held_out_residuals(X, changed, folds, 0.01)
    np.testing.assert_allclose(moved[folds[2]], residual[folds[2]] + 100, atol=1e-3)


def test_penalty_grows_with_the_noise():
    folds = np.array_split(np.arange(60), 5)
    X, Y = problem(T=60, K=40, noise=0.01)
    assert choose_penalty(X, Y, folds) == min(PENALTIES)
    rng = np.random.default_rng(0)
    assert choose_penalty(X, rng.normal(size=Y.shape), folds) >= 0.3


def test_penalty_is_chosen_on_some_cells_only(monkeypatch):
    X, Y = problem(P=50)
    folds = np.array_split(np.arange(120), 4)
    monkeypatch.setattr(ridge, "PENALTY_CELLS", 2)  # the first and the last
    chosen = choose_penalty(X, Y, folds)
    assert chosen == choose_penalty(X, Y[:, [0, -1]], folds)
    Y[:, 1:-1] = np.random.default_rng(0).normal(size=(120, 48))
    assert choose_penalty(X, Y, folds) == chosen
    Y[:, 0] = 7.0  # a constant cell divides by nothing
    assert choose_penalty(X, Y, folds) in PENALTIES


def test_members_scatter_about_the_regression(world):
    reference = build_reference("ridge_pc").fit(world.train, world.preprocessor)
    assert reference.penalty in PENALTIES
    fields = reference.predict(world.test, members=30, seed=0)
    truth, valid = world.test.hr, world.preprocessor.valid
    error = fields.mean(axis=1) - truth
    spread = fields.std(axis=1, ddof=1)
    for c in range(2):
        rmse = np.sqrt(np.mean(error[:, c][:, valid[c]] ** 2))
        width = np.sqrt(np.mean(spread[:, c][:, valid[c]] ** 2))
        assert 0.8 < width / rmse < 1.25


def test_members_are_as_wide_as_errors_on_days_never_seen(world, monkeypatch):
    """29 coefficients from 90 days: the fit's own residuals would be a third short."""
    monkeypatch.setattr(linear, "choose_penalty", lambda *_: 1e-4)
    few = world.train.select(slice(0, 90))
    reference = linear.ComponentRidgeReference(components=24, window=400)
    fields = reference.fit(few, world.preprocessor).predict(
        world.test, members=30, seed=0
    )
    valid = world.preprocessor.valid[0]
    error = (fields.mean(axis=1) - world.test.hr)[:, 0][:, valid]
    width = fields.std(axis=1, ddof=1)[:, 0][:, valid]
    ratio = np.sqrt(np.mean(width**2) / np.mean(error**2))
    assert 0.9 < ratio < 1.25


def test_a_cell_with_truth_in_one_temperature_only(world):
    """tasmax is encoded from tasmin, which has no truth on this cell."""
    hr, valid = world.train.hr.copy(), world.preprocessor.valid.copy()
    hr[:, 0, 3, 3], valid[0, 3, 3] = np.nan, False
    reference = build_reference("ridge_pc").fit(
        replace(world.train, hr=hr), replace(world.preprocessor, valid=valid)
    )
    fields = reference.predict(world.test, members=4, seed=0)
    np.testing.assert_array_equal(
        np.isfinite(fields), np.broadcast_to(valid, fields.shape)
    )
    error = fields[:, :, 1, 3, 3].mean(axis=1) - world.test.hr[:, 1, 3, 3]
    assert np.sqrt(np.mean(error**2)) < world.test.hr[:, 1, 3, 3].std() / 3
    whole = build_reference("ridge_pc").fit(world.train, world.preprocessor)
    assert reference.penalty == whole.penalty


def test_prediction_in_blocks_is_the_same(world, monkeypatch):
    reference = build_reference("ridge_pc").fit(world.train, world.preprocessor)
    whole = reference.predict(world.test, members=4, seed=0)
    monkeypatch.setattr(encoded, "BLOCK_BYTES", 1)
    np.testing.assert_array_equal(
        reference.predict(world.test, members=4, seed=0), whole
    )


@pytest.mark.parametrize("harmonics", [0, 1, 3])
def test_number_of_harmonics(world, harmonics):
    reference = linear.ComponentRidgeReference(harmonics=harmonics, components=3)
    reference.fit(world.train, world.preprocessor)
    fields = reference.predict(world.test, members=2, seed=0)
    assert np.isfinite(fields[..., 1:, :]).all()
