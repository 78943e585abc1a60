"""Fits with and without groups, from one inverse, against fits made anew."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.discovery.held_out.nested import (
    More,
    NestedRidge,
    Sums,
    choose_penalties,
    penalty,
)

ROWS, F, K = 300, 9, 2


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, F)).astype(np.float32)
    X[:, 4:] += 0.5 * X[:, :5]
    Y = (X @ rng.standard_normal((F, K)) + rng.standard_normal((ROWS, K))).astype("f4")
    new = (rng.standard_normal((ROWS, 3)) + X[:, :3]).astype("f4")
    return X, Y, new, rng.uniform(0.01, 0.1, F), rng.uniform(0.01, 0.1, 3)


def anew(X, Y, weight, where):
    """Fit these features alone and predict the rows ``where``."""
    X64 = X.astype(np.float64)
    left = X64.T @ X64 + np.diag(len(X) * weight)
    return X[where] @ np.linalg.solve(left, X64.T @ Y)


def test_taking_a_group_out_equals_a_fit_without_it(problem):
    X, Y, _, weight, _ = problem
    ridge = NestedRidge(Sums.of(X, Y), weight, X[:20])
    group, rest = np.array([2, 3, 7]), np.array([0, 1, 4, 5, 6, 8])
    expected = anew(X[:, rest], Y, weight[rest], slice(0, 20))
    np.testing.assert_allclose(ridge.without(group), expected, atol=1e-4)
    np.testing.assert_allclose(ridge.guess, anew(X, Y, weight, slice(0, 20)), atol=1e-4)


def more_of(X, Y, new, weight):
    old, fresh = X.astype(np.float64), new.astype(np.float64)
    return More(
        cross=old.T @ fresh,
        own=fresh.T @ fresh + np.diag(len(X) * weight),
        target=fresh.T @ Y,
        values=new[:20],
    )


def test_putting_others_in_a_groups_place_equals_a_fit_of_its_own(problem):
    X, Y, new, weight, light = problem
    ridge = NestedRidge(Sums.of(X, Y), weight, X[:20])
    group, rest = np.array([2, 3, 7]), np.array([0, 1, 4, 5, 6, 8])
    expected = anew(
        np.hstack([X[:, rest], new]), Y, np.r_[weight[rest], light], slice(0, 20)
    )
    found = ridge.replaced(group, more_of(X, Y, new, light))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_adding_features_and_taking_a_group_out_of_the_larger_fit(problem):
    X, Y, new, weight, light = problem
    ridge = NestedRidge(Sums.of(X, Y), weight, X[:20])
    larger = ridge.bordered(more_of(X, Y, new, light))
    both = np.r_[weight, light]
    np.testing.assert_allclose(
        larger.guess, anew(np.hstack([X, new]), Y, both, slice(0, 20)), atol=1e-4
    )
    group, rest = np.array([0, 8]), np.arange(1, 8)
    expected = anew(
        np.hstack([X[:, rest], new]), Y, np.r_[weight[rest], light], slice(0, 20)
    )
    np.testing.assert_allclose(larger.without(group), expected, atol=1e-4)


def test_sums_of_two_halves_are_the_sums_of_all(problem):
    X, Y, _, weight, _ = problem
    whole, halves = Sums.of(X, Y), Sums.of(X[:100], Y[:100]) + Sums.of(X[100:], Y[100:])
    np.testing.assert_allclose(whole.gram, halves.gram, atol=1e-3)
    w = whole.solve(weight)
    expected = np.square(Y - X @ w).sum(axis=0)
    np.testing.assert_allclose(whole.error(w), expected, rtol=1e-4)


def test_noise_is_penalised_and_signal_is_not():
    """Squares that say nothing are left out; a strong linear signal stays free."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((400, 60)).astype(np.float32)
    kind = np.array([1] * 4 + [2] * 56)
    clear = X[:, :1] * 3 + 0.1 * rng.standard_normal((400, 1))
    Y = np.hstack([clear, rng.standard_normal((400, 1))]).astype(np.float32)
    halves = Sums.of(X[:200], Y[:200]), Sums.of(X[200:], Y[200:])
    chosen = {
        int(k): candidate
        for candidate, targets in choose_penalties(halves, kind, np.ones(60))
        for k in targets
    }
    assert chosen[0][0] <= 0.003
    assert chosen[0][0] * chosen[0][1] > 0.1
    assert chosen[1][0] >= 0.3
    assert penalty(kind, np.ones(60), (0.1, 10.0))[[0, 59]].tolist() == [0.1, 1.0]
