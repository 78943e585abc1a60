"""CRPS, energy score, spread-skill ratio, rank histogram."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scoringrules
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scores.probability import crps_for_ensemble

from st_cdgm.errors import GridMismatchError, InputError
from st_cdgm.evaluation.metrics import blocks
from st_cdgm.evaluation.metrics.probabilistic import (
    crps,
    energy_score,
    rank_histogram,
    reliability_index,
    spread_skill_ratio,
)


def ensemble(M=5, T=7, Y=3, X=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(T, M, Y, X)), rng.normal(size=(T, Y, X))


def test_crps_by_hand():
    # members 0, 2, 4, truth 1: mean |X - y| = 5/3; pairs 2 + 4 + 2 = 8
    forecast, truth = np.array([0.0, 2.0, 4.0]).reshape(3, 1, 1), np.full((1, 1), 1.0)
    assert crps(forecast, truth) == pytest.approx(5 / 3 - 8 / 6)
    assert crps(forecast, truth, fair=False) == pytest.approx(5 / 3 - 8 / 9)


def test_crps_of_one_member_is_the_absolute_error():
    forecast, truth = ensemble(M=1)
    expected = np.abs(forecast[:, 0] - truth).mean()
    assert crps(forecast, truth) == pytest.approx(expected)
    assert crps(forecast[:, 0], truth) == pytest.approx(expected)


@pytest.mark.parametrize("M", [2, 3, 20])
def test_crps_agrees_with_two_libraries(M):
    forecast, truth = ensemble(M=M)
    fair = scoringrules.crps_ensemble(truth, forecast, m_axis=1, estimator="fair")
    assert crps(forecast, truth) == pytest.approx(fair.mean(), abs=1e-12)
    energy = scoringrules.crps_ensemble(truth, forecast, m_axis=1, estimator="nrg")
    assert crps(forecast, truth, fair=False) == pytest.approx(energy.mean(), abs=1e-12)
    other = crps_for_ensemble(
        xr.DataArray(forecast, dims=("t", "m", "y", "x")),
        xr.DataArray(truth, dims=("t", "y", "x")),
        "m",
        method="fair",
    )
    assert crps(forecast, truth) == pytest.approx(float(other), abs=1e-12)


@pytest.mark.parametrize("M", [2, 4, 16])
def test_fair_crps_of_gaussian_ensembles_does_not_depend_on_their_size(M):
    # D76: the M^2 form is too large by E|X - X'| / (2 M); the fair one is unbiased.
    rng = np.random.default_rng(M)
    mu, sigma, truth, T = 0.4, 1.5, 1.0, 40_000
    forecast = rng.normal(mu, sigma, size=(T, M, 1, 1))
    z = (truth - mu) / sigma
    closed = sigma * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    )
    reference = np.full((T, 1, 1), truth)
    assert crps(forecast, reference) == pytest.approx(closed, abs=0.03)
    excess = sigma / np.sqrt(np.pi) / M
    biased = crps(forecast, reference, fair=False)
    assert biased == pytest.approx(closed + excess, abs=0.03)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 6), st.floats(-1e4, 1e4), st.floats(0.01, 100), st.integers(0, 99)
)
def test_scores_move_with_the_units(M, shift, scale, seed):
    forecast, truth = ensemble(M=M, seed=seed)
    moved = scale * forecast + shift, scale * truth + shift
    for score in (crps, energy_score):
        assert score(*moved) == pytest.approx(scale * score(forecast, truth), rel=1e-7)


def test_order_of_members_does_not_matter():
    forecast, truth = ensemble(M=6)
    turned = forecast[:, ::-1]
    for score in (crps, energy_score, spread_skill_ratio):
        assert score(turned, truth) == pytest.approx(score(forecast, truth))


def test_sea_is_not_counted():
    # D76, D79: NaN in the truth takes cells out, whatever the forecast says there.
    forecast, truth = ensemble()
    truth[:, 0] = np.nan
    forecast[:, :, 0] = 1e6
    kept = forecast[:, :, 1:], truth[:, 1:]
    for score in (crps, energy_score, spread_skill_ratio):
        expected = score(*kept)
        assert score(forecast, truth) == pytest.approx(expected)
        forecast[:, :, 0] = np.nan
        assert score(forecast, truth) == pytest.approx(expected)
    np.testing.assert_allclose(rank_histogram(forecast, truth), rank_histogram(*kept))


def test_mask_and_weights():
    forecast, truth = ensemble(Y=1, X=2)
    left, right = (crps(forecast[..., [i]], truth[..., [i]]) for i in (0, 1))
    weights = np.array([[3.0, 1.0]])
    expected = (3 * left + right) / 4
    assert crps(forecast, truth, weights=weights) == pytest.approx(expected)
    mask = np.array([[True, False]])
    assert crps(forecast, truth, mask=mask) == pytest.approx(left)


def test_forecast_hole_on_a_counted_cell_is_an_error():
    forecast, truth = ensemble(T=4)
    truth[0, 0, 0] = np.nan
    forecast[0, :, 0, 0] = np.nan  # not counted
    forecast[1, 2, 1, 1] = np.nan
    forecast[3, :, 0, 0] = np.inf
    pair = replace(blocks.pair_of(forecast, truth), name="pr of model")
    with pytest.raises(InputError, match="not finite") as caught:
        list(pair.blocks())
    assert caught.value.facts["variable"] == "pr of model"
    assert str(caught.value.facts["found"]).startswith("6 values")


@pytest.mark.parametrize(
    ("forecast", "reference", "options"),
    [
        ((3, 2, 4, 4), (3, 4, 5), {}),
        ((3, 2, 4, 4), (2, 4, 4), {}),
        ((4,), (4,), {}),
        ((2, 1, 3, 3, 3), (3, 3, 3), {}),
        ((3, 2, 4, 4), (3, 4, 4), {"weights": np.ones((4, 5))}),
        ((3, 2, 4, 4), (3, 4, 4), {"mask": np.ones((2, 4, 4), bool)}),
    ],
)
def test_shapes_that_do_not_fit(forecast, reference, options):
    # D79: nothing broadcasts in silence.
    with pytest.raises(GridMismatchError):
        crps(np.zeros(forecast), np.zeros(reference), **options)


def test_unusable_arguments():
    forecast, truth = ensemble()
    with pytest.raises(InputError, match="negative"):
        crps(forecast, truth, weights=np.full(truth.shape[1:], -1.0))
    with pytest.raises(InputError, match="no member"):
        crps(forecast[:, :0], truth)
    assert np.isnan(crps(forecast, np.full_like(truth, np.nan)))
    assert np.isnan(rank_histogram(forecast, np.full_like(truth, np.nan))).all()


def test_blocks_are_small_and_change_nothing(monkeypatch):
    forecast, truth = ensemble(T=11)
    whole = [f(forecast, truth) for f in (crps, energy_score, spread_skill_ratio)]
    histogram = rank_histogram(forecast, truth)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 3 * forecast[0].nbytes)
    pair = blocks.pair_of(forecast, truth)
    assert [s.stop - s.start for s in pair.slices()] == [3, 3, 3, 2]
    parts = [f(forecast, truth) for f in (crps, energy_score, spread_skill_ratio)]
    np.testing.assert_allclose(parts, whole)
    np.testing.assert_allclose(rank_histogram(forecast, truth), histogram)


def test_energy_score_by_hand_and_for_one_member():
    # D74: one member has no pairs. Norm: root mean square over the two cells.
    forecast = np.array([[[3.0, 4.0]], [[0.0, 0.0]]])  # (M, 1, 2)
    truth = np.zeros((1, 2))
    length = np.sqrt(12.5)
    assert energy_score(forecast, truth) == pytest.approx(length / 2 - length / 2)
    assert energy_score(forecast, truth, fair=False) == pytest.approx(length / 4)
    assert energy_score(forecast[:1], truth) == pytest.approx(length)


def test_energy_score_agrees_with_the_library_and_with_the_crps_on_one_cell():
    forecast, truth = ensemble(M=6)
    flat = forecast.reshape(7, 6, -1), truth.reshape(7, -1)
    theirs = scoringrules.es_ensemble(flat[1], flat[0], m_axis=1, v_axis=2)
    ours = energy_score(forecast, truth, fair=False) * np.sqrt(flat[1].shape[1])
    assert ours == pytest.approx(theirs.mean())
    cell = forecast[..., :1, :1], truth[..., :1, :1]
    assert energy_score(*cell) == pytest.approx(crps(*cell))


def test_days_without_truth_do_not_enter_the_energy_score():
    forecast, truth = ensemble(T=3)
    expected = energy_score(forecast[:2], truth[:2])
    truth[2] = np.nan
    assert energy_score(forecast, truth) == pytest.approx(expected)


def test_spread_skill_by_hand():
    # errors of the mean 1 and 3; variances 2 and 8 (M - 1 = 1): spread^2 = 5 * 3/2
    forecast = np.array([[0.0, 2.0], [1.0, 5.0]]).reshape(2, 2, 1, 1)
    truth = np.array([0.0, 0.0]).reshape(2, 1, 1)
    assert spread_skill_ratio(forecast, truth) == pytest.approx(np.sqrt(7.5 / 5))
    assert np.isnan(spread_skill_ratio(forecast[:, :1], truth))


@pytest.mark.parametrize("M", [2, 10])
def test_a_reliable_ensemble_has_ratio_one_and_flat_ranks(M):
    forecast, truth = ensemble(M=M, T=3000)
    assert spread_skill_ratio(forecast, truth) == pytest.approx(1, abs=0.02)
    assert spread_skill_ratio(0.5 * forecast, truth) < 0.8
    frequency = rank_histogram(forecast, truth)
    assert frequency.sum() == pytest.approx(1)
    np.testing.assert_allclose(frequency, 1 / (M + 1), atol=0.01)
    assert reliability_index(frequency) < 0.05


def test_rank_histogram_by_hand():
    forecast = np.array([[1.0, 2.0, 3.0]] * 3).reshape(3, 3, 1, 1)
    truth = np.array([0.0, 2.5, 9.0]).reshape(3, 1, 1)
    np.testing.assert_allclose(
        rank_histogram(forecast, truth), [1 / 3, 0, 1 / 3, 1 / 3]
    )
    assert reliability_index([1 / 3, 0, 1 / 3, 1 / 3]) == pytest.approx(0.5)


def test_ties_are_shared_among_the_ranks_they_could_take():
    # dry truth, two of three members dry: ranks 0, 1, 2 get a third each
    forecast = np.array([0.0, 5.0, 0.0]).reshape(3, 1, 1)
    truth = np.zeros((1, 1))
    np.testing.assert_allclose(rank_histogram(forecast, truth), [1 / 3] * 3 + [0])


def test_without_any_day_there_is_no_score():
    nothing = np.zeros((0, 3, 2, 2)), np.zeros((0, 2, 2))
    for score in (crps, energy_score, spread_skill_ratio):
        assert np.isnan(score(*nothing))
    assert np.isnan(rank_histogram(*nothing)).all()


def test_equal_members_have_no_distance():
    forecast = np.full((1, 3, 1, 1), 280.1)
    assert energy_score(forecast, np.full((1, 1, 1), 280.1)) == 0
    assert energy_score(forecast, np.full((1, 1, 1), 281.1)) == pytest.approx(1)
