"""Logistic and Gamma regressions per cell, and members drawn from their residuals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit

from st_cdgm.data.fit.local.features import LocalFeatures
from st_cdgm.references.base import build_reference
from st_cdgm.references.local import rain as room
from st_cdgm.references.local.irls import Bernoulli, Gamma, fit_cells
from st_cdgm.references.local.rain import RainRegressions

BETA = np.array([[0.3, 1.0, -0.5], [-1.0, 0.2, 0.8]])


def problem(T=600, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2, T, 3)).astype(np.float32)
    X[..., 0] = 1
    eta = (X @ BETA[..., None])[..., 0]
    wet = (rng.random(eta.shape) < expit(eta)).astype(float)
    amount = rng.gamma(0.8, np.exp(eta) / 0.8)
    return X, wet, amount, np.array_split(np.arange(T), 5)


def optimum(family, X, y, counts, start, penalty):
    """Maximise the same likelihood with a general method."""
    first = np.zeros(X.shape[-1])
    first[0] = family.link(np.array(start))

    def loss(beta):
        away = beta - first
        mean = family.mean(X.astype(float) @ beta)
        weight = counts.sum() * penalty
        return (family.loss(mean, y) * counts).sum() + 0.5 * (weight * away**2).sum()

    return optimize.minimize(loss, first, tol=1e-10).x


@pytest.mark.parametrize("family", [Bernoulli(), Gamma()])
def test_coefficients_maximise_the_penalised_likelihood(family):
    X, wet, amount, folds = problem()
    rain = isinstance(family, Gamma)
    y, counts = (amount, wet) if rain else (wet, np.ones_like(wet))
    start = np.array([1.1, 1.3]) if rain else np.array([0.6, 0.3])
    penalty = np.array([0.001, 0.02, 0.05])
    fit = fit_cells(family, X, y, counts, start=start, penalty=penalty, folds=folds)
    for p in range(2):
        expected = optimum(family, X[p], y[p], counts[p], start[p], penalty)
        np.testing.assert_allclose(fit.coefficients[p], expected, atol=2e-3)
        np.testing.assert_allclose(fit.coefficients[p], BETA[p], atol=0.4)


@pytest.mark.parametrize("family", [Bernoulli(), Gamma()])
def test_held_out_means_are_those_of_a_fit_without_the_fold(family):
    X, wet, amount, folds = problem(T=150)
    rain = isinstance(family, Gamma)
    y, counts = (amount, wet) if rain else (wet, np.ones_like(wet))
    options = {"start": np.array([0.6, 0.4]), "penalty": np.full(3, 0.01)}
    fit = fit_cells(family, X, y, counts, folds=folds, **options)
    rest = counts.copy()
    rest[:, folds[1]] = 0
    one = fit_cells(family, X, y, rest, folds=[np.arange(150)], **options)
    eta = (X[:, folds[1]] @ one.coefficients[..., None])[..., 0]
    expected, all_days = family.mean(eta), (X @ fit.coefficients[..., None])[..., 0]
    np.testing.assert_allclose(fit.held_out[:, folds[1]], expected, rtol=0.02)
    # and not those of the fit to all days
    seen = family.mean(all_days)[:, folds[1]]
    assert np.abs(seen / expected - 1).max() > 0.03


@pytest.mark.parametrize("truth", ["dry", "wet", "separated"])
def test_separation_and_constant_cells_stay_finite(truth):
    X, *_, folds = problem(T=200)
    wet = {
        "dry": np.zeros((2, 200)),
        "wet": np.ones((2, 200)),
        "separated": (X[..., 1] > 0).astype(float),
    }[truth]
    options = {"start": np.full(2, (wet.mean() * 200 + 0.5) / 201), "folds": folds}
    every = np.ones_like(wet)
    penalty = np.array([1 / 200, 0.003, 0.003])
    fit = fit_cells(Bernoulli(), X, wet, every, penalty=penalty, **options)
    assert np.isfinite(fit.coefficients).all()
    assert np.abs(fit.coefficients).max() < 30
    assert np.abs(fit.held_out - wet).mean() < 0.1
    # Amounts of a cell that is never wet: the mean that was given.
    start = np.full(2, 2.5)
    amount = fit_cells(
        Gamma(), X, 3 * wet, wet, start=start, penalty=penalty, folds=folds
    )
    assert np.isfinite(amount.held_out).all()
    if truth == "dry":
        np.testing.assert_allclose(amount.held_out, 2.5, rtol=1e-5)


@pytest.fixture(scope="module")
def regressed(world):
    """Two cells: one with rain, one that is always dry."""
    features = LocalFeatures.fit(
        world.train, world.preprocessor, components=3, modulated=False
    )
    truth = np.column_stack([world.train.hr[:, 2, 4, 4], np.zeros(len(world.train))])
    rain = RainRegressions(features=features, cells=np.array([36, 37]), threshold=0.1)
    folds = np.array_split(np.arange(len(truth)), 4)
    return truth, rain.fit(world.train, truth.astype(np.float32), folds)


def test_quantile_residuals_are_uniform_and_bring_back_the_truth(world, regressed):
    truth, rain = regressed
    u = rain.quantile[:, 0]
    assert ((u >= 0) & (u <= 1)).all()
    assert stats.kstest(u, "uniform").statistic < 0.08
    chance, mean = rain.predict(world.train)
    back = rain.amounts(rain.quantile, chance, mean)
    wet = truth[:, 0] >= 0.1
    assert np.mean((back[:, 0] > 0) == wet) > 0.95
    # Fitted with and without the year: the amounts are close, not equal.
    assert np.corrcoef(back[wet, 0], truth[wet, 0])[0, 1] > 0.95
    assert (back[:, 1] == 0).all()
    assert chance[:, 1].max() < 0.02


def test_amounts_are_the_quantiles_of_the_gamma_distribution(regressed):
    _, rain = regressed
    shape = rain._shape[0]
    u = np.array([[0.2, 0], [0.5, 0], [0.9, 0], [0.999, 0]], np.float32)
    chance = np.full(u.shape, 0.6, np.float32)
    mean = np.full(u.shape, 4.0, np.float32)
    made = rain.amounts(u, chance, mean)[:, 0]
    expected = 0.1 + stats.gamma.ppf((u[1:, 0] - 0.4) / 0.6, shape, scale=4 / shape)
    np.testing.assert_allclose(made, [0, *expected], rtol=5e-3)


def test_members_keep_the_coherence_of_rain(make_world):
    """Neighbours that rain together in the truth do so in the members."""
    world = make_world(years=4, step=2, seed=3)
    reference = build_reference("glm").fit(world.train, world.preprocessor)
    fields = reference.predict(world.test, members=10, seed=0)
    some = reference._rain[2].quantile
    shuffled = np.random.default_rng(0).permuted(some, axis=0)
    # Two cells of one coarse cell: the same predictors.
    truth = world.test.hr[:, 2, 4, 4:6]
    wet = fields[:, :, 2, 4, 4:6] > 0
    both, expected = wet.all(axis=-1).mean(), (truth >= 0.1).all(axis=-1).mean()
    assert both == pytest.approx(expected, abs=0.06)
    assert (fields[:, :, 2][..., 1:, :] > 0).mean() == pytest.approx(
        (world.test.hr[:, 2, 1:] >= 0.1).mean(), abs=0.05
    )
    assert (
        np.corrcoef(some[:, 20], some[:, 21])[0, 1]
        > np.corrcoef(shuffled[:, 20], shuffled[:, 21])[0, 1]
    )


def test_tasks_without_rain_are_gaussian(world):
    from dataclasses import replace

    from st_cdgm.data.fit.codecs.choice import build_codec

    prep, keep = world.preprocessor, slice(0, 2)
    targets = prep.targets[keep]
    dry = replace(
        prep, targets=targets, codec=build_codec(targets), valid=prep.valid[keep]
    )
    cut = {
        name: replace(
            days, hr=days.hr[:, keep], baseline=days.baseline[:, keep], record=None
        )
        for name, days in (("train", world.train), ("test", world.test))
    }
    reference = build_reference("glm").fit(cut["train"], dry)
    fields = reference.predict(cut["test"], members=3, seed=0)
    assert fields.shape[2] == 2
    assert not reference._rain
    assert room.CANDIDATES
