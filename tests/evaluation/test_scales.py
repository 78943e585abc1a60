"""Spread, error and ranks of means over blocks of cells and of days."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from st_cdgm.evaluation.metrics.blocks import Pair, accumulate
from st_cdgm.evaluation.metrics.calibration.scales import ScaleScore, calibration
from st_cdgm.evaluation.metrics.calibration.windows import SCALES, Scale
from st_cdgm.evaluation.metrics.probabilistic import rank_histogram, spread_skill_ratio


def weather(n, T=500, rho=0.5, shape=(12, 18), seed=0):
    """Return n sequences of fields that are smooth and remember. (n, T, Y, X)."""
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.normal(size=(n, T, *shape)), (0, 0, 2, 2))
    x /= x.std()
    for t in range(1, T):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]
    return x


def exchangeable(M=9, **options):
    x = weather(M + 1, **options)
    return np.moveaxis(x[1:], 0, 1), x[0]


def test_names_of_scales():
    assert len(SCALES) == len(set(SCALES)) == 12
    assert Scale(1, 1).suffix == ""
    assert Scale(4, 7).suffix == "_4x4_7d"
    assert Scale(0, 30).suffix == "_domain_30d"
    assert Scale(16, 1).words == "16 x 16 cells, 1 day"


def test_an_exchangeable_ensemble_has_ratio_one_at_every_scale():
    forecast, truth = exchangeable()
    found = calibration(forecast, truth)
    assert list(found) == list(SCALES)
    outside = []
    for scale in SCALES:
        ratio, ranks = found[scale]
        assert ratio.low < 1 < ratio.high, scale
        assert 0.7 < ratio.value < 1.45, scale
        assert ranks.share.sum() == pytest.approx(1)
        outside += [*(ranks.low > 0.1), *(ranks.high < 0.1)]
    # Of 120 intervals of 95 %, correlated, few miss the flat share.
    assert sum(outside) <= 12
    narrow = found[Scale(1, 1)].spread_skill
    assert narrow.high - narrow.low < 0.08
    assert found[Scale(1, 1)].ranks.worst.value < 0.1


def test_members_without_memory_are_too_sure_of_long_means_alone():
    forecast, truth = exchangeable()
    rng = np.random.default_rng(5)
    mixed = np.stack(
        [member[rng.permutation(500)] for member in np.moveaxis(forecast, 1, 0)], 1
    )
    found = calibration(mixed, truth)
    day, week = found[Scale(1, 1)].spread_skill, found[Scale(1, 7)].spread_skill
    assert day.low < 1 < day.high
    assert week.high < 0.9


def test_members_without_structure_are_too_sure_of_large_means_alone():
    truth = weather(1, rho=0.0)[0]
    forecast = np.random.default_rng(1).normal(size=(500, 9, 12, 18))
    found = calibration(forecast, truth)
    assert found[Scale(1, 1)].spread_skill.value == pytest.approx(1, abs=0.05)
    large = found[Scale(0, 1)]
    assert large.spread_skill.high < 0.6
    outer = large.ranks.share[[0, -1]]
    assert (outer > 0.2).all()
    assert large.ranks.worst.low > 1


def means_by_hand(values, weight, blocks, windows):
    """Weighted means over lists of cell slices and of days. Shape (windows, blocks)."""
    out = np.empty((len(windows), len(blocks)))
    for i, days in enumerate(windows):
        for j, cells in enumerate(blocks):
            w = weight[(days, *cells)]
            out[i, j] = (w * values[(days, *cells)]).sum() / w.sum()
    return out


def test_borders_masks_and_gaps_by_hand():
    """A grid of 5 x 6 with a hole; days 0-8, then 12-19: three weeks are not two."""
    rng = np.random.default_rng(0)
    forecast, truth = rng.normal(size=(17, 3, 5, 6)), rng.normal(size=(17, 5, 6))
    truth[:, 0, 5] = np.nan
    truth[2, 1, 1] = np.nan
    weights = rng.uniform(0.5, 1.0, size=(5, 6))
    score = ScaleScore()
    ordinal = np.r_[0:9, 12:20]
    pair = Pair(
        forecast=forecast.__getitem__,
        reference=truth.__getitem__,
        shape=forecast.shape,
        weights=weights,
        ordinal=ordinal,
    )
    accumulate(pair, score)

    weight = np.where(np.isfinite(truth), weights, 0)
    rows, columns = (slice(0, 4), slice(4, 5)), (slice(0, 4), slice(4, 6))
    blocks = [(r, c) for r in rows for c in columns]
    for scale, cells, windows in (
        (Scale(4, 1), blocks, [slice(t, t + 1) for t in range(17)]),
        (Scale(4, 7), blocks, [slice(0, 7), slice(9, 16)]),
        (Scale(0, 7), [(slice(None),) * 2], [slice(0, 7), slice(9, 16)]),
    ):
        members = [
            means_by_hand(forecast[:, m], weight, cells, windows) for m in range(3)
        ]
        means = means_by_hand(np.nan_to_num(truth), weight, cells, windows)
        area = np.array([[weight[(w, *c)].sum() for c in cells] for w in windows])
        error = means - np.mean(members, axis=0)
        spread = np.var(members, axis=0, ddof=1)
        ratio = np.sqrt(4 / 3 * (area * spread).sum() / (area * error**2).sum())
        assert score.value[scale].spread_skill.value == pytest.approx(ratio), scale
        below = (np.array(members) < means).sum(axis=0)
        shares = [area[below == rank].sum() / area.sum() for rank in range(4)]
        np.testing.assert_allclose(score.value[scale].ranks.share, shares)
    assert np.isnan(score.value[Scale(0, 30)].spread_skill.value)


def test_single_cells_and_days_are_what_the_functions_give():
    rng = np.random.default_rng(0)
    forecast, truth = (
        rng.gamma(0.4, size=(20, 5, 4, 7)),
        rng.gamma(0.4, size=(20, 4, 7)),
    )
    forecast[forecast < 0.3] = truth[truth < 0.3] = 0.0  # with ties
    found = calibration(forecast, truth)[Scale(1, 1)]
    assert found.spread_skill.value == pytest.approx(
        spread_skill_ratio(forecast, truth)
    )
    np.testing.assert_allclose(found.ranks.share, rank_histogram(forecast, truth))
    one = calibration(forecast[:, 0], truth)[Scale(1, 1)]
    assert np.isnan(one.spread_skill.value)
    assert np.isnan(one.ranks.worst.value)


def test_precipitation_is_pooled_as_amounts():
    """The mean of two cells with 0 and 8 mm is 4 mm, however members reach it."""
    truth = np.tile([[8.0, 0.0]], (6, 1, 1))
    forecast = np.tile([[[0.0, 8.0]], [[8.0, 0.0]]], (6, 1, 1, 1))
    found = calibration(forecast, truth)
    assert found[Scale(1, 1)].spread_skill.value > 0
    np.testing.assert_allclose(found[Scale(0, 1)].ranks.share, 1 / 3)  # all equal
