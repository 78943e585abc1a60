"""A model on a baseline that sees the day before: from a checkpoint, for any days."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.inference.downscale import downscale
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import train


@pytest.fixture(scope="module")
def pipeline(tiny_pipeline):
    config = replace(tiny_pipeline.config, baseline_strategy="ridge", seq_len=1)
    return NetCDFDataPipeline.from_config(config)


@pytest.fixture(scope="module")
def checkpoint(pipeline, tmp_path_factory):
    return train(
        pipeline,
        model=tiny_model(),
        loss=LossConfig(beta_rec=0.0),
        training=TrainingConfig(epochs=1, batch_size=32),
        run_dir=tmp_path_factory.mktemp("two_days"),
    ).checkpoint


def test_the_checkpoint_holds_the_baseline(pipeline, checkpoint):
    loaded = load_checkpoint(checkpoint).preprocessor
    days = pipeline.source
    raw, truth, before = days.read_with_before(slice(0, 60))
    dates = {"before": before, "key": days.days.key[:60]}
    season = days.days.season[:60]
    np.testing.assert_array_equal(
        loaded.predict_baseline(raw, season, **dates),
        pipeline.preprocessor.predict_baseline(raw, season, **dates),
    )
    assert (loaded.baseline.strategy, loaded.history) == ("ridge", 2)


def test_part_of_a_period_equals_the_whole(checkpoint, tiny_files, tmp_path):
    """The day before the first day asked for is looked up in the file."""
    fields = []
    for start, name in (("2001-07-01", "whole.nc"), ("2001-07-08", "part.nc")):
        output = tmp_path / name
        days = {"start": start, "end": "2001-07-12"}
        downscale(checkpoint, tiny_files / "lr.nc", output, members=2, seed=1, **days)
        with xr.open_dataset(output, decode_times=False) as opened:
            fields.append(opened.tasmin.values)
    np.testing.assert_allclose(fields[0][7:], fields[1], atol=1e-4)
