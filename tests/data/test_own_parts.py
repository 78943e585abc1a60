"""Codecs, baselines and derived predictors from outside: chosen by name, kept, read."""

from __future__ import annotations

import numpy as np
import pytest
import small_task
import torch
import xarray as xr

from st_cdgm import registry
from st_cdgm.data.fit.baseline.contract import Baseline
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.contract import Codec
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.read.derived.contract import Derived
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError, MissingVariableError
from st_cdgm.inference.downscale import downscale
from st_cdgm.models.config import (
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    UNetConfig,
)
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import train


class Gust(Codec):
    """Positive, with a long tail: its logarithm."""

    nonnegative = True

    def encode(self, fields):
        return torch.log1p(fields.clamp(min=0.0))

    def decode(self, encoded):
        return torch.expm1(encoded.clamp(0.0, 6.0))


class Level(Baseline):
    """The mean of the training days everywhere."""

    def __init__(self, values):
        self.values = values

    @classmethod
    def build(cls, task):
        truth = np.concatenate([t for _, _, t in task.blocks()])
        return cls(np.nanmean(truth, axis=0).clip(min=0.5).astype(np.float32))

    def predict(self, lr, season, truth=None):
        filled = np.nan_to_num(self.values, nan=0.5)
        return np.repeat(filled[None], len(lr), axis=0)

    def to_state(self):
        return {}, {"values": self.values}

    @classmethod
    def from_state(cls, meta, arrays):
        return cls(np.asarray(arrays["values"], np.float32))


class Dryness(Derived):
    """From two fields at the surface."""

    inputs = ("tas", "pr")
    units = "K"
    title = "Temperature of dry days"

    def function(self, grid, channels):
        assert [c.variable for c in channels] == ["tas", "pr"]
        return lambda tas, pr: np.where(pr < 1.0, tas, 250.0).astype(np.float32)


@pytest.fixture
def parts(monkeypatch):
    """Register one of each for the time of a test."""
    own = (("codec", Gust), ("baseline", Level), ("derived", Dryness))
    for kind, _ in own:
        registry.names(kind)  # what the package brings comes first
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    for kind, part in own:
        registry.register(kind, part.__name__.lower())(part)


def _gusts(tmp_path):
    """Fine wind gusts beside rain."""
    hr = small_task.targets(small_task.stamps())[["pr"]]
    rng = np.random.default_rng(4)
    gust = rng.gamma(2.0, 4.0, hr["pr"].shape).astype(np.float32)
    attrs = {"units": "m s-1", "standard_name": "wind_speed_of_gust"}
    hr["wsgsmax"] = (hr["pr"].dims, gust, attrs)
    return small_task.write(tmp_path, hr=hr)


def _config(folder, **options):
    chosen = {
        "codecs": {"wsgsmax": "gust"},
        "baseline_strategy": "level",
        "lr_derived": ["dryness"],
        "baseline_map": {},
        "seq_len": 3,
    }
    return small_task.config(folder, **(chosen | options))


def test_parts_of_ones_own_are_chosen_and_survive(tmp_path, parts):
    pipeline = NetCDFDataPipeline.from_config(_config(_gusts(tmp_path)))
    prep = pipeline.preprocessor
    assert prep.codec.chosen == {"pr": "sqrt", "wsgsmax": "gust"}
    assert prep.codec.guarantees()[1] == "wsgsmax >= 0"
    assert prep.baseline.strategy == "level"
    (made,) = [c for c in prep.channels if c.derived]
    assert (made.name, made.units, made.level) == ("dryness", "K", None)

    again = Preprocessor.from_state(*prep.to_state())
    assert again.codec == prep.codec
    days = pipeline.arrays("test")
    guess = again.baseline.predict(days.lr, days.season)
    np.testing.assert_array_equal(guess, days.baseline)


def test_they_train_are_saved_and_downscale(tmp_path, parts):
    folder = _gusts(tmp_path / "data")
    pipeline = NetCDFDataPipeline.from_config(_config(folder))
    model = ModelConfig(
        encoder=EncoderConfig(hidden_dim=8, conditioning_dim=8),
        diffusion=DiffusionConfig(
            scheduler_type="one_step",
            spatial_channels=8,
            noise_margin=2,
            unet=UNetConfig(
                block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4
            ),
        ),
    )
    result = train(
        pipeline,
        model=model,
        loss=LossConfig(),
        training=TrainingConfig(epochs=1, batch_size=32, validation_every=1),
        run_dir=tmp_path / "run",
        seed=1,
    )
    output = tmp_path / "out.nc"
    downscale(result.checkpoint, [folder / "lr.nc"], output, members=3, seed=1)
    with xr.open_dataset(output) as ds:
        assert ds["wsgsmax"].attrs["units"] == "m s-1"
        land = ds["wsgsmax"].values[..., ~small_task.SEA]
    assert np.isfinite(land).all()
    assert (land >= 0).all()
    assert land.max() > 0.5


def test_a_state_without_its_plugin_says_which_codec_is_missing(parts):
    targets = [TargetVariable(name="wsgsmax", units="m s-1")]
    state = build_codec(targets, codecs={"wsgsmax": "gust"}).to_dict()
    del registry._ENTRIES["codec", "gust"]
    with pytest.raises(ConfigError, match="gust"):
        TargetCodec.from_dict(state)


@pytest.mark.parametrize(
    ("codecs", "match"),
    [
        ({"pr": "cube"}, "there is no codec of this name"),
        ({"rain": "sqrt"}, "is chosen for what is no target"),
        ({"pr": "function"}, "not chosen by name"),
        ({"pr": "temperatures"}, "no order"),
    ],
)
def test_a_wrong_choice_is_refused(codecs, match):
    with pytest.raises(ConfigError, match=match):
        build_codec([TargetVariable(name="pr", units="mm day-1")], codecs=codecs)


def test_a_wrong_choice_is_refused_before_files_are_read(tmp_path):
    config = small_task.config(tmp_path, codecs={"pr": "cube"})
    with pytest.raises(ConfigError, match=r"data\.codecs"):
        config.check()


def test_a_builtin_codec_may_be_chosen_for_any_target():
    targets = [
        TargetVariable(name="huss", units="kg kg-1"),
        TargetVariable(name="odd_rain", units="mm day-1"),
    ]
    codec = build_codec(targets, codecs={"odd_rain": "log1p"}, wet_threshold=0.2)
    assert codec.chosen == {"huss": "identity", "odd_rain": "log1p"}
    assert codec.nonnegative == (1,)
    decoded = codec.decode(torch.tensor([-1.0, -1.0]).reshape(2, 1, 1))
    assert decoded.flatten().tolist() == [-1.0, 0.0]


def test_a_derived_predictor_without_its_inputs_lists_what_there_is(tmp_path, parts):
    lr = small_task.predictors(small_task.stamps())[["q_850", "tas"]]
    small_task.write(tmp_path, lr=lr)
    with pytest.raises(MissingVariableError, match="pr"):
        NetCDFDataPipeline.from_config(_config(tmp_path, codecs={}))
