"""Which day of a window the generator makes."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from st_cdgm.checkpoint.directory import Checkpoint, load_checkpoint
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.batch import Batch
from st_cdgm.errors import ConfigError
from st_cdgm.inference.config import InferenceConfig
from st_cdgm.inference.downscale import chosen_device, downscale
from st_cdgm.inference.members import generate, generate_batch
from st_cdgm.training.config import TrainingConfig
from st_cdgm.training.fit import TrainingResult


@pytest.fixture(scope="module")
def checkpoint(trained: TrainingResult) -> Checkpoint:
    return load_checkpoint(trained.checkpoint)


@pytest.fixture(scope="module")
def batch(tiny_pipeline: NetCDFDataPipeline) -> Batch:
    return tiny_pipeline.windows("test").batch([0, 7])


def fields(checkpoint: Checkpoint, batch: Batch) -> np.ndarray:
    return generate_batch(
        checkpoint.model, checkpoint.preprocessor, batch, members=range(2), seed=4
    )


def moved(batch: Batch, name: str, day: slice | int) -> Batch:
    """Return the batch with one input changed on some days of the windows."""
    value = getattr(batch, name).clone()
    value[:, day] += 1 if name == "time" else 0.4
    return replace(batch, **{name: value})


@pytest.mark.parametrize("name", ["time", "season", "baseline"])
def test_only_the_last_day_decides_besides_the_predictors(checkpoint, batch, name):
    expected = fields(checkpoint, batch)
    earlier = fields(checkpoint, moved(batch, name, slice(0, -1)))
    np.testing.assert_array_equal(earlier, expected)
    last = fields(checkpoint, moved(batch, name, -1))
    assert np.nanmean(np.abs(last - expected)) > 1e-3


def test_earlier_predictors_count(checkpoint, batch):
    changed = fields(checkpoint, moved(batch, "lr", 0))
    assert np.nanmean(np.abs(changed - fields(checkpoint, batch))) > 1e-6


def test_the_truth_is_never_looked_at(checkpoint, batch):
    """D4"""
    blind = replace(batch, truth=None)
    np.testing.assert_array_equal(fields(checkpoint, blind), fields(checkpoint, batch))


def test_history_is_read_but_not_made(checkpoint, tiny_pipeline):
    arrays = replace(tiny_pipeline.arrays("test").select(slice(0, 9)), hr=None)
    options = {"members": range(2), "seed": 4, "batch_days": 4}
    whole = list(generate(checkpoint, arrays, **options))
    late = list(generate(checkpoint, arrays, first=2, **options))
    days = [np.concatenate([day for day, _ in part]) for part in (whole, late)]
    np.testing.assert_array_equal(days[0], arrays.day)
    np.testing.assert_array_equal(days[1], arrays.day[2:])
    made = [
        torch.from_numpy(np.concatenate([f for _, f in part])) for part in (whole, late)
    ]
    torch.testing.assert_close(
        made[1], made[0][2:], equal_nan=True, atol=2e-4, rtol=1e-4
    )


def test_a_member_that_remembers_is_the_same_in_every_period(
    checkpoint, tiny_pipeline, monkeypatch
):
    """Its noise goes on from days that are not asked for; others are not touched."""
    arrays = replace(tiny_pipeline.arrays("test").select(slice(0, 9)), hr=None)
    options = {"members": range(2), "seed": 4, "batch_days": 4}

    def made(**more):
        return np.concatenate(
            [f for _, f in generate(checkpoint, arrays, **options | more)]
        )

    alone = made()
    config = checkpoint.model.decoder.config
    monkeypatch.setattr(config, "noise_memory", [0.3, 0.5, 0.8])
    whole = made()
    assert np.nanmean(np.abs(whole - alone)) > 1e-3
    late = made(first=5, members=range(1, 2))
    np.testing.assert_allclose(late, whole[5:, 1:2], atol=2e-4, rtol=1e-4)

    def step(fields):  # the mean change of a member from day to day
        deviation = fields[:, 0] - fields[:, 1]
        return np.nanmean(np.diff(deviation, axis=0)[:, 0] ** 2)

    assert step(whole) < step(alone)


def test_the_device_is_chosen_by_itself(monkeypatch):
    assert InferenceConfig().device == "auto"
    assert inspect.signature(downscale).parameters["device"].default == "auto"
    for cuda, expected in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert chosen_device("auto").type == expected
        assert chosen_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "gpu", "toaster"])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="there is no CUDA") as caught:
        chosen_device(name)
    assert name in str(caught.value)


def test_training_takes_the_accelerator_that_there_is():
    assert TrainingConfig().accelerator == "auto"
