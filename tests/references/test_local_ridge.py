"""Regressions per fine cell: equations, penalties, residuals, members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.local import cells as room
from st_cdgm.data.fit.local.cells import CellRegressions, FeatureTable
from st_cdgm.data.fit.local.equations import (
    LADDERS,
    START,
    NormalEquations,
    penalties,
    search,
)
from st_cdgm.data.fit.local.features import LocalFeatures
from st_cdgm.references.base import build_reference
from st_cdgm.references.days import training_days
from st_cdgm.references.encoded import EncodedCells
from st_cdgm.references.local.residuals import ResidualDays


def problem(p=3, T=90, K=6, C=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(p, T, K)).astype(np.float32)
    X[..., 0] = 1
    Y = X @ rng.normal(size=(p, K, C)) + 0.3 * rng.normal(size=(p, T, C))
    return X, Y.astype(np.float32), np.array_split(np.arange(T), 4)


def test_equations_are_those_of_the_days_kept():
    X, Y, folds = problem()
    penalty = np.array([0, 0.1, 0.1, 0.2, 0.2, 0.2])
    sums = NormalEquations.of(X, Y, folds)
    rest = np.concatenate([folds[0], folds[2], folds[3]])
    x, y = X[1, rest].astype(float), Y[1, rest].astype(float)
    expected = np.linalg.solve(x.T @ x + np.diag(len(rest) * penalty), x.T @ y)
    np.testing.assert_allclose(sums.solve(penalty, without=1)[1], expected, rtol=1e-4)
    x, y = X[1].astype(float), Y[1].astype(float)
    expected = np.linalg.solve(x.T @ x + np.diag(90 * penalty), x.T @ y)
    np.testing.assert_allclose(sums.solve(penalty)[1], expected, rtol=1e-4)


def test_held_out_error_is_that_of_the_residuals():
    X, Y, folds = problem()
    penalty = np.full(6, 0.05)
    sums = NormalEquations.of(X, Y, folds)
    total = np.zeros(2)
    for k, fold in enumerate(folds):
        away = Y[:, fold] - X[:, fold] @ sums.solve(penalty, without=k)
        total += np.square(away).sum(axis=(0, 1))
    np.testing.assert_allclose(sums.held_out_error(penalty), total, rtol=1e-4)


def test_search_goes_down_and_counts_what_it_tried():
    wanted = {**START, "components": 3.0, "yesterday": 100.0}

    def error(penalty):
        away = [np.log(penalty[name] / wanted[name]) ** 2 for name in wanted]
        return np.array([1 + sum(away), 5 + sum(away)])

    found, tried = search(error)
    assert found == wanted
    assert len(LADDERS) < tried <= 2 * sum(map(len, LADDERS.values()))


def test_each_group_has_its_penalty_and_the_intercept_none(world):
    features = LocalFeatures.fit(world.train, world.preprocessor, components=3)
    penalty = {**START, "components": 0.5, "own": 0.01, "yesterday": 10.0}
    each = penalties(features, penalty)
    assert each[0] == 0
    np.testing.assert_allclose(each[5:11], [0.5] * 3 + [5.0] * 3)
    np.testing.assert_allclose(each[11:13], 0.01)
    half = (len(each) - 11) // 2
    np.testing.assert_allclose(each[11 + half :], 10 * each[11 : 11 + half])


@pytest.fixture(scope="module")
def regressed(world):
    days, truth = training_days(world.train, world.preprocessor)
    encoded = EncodedCells(world.preprocessor)
    features = LocalFeatures.fit(days, world.preprocessor, components=5)
    Y = encoded.encode(days, truth)
    made = CellRegressions(features=features, cells=encoded.cells)
    return days, Y, made.fit(days, Y, year_folds(days.day))


def test_residuals_are_of_a_regression_that_had_not_seen_the_year(regressed):
    days, Y, made = regressed
    folds = year_folds(days.day)
    table = FeatureTable(made.features, days, made.cells)
    (at, X), *_ = table.chunks(np.arange(4, 5))
    rest = np.setdiff1d(np.arange(len(days)), folds[1])
    weights = len(rest) * np.diag(penalties(made.features, made.penalty))
    x = X[0].astype(float)
    # As the penalty acts on standardised targets, the mean over all days is taken off.
    mean = Y[:, :, 4].mean(axis=0)
    y = Y[:, :, 4] - mean
    beta = np.linalg.solve(x[rest].T @ x[rest] + weights, x[rest].T @ y[rest])
    np.testing.assert_allclose(
        made.residual[folds[1]][:, :, 4], (y - x @ beta)[folds[1]], atol=2e-3
    )


def test_the_years_own_truth_moves_its_residual_by_just_that(world, regressed):
    """Were a residual of a fit that had seen the year, it would move by less."""
    days, Y, made = regressed
    fold = year_folds(days.day)[1]
    changed = Y.copy()
    wave = np.sin(np.arange(len(fold)))[:, None, None]
    changed[fold] += 5 * wave.astype(np.float32)
    again = CellRegressions(features=made.features, cells=made.cells)
    again._choose = lambda *_: None
    again.penalty, again.candidates = made.penalty, 0
    again.fit(days, changed, year_folds(days.day))
    moved = again.residual[fold] - made.residual[fold]
    np.testing.assert_allclose(moved, np.broadcast_to(5 * wave, moved.shape), atol=0.02)


def test_chunks_of_cells_change_nothing(regressed, monkeypatch):
    days, Y, made = regressed
    monkeypatch.setattr(room, "CHUNK_BYTES", 1)
    again = CellRegressions(features=made.features, cells=made.cells)
    again.fit(days, Y, year_folds(days.day))
    assert again.penalty == made.penalty
    np.testing.assert_allclose(again.residual, made.residual, atol=1e-3)


# -- Members ---------------------------------------------------------------------------


def test_residual_days_are_of_the_season_and_predicted_alike(world):
    days = world.train
    predicted = np.zeros((len(days), 1, 2), np.float32)
    predicted[:, 0] = np.arange(len(days))[:, None]
    some = days.select(np.array([40, 41]))
    found = ResidualDays.of(days, predicted).draw(
        some, predicted[[40, 41]], window=30, similar=5, members=5, seed=0
    )
    apart = np.abs(days.season[found] - some.season[:, None]) * 365.25
    assert (np.minimum(apart, 365.25 - apart) <= 30.6).all()
    assert sorted(found[0]) == [38, 39, 40, 41, 42]
    everything = ResidualDays.of(days, predicted).draw(
        some, predicted[[40, 41]], window=30, similar=10**6, members=5, seed=0
    )
    assert np.abs(everything - 40).max() > 5


def test_members_are_whole_residual_days(world):
    """The same training day in all variables and cells."""
    reference = build_reference("ridge").fit(world.train, world.preprocessor)
    some = world.test.select(slice(0, 3))
    fields = reference.predict(some, members=4, seed=0)
    encoded = reference._encoded.encode(
        some, np.nan_to_num(fields[:, 2]) * world.preprocessor.valid
    )
    mean = reference._regressions.predict(some)
    warm = (encoded - mean)[:, 0]  # tasmin is encoded as it is
    away = reference._regressions.residual[:, 0]
    nearest = [np.abs(away - one).max(axis=1).min() for one in warm]
    np.testing.assert_allclose(nearest, 0, atol=1e-3)


def test_the_day_before_is_seen(make_world):
    world = make_world(years=3, step=1)
    shift = np.roll(world.train.hr, 1, axis=0)  # each day has the truth of the last one
    late = replace(world.train, hr=shift)
    reference = build_reference("ridge").fit(late, world.preprocessor)
    fields = reference.predict(world.test, members=10, seed=0).mean(axis=1)
    error = fields[1:, 0] - world.test.hr[:-1, 0]
    valid = world.preprocessor.valid[0]
    assert np.sqrt(np.mean(error[:, valid] ** 2)) < 1.2
    assert world.test.hr[:, 0, 3, 3].std() > 4


def test_validation_days_choose_the_number_of_similar_days(world):
    plain = build_reference("ridge").fit(world.train, world.preprocessor)
    tuned = build_reference("ridge").fit(world.train, world.preprocessor, world.test)
    assert plain.similar == 150
    assert tuned.candidates == plain.candidates + 4
    assert plain.history == 2
