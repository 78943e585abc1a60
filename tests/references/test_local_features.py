"""What the regression of a cell sees: interpolation, lags, seasons, derivatives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_cdgm.data.fit.local import features as room
from st_cdgm.data.fit.local.features import GROUPS, LocalFeatures, _derivatives
from st_cdgm.data.space.grid import interpolation
from st_cdgm.data.variables.fields import Channel

CELLS = np.array([3, 20, 47])


@pytest.fixture(scope="module")
def daily(make_world):
    return make_world(years=2, step=1)


def test_own_features_are_the_interpolated_channels_of_both_days(daily):
    train, prep = daily.train, daily.preprocessor
    features = LocalFeatures.fit(train, prep, components=4)
    own = features.weather(train).at(CELLS)
    fine = interpolation(prep.lr_grid, prep.hr_grid).apply(train.lr)
    fine = fine.reshape(*fine.shape[:2], -1)[:, :, CELLS]  # (T, C_lr, p)
    for channel in range(2):
        seen, expected = own[:, :, channel].T, fine[:, channel]
        np.testing.assert_allclose(
            np.corrcoef(seen[:, 0], expected[:, 0])[0, 1], 1, atol=1e-6
        )
        ratio = np.ptp(expected, axis=0) / np.ptp(seen, axis=0)
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)  # one scale per channel
        # The second half holds the day before: the same, a day later.
        before = own[:, :, own.shape[-1] // 2 + channel].T
        np.testing.assert_allclose(before[1:], seen[:-1], atol=1e-5)
        np.testing.assert_allclose(before[0], seen[0], atol=1e-5)


def test_features_have_mean_0_and_scale_1_at_the_nodes(daily):
    features = LocalFeatures.fit(daily.train, daily.preprocessor, components=4)
    shared = features.shared(daily.train)
    assert (shared[:, 0] == 1).all()
    np.testing.assert_allclose(shared[:, 5:].std(axis=0), 1, rtol=0.05)
    own = features.weather(daily.train).at(np.arange(48))[..., :2]
    np.testing.assert_allclose(own.mean(axis=1), 0, atol=1e-3)
    assert (own.std(axis=1) < 1.2).all()  # interpolation smooths


def test_modulated_features_and_their_groups(daily):
    features = LocalFeatures.fit(daily.train, daily.preprocessor, components=4)
    own = features.weather(daily.train).at(CELLS)
    wave = np.cos(2 * np.pi * daily.train.season.astype(float))
    np.testing.assert_allclose(own[0, :, 2], own[0, :, 0] * wave, atol=1e-5)

    group, yesterday = features.groups()
    shared = features.shared(daily.train).shape[1]
    assert len(group) == len(yesterday) == shared + own.shape[-1]
    names = [GROUPS[k] for k in group]
    assert names[:5] == ["harmonics"] * 5
    assert names[5:13] == ["components"] * 8
    assert names[13:19] == ["own"] * 2 + ["modulated"] * 4
    assert yesterday[9:13].all()
    assert yesterday[19:].all()
    assert not yesterday[:9].any()
    plain = LocalFeatures.fit(
        daily.train, daily.preprocessor, components=4, modulated=False
    )
    assert "modulated" not in [GROUPS[k] for k in plain.groups()[0]]


def test_derivatives_of_a_plane_are_its_slope(daily):
    grid = daily.preprocessor.lr_grid
    east, north, laplacian = _derivatives(grid)
    plane = (3.0 * grid.lat2d + 0.0 * grid.lon2d).ravel()
    metre = 3.0 / (np.pi / 180 * 6_371_229.0)
    np.testing.assert_allclose(north @ plane, metre, rtol=1e-6)
    np.testing.assert_allclose(east @ plane, 0, atol=1e-12)
    np.testing.assert_allclose(laplacian @ plane, 0, atol=1e-15)


def test_derivatives_are_built_in_blocks(daily, monkeypatch):
    whole = _derivatives(daily.preprocessor.lr_grid)
    monkeypatch.setattr(room, "_COLUMNS", 5)
    for one, other in zip(whole, _derivatives(daily.preprocessor.lr_grid), strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())


def test_only_pressure_and_geopotential_have_derivatives(daily):
    psl = Channel(name="psl", variable="psl", level=None, units="Pa")
    channels = (psl, daily.preprocessor.channels[1])
    prep = replace(daily.preprocessor, channels=channels)
    features = LocalFeatures.fit(daily.train, prep, components=4)
    derived = [o for o in features.operators if o.groups == ("derivatives",)]
    assert [o.channels.tolist() for o in derived] == [[0]] * 3
    without = LocalFeatures.fit(daily.train, daily.preprocessor, components=4)
    assert len(without.operators) == 1
