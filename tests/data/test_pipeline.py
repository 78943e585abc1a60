"""From files to arrays: alignment, splits, calendars, no leakage, inference input."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf
from small_task import SPLITS, config, predictors, stamps, targets, write

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.labels import GridMetadata
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import (
    ConfigError,
    GridMismatchError,
    InputError,
    MissingFileError,
    MissingVariableError,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return NetCDFDataPipeline.from_config(config(folder))


def _state(pipeline):
    meta, arrays = pipeline.preprocessor.to_state()
    return json.dumps(meta, sort_keys=True), arrays


def test_splits_hold_their_own_days_and_arrays_fit_together(pipeline):
    for split, period in SPLITS.items():
        arrays = pipeline.arrays(split)
        first, last = (int(date.replace("-", "")) for date in period)
        assert (arrays.day[0], arrays.day[-1]) == (first, last)
        assert arrays.lr.shape == (len(arrays), 3, 4, 5)
        assert arrays.baseline.shape == arrays.hr.shape
        assert np.isfinite(arrays.lr).all()
        assert np.isfinite(arrays.baseline).all()
    assert len(pipeline.arrays(None)) == 240


@pytest.mark.parametrize("baseline", ["auto", "climatology"])
@pytest.mark.parametrize("scope", ["per_variable", "per_gridpoint"])
def test_no_statistic_sees_a_day_outside_training(tmp_path, baseline, scope):
    # D7, D21.
    options = {
        "baseline_strategy": baseline,
        "normalization": scope,
        "residual_scaling": scope,
    }
    lr, hr = predictors(stamps()), targets(stamps())
    honest = NetCDFDataPipeline.from_config(
        config(write(tmp_path / "honest", lr, hr), **options)
    )
    late = slice("2001-05-01", None)
    for ds in (lr, hr):
        for name in ds:
            ds[name].loc[{"time": late}] = 1.03 * ds[name].loc[{"time": late}]
    changed = NetCDFDataPipeline.from_config(
        config(write(tmp_path / "changed", lr, hr), **options)
    )
    assert not np.array_equal(
        honest.arrays("test").hr, changed.arrays("test").hr, equal_nan=True
    )
    (meta, arrays), (other_meta, other) = _state(honest), _state(changed)
    assert meta == other_meta
    assert arrays.keys() == other.keys()
    for key, value in arrays.items():
        assert np.array_equal(value, other[key]), key


def test_a_training_day_does_change_the_statistics(tmp_path):
    lr, hr = predictors(stamps()), targets(stamps())
    before = NetCDFDataPipeline.from_config(config(write(tmp_path / "a", lr, hr)))
    hr["tasmax"][3] += 9
    lr["tas"][3] += 9
    after = NetCDFDataPipeline.from_config(config(write(tmp_path / "b", lr, hr)))
    for key in ("lr_mean", "residual_std", "score_std"):
        first, second = (getattr(p.preprocessor, key) for p in (before, after))
        assert not np.array_equal(first, second)


def test_without_splits_a_warning_says_that_all_days_are_used(folder):
    with pytest.warns(UserWarning, match="whole record"):
        made = NetCDFDataPipeline.from_config(config(folder, splits=SplitConfig()))
    assert made.preprocessor.periods == {"train": ["2001-01-01", "2001-08-28"]}
    assert len(made.arrays("train")) == 240
    with pytest.raises(ConfigError, match="no test period"):
        made.arrays("test")


def test_with_splits_there_is_no_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        NetCDFDataPipeline.from_config(config(folder))


def test_an_unknown_split_is_refused(pipeline):
    with pytest.raises(ConfigError, match="train, validation, test"):
        pipeline.arrays("holdout")


def test_days_are_aligned_by_date_not_by_position_and_hour(tmp_path):
    # D12: 12 UTC stamps, another start, a hole in one file.
    lr_time = xr.CFTimeIndex(stamps(240)).shift(12, "h")
    kept = [i for i in range(240) if i not in (30, 31)]
    folder = write(
        tmp_path,
        predictors(lr_time).isel(time=slice(5, None)),
        targets(stamps(keep=kept)),
    )
    made = NetCDFDataPipeline.from_config(config(folder))
    arrays = made.arrays(None)
    assert len(arrays) == 240 - 5 - 2
    assert 20010131 not in arrays.day
    truth = targets(stamps(keep=kept)).sel(time="2001-03-05")["tasmax"].values
    at = np.flatnonzero(arrays.day == 20010305)[0]
    assert np.array_equal(arrays.hr[at, 2], truth.squeeze(), equal_nan=True)


def test_the_360_day_calendar_works_from_file_to_dates(tmp_path):
    # D12, D14: 30 February is a day, and dates are strings.
    folder = write(tmp_path, time=stamps(calendar="360_day"))
    made = NetCDFDataPipeline.from_config(config(folder))
    assert made.preprocessor.calendar == "360_day"
    assert 20010230 in made.arrays("train").day
    sample = next(iter(made.build_sequence_dataset(split="test")))
    assert sample["time"][0] == "2001-07-01"


def test_different_calendars_are_an_error(tmp_path):
    folder = write(tmp_path, predictors(stamps(calendar="noleap")), targets(stamps()))
    with pytest.raises(InputError, match="different calendars") as error:
        NetCDFDataPipeline.from_config(config(folder))
    assert "noleap and standard" in str(error.value)


def test_no_common_day_names_both_periods(tmp_path):
    folder = write(
        tmp_path, predictors(stamps(start="1990-01-01")), targets(stamps(30))
    )
    with pytest.raises(InputError, match="share no day") as error:
        NetCDFDataPipeline.from_config(config(folder))
    assert "1990-01-01" in str(error.value)
    assert "2001-01-30" in str(error.value)


@pytest.mark.parametrize(("rows", "warned"), [(3, False), (2, True)])
def test_a_coarse_grid_reaches_half_a_cell_beyond_its_centres(
    tmp_path, caplog, rows, warned
):
    """Fine rows up to 41.9; coarse centres up to 41 or 38.5, cells 2.5 wide."""
    lr = predictors(stamps()).isel(lat=slice(0, rows))
    NetCDFDataPipeline.from_config(config(write(tmp_path, lr=lr)))
    assert ("does not enclose" in caplog.text) is warned


def test_variables_come_as_any_sequence(folder):
    # D13: list, tuple, OmegaConf list, one name.
    chosen = OmegaConf.create(["tas", "pr"])
    for variables in (["tas", "pr"], ("tas", "pr"), chosen):
        with pytest.warns(UserWarning, match="whole record"):
            made = NetCDFDataPipeline(
                folder / "lr.nc",
                folder / "hr.nc",
                lr_variables=variables,
                hr_variables="tasmax",
            )
        assert [c.name for c in made.preprocessor.channels] == ["tas", "pr"]
        assert made.preprocessor.codec.names == ("tasmax",)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"lr_path": "absent.nc"}, MissingFileError),
        ({"lr_variables": ["tos"]}, MissingVariableError),
        ({"hr_variables": ["tos"]}, KeyError),
        ({"baseline_map": {"tasmin": "tos"}}, MissingVariableError),
        ({"baseline_strategy": "median"}, ConfigError),
        ({"baseline_factor": 2.5}, ConfigError),
        ({"normalization": "global"}, ConfigError),
        ({"residual_scaling": "global"}, ConfigError),
        ({"nan_fill_strategy": "guess"}, ConfigError),
        ({"precipitation_codec": "cube"}, ConfigError),
        ({"seq_len": 0}, ConfigError),
        ({"splits": SplitConfig(test=["2001-01-01", "2001-01-02"])}, ConfigError),
    ],
)
def test_unusable_input_is_an_error_a_user_can_act_on(folder, options, error):
    with pytest.raises(error):
        NetCDFDataPipeline.from_config(config(folder, **options))


def test_static_fields_of_another_grid_are_refused(folder, tmp_path):
    # D18.
    moved = xr.open_dataset(folder / "static.nc")
    moved.assign_coords(lat=moved.lat + 0.1).to_netcdf(tmp_path / "moved.nc")
    with pytest.raises(GridMismatchError):
        NetCDFDataPipeline.from_config(
            config(folder, static_path=str(tmp_path / "moved.nc"))
        )


def test_configuration_is_a_structured_config(folder):
    merged = OmegaConf.merge(
        OmegaConf.structured(DataConfig), {"lr_variables": ["tas"]}
    )
    made = OmegaConf.to_object(merged)
    assert isinstance(made, DataConfig)
    assert made.lr_variables == ["tas"]
    assert config(folder).resolve("lr.nc") == str(folder / "lr.nc")
    assert DataConfig().resolve("lr.nc") == "lr.nc"


def test_statistics_from_files_replace_the_fitted_ones(folder, tmp_path):
    means = xr.Dataset({"q_850": 0.005, "tas": 280.0, "pr": 1.0})
    stds = xr.Dataset({"q_850": 0.001, "tas": 4.0, "pr": 0.0})
    means.to_netcdf(tmp_path / "mean.nc")
    stds.to_netcdf(tmp_path / "std.nc")
    splits = SplitConfig(**SPLITS)
    paths = {"means_path": tmp_path / "mean.nc", "stds_path": tmp_path / "std.nc"}
    made = NetCDFDataPipeline(
        folder / "lr.nc", folder / "hr.nc", normalize=True, splits=splits, **paths
    )
    raw = made.lr_dataset_raw
    lr = made.arrays(None).lr
    assert lr[:, 1] == pytest.approx((raw["tas"].values - 280) / 4, abs=1e-4)
    # A zero spread counts as 1.
    assert lr[:, 2] == pytest.approx(raw["pr"].values - 1, abs=1e-4)
    paths["stds_path"] = None
    with pytest.raises(ConfigError, match="both"):
        NetCDFDataPipeline(folder / "lr.nc", folder / "hr.nc", splits=splits, **paths)


@pytest.mark.parametrize(("name", "delta"), [("log1p", 1.0), ("log", 0.5)])
def test_named_target_transforms_bring_their_inverse(folder, name, delta):
    # D9.
    made = NetCDFDataPipeline(
        folder / "lr.nc",
        folder / "hr.nc",
        target_transform=name,
        transform_epsilon=0.5,
        splits=SplitConfig(**SPLITS),
    )
    truth = made.hr_dataset_raw["pr"].values
    encoded = made.get_hr_dataset()
    assert encoded["pr"].values == pytest.approx(
        np.log1p(truth / delta), rel=1e-4, abs=1e-5, nan_ok=True
    )
    back = made.get_target_inverse_transform()(encoded)
    assert back["pr"].values == pytest.approx(truth, rel=1e-4, nan_ok=True)


def test_functions_as_target_transforms(folder):
    splits = SplitConfig(**SPLITS)
    made = NetCDFDataPipeline(
        folder / "lr.nc",
        folder / "hr.nc",
        splits=splits,
        target_transform=lambda ds: ds / 10,
        target_inverse_transform=lambda ds: ds * 10,
    )
    truth = made.hr_dataset_raw["tasmax"].values
    assert made.hr_prepared["tasmax"].values == pytest.approx(truth / 10, nan_ok=True)
    with pytest.raises(ConfigError, match="needs its inverse"):
        NetCDFDataPipeline(
            folder / "lr.nc",
            folder / "hr.nc",
            splits=splits,
            target_transform=lambda ds: ds,
        )
    with pytest.raises(ConfigError, match="unknown target transform"):
        NetCDFDataPipeline(
            folder / "lr.nc", folder / "hr.nc", splits=splits, target_transform="cube"
        )


def test_data_sets_are_labelled_and_add_up(pipeline):
    # D1: baseline channels are the target channels; D8: the residual is standardised.
    dims = pipeline.dims
    assert dims == GridMetadata("time", "lat", "lon", "lat", "lon")
    prep = pipeline.preprocessor
    truth, guess = pipeline.hr_prepared, pipeline.baseline_prepared
    assert list(guess) == list(truth) == ["pr", "tasmin", "tasmax"]
    for c, name in enumerate(truth):
        residual = pipeline.residual_dataset[name].values
        rebuilt = (
            guess[name].values + residual * prep.residual_std[c] + prep.residual_mean[c]
        )
        assert rebuilt == pytest.approx(truth[name].values, abs=1e-3, nan_ok=True)
    assert pipeline.hr_dataset_raw["tasmax"].attrs["units"] == "degC"
    assert pipeline.baseline_raw.attrs == {"baseline": "lr_interp", "oracle": "false"}
    assert pipeline.get_lr_stats()["mean"]["tas"].shape == (4, 5)
    assert list(pipeline.get_static_dataset()) == ["orog", "sftlf"]
    assert pipeline.static_tensor_torch.shape == prep.static.shape
    assert isinstance(pipeline.lr_dataset.indexes["time"], xr.CFTimeIndex)


def test_the_oracle_is_marked_in_its_data_set(folder):
    # D4.
    made = NetCDFDataPipeline.from_config(
        config(folder, baseline_strategy="hr_smoothing")
    )
    assert made.baseline_raw.attrs == {"baseline": "hr_smoothing", "oracle": "true"}


# -- New predictors --------------------------------------------------------------------


def test_predictors_for_inference_equal_those_of_the_pipeline(pipeline, folder):
    arrays, first = load_predictors(
        pipeline.preprocessor, folder / "lr.nc", start="2001-07-01", end="2001-08-20"
    )
    known = pipeline.arrays("test")
    assert first == 3
    assert arrays.hr is None
    assert np.array_equal(arrays.day[first:], known.day)
    assert np.array_equal(arrays.lr[first:], known.lr)
    assert arrays.baseline[first:] == pytest.approx(known.baseline)


def test_history_stops_at_a_gap_and_at_the_beginning(pipeline, tmp_path):
    kept = [i for i in range(60) if i != 30]
    predictors(stamps(keep=kept)).to_netcdf(tmp_path / "lr.nc")
    prep = pipeline.preprocessor
    arrays, first = load_predictors(prep, tmp_path / "lr.nc", start="2001-02-02")
    assert (first, arrays.day[0]) == (1, 20010201)
    arrays, first = load_predictors(prep, tmp_path / "lr.nc", end="2001-01-05")
    assert (first, len(arrays)) == (0, 5)


def test_predictors_may_have_another_calendar_and_order_of_variables(
    pipeline, tmp_path
):
    ds = predictors(stamps(calendar="noleap"))[["pr", "tas", "q_850"]]
    ds.to_netcdf(tmp_path / "gcm.nc")
    arrays, _ = load_predictors(pipeline.preprocessor, tmp_path / "gcm.nc")
    assert arrays.calendar == "noleap"
    assert arrays.lr == pytest.approx(pipeline.arrays(None).lr, abs=1e-5)


def test_an_oracle_model_is_refused_at_inference(folder):
    # D4.
    made = NetCDFDataPipeline.from_config(
        config(folder, baseline_strategy="hr_smoothing")
    )
    with pytest.raises(InputError, match="made from the fine truth"):
        load_predictors(made.preprocessor, folder / "lr.nc")


def test_unfit_predictors_are_refused(pipeline, tmp_path):
    prep, ds = pipeline.preprocessor, predictors(stamps(20))
    cases = {
        "moved": (ds.assign_coords(lat=ds.lat + 1), GridMismatchError, "grid"),
        "short": (ds.drop_vars("q_850"), MissingVariableError, "q_850"),
        "early": (ds, InputError, "no day lies in the period"),
    }
    for name, (case, error, words) in cases.items():
        case.to_netcdf(tmp_path / f"{name}.nc")
        with pytest.raises(error, match=words):
            load_predictors(prep, tmp_path / f"{name}.nc", start="2002-01-01")


# -- Real data -------------------------------------------------------------------------


def test_the_iberian_task_is_ready_to_train(real_data):
    made = NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(real_data / "iberia"),
            lr_path="predictors_ncep_r1.nc",
            hr_path="targets_eobs_050.nc",
            static_path="static_050.nc",
            baseline_map={"tasmin": "tas", "tasmax": "tas", "pr": "pr"},
            splits=SplitConfig(
                train=["1991-01-01", "1999-12-21"],
                validation=["2001-01-11", "2002-12-21"],
                test=["2003-01-01", "2005-12-31"],
            ),
        )
    )
    prep = made.preprocessor
    assert prep.codec.guarantees()[0] == "tasmin <= tasmax"
    assert prep.valid.sum() == 3 * 289
    assert not prep.baseline.oracle
    assert len(made.windows("train")) == 3277 - 5
    arrays = made.arrays("validation")
    encoded = prep.encode_baseline(arrays.baseline)
    prepared = prep.prepare(arrays.lr, arrays.baseline, arrays.hr)
    target = torch.from_numpy(prepared["residual"])
    valid = torch.isfinite(target)
    fields = prep.decode(target, encoded).numpy()
    gap = np.where(valid.numpy(), np.abs(fields - arrays.hr), 0)
    crossed = arrays.hr[:, 2] - arrays.hr[:, 1] < 0.01
    assert 0 < crossed.sum() < 1e-3 * valid[:, 2].sum()
    gap[:, 2][crossed] = 0
    assert gap.max() < 1e-3
    spread = target[valid].std()
    assert 0.9 < spread < 1.1


def test_winters_do_not_touch_each_other(real_data):
    made = NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(real_data / "iberia_winter_025"),
            lr_path="predictors_ncep_r1.nc",
            hr_path="targets_eobs_025.nc",
            seq_len=5,
            splits=SplitConfig(
                train=["1991-01", "1997-02"], test=["1998-12", "1999-12"]
            ),
        )
    )
    windows = made.windows("train")
    batch = windows.batch(torch.arange(len(windows)))
    months = (batch.time // 100) % 100
    assert not ((months[:, 0] == 2) & (months[:, -1] == 12)).any()
    runs = 1 + (np.diff(made.arrays("train").days.ordinal) > 1).sum()
    assert len(windows) == len(made.arrays("train")) - 4 * runs


def test_metadata_of_both_files_is_exported(pipeline, tmp_path):
    for side, variable in (("lr", "q_850"), ("hr", "tasmax")):
        json_path = getattr(pipeline, f"export_{side}_metadata_to_json")(
            tmp_path / f"{side}.json"
        )
        csv_path = getattr(pipeline, f"export_{side}_metadata_to_csv")(
            tmp_path / f"{side}.csv"
        )
        assert variable in json.loads(Path(json_path).read_text())["data_variables"]
        assert variable in Path(csv_path).read_text()
