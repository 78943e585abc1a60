"""Scores of patches of all variables against scoringrules, and what they see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scoringrules

from st_cdgm.evaluation.metrics.blocks import accumulate_all, pair_of
from st_cdgm.evaluation.metrics.calibration.patches import (
    LAGS,
    PATCH,
    PatchEnergyScore,
    PatchVariogramScore,
)


def scored(forecasts, truths, sizes=None, **cells):
    """Return both scores of variables by name."""
    both = PatchEnergyScore(), PatchVariogramScore()
    pairs = {n: pair_of(forecasts[n], truths[n], **cells) for n in forecasts}
    for name, size in (sizes or {}).items():
        pairs[name] = replace(pairs[name], size=size)
    accumulate_all(pairs, dict.fromkeys(pairs, ()), both)
    return both


def sample(T, M, Y, X, names="ab", seed=0):
    rng = np.random.default_rng(seed)
    forecasts = {n: rng.normal(size=(T, M, Y, X)) for n in names}
    return forecasts, {n: rng.normal(size=(T, Y, X)) for n in names}


def stacked(forecasts, truths):
    """Return members (T, M, V, Y, X) and truth (T, V, Y, X)."""
    return np.stack([*forecasts.values()], 2), np.stack([*truths.values()], 1)


def test_the_energy_score_is_that_of_scoringrules():
    """A grid of 5 x 8: two whole patches, and two of a single row at the border."""
    forecasts, truths = sample(3, 5, 5, 8)
    members, truth = stacked(forecasts, truths)
    total = np.zeros(3)
    for rows in (slice(0, 4), slice(4, 5)):
        for columns in (slice(0, 4), slice(4, 8)):
            x = members[..., rows, columns].reshape(3, 5, -1)
            y = truth[..., rows, columns].reshape(3, -1)
            size = np.sqrt(y.shape[1])
            found = scoringrules.es_ensemble(y / size, x / size, estimator="fair")
            total += found * y.shape[1] / 2
    energy, _ = scored(forecasts, truths)
    np.testing.assert_allclose(energy.daily.value, total / 40, rtol=1e-5)
    assert energy.value.value == pytest.approx((total / 40).mean(), rel=1e-5)
    np.testing.assert_allclose(energy.daily.weight, 40)


def test_the_variogram_score_is_that_of_scoringrules():
    forecasts, truths = sample(4, 6, 4, 5)
    members, truth = stacked(forecasts, truths)
    index = np.arange(40).reshape(2, 4, 5)
    space, variables = np.zeros((2, 40, 40))
    for lag in LAGS:
        for plane in index:
            space[plane[lag:].ravel(), plane[:-lag].ravel()] = 1
            space[plane[:, lag:].ravel(), plane[:, :-lag].ravel()] = 1
    variables[index[0].ravel(), index[1].ravel()] = 1
    w = 0.5 * space / space.sum() + 0.5 * variables / variables.sum()
    expected = scoringrules.vs_ensemble(
        truth.reshape(4, -1),
        members.reshape(4, 6, -1),
        np.broadcast_to(w, (4, 40, 40)),
        p=0.5,
        estimator="fair",
    )
    _, variogram = scored(forecasts, truths)
    np.testing.assert_allclose(variogram.daily.value, expected, rtol=1e-5)


def test_small_ensembles_are_not_punished():
    """Of the same distribution, 3 and 30 members have the same mean score."""
    few = scored(*sample(4000, 3, 4, 4))
    many = scored(*sample(300, 30, 4, 4))
    for small, large in zip(few, many, strict=True):
        assert small.value.value == pytest.approx(large.value.value, rel=0.03)


def test_a_wrong_dependence_of_variables_costs():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(150, 21, 4, 4))
    b = 0.9 * a + np.sqrt(1 - 0.81) * rng.normal(size=a.shape)
    truths = {"a": a[:, 0], "b": b[:, 0]}
    right = scored({"a": a[:, 1:], "b": b[:, 1:]}, truths)
    wrong = scored({"a": a[:, 1:], "b": np.roll(b[:, 1:], 1, axis=1)}, truths)
    for good, bad in zip(right, wrong, strict=True):
        assert good.value.value < bad.value.value
    # The variogram score looks at nothing else.
    assert right[1].value.high < wrong[1].value.low


def test_variables_count_in_units_of_their_usual_size():
    forecasts, truths = sample(20, 4, 6, 6)
    plain = scored(forecasts, truths)
    large = {"a": forecasts["a"], "b": 50 * forecasts["b"]}
    true = {"a": truths["a"], "b": 50 * truths["b"]}
    for one, two in zip(plain, scored(large, true, {"b": 50.0}), strict=True):
        assert two.value.value == pytest.approx(one.value.value, rel=1e-5)


def test_cells_without_truth_take_no_part():
    forecasts, truths = sample(10, 4, 6, 9)
    truths["a"][:, :, 6:] = np.nan
    cut = [{n: v[..., :6] for n, v in fields.items()} for fields in (forecasts, truths)]
    for one, two in zip(scored(forecasts, truths), scored(*cut), strict=True):
        assert one.value.value == pytest.approx(two.value.value, rel=1e-5)
    truths["b"][3] = np.nan
    energy, _ = scored(forecasts, truths)
    assert np.isnan(energy.daily.value[3])
    assert np.isfinite(energy.value.value)


def test_one_member_and_one_variable():
    forecasts, truths = sample(5, 1, 4, 4, names="a")
    energy, variogram = scored(forecasts, truths)
    rms = np.sqrt(((forecasts["a"][:, 0] - truths["a"]) ** 2).mean(axis=(1, 2)))
    assert energy.value.value == pytest.approx(rms.mean(), rel=1e-5)
    assert variogram.value.value > 0
    assert PATCH == 4
