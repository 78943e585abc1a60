"""An interrupted training goes on as if it had not been interrupted."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file, save_file
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.errors import ConfigError, InputError, Terminated
from st_cdgm.training.config import (
    CheckpointConfig,
    EarlyStoppingConfig,
    LossConfig,
    LrSchedulerConfig,
    TrainingConfig,
)
from st_cdgm.training.fit import train
from st_cdgm.training.resume import (
    EpochOrder,
    MetricsLog,
    RandomState,
    complete_rows,
    read_state,
    write_state,
)

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


def test_a_training_that_stopped_early_is_left_as_it_is(tiny_pipeline, tmp_path):
    """It was trained for one more epoch by every resumption."""
    stopping = EarlyStoppingConfig(enabled=True, patience=1, min_delta=10.0)
    training = replace(SETTINGS, epochs=5, early_stopping=stopping)
    run(tiny_pipeline, tmp_path, training=training)
    assert load_checkpoint(tmp_path / "checkpoints/last").meta["global_step"] == 6
    before = all_files(tmp_path)
    again = run(tiny_pipeline, tmp_path, training=training, resume=True)
    after = all_files(tmp_path)
    assert again.steps == 6
    assert before["metrics"] == after["metrics"]
    name = "checkpoints/last/model.safetensors"
    assert before[name] == after[name]


def test_copies_are_kept_and_rotated(tiny_pipeline, tmp_path):
    checkpoint = CheckpointConfig(save_every=1, max_checkpoints=2, save_dir="kept")
    run(tiny_pipeline, tmp_path, checkpoint=checkpoint)
    kept = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert kept == ["epoch_0002", "epoch_0003"]
    assert load_checkpoint(tmp_path / "kept" / "epoch_0002").meta["epoch"] == 1
    same, last = weights(tmp_path, "../kept/epoch_0003"), weights(tmp_path, "last")
    assert all(torch.equal(same[key], last[key]) for key in last)


def test_the_end_may_take_the_place_of_the_best(tiny_pipeline, tmp_path):
    checkpoint = CheckpointConfig(save_best=False)
    result = run(tiny_pipeline, tmp_path, checkpoint=checkpoint)
    assert result.best_epoch == -1
    best, last = weights(tmp_path, "best"), weights(tmp_path, "last")
    assert all(torch.equal(best[key], last[key]) for key in last)
    with pytest.raises(ConfigError, match="checkpoint.max_checkpoints"):
        CheckpointConfig(max_checkpoints=0).check()


def test_nothing_to_resume_is_an_error(tiny_pipeline, tmp_path):
    """It began anew in silence, and lost what had been put aside."""
    with pytest.raises(InputError, match="nothing to resume"):
        run(tiny_pipeline, tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


class AfterUpdate(Callback):
    """Do something when so many updates are done."""

    def __init__(self, count, act):
        self.count, self.act = count, act

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.global_step == self.count:
            self.act()


def all_files(folder):
    """Everything that counts of a run, to the byte."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in ("checkpoints", "logs/metrics.csv")
        for path in sorted((folder / name).rglob("*") or [folder / name])
        if path.is_file()
    } | {"metrics": (folder / "logs" / "metrics.csv").read_bytes()}


@pytest.mark.parametrize("updates", [1, 2, 5])
def test_sigterm_saves_a_state_inside_an_epoch(tiny_pipeline, tmp_path, updates):
    """It ended with status 0, which a scheduler reads as success."""
    training = replace(SETTINGS, batch_size=40)  # 3 updates an epoch
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(tiny_pipeline, whole, training=training)
    end = AfterUpdate(updates, lambda: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as caught:
        run(tiny_pipeline, cut, training=training, callbacks=[end])
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert load_checkpoint(cut / "checkpoints/last").meta["global_step"] == updates + 1
    assert not list(cut.rglob(".*"))

    torch.manual_seed(99)
    run(tiny_pipeline, cut, training=training, resume=True)
    assert all_files(cut) == all_files(whole)


def test_states_are_written_inside_an_epoch(tiny_pipeline, tmp_path):
    """A kill costs minutes, not an epoch."""
    training = replace(SETTINGS, batch_size=40, state_minutes=1e-9)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(tiny_pipeline, whole, training=training)

    def kill():
        raise PowerCutError

    with pytest.raises(PowerCutError):
        run(tiny_pipeline, cut, training=training, callbacks=[AfterUpdate(4, kill)])
    assert load_checkpoint(cut / "checkpoints/last").meta["global_step"] == 4
    run(tiny_pipeline, cut, training=training, resume=True)
    assert all_files(cut) == all_files(whole)


def test_metrics_are_those_of_the_state_whatever_became_of_the_file(
    tiny_pipeline, tmp_path
):
    """A file cut at 438 of 1 210 places broke the resumption; rows came twice."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(tiny_pipeline, whole)
    with pytest.raises(PowerCutError):
        run(tiny_pipeline, cut, callbacks=[PowerCut()])
    file = cut / "logs" / "metrics.csv"
    file.write_bytes(file.read_bytes()[:-20] + b"\n1,2")
    run(tiny_pipeline, cut, resume=True)
    expected = (whole / "logs" / "metrics.csv").read_bytes()
    assert file.read_bytes() == expected

    # Every cut of it leaves whole rows, for states that hold none.
    for length in range(len(expected)):
        file.write_bytes(expected[:length])
        rows = complete_rows(file, 10**6)
        assert len(rows) == max(expected[:length].count(b"\n") - 1, 0), length
    assert len(complete_rows(file, 0)) == 0


def test_rows_are_added_to_metrics(tmp_path):
    log = MetricsLog(tmp_path, name="logs", version="")
    file = tmp_path / "logs" / "metrics.csv"
    log.log_metrics({"a": 1.0}, 0)
    log.save()
    node = file.stat().st_ino
    log.log_metrics({"a": 2.0}, 1)
    log.save()
    assert file.stat().st_ino == node  # the same file, longer
    assert file.read_text().split() == ["a,step", "1.0,0", "2.0,1"]
    log.log_metrics({"b": 3.0}, 1)
    log.save()
    assert file.read_text().split() == ["a,b,step", "1.0,,0", "2.0,,1", ",3.0,1"]


def test_a_changed_state_is_refused(tmp_path):
    write_state(tmp_path, {"a": 1, "t": torch.ones(3)})
    file = tmp_path / "state.json"
    text = file.read_text("utf-8")
    file.write_text(text.replace('"a", 1', '"a", 2'), "utf-8")
    with pytest.raises(InputError, match="not the one that was written"):
        read_state(tmp_path)
    file.write_text(text, "utf-8")
    save_file({"0": torch.zeros(3)}, tmp_path / "optimizer.safetensors")
    with pytest.raises(InputError, match="0 was changed"):
        read_state(tmp_path)

    # Earlier versions wrote no checksums.
    file.write_text(json.dumps(json.loads(text)["state"]), "utf-8")
    assert read_state(tmp_path)["a"] == 1


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
    kept = RandomState(EpochOrder(range(5), shuffling), 2)
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
