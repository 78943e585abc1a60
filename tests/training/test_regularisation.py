"""What is to keep a training from over-fitting has the effect it is named for."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from tests.toy import tiny_model

from st_cdgm.errors import ConfigError
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.training.callbacks import BestCheckpoint, PlateauSchedule
from st_cdgm.training.config import (
    EarlyStoppingConfig,
    LossConfig,
    LrSchedulerConfig,
    TrainingConfig,
)
from st_cdgm.training.fit import _callbacks, _new_model, train
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition


def module(pipeline, *, kind="one_step", dropout=0.0, rcn_dropout=0.0, **training):
    config = tiny_model(kind)
    config.diffusion.unet = replace(config.diffusion.unet, dropout=dropout)
    config.rcn = replace(config.rcn, dropout=rcn_dropout)
    torch.manual_seed(0)
    return STCDGMModule(
        _new_model(pipeline, config),
        pipeline.preprocessor,
        loss=LossConfig(),
        training=TrainingConfig(**training),
        total_steps=10,
    )


@pytest.fixture(scope="module")
def batch(tiny_pipeline):
    return tiny_pipeline.windows("validation").batch(range(6))


# -- The score that decides ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_the_score_is_the_crps_of_members_drawn_as_at_inference(
    tiny_pipeline, batch, kind
):
    made = module(tiny_pipeline, kind=kind, validation_members=4).eval()
    with torch.no_grad():
        condition = last_day_condition(made.model, batch, made.model.rollout(batch.lr))
        score = made.ensemble_crps(batch, condition, torch.Generator().manual_seed(3))
        again = made.ensemble_crps(batch, condition, torch.Generator().manual_seed(3))

        generator = torch.Generator().manual_seed(3)
        shape = (6, 4, *made.model.decoder.noise_shape)
        residual = made.model.decoder.draw_residual(
            condition, lambda: torch.randn(*shape, generator=generator)
        )
    torch.testing.assert_close(score, again)
    prep, std = tiny_pipeline.preprocessor, made.score_std
    fields = prep.scored(residual.float(), batch.baseline[:, -1][:, None])
    truth = torch.where(
        batch.valid[:, -1], prep.codec.scored(batch.truth[:, -1]), torch.nan
    )
    for c in range(3):
        expected = crps(fields[:, :, c].numpy(), truth[:, c].numpy()) / std[c]
        assert score[c].item() == pytest.approx(expected.item(), rel=1e-3)


def validated(**metrics):
    return SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        current_epoch=0,
        callback_metrics={k: torch.tensor(v) for k, v in metrics.items()},
    )


def test_everything_follows_the_score_that_was_asked_for(tmp_path):
    training = TrainingConfig(
        monitor="crps",
        early_stopping=EarlyStoppingConfig(enabled=True),
        lr_scheduler=LrSchedulerConfig(enabled=True, patience=0),
    )
    callbacks, best = _callbacks(training, tmp_path, {}, None)
    kinds = {type(one): one for one in callbacks}
    assert best is kinds[BestCheckpoint]
    assert kinds[EarlyStopping].monitor == "val_crps"

    saved = []
    best._save = lambda name, *_: saved.append(name)
    for loss, score in ((1.0, 0.5), (0.5, 0.6), (2.0, 0.4)):
        best.on_validation_end(validated(val_loss=loss, val_crps=score), None)
    assert len(saved) == 2
    assert best.best == pytest.approx(0.4)

    plateau, net = kinds[PlateauSchedule], SimpleNamespace(lr_factor=1.0)
    for loss, score in ((1.0, 0.5), (0.5, 0.6)):
        plateau.on_validation_end(validated(val_loss=loss, val_crps=score), net)
    assert net.lr_factor == 0.5


def test_a_training_logs_and_returns_it(tiny_pipeline, tmp_path):
    result = train(
        tiny_pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=TrainingConfig(epochs=2, batch_size=64, monitor="crps"),
        run_dir=tmp_path,
    )
    logs = pd.read_csv(tmp_path / "logs" / "metrics.csv")
    scores = logs["val_crps"].dropna()
    assert len(scores) == 2
    assert result.best_loss == pytest.approx(scores.min(), rel=1e-5)


def test_wrong_scores_are_refused():
    with pytest.raises(ConfigError, match="monitor"):
        TrainingConfig(monitor="rmse").check()
    with pytest.raises(ConfigError, match="validation_members"):
        TrainingConfig(monitor="crps", validation_members=1).check()
    TrainingConfig(validation_members=1).check()


# -- Weight decay, dropout, noise ------------------------------------------------------


def test_weights_decay_where_they_multiply(tiny_pipeline):
    made = module(tiny_pipeline, weight_decay=0.5, lr=0.1, warmup_steps=0)
    optimizer = made.configure_optimizers()["optimizer"]
    before = {name: p.detach().clone() for name, p in made.named_parameters()}
    rate = optimizer.param_groups[0]["lr"]
    for parameter in made.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in made.named_parameters():
        multiplies = parameter.ndim >= 2 and not name.endswith("A_dag")
        share = 1 - 0.5 * rate if multiplies else 1.0
        torch.testing.assert_close(parameter.detach(), share * before[name])


@pytest.mark.parametrize("where", ["dropout", "rcn_dropout"])
def test_dropout_acts_in_training_alone(tiny_pipeline, batch, where):
    made = module(tiny_pipeline, **{where: 0.5})
    noise = torch.randn(6 * 2, *made.model.decoder.noise_shape)

    def fields():
        with torch.no_grad():
            rollout = made.model.rollout(batch.lr)
            condition = last_day_condition(made.model, batch, rollout)
            return made.model.decoder.generate_one_step(noise, condition.repeat(2))

    # Without training the last layer gives 0: everything would be alike.
    torch.nn.init.normal_(made.model.decoder.unet.conv_out.weight)
    made.train()
    assert (fields() - fields()).abs().max() > 1e-4
    made.eval()
    torch.testing.assert_close(fields(), fields())


def test_predictor_noise_reaches_the_model_in_training_alone(tiny_pipeline, batch):
    made = module(tiny_pipeline, predictor_noise=0.3)
    seen, rollout = [], made.model.rollout
    made.model.rollout = lambda lr: seen.append(lr) or rollout(lr)
    made.log_dict = lambda *_, **__: None
    made.training_step(batch, 0)
    away = seen.pop() - batch.lr
    assert away.std().item() == pytest.approx(0.3, rel=0.05)
    assert abs(away.mean().item()) < 0.3 * 4 / math.sqrt(away.numel())
    made.validation_step(batch, 0)
    torch.testing.assert_close(seen.pop(), batch.lr)
