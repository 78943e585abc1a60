"""The preprocessor: encode and decode are inverse, statistics are of training only."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from small_task import (
    LR_LAT,
    LR_LON,
    SEA,
    config,
    predictors,
    stamps,
    targets,
    write,
)

from st_cdgm.data.fit.moments import Variation
from st_cdgm.data.fit.preprocessor import FORMAT_VERSION, Preprocessor
from st_cdgm.data.fit.statistics import standardise_static
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.errors import InputError

NAN = np.nan


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("task"))


def learned(prep, arrays):
    """Return the residual that a model learns, 0 without truth, and where there is."""
    prepared = prep.prepare(arrays.lr, arrays.baseline, arrays.hr)
    residual = torch.from_numpy(prepared["residual"])
    valid = torch.isfinite(residual)
    return torch.where(valid, residual, 0.0), valid


@pytest.fixture(scope="module")
def pipeline(folder):
    return NetCDFDataPipeline.from_config(config(folder))


@pytest.fixture(scope="module")
def prep(pipeline):
    return pipeline.preprocessor


def test_the_residual_is_standardised_over_the_training_cells(pipeline, prep):
    # D8: mean 0 and variance 1 in every cell with truth.
    arrays = pipeline.arrays("train")
    target, valid = learned(prep, arrays)
    assert torch.equal(valid, torch.isfinite(torch.from_numpy(arrays.hr)))
    assert (target[~valid] == 0).all()
    land = target[:, :, torch.from_numpy(~SEA)]
    assert land.mean(dim=0).abs().max() < 1e-4
    assert torch.allclose(land.std(dim=0, correction=0), torch.ones(()), atol=1e-3)


@pytest.mark.parametrize("codec", ["sqrt", "log1p", "identity"])
@pytest.mark.parametrize("baseline", ["auto", "climatology", "hr_smoothing"])
def test_decode_returns_the_truth_of_days_outside_training(folder, codec, baseline):
    # D9, D52: the inverse belongs to the codec and is applied.
    made = NetCDFDataPipeline.from_config(
        config(folder, precipitation_codec=codec, baseline_strategy=baseline)
    )
    prep, arrays = made.preprocessor, made.arrays("test")
    encoded = prep.encode_baseline(arrays.baseline)
    target, valid = learned(prep, arrays)
    fields = prep.decode(target, encoded).numpy()
    assert np.isfinite(fields).all()
    assert fields[valid.numpy()] == pytest.approx(arrays.hr[valid.numpy()], abs=2e-3)


def test_members_broadcast_against_the_baseline(pipeline, prep):
    arrays = pipeline.arrays("test")
    encoded = prep.encode_baseline(arrays.baseline[:2])[:, None]  # (B, 1, C, Y, X)
    noise = torch.randn(2, 5, *prep.valid.shape)
    fields = prep.decode(noise, encoded)
    assert fields.shape == noise.shape
    assert torch.equal(fields[:, 3], prep.decode(noise[:, 3], encoded[:, 0]))
    assert torch.equal(prep.scored(noise, encoded)[..., 1, :, :], fields[..., 1, :, :])


def test_score_std_is_the_spread_of_scored_truth_minus_scored_baseline(pipeline, prep):
    arrays = pipeline.arrays("train")
    truth = torch.from_numpy(arrays.hr)
    guess = torch.from_numpy(arrays.baseline)
    difference = prep.codec.scored(prep.codec.encode(truth)) - prep.codec.scored(
        prep.codec.encode(guess)
    )
    expected = np.nanstd(difference.numpy().astype(np.float64), axis=(0, 2, 3))
    assert prep.score_std == pytest.approx(expected, rel=1e-4)


def test_valid_marks_the_cells_with_training_truth(prep):
    assert prep.valid.dtype == bool
    assert (prep.valid == ~SEA).all()


def test_predictors_are_standardised_and_come_back(pipeline, prep):
    lr = pipeline.arrays("train").lr
    assert lr.mean(axis=(0, 2, 3)) == pytest.approx(0, abs=1e-4)
    assert lr.std(axis=(0, 2, 3)) == pytest.approx(1, abs=1e-4)
    raw = pipeline.lr_dataset_raw.isel(time=slice(0, 120))
    back = prep.physical_lr(lr)
    for channel, name in enumerate(("q_850", "tas", "pr")):
        assert back[:, channel] == pytest.approx(raw[name].values, rel=1e-4, abs=1e-4)


def test_precipitation_predictors_enter_as_their_root(folder, prep):
    raw = np.zeros((1, 3, len(LR_LAT), len(LR_LON)), dtype=np.float32)
    raw[:, 2] = 9.0
    rooted = prep.standardise_lr(raw)[0, 2, 0, 0]
    assert rooted == pytest.approx((3 - prep.lr_mean[2, 0, 0]) / prep.lr_std[2, 0, 0])
    plain = NetCDFDataPipeline.from_config(config(folder, lr_precipitation_root=False))
    assert plain.preprocessor.lr_root == ()


@pytest.mark.parametrize("strategy", ["zero", "mean", "interpolate"])
def test_missing_predictors_are_filled_by_the_configured_rule(folder, strategy):
    # D5: the option is applied, to the predictors and to the first guess.
    made = NetCDFDataPipeline.from_config(config(folder, nan_fill_strategy=strategy))
    prep = made.preprocessor
    raw = np.full((1, 3, len(LR_LAT), len(LR_LON)), 280.0, dtype=np.float32)
    raw[0, 1, 0, 0] = NAN
    filled = prep.fill_lr(raw)[0, 1, 0, 0]
    expected = prep.lr_fill[1, 0, 0] if strategy == "zero" else 280.0
    assert filled == pytest.approx(expected)
    assert np.isfinite(prep.standardise_lr(raw)).all()
    assert np.isfinite(prep.predict_baseline(raw, np.zeros(1, np.float32))).all()
    if strategy == "zero":
        assert prep.standardise_lr(raw)[0, 1, 0, 0] == pytest.approx(0, abs=1e-5)


def test_filling_with_zero_is_neutral_for_rooted_precipitation_too(prep):
    raw = np.full((1, 3, len(LR_LAT), len(LR_LON)), NAN, dtype=np.float32)
    assert prep.standardise_lr(raw) == pytest.approx(0, abs=1e-5)


def test_static_fields_are_scaled_and_filled(prep):
    # D18: orog has one missing value on disk.
    assert prep.static_names == ("orog", "sftlf")
    assert np.isfinite(prep.static).all()
    assert prep.static[0, 0, 0] == pytest.approx(0, abs=1e-5)
    assert prep.static[1].mean() == pytest.approx(0, abs=1e-5)
    assert prep.static[1].std() == pytest.approx(1, abs=1e-4)


def test_a_constant_static_field_becomes_zero_and_none_stay_none():
    constant = np.full((1, 3, 3), 5.0, dtype=np.float32)
    assert (standardise_static(constant, "zero") == 0).all()
    assert standardise_static(np.empty((0, 3, 3), np.float32), "zero").shape == (
        0,
        3,
        3,
    )


@pytest.mark.parametrize("static_path", ["static.nc", None])
@pytest.mark.parametrize("baseline", ["auto", "hr_smoothing"])
def test_state_survives_json_and_safetensors(folder, static_path, baseline):
    options = {"static_path": static_path, "baseline_strategy": baseline}
    made = NetCDFDataPipeline.from_config(config(folder, **options))
    prep, arrays = made.preprocessor, made.arrays("test")
    meta, fields = prep.to_state()
    again = Preprocessor.from_state(json.loads(json.dumps(meta)), load(save(fields)))
    for key in (
        "channels",
        "targets",
        "static_names",
        "codec",
        "calendar",
        "seq_len",
        "periods",
        "lr_root",
        "nan_fill",
    ):
        assert getattr(again, key) == getattr(prep, key)
    assert again.lr_grid.lat == pytest.approx(LR_LAT)
    raw = 280 + np.random.default_rng(0).random((3, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(again.standardise_lr(raw), prep.standardise_lr(raw))
    season, truth = arrays.season[:3], arrays.hr[:3]
    first, second = (p.predict_baseline(raw, season, truth) for p in (prep, again))
    assert np.array_equal(first, second)
    encoded, noise = prep.encode_baseline(first), torch.randn(3, *prep.valid.shape)
    assert torch.equal(again.decode(noise, encoded), prep.decode(noise, encoded))
    assert np.array_equal(again.score_std, prep.score_std)
    assert np.array_equal(again.valid, prep.valid)


def test_a_state_of_another_format_is_refused(prep):
    meta, fields = prep.to_state()
    with pytest.raises(InputError, match="another format version"):
        Preprocessor.from_state(meta | {"format_version": FORMAT_VERSION + 1}, fields)


def test_scope_of_statistics_is_configurable(folder):
    # D7: per variable by default, per grid point on request.
    made = NetCDFDataPipeline.from_config(
        config(folder, normalization="per_gridpoint", residual_scaling="per_variable")
    )
    assert made.preprocessor.lr_mean.shape == (3, 4, 5)
    assert made.preprocessor.residual_std.shape == (3, 1, 1)
    plain = NetCDFDataPipeline.from_config(config(folder, normalize=False))
    raw = plain.lr_dataset_raw["tas"].values
    assert plain.arrays(None).lr[:, 1] == pytest.approx(raw)


def test_variables_that_never_change_are_named(tmp_path, caplog):
    lr, hr = predictors(stamps()), targets(stamps())
    lr["tas"][:] = lr["tas"][0]  # another value in every cell, the same every day
    hr["pr"][:] = hr["pr"] * 0.0
    hr["tasmin"][:] = 3.0
    folder = write(tmp_path, lr=lr, hr=hr)
    NetCDFDataPipeline.from_config(config(folder, baseline_map={}))
    told = [record.getMessage() for record in caplog.records]
    assert any("predictors that never change" in t and ": tas;" in t for t in told)
    assert any("targets that never change" in t and ": pr, tasmin;" in t for t in told)
    assert any("no day of the training period is wet" in t for t in told)


def test_drizzle_alone_is_dry_and_weather_is_not(pipeline, caplog):
    """Less than a wet day changes and is dry; sea without truth counts for nothing."""
    rain = Variation([pipeline.preprocessor.targets[0]], (1, 2))
    assert pipeline.preprocessor.targets[0].name == "pr"
    rain.add(np.array([[[[0.0, NAN]]], [[[0.05, NAN]]]], dtype=np.float32))
    assert (rain.constant(), rain.dry()) == ([], ["pr"])
    rain.add(np.array([[[[4.0, NAN]]]], dtype=np.float32))
    assert (rain.constant(), rain.dry()) == ([], [])
    assert "never change" not in caplog.text
