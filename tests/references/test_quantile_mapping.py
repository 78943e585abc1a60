"""Quantile mapping: by hand, against ibicus, and of targets without a counterpart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_cdgm.errors import InputError
from st_cdgm.references.base import build_reference
from st_cdgm.references.quantile_mapping import (
    QuantileMappingReference,
    map_quantiles,
)


def test_by_hand():
    coarse = np.array([1.0, 3.0, 2.0, 4.0])[:, None]
    truth = np.array([10.0, 40.0, 20.0, 30.0])[:, None]
    values = np.array([1.0, 2.5, 4.0, 5.0, 0.0])[:, None]
    # ranks 1, 2, 4; above all: 5 + (40 - 4); below all: 0 + (10 - 1)
    np.testing.assert_allclose(
        map_quantiles(values, coarse, truth)[:, 0], [10, 20, 40, 41, 9]
    )


def test_against_ibicus():
    debias = pytest.importorskip("ibicus.debias")
    rng = np.random.default_rng(0)
    coarse, truth = rng.gamma(2, 2, (200, 3, 2)), 3 + rng.normal(0, 5, (200, 3, 2))
    values = 1.3 * rng.gamma(2, 2, (50, 3, 2)) - 0.5
    oracle = debias.QuantileMapping(running_window_mode=False, variable="tas")
    expected = oracle.apply(truth, coarse, values, progressbar=False)
    made = map_quantiles(values, coarse, truth)
    np.testing.assert_allclose(made, expected)


def test_days_of_the_season_are_mapped_as_ibicus_does(make_world):
    """The same window of days around every day of the year."""
    debias = pytest.importorskip("ibicus.debias")
    world = make_world(years=4, step=1)
    test = world.test.select(slice(0, 365, 30))
    reference = QuantileMappingReference(window=15)
    fields = reference.fit(world.train, world.preprocessor)
    fields = fields.predict(test, members=1, seed=0)
    train, season = world.train, world.train.season
    oracle = debias.QuantileMapping(running_window_mode=False, variable="tas")
    for t in (0, 4, 9):
        apart = np.abs(season - test.season[t])
        near = 365.25 * np.minimum(apart, 1 - apart) <= 15.5
        expected = oracle.apply(
            train.hr[near, 0, 1:],
            train.baseline[near, 0, 1:],
            test.baseline[[t], 0, 1:],
            progressbar=False,
        )
        # The reference sorts the temperatures of a cell.
        other = fields[t, 0, 1, 1:]
        found = np.minimum(fields[t, 0, 0, 1:], other)
        close = np.isclose(found, expected[0], atol=1e-3)
        assert close.mean() > 0.95


def test_training_days_get_their_distribution_back(world):
    reference = build_reference("quantile_mapping")
    reference.window = 400.0
    fields = reference.fit(world.train, world.preprocessor).predict(
        world.train, members=1, seed=0
    )
    for channel in (1, 2):
        made, truth = fields[:, 0, channel, 3, 3], world.train.hr[:, channel, 3, 3]
        quantiles = [np.quantile(x, [0.1, 0.5, 0.9, 0.99]) for x in (made, truth)]
        np.testing.assert_allclose(*quantiles, rtol=0.05, atol=0.4)


def test_a_target_without_counterpart_takes_the_channel_that_follows_it(make_world):
    world = make_world(strategy="climatology")
    reference = build_reference("quantile_mapping").fit(world.train, world.preprocessor)
    assert [source[0] for source in reference._source] == [0, 0, 1]
    assert [source[1] for source in reference._source] == [1, 1, 1]
    fields = reference.predict(world.test, members=20, seed=0)
    assert fields.shape[1] == 1
    error = (fields[:, 0] - world.test.hr)[..., 1:, :]
    spread = world.test.hr[..., 1:, :].std(axis=(0, 2, 3))
    assert (error.std(axis=(0, 2, 3)) < 0.9 * spread).all()


def test_a_channel_that_falls_as_the_target_rises(make_world):
    world = make_world(strategy="climatology")
    turned = [replace(days, lr=-days.lr) for days in (world.train, world.test)]
    turned = [replace(days, record=None) for days in turned]
    signs = build_reference("quantile_mapping").fit(turned[0], world.preprocessor)
    assert [source[1] for source in signs._source] == [-1, -1, -1]
    right = build_reference("quantile_mapping").fit(world.train, world.preprocessor)
    first = signs.predict(turned[1], members=1, seed=0)
    second = right.predict(world.test, members=1, seed=0)
    assert np.nanmean(np.abs(first - second)) < 0.1


def test_nothing_to_map_is_refused(make_world):
    world = make_world(strategy="climatology")
    noise = np.random.default_rng(9).normal(size=world.train.lr.shape)
    blind = replace(world.train, lr=noise.astype(np.float32), record=None)
    with pytest.raises(InputError, match="nothing to map") as caught:
        build_reference("quantile_mapping").fit(blind, world.preprocessor)
    assert caught.value.facts["variable"] == "tasmin"
    assert "data.baseline_map" in caught.value.facts["remedy"]


def test_temperatures_stay_in_order_and_rain_positive(world):
    fields = build_reference("quantile_mapping").fit(world.train, world.preprocessor)
    tasmin, tasmax, pr = np.moveaxis(
        fields.predict(world.test, members=1, seed=0)[:, 0, :, 1:], 1, 0
    )
    assert (tasmin <= tasmax).all()
    assert (pr >= 0).all()
