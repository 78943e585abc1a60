"""Every option of the pipeline, from the files to what inference sees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tests.data import small_task

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import InputError

WIND = ["ws_850", "ug_850", "vg_850", "thickness_1000_850", "hur_850"]
FOLDS = {"splits": SplitConfig(folds=4, fold=1, embargo_days=5)}
YEARS = {
    "splits": SplitConfig(
        train_years=[2001, 2003],
        validation_years=[2004],
        test_years=[2002],
        season_start_month=12,
    )
}
OPTIONS = {
    "default": {},
    "per_gridpoint": {"normalization": "per_gridpoint"},
    "robust": {"robust": True},
    "robust_per_gridpoint": {"robust": True, "normalization": "per_gridpoint"},
    "not_normalised": {"normalize": False},
    "quantile": {"precipitation_codec": "quantile"},
    "log1p": {"precipitation_codec": "log1p", "residual_scaling": "per_variable"},
    "regression": {"baseline_strategy": "regression"},
    "regression_quantile": {
        "baseline_strategy": "regression",
        "precipitation_codec": "quantile",
    },
    "climatology": {
        "baseline_strategy": "climatology",
        "nan_fill_strategy": "mean",
    },
    "derived_at_all_levels": {"lr_derived": ["ws", "thickness_1000_850"]},
    "derived": {"lr_derived": WIND, "lr_variables": ["tas"]},
    "coarsened": {"lr_coarsen": 2},
    "coarsened_derived": {"lr_coarsen": 2, "lr_derived": ["ws_850", "ug_850"]},
    "interpolated": {"nan_fill_strategy": "interpolate"},
    "folds": FOLDS,
    "years": YEARS,
    "little_memory": {"memory": "1 MB"},
    "everything": {
        "robust": True,
        "normalization": "per_gridpoint",
        "precipitation_codec": "quantile",
        "baseline_strategy": "regression",
        "lr_derived": ["ug_850", "ws_850"],
        "lr_coarsen": 2,
        "nan_fill_strategy": "interpolate",
        "memory": "1 MB",
        **FOLDS,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write four years, a quarter of their days; two levels, winds, missing values."""
    keep = [day for day in range(4 * 365) if day % 20 < 5]
    time = small_task.stamps(keep=keep, start="2001-01-01")
    lr, rng = small_task.predictors(time), np.random.default_rng(5)
    shape, dims = lr.tas.shape, ("time", "lat", "lon")
    for level, height in ((1000, 100.0), (850, 1450.0)):
        for name, middle, spread, units, standard in (
            ("u", 3.0, 5.0, "m s-1", "eastward_wind"),
            ("v", 0.0, 5.0, "m s-1", "northward_wind"),
            ("z", 9.80665 * height, 400.0, "m2 s-2", "geopotential"),
            ("t", 280.0, 4.0, "K", "air_temperature"),
        ):
            values = middle + spread * rng.standard_normal(shape)
            attrs = {"units": units, "standard_name": standard}
            lr[f"{name}_{level}"] = (dims, values.astype("f4"), attrs)
    lr["tas"][3::40, :2, 1] = np.nan
    lr["u_850"][::7, 0, 0] = np.nan
    lr["q_850"][5] = np.nan
    folder = tmp_path_factory.mktemp("options")
    return small_task.write(folder, lr, small_task.targets(time))


@pytest.fixture(scope="module", params=list(OPTIONS))
def made(request, folder) -> NetCDFDataPipeline:
    return pipeline(folder, **OPTIONS[request.param])


def pipeline(folder: Path, **options) -> NetCDFDataPipeline:
    splits = SplitConfig(
        train=["2001-01", "2002-12"],
        validation=["2003-01", "2003-12"],
        test=["2004-01", "2004-12"],
    )
    return NetCDFDataPipeline.from_config(
        small_task.config(folder, **{"splits": splits, **_mapped(options)})
    )


def _mapped(options: dict) -> dict:
    """Without counterparts in the file there is nothing to map."""
    return {"baseline_map": {"tasmin": "tas", "tasmax": "tas"}, **options}


def travelled(preprocessor: Preprocessor, folder: Path) -> Preprocessor:
    """Return the preprocessor after a journey through JSON and array files."""
    meta, arrays = preprocessor.to_state()
    text = json.dumps(meta, allow_nan=False)
    folder.mkdir(exist_ok=True)
    np.savez(folder / "state.npz", **arrays)
    with np.load(folder / "state.npz", allow_pickle=False) as stored:
        again = {key: stored[key] for key in stored.files}
    return Preprocessor.from_state(json.loads(text), again)


def test_inference_sees_what_training_saw(made, folder, tmp_path):
    """Bit by bit, from a state that went through JSON and arrays."""
    prep = travelled(made.preprocessor, tmp_path)
    arrays, first = load_predictors(prep, folder / "lr.nc")
    assert first == 0
    assert np.array_equal(arrays.day, made.days.key)
    assert np.isfinite(arrays.lr).all()
    assert np.isfinite(arrays.baseline).all()
    prepared = made.prepared(0, len(made.days))
    assert np.array_equal(arrays.lr, prepared["lr"])
    encoded = prep.encode_baseline(arrays.baseline).numpy()
    assert np.array_equal(encoded, prepared["baseline"])
    index = made.indices["test"]
    test = made.arrays("test")
    for key in ("lr", "baseline", "season", "day"):
        assert np.array_equal(getattr(arrays, key)[index], getattr(test, key)), key
    assert np.array_equal(arrays.days.ordinal[index], test.days.ordinal)


@pytest.mark.parametrize("made", ["interpolated", "everything"], indirect=True)
def test_inference_needs_no_more_than_its_period(made, folder):
    """Days are prepared one by one: a part gives the same as the whole."""
    index = made.indices["test"]
    iso = made.days.select(index).iso()
    arrays, first = load_predictors(
        made.preprocessor, folder / "lr.nc", start=iso[3], end=iso[3]
    )
    assert (len(arrays), first) == (4, 3)  # with the history of a window of 4 days
    whole = made.arrays("test")
    assert np.array_equal(arrays.lr, whole.lr[:4])
    assert np.array_equal(arrays.baseline, whole.baseline[:4])


def test_a_state_that_travelled_prepares_the_same_days(made, tmp_path):
    prep = travelled(made.preprocessor, tmp_path)
    index = slice(10, 30)
    raw, truth = made.source.read(index)
    season = made.days.season[index]
    lr, guess = prep.standardise_lr(raw), prep.predict_baseline(raw, season)
    again, expected = prep.prepare(lr, guess, truth), made.prepared(10, 30)
    for key, values in expected.items():
        assert np.array_equal(again[key], values, equal_nan=True), key
    meta, other = prep.to_state()[0], made.preprocessor.to_state()[0]
    assert json.dumps(meta) == json.dumps(other)


def test_residuals_are_standardised_and_decode_to_the_truth(made):
    days = len(made.days)
    fields = made.prepared(0, days)
    train = fields["residual"][made.indices["train"]]
    for c, name in enumerate(made.preprocessor.codec.names):
        known = train[:, c][np.isfinite(train[:, c])].astype(np.float64)
        assert abs(known.mean()) < 1e-4, name
        assert abs(known.std() - 1) < 2e-3, name
    _, truth = made.source.read(slice(None))
    decoded = made.preprocessor.decode(
        torch.from_numpy(fields["residual"].copy()),
        torch.from_numpy(fields["baseline"].copy()),
    ).numpy()
    # The small task has no amounts below the threshold and no crossed temperatures; a
    # quantile map ends where the training amounts do, and interpolates its knots.
    np.testing.assert_allclose(decoded, truth, rtol=1e-3, atol=2e-3, equal_nan=True)


def test_windows_stay_within_splits_and_runs(made):
    step = np.timedelta64(1, "D")
    for split, index in made.indices.items():
        windows = made.windows(split)
        own = set(made.days.key[index].tolist())
        times = windows.batch(torch.arange(len(windows))).time
        assert set(times.flatten().tolist()) <= own
        dates = np.array(
            [
                f"{t:08d}"[:4] + "-" + f"{t:08d}"[4:6] + "-" + f"{t:08d}"[6:]
                for t in times.flatten().tolist()
            ],
            dtype="datetime64[D]",
        ).reshape(times.shape)
        assert (np.diff(dates, axis=1) == step).all()


# -- What single options do ------------------------------------------------------------


def test_derived_channels_follow_the_others_and_are_marked(folder):
    prep = pipeline(folder, lr_derived=WIND).preprocessor
    names = [c.name for c in prep.channels]
    assert names[-5:] == WIND
    assert [c.name for c in prep.channels if c.derived] == WIND
    assert prep.channels[-5].group == "GP850"
    with xr.open_dataset(folder / "lr.nc") as ds:
        speed = np.hypot(ds.u_850.values, ds.v_850.values)
    found = pipeline(folder, lr_derived=["ws_850"]).lr_dataset_raw.ws_850.values
    np.testing.assert_allclose(found, speed, rtol=1e-5, equal_nan=True)


def test_robust_statistics_are_median_and_quartiles(folder):
    made = pipeline(folder, robust=True, lr_precipitation_root=False)
    raw, _ = made.source.read(made.indices["train"])
    for c, name in enumerate(made.preprocessor.channels):
        low, middle, high = np.nanpercentile(raw[:, c].astype(float), [25, 50, 75])
        spread = (high - low) / 1.349
        np.testing.assert_allclose(
            made.preprocessor.lr_mean[c].item(), middle, atol=2e-3 * spread, rtol=1e-5
        )
        np.testing.assert_allclose(
            made.preprocessor.lr_std[c].item(), spread, rtol=5e-3, err_msg=name.name
        )


def test_options_that_do_not_touch_the_state_do_not_change_it(folder):
    both = [pipeline(folder, memory=memory) for memory in ("4 GiB", "1 MB")]
    assert [one.fields.in_memory for one in both] == [True, False]
    assert [one.source.raw is None for one in both] == [False, True]
    states = [one.preprocessor.to_state() for one in both]
    assert states[0][0] == states[1][0]
    for key, values in states[0][1].items():
        assert np.array_equal(values, states[1][1][key]), key


def test_folds_cover_the_record_once(folder):
    tests = []
    for fold in range(4):
        made = pipeline(folder, splits=SplitConfig(folds=4, fold=fold))
        tests.append(set(made.indices["test"].tolist()))
        assert not tests[-1] & set(made.indices["train"].tolist())
        assert made.preprocessor.periods["test"][0][:4] == str(2001 + fold)
    assert set.union(*tests) == set(range(len(made.days)))
    assert sum(map(len, tests)) == len(made.days)


def test_a_year_begins_where_the_configuration_says(folder):
    made = pipeline(folder, **YEARS)
    test = made.days.select(made.indices["test"]).iso()
    assert "2001-12" in {day[:7] for day in test}
    assert "2002-12" not in {day[:7] for day in test}
    assert made.preprocessor.periods["test"][0] >= "2001-12"


def test_predictors_of_another_step_are_refused(folder, tmp_path):
    prep = pipeline(folder, time_step="native").preprocessor
    assert (prep.time_step, prep.step_seconds) == ("native", 86400)
    with xr.open_dataset(folder / "lr.nc", decode_times=False) as ds:
        hourly = ds.isel(time=slice(0, 48)).load()
    hourly["time"] = ("time", np.arange(48), {"units": "hours since 2001-01-01"})
    with pytest.raises(InputError, match="another time step") as caught:
        load_predictors(prep, hourly)
    assert caught.value.facts["found"] == "1 h"
    assert caught.value.facts["expected"] == "1 d"
