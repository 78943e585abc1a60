"""Early stopping of plain training loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from st_cdgm.errors import ConfigError
from st_cdgm.training.callbacks import EarlyStopping


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
    """D70: encoder, recurrent network and decoder belong to one score."""
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
