"""Early stopping, and the schedule that follows the validation loss."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback
from safetensors.torch import load_file
from tests.toy import tiny_model
from torch import nn

from st_cdgm.errors import ConfigError
from st_cdgm.training.callbacks import BestCheckpoint, PlateauSchedule
from st_cdgm.training.config import (
    EarlyStoppingConfig,
    LossConfig,
    LrSchedulerConfig,
    TrainingConfig,
)
from st_cdgm.training.early_stopping import EarlyStopping
from st_cdgm.training.fit import _new_model, train
from st_cdgm.training.lightning_module import STCDGMModule


def filled(value: float) -> nn.Linear:
    module = nn.Linear(2, 1)
    return fill(module, value)


def fill(module: nn.Linear, value: float) -> nn.Linear:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def test_it_stops_after_patience_and_restores_the_best_weights():
    """D69: the kept weights are copies, so restoring them does something."""
    stopping, model = EarlyStopping(patience=2), filled(1.0)
    assert not stopping(0.5, model)
    assert not stopping(0.4, fill(model, 2.0))
    assert not stopping(0.6, fill(model, 3.0))
    assert stopping(0.7, fill(model, 4.0))
    assert stopping.early_stop
    assert stopping.best_score == 0.4
    assert stopping.best_weights["score"] == 0.4
    assert model.weight.tolist() == [[2.0, 2.0]]


def test_a_first_nan_blocks_nothing():
    """D70: NaN is never the best score, and counts as no improvement."""
    stopping, model = EarlyStopping(patience=3), filled(1.0)
    assert not stopping(math.nan, model)
    assert stopping.best_score is None
    assert stopping.counter == 1
    assert not stopping(9.0, fill(model, 2.0))
    assert stopping.best_score == 9.0
    assert stopping.counter == 0
    assert not stopping(torch.tensor(math.nan), model)
    assert stopping.best_score == 9.0


def test_nothing_but_nan_stops_too():
    stopping, model = EarlyStopping(patience=2), filled(1.0)
    assert not stopping(math.nan, model)
    assert stopping(math.nan, fill(model, 5.0))
    # There is nothing to put back.
    assert model.bias.item() == 5.0
    assert not stopping.restore(model)


def test_weights_come_back_at_the_end_without_a_stop():
    """D70: a loop that ends by its last epoch restores as well."""
    stopping, model = EarlyStopping(patience=10), filled(1.0)
    stopping(0.1, model)
    stopping(0.2, fill(model, 2.0))
    assert stopping.restore(model)
    assert model.bias.item() == 1.0


def test_several_modules_are_kept_together():
    """D69, D70: encoder, recurrent network and decoder belong to one score."""
    stopping = EarlyStopping(patience=1)
    models = {"encoder": filled(1.0), "decoder": filled(2.0)}
    stopping(0.1, models)
    for module in models.values():
        fill(module, 9.0)
    assert stopping(0.2, models)
    assert models["encoder"].bias.item() == 1.0
    assert models["decoder"].bias.item() == 2.0


@pytest.mark.parametrize(
    ("mode", "scores", "counter"),
    [
        ("min", [1.0, 0.95, 0.8], 0),
        ("min", [1.0, 0.95, 0.91], 2),
        ("max", [1.0, 1.05, 1.2], 0),
        ("max", [1.0, 1.05, 0.5], 2),
    ],
)
def test_an_improvement_exceeds_min_delta(mode, scores, counter):
    stopping, model = EarlyStopping(mode=mode, min_delta=0.1), filled(0.0)
    for score in scores:
        stopping(score, model)
    assert stopping.counter == counter


def test_restoring_can_be_switched_off_and_the_state_forgotten():
    stopping, model = EarlyStopping(patience=1, restore_best=False), filled(1.0)
    stopping(0.1, model)
    assert stopping(0.2, fill(model, 2.0))
    assert model.bias.item() == 2.0
    assert stopping.best_weights is None
    stopping.reset()
    assert (stopping.best_score, stopping.counter) == (None, 0)
    assert not stopping.early_stop


@pytest.mark.parametrize("kwargs", [{"mode": "least"}, {"patience": 0}])
def test_wrong_options_are_value_errors(kwargs):
    with pytest.raises(ConfigError) as error:
        EarlyStopping(**kwargs)
    assert isinstance(error.value, ValueError)


# -- learning rate ---------------------------------------------------------------------


def validated(score: float, epoch: int = 0) -> SimpleNamespace:
    """Return as much of a trainer as a callback sees after a validation."""
    return SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        callback_metrics={"val_loss": torch.tensor(score)},
        current_epoch=epoch,
    )


def told(schedule: PlateauSchedule, score: float) -> float:
    """Tell the schedule of a validation loss; return the factor it sets."""
    trainer = validated(score)
    module = SimpleNamespace(lr_factor=1.0)
    schedule.on_validation_end(trainer, module)
    return module.lr_factor


@pytest.mark.parametrize("patience", [0, 2])
def test_the_plateau_rule_is_that_of_torch(patience):
    """D60: a schedule was announced, accepted and never stepped.

    D70: a NaN, the first score included, is an improvement for neither.
    """
    settings = LrSchedulerConfig(
        enabled=True, factor=0.5, patience=patience, min_lr=1e-4
    )
    ours = PlateauSchedule(settings, 1e-3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, min_lr=1e-4
    )
    scores = [math.nan, 1.0, 0.9, 0.95, math.nan, 0.9, 0.93, 0.5, *[0.6] * 14]
    for score in scores:
        theirs.step(score)
        lr = optimizer.param_groups[0]["lr"]
        assert 1e-3 * told(ours, score) == pytest.approx(lr)
    assert lr == 1e-4


def test_a_resumed_training_keeps_its_lowered_rate():
    """D60: the factor reaches the module before the next validation does."""
    settings = LrSchedulerConfig(enabled=True, factor=0.5, patience=0)
    before, after = (PlateauSchedule(settings, 1e-3) for _ in range(2))
    assert [told(before, score) for score in (1.0, 2.0)] == [1.0, 0.5]
    after.load_state_dict(before.state_dict())
    module = SimpleNamespace(lr_factor=1.0)
    after.on_train_start(None, module)
    assert module.lr_factor == 0.5
    assert told(after, 0.9) == told(before, 0.9) == 0.5


class Spoil(Callback):
    """Make the weights useless before one of the epochs; note the learning rates."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.rates = epoch, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                pl_module.model.decoder.unet.conv_out.bias.fill_(50.0)


def spoilt_run(pipeline, folder, *, epoch: int = 2, **options) -> list[float]:
    """Train for three epochs; return the learning rate of every update."""
    spoil = Spoil(epoch)
    train(
        pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=TrainingConfig(
            epochs=3, batch_size=64, warmup_steps=1, ema_decay=0.0, **options
        ),
        run_dir=folder,
        callbacks=[spoil],
        seed=5,
    )
    logs = pd.read_csv(folder / "logs" / "metrics.csv")
    losses = logs["val_loss"].dropna().tolist()
    assert losses[epoch] > 10 * min(losses)
    return spoil.rates


def rates(pipeline, steps: int, **options) -> list[float]:
    """Learning rates of a module's own schedule, whose factor falls to 1/4 at last."""
    torch.manual_seed(0)
    training = TrainingConfig(lr=1e-3, warmup_steps=4, **options)
    net = STCDGMModule(
        _new_model(pipeline, tiny_model()),
        pipeline.preprocessor,
        loss=LossConfig(),
        training=training,
        total_steps=steps,
    )
    made = net.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    found = []
    for step in range(steps):
        net.lr_factor = 0.25 if step >= steps - 2 else 1.0
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_plateau_takes_the_place_of_the_cosine(tiny_pipeline):
    plateau = rates(tiny_pipeline, 40, lr_scheduler=LrSchedulerConfig(enabled=True))
    warmup = [2.5e-4, 5e-4, 7.5e-4, 1e-3]
    assert plateau[:4] == pytest.approx(warmup)
    assert plateau[4:-1] == pytest.approx([1e-3] * 35)
    assert plateau[-1] == pytest.approx(2.5e-4)
    cosine = rates(tiny_pipeline, 40)
    assert cosine[:4] == pytest.approx(warmup)
    assert cosine[-1] < 0.05 * 1e-3


def test_a_training_follows_its_schedule(tiny_pipeline, tmp_path):
    """D60: one epoch of a rising loss, and the rate of the next is halved."""
    settings = LrSchedulerConfig(enabled=True, patience=0, factor=0.5)
    rates = spoilt_run(tiny_pipeline, tmp_path, epoch=1, lr_scheduler=settings, lr=1e-3)
    assert len(rates) == 6
    # An update's rate is set at the end of the one before it.
    assert rates == pytest.approx([1e-3] * 5 + [5e-4])


@pytest.mark.parametrize("restore", [True, False])
def test_the_last_state_is_the_best_one_if_asked_for(tiny_pipeline, tmp_path, restore):
    """D70: weights were restored only where the patience ran out."""
    stopping = EarlyStoppingConfig(enabled=True, patience=50, restore_best=restore)
    spoilt_run(tiny_pipeline, tmp_path, early_stopping=stopping)
    best, last = (
        load_file(tmp_path / "checkpoints" / name / "model.safetensors")
        for name in ("best", "last")
    )
    same = all(torch.equal(best[key], last[key]) for key in best)
    assert same is restore


def test_a_nan_is_never_the_best_checkpoint(tmp_path):
    """D70: a first NaN score blocked all improvement."""
    best, saved = BestCheckpoint(tmp_path, None), []
    best._save = lambda name, trainer, *_: saved.append((name, trainer.current_epoch))
    for epoch, score in enumerate([math.nan, 0.5, math.nan, 0.6, 0.4]):
        best.on_validation_end(validated(score, epoch), None)
    assert saved == [("best", 1), ("best", 4)]
    assert (best.best, best.best_epoch) == (pytest.approx(0.4), 4)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (EarlyStoppingConfig(patience=0), "training.early_stopping.patience"),
        (EarlyStoppingConfig(min_delta=-1.0), "training.early_stopping.min_delta"),
        (LrSchedulerConfig(mode="most"), "training.lr_scheduler.mode"),
        (LrSchedulerConfig(factor=1.0), "training.lr_scheduler.factor"),
        (LrSchedulerConfig(patience=-1), "training.lr_scheduler.patience"),
        (LrSchedulerConfig(min_lr=-1.0), "training.lr_scheduler.min_lr"),
    ],
)
def test_settings_out_of_range_are_named(section, key):
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        section.check()
