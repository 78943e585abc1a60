"""An interrupted training goes on as if it had not been interrupted."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.training.config import (
    EarlyStoppingConfig,
    LossConfig,
    LrSchedulerConfig,
    TrainingConfig,
)
from st_cdgm.training.fit import train
from st_cdgm.training.resume import RandomState, read_state, write_state

SETTINGS = TrainingConfig(
    epochs=3,
    batch_size=48,
    lr=3e-3,
    warmup_steps=2,
    predictor_noise=0.1,
    early_stopping=EarlyStoppingConfig(enabled=True, patience=3, restore_best=False),
    lr_scheduler=LrSchedulerConfig(enabled=True, patience=0, factor=0.3),
)


class PowerCutError(RuntimeError):
    """The machine goes down."""


class PowerCut(Callback):
    """Interrupt the second epoch after its first update."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            raise PowerCutError


def run(pipeline, folder, *, kind="one_step", training=SETTINGS, **options):
    options = {"seed": 7, "loss": LossConfig()} | options
    return train(
        pipeline, model=tiny_model(kind), training=training, run_dir=folder, **options
    )


def weights(folder, name):
    return load_file(folder / "checkpoints" / name / "model.safetensors")


def validation_losses(folder):
    logs = pd.read_csv(folder / "logs" / "metrics.csv")
    return logs[["epoch", "val_loss"]].dropna().to_numpy().tolist()


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_an_interruption_leaves_no_trace(tiny_pipeline, tmp_path, kind):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = run(tiny_pipeline, whole, kind=kind)
    with pytest.raises(PowerCutError):
        run(tiny_pipeline, cut, kind=kind, callbacks=[PowerCut()])
    # What there is by then is a checkpoint like any other.
    assert load_checkpoint(cut / "checkpoints" / "last").meta["epoch"] == 0
    torch.manual_seed(99)
    random.seed(99)
    found = run(tiny_pipeline, cut, kind=kind, resume=True)
    assert (found.steps, found.best_epoch) == (expected.steps, expected.best_epoch)
    assert found.best_loss == expected.best_loss
    for name in ("best", "last"):
        first, second = weights(whole, name), weights(cut, name)
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert validation_losses(cut) == validation_losses(whole)
    assert len(validation_losses(cut)) == 3


def test_a_finished_training_is_left_as_it_is(tiny_pipeline, tmp_path):
    short = replace(SETTINGS, epochs=1)
    run(tiny_pipeline, tmp_path, training=short)
    before = weights(tmp_path, "last"), validation_losses(tmp_path)
    again = run(tiny_pipeline, tmp_path, training=short, resume=True)
    assert again.best_epoch == 0
    after = weights(tmp_path, "last"), validation_losses(tmp_path)
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    assert after[1] == before[1]
    # Other settings would mix two trainings.
    for other in (
        {"training": replace(short, lr=1e-3)},
        {"training": replace(short, epochs=2)},
        {"training": short, "seed": 8},
        {"training": short, "loss": LossConfig(beta_rec=0.2)},
    ):
        with pytest.raises(ConfigError, match="other settings"):
            run(tiny_pipeline, tmp_path, resume=True, **other)
    (tmp_path / "checkpoints" / "last" / "state.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="cannot be read"):
        run(tiny_pipeline, tmp_path, training=short, resume=True)


def test_without_a_state_the_training_begins(tiny_pipeline, tmp_path):
    result = run(
        tiny_pipeline, tmp_path, training=replace(SETTINGS, epochs=1), resume=True
    )
    assert result.best_epoch == 0


def test_a_state_comes_back_from_disk(tmp_path):
    state = {
        "a": [1, 2.5, None, True, "x", float("inf")],
        3: {"t": torch.arange(3), "tuple": (1, (2, torch.ones(1)))},
    }
    assert sorted(write_state(tmp_path, state)) == sorted(
        path.name for path in tmp_path.iterdir()
    )
    back = read_state(tmp_path)
    assert back["a"] == state["a"]
    assert list(back) == ["a", 3]
    assert back[3]["t"].tolist() == [0, 1, 2]
    assert back[3]["tuple"] == (1, (2, torch.ones(1)))
    with pytest.raises(TypeError, match="cannot be stored"):
        write_state(tmp_path, {"a": object()})


def test_all_random_numbers_go_on(tmp_path):
    shuffling = torch.Generator().manual_seed(1)
    kept = RandomState(shuffling)
    write_state(tmp_path, kept.state_dict())

    def draw():
        return (
            random.random(),
            np.random.rand(),  # noqa: NPY002
            torch.rand(1).item(),
            torch.rand(1, generator=shuffling).item(),
        )

    first = draw()
    assert draw() != first
    kept.load_state_dict(read_state(tmp_path))
    assert draw() == first
