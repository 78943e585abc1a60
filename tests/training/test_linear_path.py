"""The linear path beside the network: what it sees, where it starts, what it adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.errors import ConfigError
from st_cdgm.inference.members import generate
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import _new_model, train
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition


def config(kind="one_step", start="zero", components=4):
    made = tiny_model(kind)
    made.diffusion.linear_components = components
    made.diffusion.linear_start = start
    return made


def model(pipeline, **options):
    torch.manual_seed(0)
    return _new_model(pipeline, config(**options)).eval()


@pytest.fixture(scope="module")
def batch(tiny_pipeline):
    return tiny_pipeline.windows("train").batch(range(140))


def mean_of(made, batch):
    with torch.no_grad():
        return last_day_condition(made, batch, made.rollout(batch.lr)).mean


def test_it_is_off_by_default_and_checkpoints_stay_as_they_were(tiny_pipeline):
    made = _new_model(tiny_pipeline, tiny_model())
    assert made.linear is None
    assert not [key for key in made.state_dict() if key.startswith("linear")]


def test_it_sees_the_components_of_the_day_and_the_day_before(tiny_pipeline, batch):
    path = model(tiny_pipeline).linear
    features = path.features(batch.lr).numpy()
    assert features.shape == (140, 8)
    assert np.abs(features[:, :4].mean(axis=0)).max() < 0.2
    np.testing.assert_allclose(features[:, :4].std(axis=0), 1, rtol=0.2)
    np.testing.assert_allclose(features[1:, 4:], features[:-1, :4], atol=1e-5)
    short = replace(tiny_pipeline.config, seq_len=1)
    alone = model(NetCDFDataPipeline.from_config(short)).linear
    assert alone.weight.shape[0] == 4


def test_it_starts_from_nothing(tiny_pipeline, batch):
    assert mean_of(model(tiny_pipeline), batch).abs().max() == 0


def test_it_starts_from_a_regression_of_the_residuals(tiny_pipeline, batch):
    made = model(tiny_pipeline, start="ridge", components=8)
    mean = mean_of(made, batch)
    prep = tiny_pipeline.preprocessor
    residual = prep.residual(batch.truth[:, -1], batch.baseline[:, -1])
    valid = batch.valid[:, -1]
    before = residual[valid].square().mean()
    after = (residual - mean)[valid].square().mean()
    assert after < 0.95 * before
    assert mean[~valid].abs().max() == 0


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_the_generator_is_moved_by_it(tiny_pipeline, batch, kind):
    """What it adds to a member is the mean, to the digit, whatever the noise."""
    made = model(tiny_pipeline, kind=kind, start="ridge")
    few = replace(batch, lr=batch.lr[:3], baseline=batch.baseline[:3])
    few = replace(few, season=batch.season[:3], valid=batch.valid[:3])
    with torch.no_grad():
        condition = last_day_condition(made, few, made.rollout(few.lr))
        without = replace(condition, mean=None)
        if kind == "one_step":
            noise = torch.randn(3, *made.decoder.noise_shape)
            found = made.decoder.generate_one_step(noise, condition)
            plain = made.decoder.generate_one_step(noise, without)
        else:
            x, sigma = torch.randn(3, *made.decoder.noise_shape), torch.ones(3)
            moved = x + condition.mean
            found = made.decoder.denoise(moved, sigma, condition)
            plain = made.decoder.denoise(x, sigma, without)
    torch.testing.assert_close(found - plain, condition.mean, atol=1e-4, rtol=0)
    assert condition.repeat(2).mean.shape[0] == 6
    order = torch.tensor([1, 2, 0])
    torch.testing.assert_close(condition.shuffled(order).mean, condition.mean)


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_it_is_trained(tiny_pipeline, batch, kind):
    made = STCDGMModule(
        model(tiny_pipeline, kind=kind),
        tiny_pipeline.preprocessor,
        loss=LossConfig(),
        training=TrainingConfig(),
        total_steps=5,
    )
    made.log_dict = lambda *_, **__: None
    made.training_step(tiny_pipeline.windows("train").batch(range(8)), 0).backward()
    assert made.model.linear.weight.grad.abs().max() > 0


def test_a_checkpoint_holds_it(tiny_pipeline, tmp_path):
    result = train(
        tiny_pipeline,
        model=config(start="ridge"),
        loss=LossConfig(),
        training=TrainingConfig(epochs=1, batch_size=64, lr=1e-5),
        run_dir=tmp_path,
    )
    loaded = load_checkpoint(result.checkpoint)
    assert loaded.model.linear.axes.abs().max() > 0
    days = tiny_pipeline.arrays("test").select(slice(0, 6))
    options = {"members": range(2), "seed": 1}
    whole = np.concatenate([f for _, f in generate(loaded, days, **options)])
    with torch.no_grad():
        loaded.model.linear.weight.zero_()
    without = np.concatenate([f for _, f in generate(loaded, days, **options)])
    assert np.nanmean(np.abs(whole - without)) > 1e-2


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="linear_components"):
        DiffusionConfig(linear_components=-1).check()
    with pytest.raises(ConfigError, match="linear_start"):
        DiffusionConfig(linear_start="ols").check()
