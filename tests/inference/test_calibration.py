"""Bias and spread: found where they are known, put right without tying members."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from st_cdgm.checkpoint.directory import (
    Checkpoint,
    add_to_description,
    load_checkpoint,
    pool_checkpoints,
)
from st_cdgm.config.load import load_config
from st_cdgm.errors import InputError
from st_cdgm.inference import fit_calibration as room
from st_cdgm.inference.calibration import Bands, Calibration
from st_cdgm.inference.downscale import downscale
from st_cdgm.inference.fit_calibration import find_trend, fit_calibration
from st_cdgm.inference.members import generate
from st_cdgm.models.sampling import Sampling
from st_cdgm.runs.console import Session
from st_cdgm.runs.steps import calibrate, train_pool

VALID = np.ones((3, 16, 20), dtype=bool)
VALID[:, :4, :6] = False


# -- Parts of a field ------------------------------------------------------------------


def test_the_parts_of_a_field_add_up_to_it():
    bands = Bands(VALID, (4, 8))
    fields = torch.randn(5, 3, 16, 20)
    parts = bands.split(fields)
    assert len(parts) == bands.count == 4
    expected = fields * torch.from_numpy(VALID)
    torch.testing.assert_close(torch.stack(parts).sum(dim=0), expected)
    same = bands.scaled(fields, torch.ones(3, 4))
    torch.testing.assert_close(same, expected)


def test_each_part_holds_its_own_scales():
    bands = Bands(VALID, (4, 8))
    wave = torch.from_numpy(np.sin(np.pi * np.arange(20))[None] * np.ones((16, 1)))
    board = torch.from_numpy((-1.0) ** np.add.outer(np.arange(16), np.arange(20)))
    fields = torch.stack([board.float(), torch.ones(16, 20), wave.float()])
    small, _, _, whole = bands.split(fields[None])
    inside = (slice(6, 12), slice(8, 16))
    assert (small[0, 0][inside] * board[inside]).min() > 0.95
    assert small[0, 1].abs().max() < 1e-5
    torch.testing.assert_close(whole[0, 1], torch.from_numpy(VALID[1]).float())


def test_what_is_not_valid_is_never_looked_at():
    bands = Bands(VALID, (4, 8))
    fields = torch.randn(3, 16, 20)
    changed = torch.where(torch.from_numpy(VALID), fields, 1e4)
    for one, other in zip(bands.split(fields), bands.split(changed), strict=True):
        torch.testing.assert_close(one, other)


def test_scales_that_a_grid_does_not_have_are_left_out():
    prep = SimpleNamespace(valid=np.ones((1, 10, 12), bool))
    assert Bands.of(prep).scales == (4,)
    prep = SimpleNamespace(valid=np.ones((1, 40, 12), bool))
    assert Bands.of(prep).scales == (4, 16)


# -- At inference ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tiny_pipeline, trained):
    return load_checkpoint(trained.checkpoint)


def calibrated(checkpoint, **settings):
    meta = {**checkpoint.meta, "calibration": Calibration(**settings).to_meta()}
    again = json.loads(json.dumps(meta))
    return Checkpoint(checkpoint.model, checkpoint.preprocessor, again)


def made(checkpoint, arrays, members=range(4), **options):
    parts = generate(
        checkpoint, arrays, members=members, seed=3, batch_days=8, **options
    )
    return np.concatenate([fields for _, fields in parts])


@pytest.fixture(scope="module")
def days(tiny_pipeline):
    return tiny_pipeline.arrays("test").select(slice(0, 12))


def test_a_shift_is_added_to_encoded_fields(checkpoint, days):
    plain = made(checkpoint, days)
    shifted = made(calibrated(checkpoint, shift={"tasmin": 0.7}), days)
    moved = shifted - plain
    # Both temperatures: the warmer is a step above the colder.
    np.testing.assert_allclose(
        moved[:, :, 0][np.isfinite(moved[:, :, 0])], 0.7, 0, 1e-3
    )
    np.testing.assert_allclose(np.nanmax(np.abs(moved[:, :, 2])), 0, atol=1e-5)


def test_a_trend_goes_by_the_year_and_ends(checkpoint, days):
    trend = {"trend": {"tasmin": 0.1}, "year": 1996.0}
    plain = made(checkpoint, days)
    for years, expected in (((1990.0, 2011.0), 0.5), ((1990.0, 1998.0), 0.2)):
        found = made(calibrated(checkpoint, **trend, years=years), days) - plain
        assert np.nanmean(found[:, :, 0]) == pytest.approx(expected, abs=1e-3)


def test_factors_widen_the_ensemble_and_keep_guarantees(checkpoint, days):
    factors = {"tasmin": [2.0] * 3, "pr": [1.5] * 3}
    wide = made(calibrated(checkpoint, factors=factors), days, members=range(16))
    plain = made(checkpoint, days, members=range(16))
    ratio = np.nanmean(wide.std(axis=1), axis=(0, 2, 3)) / np.nanmean(
        plain.std(axis=1), axis=(0, 2, 3)
    )
    assert ratio[0] == pytest.approx(2.0, abs=0.02)
    assert ratio[2] > 1.2
    known = np.isfinite(wide)
    assert (wide[:, :, 2][known[:, :, 2]] >= 0).all()
    order = wide[:, :, 1] - wide[:, :, 0]
    assert (order[np.isfinite(order)] >= 0).all()
    off = made(
        calibrated(checkpoint, factors=factors),
        days,
        members=range(16),
        sampling=Sampling(calibrate=False),
    )
    np.testing.assert_array_equal(off, plain)


def test_members_do_not_depend_on_each_other(checkpoint, days):
    one = calibrated(checkpoint, factors={"tasmin": [2.0] * 3, "pr": [0.6] * 3})
    few, many = (made(one, days, members=range(n)) for n in (2, 7))
    np.testing.assert_allclose(many[:, :2], few, atol=1e-4)
    part = made(one, days.select(slice(0, 12)), members=range(1, 2))
    np.testing.assert_allclose(part[:, 0], many[:, 1], atol=1e-4)


def test_the_output_says_so(trained, tiny_files, tmp_path):
    folder = shutil.copytree(trained.checkpoint, tmp_path / "calibrated")
    found = Calibration(factors={"pr": [1.1, 1.0, 1.3]}, shift={"pr": 0.1})
    add_to_description(folder, calibration=found.to_meta())
    said = []
    for wanted in (True, False):
        downscale(
            folder,
            tiny_files / "lr.nc",
            tmp_path / "out.nc",
            members=1,
            end="2001-01-02",
            sampling=Sampling(calibrate=wanted),
        )
        with xr.open_dataset(tmp_path / "out.nc", decode_times=False) as opened:
            said.append(opened.attrs.get("calibration"))
    assert said == ["spread x 1.00 to 1.30, bias", None]


@pytest.mark.parametrize("networks", [1, 2])
def test_a_run_finds_and_stores_it(trained, tiny_pipeline, tmp_path, networks):
    best = Path(shutil.copytree(trained.checkpoint, tmp_path / "best"))
    if networks == 2:
        pool_checkpoints(best, [trained.checkpoint])
    options = ["training.fit_bias=true", "training.fit_spread=true"]
    seen = [tiny_pipeline] * networks
    calibrate(load_config("demo", options), seen, best, Session(log_level="ERROR"))

    loaded = load_checkpoint(best)
    found = [Calibration.of(one.meta) for one in loaded.networks]
    assert len(found) == networks
    assert set(found[0].factors) == set(found[0].shift) == {"tasmin", "tasmax", "pr"}
    assert found[0] == found[-1]
    assert Calibration.of(load_checkpoint(trained.checkpoint).meta) is None


def test_a_training_ends_with_it_where_asked_for(tiny_pipeline, tmp_path):
    small = ["encoder.hidden_dim=8", "diffusion.unet.block_out_channels=[8,16]"]
    small += ["diffusion.unet.norm_num_groups=4", "diffusion.unet.attention_head_dim=4"]
    short = ["training.epochs=1", "training.fit_noise_memory=false"]
    config = load_config("demo", [*small, *short, "training.fit_bias=true"])
    session = Session(log_level="ERROR")
    best = train_pool(config, tiny_pipeline, tmp_path, session).checkpoint
    found = Calibration.of(load_checkpoint(best).meta)
    assert set(found.shift) == {"tasmin", "tasmax", "pr"}
    assert found.factors == {}


# -- On validation days ----------------------------------------------------------------


@pytest.fixture
def ideal(tiny_pipeline, monkeypatch):
    """Networks whose members are the truth's own distribution but for what is known.

    ``wrong(k)`` turns standard normal fields into the residuals of network k.
    """
    prep = tiny_pipeline.preprocessor
    rng = np.random.default_rng(0)
    arrays = tiny_pipeline.arrays("train")
    shape = prep.valid.shape

    def build(*wrong):
        def draw(model, preprocessor, batch, *, members, seed, sampling):
            noise = rng.normal(size=(len(batch.lr), len(members), *shape))
            return torch.from_numpy(model(noise).astype(np.float32))

        monkeypatch.setattr(room, "draw_residuals", draw)
        monkeypatch.setattr(room, "batches", of_days)
        return [SimpleNamespace(model=one, preprocessor=prep, meta={}) for one in wrong]

    def of_days(network, arrays, *, size):
        for start in range(0, len(arrays), size):
            part = slice(start, start + size)
            encoded = prep.encode_baseline(arrays.baseline[part])[:, None]
            yield (
                np.arange(len(arrays))[part],
                SimpleNamespace(lr=arrays.lr[part], baseline=encoded),
            )

    residual = torch.from_numpy(rng.normal(size=(len(arrays), *shape)).astype("f4"))
    hr = prep.decode(residual, prep.encode_baseline(arrays.baseline)).numpy()
    return build, replace(arrays, hr=np.where(prep.valid, hr, np.nan))


def test_known_factors_and_shifts_are_found(ideal, tiny_pipeline):
    build, days = ideal
    networks = build(lambda noise: 0.8 * noise - 0.5)
    found = fit_calibration(networks, [days], members=6, days=150)
    std = tiny_pipeline.preprocessor.residual_std[0].mean()
    assert found.shift["tasmin"] == pytest.approx(0.5 * std, rel=0.1)
    assert found.factors["tasmin"][0] == pytest.approx(1.25, abs=0.05)
    assert found.factors["pr"][0] == pytest.approx(1.25, abs=0.15)
    assert found.trend == {}


def test_a_network_that_is_right_stays_as_it_is(ideal):
    build, days = ideal
    found = fit_calibration(build(lambda noise: noise), [days], members=6, days=150)
    assert np.abs(np.array(found.factors["tasmin"])[:2] - 1).max() < 0.12
    assert abs(found.shift["tasmin"]) < 0.05
    only = fit_calibration(build(lambda noise: noise), [days], bias=False, members=3)
    assert only.shift == {}
    only = fit_calibration(build(lambda noise: noise), [days], spread=False, members=3)
    assert only.factors == {}


def test_what_the_means_of_a_pool_differ_by_is_spread_already(ideal):
    build, days = ideal
    alone = fit_calibration(build(lambda x: 0.8 * x), [days], members=6, days=150)
    pool = build(lambda x: 0.8 * x + 0.6, lambda x: 0.8 * x - 0.6)
    both = fit_calibration(pool, [days, days], members=6, days=150)
    # 1 = 0.36 + (0.8 f)^2, up to what a common shift is at the largest scale.
    assert alone.factors["tasmin"][2] > 1.2
    assert both.factors["tasmin"][2] < 0.7
    assert both.factors["tasmin"][0] == pytest.approx(1.25, abs=0.05)


def test_days_without_truth_are_refused(ideal):
    build, days = ideal
    with pytest.raises(InputError, match="with truth"):
        fit_calibration(build(lambda x: x), [replace(days, hr=None)])
    some = np.arange(len(days))[:, None, None, None] % 7 > 0
    missing = np.where(some, days.hr, np.nan)
    with pytest.raises(InputError, match="no cell has truth"):
        fit_calibration(build(lambda x: x), [replace(days, hr=missing)])


# -- Trend -----------------------------------------------------------------------------


class Errors:
    """A pipeline of years with known errors of its baseline."""

    def __init__(self, years, slope, *, cross_fitted=True):
        baseline = SimpleNamespace(cross_fitted=cross_fitted)
        targets = [SimpleNamespace(name="tas"), SimpleNamespace(name="pr")]
        self.preprocessor = SimpleNamespace(baseline=baseline, targets=targets)
        key = np.array([y * 10_000 + 101 + d for y in years for d in range(20)])
        self.days = SimpleNamespace(key=key)
        last = np.flatnonzero(key // 10_000 == years[-1])
        rest = np.setdiff1d(np.arange(len(key)), last)
        self.indices = {"train": rest, "validation": last}
        rng = np.random.default_rng(1)
        error = rng.normal(0, 0.2, (len(key), 2, 3, 4)).astype(np.float32)
        error[:, 0] += (slope * (key // 10_000 - years[0]))[:, None, None]
        error[:, :, 0, 0] = np.nan
        self.error = error

    def blocks(self, split):
        for part in np.array_split(self.indices[split], 3):
            error = self.error[part]
            yield {"hr": error + 2, "baseline": np.full_like(error, 2)}


def test_a_trend_of_errors_is_found():
    found = find_trend(Errors(range(1990, 2002), 0.03))
    assert found.trend == {"tas": pytest.approx(0.03, abs=0.005)}
    assert found.years == (1990.0, 2011.0)


def test_what_is_no_trend_is_none():
    assert find_trend(Errors(range(1990, 2002), 0.0)).trend.get("tas", 0) == 0
    assert find_trend(Errors(range(1990, 1996), 0.5)).trend == {}
    seen = Errors(range(1990, 2002), 0.5, cross_fitted=False)
    assert find_trend(seen) == Calibration()
