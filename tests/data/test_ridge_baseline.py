"""The local ridge as baseline: cross-fitted, of two days, held by stores."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load, save
from tests.data import prepared_task, small_task
from tests.data.small_task import array_blocks

from st_cdgm.data.fit.baseline import ridge
from st_cdgm.data.fit.baseline.combined import (
    CombinedBaseline,
    build_baseline,
    source_groups,
)
from st_cdgm.data.fit.baseline.contract import BaselineDays
from st_cdgm.data.fit.folds import year_folds
from st_cdgm.data.fit.local import cells as cells_room
from st_cdgm.data.fit.local.equations import START
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.store.preprocess import write_zarr
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.time.windows import previous_step
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.errors import ConfigError, InputError, MissingVariableError

AXES = {"y_name": "y", "x_name": "x"}
LR = Grid(lat=np.array([40.0, 42, 44]), lon=np.arange(0, 8, 2.0), **AXES)
HR = Grid(lat=np.array([40.0, 41]), lon=np.array([1.0, 2, 3]), **AXES)
CHANNELS = (
    Channel(name="tas", variable="tas", level=None, units="K"),
    Channel(name="t_850", variable="t", level=850.0, units="K"),
    Channel(name="q_500", variable="q", level=500.0, units="1"),
)
TAS = TargetVariable(name="tas", units="degC", standard_name="air_temperature")
WIND = TargetVariable(name="sfcWind", units="m s-1")


class Weather:
    """Winters; ``tas`` follows today's weather, ``sfcWind`` also yesterday's."""

    def __init__(self, seed=0, years=4):
        rng = np.random.default_rng(seed)
        time = xr.date_range("2001-01-01", periods=365 * years, use_cftime=True)
        dates = day_keys(xr.DataArray(time, dims="time", name="time"))
        self.days = dates.select(np.flatnonzero(dates.season < 0.25))
        count = len(self.days)
        level = np.array([285.0, 280.0, 3.0])[:, None, None]
        away = rng.normal(size=(count, 3, 3, 4))
        self.raw = (level + away).astype(np.float32)
        follows = np.diff(self.days.ordinal, prepend=0) == 1
        before = np.where(follows[:, None], np.roll(away[:, 1, 0, :3], 1, axis=0), 0)
        wave = np.sin(2 * np.pi * self.days.season)[:, None]
        truth = np.empty((count, 2, 2, 3))
        truth[:, 0] = 12 + 3 * away[:, 0, 0, 1, None, None]
        truth[:, 1] = (5 + before + 2 * wave * away[:, 2, 1, :3])[:, None]
        truth += 0.1 * rng.normal(size=truth.shape)
        self.truth = truth.astype(np.float32)

    @property
    def season(self):
        return self.days.season

    def seen(self, index=slice(None), key=True):
        before = self.raw[previous_step(self.days.ordinal)]
        return BaselineDays(
            lr=self.raw[index],
            season=self.season[index],
            before=before[index],
            key=self.days.key[index] if key else None,
        )

    def build(self, **options):
        return build_baseline(
            "ridge",
            targets=(TAS, WIND),
            channels=CHANNELS,
            lr_grid=LR,
            hr_grid=HR,
            blocks=array_blocks(self.raw, self.season, self.truth, 100),
            **{"days": self.days, **options},
        )


@pytest.fixture(scope="module")
def weather():
    return Weather()


@pytest.fixture(scope="module")
def fitted(weather):
    return weather.build()


@pytest.fixture
def fixed_penalty(monkeypatch):
    monkeypatch.setattr(ridge, "choose_penalty", lambda *_: (START, 1))


def rmse(made, truth):
    return np.sqrt(np.nanmean(np.square(made - truth), axis=(0, 2, 3)))


def test_it_finds_what_follows_today_yesterday_and_the_season(fitted):
    later = Weather(seed=1)
    error = rmse(fitted.predict_days(later.seen()), later.truth)
    deviation = later.truth.std(axis=(0, 2, 3))
    assert (error < [0.1 * deviation[0], 0.45 * deviation[1]]).all()
    blind = rmse(fitted.predict(later.raw, later.season), later.truth)
    assert blind[1] > 0.75 * deviation[1]  # without the day before


def test_a_training_day_is_predicted_by_a_fit_without_its_year(weather, fixed_penalty):
    one, other = weather.build(), Weather()
    fold = year_folds(weather.days.key)[2]
    wave = np.sin(np.arange(len(fold)))[:, None, None, None]
    other.truth[fold] += 4 * wave.astype(np.float32)
    again = other.build()

    first, second = (b.predict_days(weather.seen()) for b in (one, again))
    moved = np.abs(second - first).max(axis=(1, 2, 3))
    # Sixteen bits hold what the fits differ by.
    assert moved[fold].max() < 0.02
    assert np.median(np.delete(moved, fold)) > 0.1


def test_other_days_take_the_fit_to_all_years(weather, fitted):
    whole = fitted.predict_days(weather.seen(key=False))
    held_out = fitted.predict_days(weather.seen())
    assert np.abs(whole - held_out).max() > 0.01
    assert (rmse(whole, weather.truth) < rmse(held_out, weather.truth)).all()
    later = Weather(seed=1)
    later.days = later.days.select(slice(None))
    object.__setattr__(later.days, "day", later.days.day + 50_0000)
    np.testing.assert_array_equal(
        fitted.predict_days(later.seen()), fitted.predict_days(later.seen(key=False))
    )


def test_of_many_years_a_few_fits_are_kept():
    weather = Weather(years=7)
    part = weather.build().parts[0][0]
    assert len(part.apart) == ridge.FOLDS
    assert part.fits(weather.days.key[:1], 1) == part.fits(weather.days.key[461:462], 1)
    assert part.fits(np.array([19000101, 20991231]), 2) == [-1, -1]


def test_a_day_does_not_depend_on_its_company(weather, fitted):
    whole = fitted.predict_days(weather.seen())
    for part in (slice(0, 1), slice(37, 40), slice(80, 200)):
        np.testing.assert_array_equal(
            fitted.predict_days(weather.seen(part)), whole[part]
        )
    assert fitted.predict_days(weather.seen(slice(0, 0))).shape == (0, 2, 2, 3)


def test_strips_and_chunks_of_cells_change_nothing(weather, fitted, monkeypatch):
    monkeypatch.setattr(ridge, "STRIP_BYTES", 1)
    monkeypatch.setattr(cells_room, "CHUNK_BYTES", 1)
    again = weather.build().predict_days(weather.seen())
    np.testing.assert_allclose(again, fitted.predict_days(weather.seen()), atol=2e-3)


def test_days_and_cells_without_truth(weather, fixed_penalty):
    gaps = Weather()
    gaps.truth[::3, :, 0, 0] = np.nan
    gaps.truth[:, :, 0, 2] = np.nan
    gaps.truth[:, 1, 1, 1] = np.nan
    made = gaps.build().predict_days(gaps.seen(key=False))
    whole = weather.build().predict_days(weather.seen(key=False))
    assert np.isfinite(made).all()
    assert rmse(made[..., :1, :1], weather.truth[..., :1, :1]).max() < 0.8
    # The nearest cell stands in, of all targets or of one.
    np.testing.assert_array_equal(made[:, :, 0, 2], made[:, :, 0, 1])
    assert np.abs(made[:, 0, 1, 1] - whole[:, 0, 1, 1]).max() < 1e-3
    assert np.abs(made[:, 1, 1, 1] - whole[:, 1, 1, 1]).max() > 0.1
    gaps.truth[:, 0] = np.nan
    with pytest.raises(InputError, match="too few training days") as caught:
        gaps.build()
    assert caught.value.facts["variable"] == "tas"


def test_missing_predictors_count_as_their_mean(weather):
    gaps = Weather()
    gaps.raw[5:9, 1] = np.nan
    gaps.raw[:, 2, 2, 3] = np.nan
    made = gaps.build().predict_days(weather.seen())
    assert (rmse(made, weather.truth) < [0.2, 0.75]).all()


def test_without_dates_it_cannot_be_fitted(weather):
    with pytest.raises(InputError, match="no dated training days"):
        weather.build(days=None)


def test_state_is_json_and_arrays_and_rebuilds_it(weather, fitted):
    meta, arrays = fitted.to_state()
    stored = load(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    again = CombinedBaseline.from_state(json.loads(json.dumps(meta)), stored)
    assert (again.strategy, again.history, again.oracle) == ("ridge", 2, False)
    np.testing.assert_array_equal(
        again.predict_days(weather.seen()), fitted.predict_days(weather.seen())
    )


# -- Sources ---------------------------------------------------------------------------


def test_targets_see_only_their_sources(weather):
    sources = {"sfcWind": ["850", "GP500"]}
    made = weather.build(sources=sources)
    assert made.strategy == "ridge"
    meta, arrays = made.to_state()
    made = CombinedBaseline.from_state(json.loads(json.dumps(meta)), arrays)

    before = made.predict_days(weather.seen())
    changed = Weather()
    changed.raw[:, 0] += 3 * np.sin(np.arange(len(changed.raw)))[:, None, None]
    after = made.predict_days(changed.seen())
    np.testing.assert_array_equal(after[:, 1], before[:, 1])
    assert np.abs(after[:, 0] - before[:, 0]).max() > 1
    assert (rmse(before, weather.truth) < [0.2, 0.75]).all()


def test_groups_of_targets_with_the_same_sources():
    targets = (TAS, WIND, TargetVariable(name="pr", units="mm day-1"))
    assert source_groups(targets, CHANNELS, {}) == [([0, 1, 2], None)]
    every = ["SURF", 500, "850"]
    named = {"tas": ["SURF"], "pr": ["SURF"], "sfcWind": every}
    assert source_groups(targets, CHANNELS, named) == [([0, 2], [0]), ([1], None)]


@pytest.mark.parametrize(
    ("sources", "variable"),
    [
        ({"snow": ["SURF"]}, "snow"),
        ({"tas": ["GP700", "SURF"]}, "data.baseline_sources.tas"),
        ({"tas": []}, "data.baseline_sources.tas"),
    ],
)
def test_unknown_sources_are_refused(weather, sources, variable):
    with pytest.raises(MissingVariableError) as caught:
        weather.build(sources=sources)
    assert caught.value.facts["variable"] == variable


def test_a_baseline_that_is_not_fitted_cannot_be_restricted(weather):
    with pytest.raises(ConfigError, match="cannot be restricted") as caught:
        build_baseline(
            "climatology",
            targets=(TAS,),
            channels=CHANNELS,
            lr_grid=LR,
            hr_grid=HR,
            blocks=array_blocks(weather.raw, weather.season, weather.truth[:, :1]),
            sources={"tas": ["SURF"]},
        )
    assert caught.value.facts["expected"] == "ridge or regression"


def test_options_of_the_pipeline_reach_it(folder, pipeline):
    options = {"baseline_strategy": "ridge", "baseline_sources": {"pr": [850]}}
    config = small_task.config(folder / "files", **options)
    made = NetCDFDataPipeline.from_config(config).preprocessor.baseline
    assert made.sources == ((0,), None)
    assert made.parts[1][1] == (1, 2)


# -- In the pipeline -------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ridge")


@pytest.fixture(scope="module")
def pipeline(folder):
    return prepared_task.pipeline(folder / "files", baseline_strategy="ridge")


def test_any_part_of_the_record_gives_the_same_fields(pipeline, folder):
    whole = prepared_task.fields(pipeline, 0, len(pipeline.days))
    for start, stop in ((0, 3), (58, 64), (100, 101), (150, 190)):
        part = pipeline.prepared_reader()(start, stop)
        for key, values in part.items():
            np.testing.assert_array_equal(values, whole[key][start:stop])

    small = small_task.config(
        folder / "files", baseline_strategy="ridge", memory="100 kB"
    )
    other = NetCDFDataPipeline.from_config(small)
    assert other.source.raw is None
    np.testing.assert_array_equal(
        prepared_task.fields(other, 40, 90)["baseline"], whole["baseline"][40:90]
    )


def test_the_residual_of_training_days_has_the_fitted_scale(pipeline):
    train = pipeline.indices["train"]
    residual = prepared_task.fields(pipeline, 0, len(pipeline.days))["residual"][train]
    valid = pipeline.preprocessor.valid
    np.testing.assert_allclose(np.nanmean(residual, axis=0)[valid], 0, atol=1e-3)
    np.testing.assert_allclose(np.nanstd(residual, axis=0)[valid], 1, rtol=0.02)


def test_it_knows_the_training_days_alone(pipeline, folder):
    time = small_task.stamps(keep=prepared_task.GAPS)
    late = xr.Variable("time", [date.month > 4 for date in time])
    changed = [
        (data(time) * xr.where(late, 1.5, 1.0)).transpose("time", "lat", "lon")
        for data in (small_task.predictors, small_task.targets)
    ]
    for new, old in zip(
        changed, (small_task.predictors(time), small_task.targets(time)), strict=True
    ):
        for name in new:
            new[name].attrs = old[name].attrs
            new[name] = new[name].astype("f4")
    small_task.write(folder / "changed", *changed, time=time)
    config = small_task.config(folder / "changed", baseline_strategy="ridge")
    other = NetCDFDataPipeline.from_config(config).preprocessor.to_state()
    for name, values in pipeline.preprocessor.to_state()[1].items():
        np.testing.assert_array_equal(other[1][name], values)


def test_new_predictors_give_the_baseline_of_the_pipeline(pipeline, folder):
    """To the bit, with the day before the first one looked up in the file."""
    test = pipeline.arrays("test")
    for seq_len in (4, 1):
        prep = replace(pipeline.preprocessor, seq_len=seq_len)
        arrays, first = load_predictors(
            prep, folder / "files" / "lr.nc", start="2001-07-10", end="2001-07-20"
        )
        assert first == max(seq_len, 2) - 1
        at = np.searchsorted(test.day, arrays.day[first:])
        np.testing.assert_array_equal(arrays.baseline[first:], test.baseline[at])


def test_stores_hold_it(pipeline, folder):
    write_zarr(pipeline, folder / "store")
    stored = ZarrDataPipeline(folder / "store", verify=True)
    for part in ("train", "test"):
        expected = pipeline.arrays(part).baseline
        np.testing.assert_allclose(stored.arrays(part).baseline, expected, atol=0.1001)
    first, second = (
        prepared_task.fields(p, 0, len(pipeline.days)) for p in (pipeline, stored)
    )
    np.testing.assert_array_equal(first["baseline"], second["baseline"])
    again = stored.preprocessor.baseline
    assert (again.strategy, again.history) == ("ridge", 2)
    meta, arrays = pipeline.preprocessor.to_state()
    for name, values in stored.preprocessor.to_state()[1].items():
        np.testing.assert_array_equal(values, arrays[name])
    assert meta == stored.preprocessor.to_state()[0]
