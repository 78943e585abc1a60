"""Terms that see blocks, variables and days together, in the training of the chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.toy import tiny_model

from st_cdgm.errors import ConfigError
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import _amount_std, _new_model
from st_cdgm.training.lightning_module import STCDGMModule


def module(pipeline, **loss) -> STCDGMModule:
    torch.manual_seed(0)
    model = tiny_model()
    model.diffusion.noise_memory = [0.4] if loss.get("change_weight") else []
    physical = loss.get("block_units") == "physical"
    return STCDGMModule(
        _new_model(pipeline, model),
        pipeline.preprocessor,
        loss=LossConfig(**loss),
        training=TrainingConfig(),
        total_steps=10,
        amount_std=_amount_std(pipeline) if physical else None,
    )


@pytest.mark.parametrize(
    "loss",
    [
        {"joint_weight": 0.5},
        {"joint_weight": 0.5, "joint_patch": 3},
        {"spectral_weight": 0.5},
        {"block_units": "physical"},
        {"change_weight": 0.5},
    ],
)
def test_every_term_changes_the_loss_and_has_a_gradient(tiny_pipeline, loss):
    days = int("change_weight" in loss)
    batch = tiny_pipeline.windows("train", more_days=days).batch([0, 9])
    net, plain = module(tiny_pipeline, **loss), module(tiny_pipeline)
    losses = []
    for one, windows in ((net, batch), (plain, batch if not days else None)):
        torch.manual_seed(1)
        windows = windows or tiny_pipeline.windows("train").batch([0, 9])
        losses.append(one.training_step(windows, 0))
    assert losses[0].item() != pytest.approx(losses[1].item(), rel=1e-3)

    losses[0].backward()
    gradients = [p.grad for p in net.model.decoder.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_windows_that_are_a_day_longer_become_two_of_neighbouring_days(tiny_pipeline):
    longer = tiny_pipeline.windows("train", more_days=1).batch([0, 9])
    cut = longer.neighbours()
    assert cut.lr.shape[:2] == (4, tiny_pipeline.seq_len)
    assert cut.truth.shape[:2] == (4, tiny_pipeline.seq_len)
    torch.testing.assert_close(cut.lr[:2, 1:], cut.lr[2:, :-1])
    assert (cut.time[2:, -1] - cut.time[:2, -1]).tolist() == [1, 1]
    assert cut.static is longer.static


def test_blocks_in_physical_units_are_areal_totals(tiny_pipeline):
    batch = tiny_pipeline.windows("train").batch([3])
    net = module(tiny_pipeline, block_units="physical")
    truth = net.truth(batch)
    codec = tiny_pipeline.preprocessor.codec
    expected = codec.decode(batch.truth[:, -1]) / net.amount_std.view(-1, 1, 1)
    torch.testing.assert_close(truth.amounts, expected)
    # A member that is the truth has the truth's amounts.
    same = truth.to_amounts(truth.residual[:, None])[:, 0]
    where = truth.valid
    torch.testing.assert_close(same[where], expected[where], atol=1e-3, rtol=1e-3)


def test_the_yardstick_of_totals_is_that_of_training_days(tiny_pipeline):
    """Root mean square around the mean of truth minus baseline, by variable."""
    days = tiny_pipeline.arrays("train")
    error = (days.hr - days.baseline).astype(np.float64)
    expected = np.nanstd(error, axis=(0, 2, 3))
    found = _amount_std(tiny_pipeline).numpy()
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_changes_ask_for_noise_that_remembers(tiny_pipeline):
    with pytest.raises(ConfigError, match="noise_memory"):
        STCDGMModule(
            _new_model(tiny_pipeline, tiny_model()),
            tiny_pipeline.preprocessor,
            loss=LossConfig(change_weight=1.0),
            training=TrainingConfig(),
            total_steps=10,
        )
