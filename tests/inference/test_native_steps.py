"""Steps shorter than a day: they train, and what writes days refuses them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import twins
from tests.toy import tiny_model
from typer.testing import CliRunner

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.cli.main import EXIT_INPUT, app
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import InputError
from st_cdgm.inference.downscale import check_daily, downscale
from st_cdgm.inference.members import generate
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import train

PERIODS = {
    "train": ["2010-08-26T00:00", "2010-08-26T01:55"],
    "validation": ["2010-08-26T02:00", "2010-08-26T03:10"],
    "test": ["2010-08-26T03:20", "2010-08-26T23:55"],
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> NetCDFDataPipeline:
    folder = twins.write_radar(tmp_path_factory.mktemp("radar"), side=12)
    return NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(folder),
            lr_path="radar.nc",
            hr_path="radar.nc",
            lr_coarsen=3,
            time_step="native",
            seq_len=3,
            splits=SplitConfig(**PERIODS),
        )
    )


@pytest.fixture(scope="module")
def checkpoint(pipeline, tmp_path_factory) -> Path:
    training = TrainingConfig(epochs=1, batch_size=8, validation_stride=4)
    return train(
        pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=training,
        run_dir=tmp_path_factory.mktemp("run"),
    ).checkpoint


def test_batches_hold_the_steps(pipeline):
    windows = pipeline.windows("train")
    batch = windows.batch(torch.arange(len(windows)))
    # Frames 0-19 and 22-23: one run is too short for a window.
    assert batch.time.shape == (18, 3)
    assert batch.time[-1].tolist() == [20100826012500, 20100826013000, 20100826013500]
    assert batch.lr.shape == (18, 3, 1, 4, 4)
    assert batch.truth.shape == (18, 3, 1, 12, 12)
    assert batch.valid.all()
    assert (batch.season.diff(dim=1) > 0).all()


def test_a_model_of_steps_trains_and_generates(checkpoint, pipeline):
    loaded = load_checkpoint(checkpoint)
    assert loaded.preprocessor.step_seconds == 300
    arrays, first = load_predictors(
        loaded.preprocessor, pipeline.lr_path, start="2010-08-26T03:20"
    )
    known = pipeline.arrays("test")
    assert np.array_equal(arrays.day[first:], known.day)
    assert np.array_equal(arrays.lr[first:], known.lr)
    made = list(generate(loaded, arrays, first=first, members=range(2), seed=1))
    assert np.concatenate([keys for keys, _ in made]).tolist() == known.day.tolist()
    fields = np.concatenate([values for _, values in made])
    assert fields.shape == (len(known), 2, 1, 12, 12)
    assert (fields >= 0).all()
    assert np.isfinite(fields).all()
    assert not np.array_equal(fields[0], fields[1])


def test_downscale_refuses_before_any_work(checkpoint, tmp_path):
    output = tmp_path / "out.nc"
    # A file that is no predictor file: nothing of it is read.
    other = tmp_path / "other.nc"
    other.write_bytes(b"not read")
    with pytest.raises(InputError, match="steps shorter than a day") as caught:
        downscale(checkpoint, other, output)
    assert caught.value.facts["found"] == "native, steps of 5 min"
    assert "data.time_step=daily" in caught.value.facts["remedy"]
    assert list(tmp_path.iterdir()) == [other]


def test_days_read_as_native_steps_are_days(tiny_pipeline):
    assert tiny_pipeline.preprocessor.step_seconds == 86400
    check_daily(tiny_pipeline.preprocessor)


def test_a_run_to_the_end_is_refused_before_training(pipeline, tmp_path):
    root = Path(pipeline.config.root)
    splits = [f"data.splits.{name}={period}" for name, period in PERIODS.items()]
    options = [
        f"data.root='{root}'",
        "data.lr_path=radar.nc",
        "data.hr_path=radar.nc",
        "data.static_path=null",
        "data.lr_coarsen=3",
        "data.time_step=native",
        f"run.dir='{tmp_path / 'run'}'",
    ]
    arguments = ["run", "--config", "demo_quick", *options, *splits]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == EXIT_INPUT
    assert "steps shorter than a day" in result.stderr
    assert not (tmp_path / "run").exists()
