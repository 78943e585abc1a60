"""The contract every reference keeps, and what is particular to each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.references import base
from st_cdgm.references.analogs import AnalogReference
from st_cdgm.references.base import Reference, build_reference, fit_reference
from st_cdgm.references.climatology import ClimatologyReference
from st_cdgm.references.days import (
    draw_days,
    season_distance,
    season_pool,
    training_days,
)
from st_cdgm.registry import get, names

SINGLE = ["lr_interp", "quantile_mapping"]
ENSEMBLES = ["climatology", "analogs", "ridge_pc", "ridge", "glm"]
NAMES = [*SINGLE, *ENSEMBLES]


@pytest.fixture(scope="module")
def fitted(world):
    return {
        name: build_reference(name).fit(world.train, world.preprocessor)
        for name in NAMES
    }


def test_registry_knows_its_methods_by_name():
    assert set(NAMES) <= set(names("reference"))
    assert "persistence" not in names("reference")
    assert all(issubclass(get("reference", name), Reference) for name in NAMES)
    with pytest.raises(ConfigError, match="no reference of this name") as caught:
        build_reference("persistence")
    assert "climatology" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_contract(world, fitted, name):
    fields = fitted[name].predict(world.test, members=5, seed=1)
    M = 1 if name in SINGLE else 5
    assert fields.shape == (len(world.test), M, 3, 6, 8)
    assert fields.dtype == np.float32
    valid = np.broadcast_to(world.preprocessor.valid, fields.shape)
    np.testing.assert_array_equal(np.isfinite(fields), valid)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_decoded_fields_keep_the_guarantees(world, fitted, name):
    fields = fitted[name].predict(world.test, members=8, seed=0)
    tasmin, tasmax, pr = np.moveaxis(fields[..., 1:, :], 2, 0)
    assert (tasmin <= tasmax).all()
    assert (pr >= 0).all()
    assert (pr == 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_truth_of_the_predicted_days_is_never_used(world, fitted, name):
    # D4
    before = fitted[name].predict(world.test, members=3, seed=0)
    blind = replace(world.test, hr=None)
    after = fitted[name].predict(blind, members=3, seed=0)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", NAMES)
def test_a_day_does_not_depend_on_the_other_days(world, fitted, name):
    whole = fitted[name].predict(world.test, members=4, seed=5)
    some = fitted[name].predict(world.test.select(slice(7, 30, 4)), members=4, seed=5)
    np.testing.assert_array_equal(some, whole[7:30:4])


@pytest.mark.parametrize("name", ENSEMBLES)
def test_first_members_do_not_depend_on_their_number(world, fitted, name):
    few = fitted[name].predict(world.test, members=3, seed=2)
    many = fitted[name].predict(world.test, members=9, seed=2)
    np.testing.assert_array_equal(many[:, :3], few)


@pytest.mark.parametrize("name", ["climatology", "ridge_pc", "ridge", "glm"])
def test_the_seed_decides_the_draw(world, fitted, name):
    first, again, other = (
        fitted[name].predict(world.test, members=3, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_methods_that_see_the_weather_beat_the_climate(world, fitted):
    scores = {}
    for name in ENSEMBLES:
        fields = fitted[name].predict(world.test, members=15, seed=0)
        scores[name] = [crps(fields[:, :, c], world.test.hr[:, c]) for c in range(3)]
    assert all(np.less(scores["analogs"], scores["climatology"]))
    for name in ("ridge_pc", "ridge"):
        assert all(np.less(scores[name], scores["analogs"])), name
    # The toy rain is no Gamma distribution with a logarithmic link.
    assert all(np.less(scores["glm"], scores["climatology"]))
    assert all(np.less(scores["glm"][:2], scores["analogs"][:2]))
    assert all(np.less(scores["ridge"], scores["ridge_pc"]))


@pytest.mark.parametrize("name", ENSEMBLES)
def test_more_members_than_training_days(world, name):
    short = world.train.select(slice(0, 12))
    reference = build_reference(name).fit(short, world.preprocessor)
    fields = reference.predict(world.test.select(slice(0, 2)), members=12, seed=0)
    assert np.isfinite(fields[..., 1:, :]).all()
    with pytest.raises(InputError, match="larger than the training set"):
        reference.predict(world.test, members=13, seed=0)
    with pytest.raises(InputError, match="needs a member"):
        reference.predict(world.test, members=0, seed=0)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_training_without_truth(world, name):
    with pytest.raises(InputError, match="with truth"):
        build_reference(name).fit(replace(world.train, hr=None), world.preprocessor)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_reference_sees_and_tries_is_stated(world, name):
    fitted = fit_reference(name, world.train, world.preprocessor, world.test)
    history = {"climatology": 0, "analogs": 2, "ridge": 2, "glm": 2}
    assert fitted.history == history.get(name, 1)
    tuned = name in ("analogs", "ridge", "glm", "quantile_mapping", "ridge_pc")
    assert (fitted.candidates > 1) is tuned


def test_validation_days_are_handed_to_those_that_ask(world, monkeypatch):
    class Outside(Reference):
        def fit(self, train, preprocessor):
            self.seen = (train, preprocessor)
            return self

        def predict(self, days, *, members, seed):
            raise NotImplementedError

    class Asking(Outside):
        def fit(self, train, preprocessor, validation=None):
            self.validation = validation
            return self

    for kind in (Outside, Asking):
        monkeypatch.setattr(base, "build_reference", lambda _, kind=kind: kind())
        fitted = fit_reference("any", world.train, world.preprocessor, world.test)
        assert getattr(fitted, "validation", world.test) is world.test
        assert fitted.history == fitted.candidates == 1


# -- seasons and training days ---------------------------------------------------------


def test_season_distance_goes_around_the_year():
    season = np.array([0.0, 0.5, 0.99], np.float32)
    distance = season_distance(season, np.array([0.01], np.float32))[:, 0]
    np.testing.assert_allclose(
        distance, [0.01 * 365.25, 0.49 * 365.25, 0.02 * 365.25], rtol=1e-4
    )


def test_pool_is_the_season_or_else_the_nearest_days():
    distance = np.array([30.0, 2.0, 10.4, 0.0, 10.6, 90.0])
    assert season_pool(distance, 10, 2).tolist() == [1, 2, 3]
    assert season_pool(distance, 10, 4).tolist() == [1, 2, 3, 4]


def test_days_are_drawn_without_replacement():
    pool = np.arange(100, 120)
    drawn = draw_days(pool, members=20, seed=0, day=20030101)
    assert sorted(drawn) == pool.tolist()
    few = draw_days(pool, members=4, seed=0, day=20030101)
    np.testing.assert_array_equal(few, drawn[:4])
    other = draw_days(pool, members=20, seed=0, day=20030102)
    assert not np.array_equal(drawn, other)


def test_gaps_in_the_training_truth_are_filled_or_the_day_left_out(make_world):
    world = make_world(years=2, gaps=True)
    days, truth = training_days(world.train, world.preprocessor)
    assert len(days) == len(world.train) - 1
    assert world.train.day[2] not in days.day  # a day without any truth
    valid = world.preprocessor.valid
    assert np.isfinite(truth[:, valid]).all()
    assert np.isnan(truth[:, ~valid]).all()
    # The first guess, less its mean error: the coarse mean is no minimum (about -4 K).
    guess, known = world.train.baseline[:, :, 4, 4], world.train.hr[:, :, 4, 4]
    error = np.nanmean(guess - known, axis=0)
    assert error[0] > 3
    expected = np.maximum(guess[1] - error, [-np.inf, -np.inf, 0.0])
    np.testing.assert_allclose(truth[1, :, 4, 4], expected, rtol=1e-5)
    np.testing.assert_array_equal(truth[0][valid], world.train.hr[0][valid])
    with pytest.raises(InputError, match="No training day"):
        training_days(world.train.select(slice(2, 3)), world.preprocessor)


# -- one by one ------------------------------------------------------------------------


def test_climatology_draws_whole_fields_of_the_season(world):
    reference = ClimatologyReference(window=10).fit(world.train, world.preprocessor)
    fields = reference.predict(world.test, members=6, seed=0)
    for t in (0, 20, len(world.test) - 1):
        drawn = [
            int(np.flatnonzero(world.train.hr[:, 0, 3, 3] == member[0, 3, 3])[0])
            for member in fields[t]
        ]
        assert len(set(drawn)) == 6
        gap = season_distance(world.test.season[[t]], world.train.season[drawn])
        assert gap.max() <= 10.5
        for member, day in zip(fields[t], drawn, strict=True):
            np.testing.assert_array_equal(member, world.train.hr[day])


def test_analogs_of_a_training_day_begin_with_the_day_itself(world, fitted):
    some = world.train.select(slice(10, 60, 10))
    fields = fitted["analogs"].predict(some, members=3, seed=0)
    np.testing.assert_array_equal(fields[:, 0], some.hr)
    assert not np.array_equal(fields[:, 1], some.hr, equal_nan=True)


def test_analogs_stay_in_the_season(world):
    # the same weather half a year later is not looked at
    reference = build_reference("analogs").fit(world.train, world.preprocessor)
    day = world.train.select(slice(0, 1))
    later = (day.season + np.float32(0.5)) % 1
    shifted = replace(day, days=replace(day.days, season=later))
    fields = reference.predict(shifted, members=1, seed=0)
    assert not np.array_equal(fields[:, 0], day.hr, equal_nan=True)


def test_analogs_weigh_the_day_before(make_world):
    """Two days with the same weather: that with the same day before comes first."""
    world = make_world(years=2, step=1)
    lr = world.train.lr.copy()
    lr[100], lr[99] = lr[110], lr[109]
    train = replace(world.train, lr=lr, record=None)
    day = train.select(np.array([110]))
    both = AnalogReference(components=20, yesterday=1.0, variance=1.0)
    first = both.fit(train, world.preprocessor).predict(day, members=2, seed=0)
    assert {float(x) for x in first[0, :, 0, 3, 3]} == {
        float(train.hr[t, 0, 3, 3]) for t in (100, 110)
    }
    lr[99] = lr[200]
    train = replace(world.train, lr=lr, record=None)
    day = train.select(np.array([110]))
    again = both.fit(train, world.preprocessor).predict(day, members=2, seed=0)
    assert float(train.hr[100, 0, 3, 3]) not in again[0, :, 0, 3, 3]
    alone = replace_weight(both, 0.0).predict(day, members=2, seed=0)
    assert float(train.hr[100, 0, 3, 3]) in alone[0, :, 0, 3, 3]


def replace_weight(reference, weight):
    reference.yesterday = weight
    return reference


def test_interpolation_is_the_baseline(world, fitted):
    fields = fitted["lr_interp"].predict(world.test, members=20, seed=0)
    valid = world.preprocessor.valid
    np.testing.assert_array_equal(fields[:, 0][:, valid], world.test.baseline[:, valid])


def test_interpolation_needs_an_interpolated_baseline(make_world):
    world = make_world(years=2, strategy="climatology")
    with pytest.raises(InputError, match="interpolated baseline") as caught:
        build_reference("lr_interp").fit(world.train, world.preprocessor)
    assert caught.value.facts["found"] == "climatology"


def test_real_data_yardsticks(real_data):
    """Fair CRPS of 20 members on every fifth day of 2003-2005, known beforehand."""
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.task.config import DataConfig
    from st_cdgm.data.time.splits import SplitConfig

    pipeline = NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(real_data),
            lr_path="iberia/predictors_ncep_r1.nc",
            hr_path="iberia/targets_eobs_050.nc",
            hr_variables=["tasmin", "tasmax", "pr"],
            splits=SplitConfig(
                train=["1991-01-01", "1999-12-21"],
                validation=["2001-01-11", "2002-12-21"],
                test=["2003-01-01", "2005-12-31"],
            ),
        )
    )
    train: FieldArrays = pipeline.arrays("train")
    test = pipeline.arrays("test").select(slice(None, None, 5))
    known = {
        "climatology": (1.70, 2.16, 1.31),
        "ridge_pc": (1.056, 0.950, 0.786),
    }
    for name, expected in known.items():
        reference = build_reference(name).fit(train, pipeline.preprocessor)
        fields = reference.predict(test, members=20, seed=0)
        scores = [crps(fields[:, :, c], test.hr[:, c]) for c in range(3)]
        np.testing.assert_allclose(scores, expected, rtol=0.03)
