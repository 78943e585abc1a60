"""Guidance and block means, asked for where an ensemble is made."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import Checkpoint
from st_cdgm.errors import ConfigError
from st_cdgm.inference.config import InferenceConfig
from st_cdgm.inference.downscale import downscale
from st_cdgm.inference.members import generate
from st_cdgm.models.config import DiffusionConfig, ModelConfig
from st_cdgm.models.sampling import Sampling
from st_cdgm.physics.coarse_means import CoarseMeans
from st_cdgm.training.fit import _new_model

TAS = {"tasmin": "tas"}


def untrained(pipeline, kind: str, dropout: float = 0.0) -> Checkpoint:
    torch.manual_seed(0)
    config: ModelConfig = tiny_model(kind)
    config.diffusion = replace(config.diffusion, condition_dropout=dropout)
    model = _new_model(pipeline, config).eval()
    return Checkpoint(model, pipeline.preprocessor, {})


@pytest.fixture(scope="module")
def days(tiny_pipeline):
    return replace(tiny_pipeline.arrays("test").select(slice(0, 7)), hr=None)


def made(checkpoint: Checkpoint, days, **options) -> np.ndarray:
    names = [f.name for f in fields(Sampling) if f.name in options]
    sampling = Sampling(**{name: options.pop(name) for name in names})
    options = {"members": range(3), "seed": 4, "batch_days": 4} | options
    options["sampling"] = sampling
    return np.concatenate([f for _, f in generate(checkpoint, days, **options)])


# -- guidance --------------------------------------------------------------------------


def test_guidance_is_within_reach(tiny_pipeline, days):
    guided = untrained(tiny_pipeline, "edm", dropout=0.2)
    plain = made(untrained(tiny_pipeline, "edm"), days)
    np.testing.assert_array_equal(made(guided, days, guidance_scale=1.0), plain)
    strong = made(guided, days, guidance_scale=3.0)
    assert np.nanmean(np.abs(strong - plain)) > 1e-3


@pytest.mark.parametrize("scale", [2.0, float("nan"), float("inf")])
def test_guidance_of_another_model_is_refused(
    tiny_pipeline, tiny_files, tmp_path, scale
):
    dropout = 0.0 if scale == 2.0 else 0.2
    checkpoint = untrained(tiny_pipeline, "edm", dropout)
    with pytest.raises(ConfigError, match="guidance_scale"):
        downscale(
            checkpoint,
            tiny_files / "lr.nc",
            tmp_path / "o.nc",
            sampling=Sampling(guidance_scale=scale),
        )


def test_guidance_of_a_run_is_checked_with_its_section():
    with pytest.raises(ConfigError, match=r"inference\.guidance_scale"):
        InferenceConfig(guidance_scale=2.0).sampling.check(
            DiffusionConfig(scheduler_type="edm"), section="inference."
        )
    with pytest.raises(ConfigError, match=r"inference\.guidance_scale"):
        InferenceConfig(guidance_scale=float("nan")).check()
    model = DiffusionConfig(scheduler_type="edm", condition_dropout=0.1)
    Sampling(guidance_scale=2.0).check(model)


# -- block means -----------------------------------------------------------------------


def coarse_truth(pipeline, days) -> np.ndarray:
    """The coarse model's tas in degC, cell by cell. Shape ``(T, K)``."""
    prep = pipeline.preprocessor
    names = [c.name for c in prep.channels]
    kelvin = prep.physical_lr(days.lr)[:, names.index("tas")]
    return kelvin.reshape(len(kelvin), -1).astype(np.float64) - 273.15


@pytest.mark.parametrize("kind", ["one_step", "edm", "dpm_solver++", "dpm_solver_sde"])
@pytest.mark.parametrize("batch_days", [1, 4])
def test_block_means_are_those_of_the_coarse_model(
    tiny_pipeline, days, kind, batch_days
):
    checkpoint = untrained(tiny_pipeline, kind)
    free = made(checkpoint, days, batch_days=batch_days)
    held = made(checkpoint, days, batch_days=batch_days, block_means=TAS)
    prep = tiny_pipeline.preprocessor
    blocks = CoarseMeans.of(prep, TAS).blocks
    wanted = coarse_truth(tiny_pipeline, days)[:, None]

    def error(fields: np.ndarray) -> float:
        means = blocks.means(torch.from_numpy(fields[:, :, 0].astype(float))).numpy()
        found = blocks.filled.numpy()
        return float(np.abs(means - wanted)[..., found].max())

    assert error(free) > 0.5
    assert error(held) < 2e-4
    # Sea stays without values, tasmax above tasmin, precipitation is not touched.
    np.testing.assert_array_equal(np.isnan(held), np.isnan(free))
    land = np.isfinite(held[:, :, 0])
    assert (held[:, :, 1] >= held[:, :, 0] - 1e-4)[land].all()
    # The first members of a smaller ensemble.
    few = made(checkpoint, days, members=range(2), block_means=TAS)
    np.testing.assert_allclose(few, held[:, :2], atol=2e-4, rtol=1e-4)


def test_the_sampler_itself_is_held(tiny_pipeline, days):
    """Not only the decoded fields: a shift afterwards would be another distribution."""
    checkpoint = untrained(tiny_pipeline, "edm")
    prep = checkpoint.preprocessor
    means = CoarseMeans.of(prep, TAS)
    batch = tiny_pipeline.windows("test").batch([0, 3])
    coarse = means.values(batch.lr[:, -1])
    projection = means.projection(coarse, batch.baseline[:, -1])
    residual = torch.randn(2, 3, 3, *prep.hr_grid.shape, dtype=torch.float64)
    held = prep.decode(projection(residual), batch.baseline[:, None, -1])
    found = means.blocks.means(held[:, :, 0])[..., means.blocks.filled]
    wanted = coarse[:, None, 0, means.blocks.filled].expand_as(found)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    # The other channels are free.
    assert torch.equal(projection(residual)[:, :, 1:], residual[:, :, 1:])


def test_blocks_are_those_that_the_land_fills(tiny_pipeline):
    prep = tiny_pipeline.preprocessor
    means = CoarseMeans.of(prep, TAS)
    inside = means.blocks.index >= 0
    land = torch.from_numpy(np.asarray(prep.valid).all(axis=0))
    assert not (inside & ~land).any()
    assert 0 < int(means.blocks.filled.sum()) < means.blocks.count


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"snow": "tas"}, r"unknown value of target[\s\S]*snow"),
        ({"tasmin": "snow"}, r"unknown value of predictor[\s\S]*snow"),
        ({"tasmin": "q_850"}, "no coarse counterpart"),
        ({"tasmax": "tas"}, "whose means are free"),
    ],
)
def test_means_that_cannot_be_held_are_refused(
    tiny_pipeline, tiny_files, tmp_path, names, words
):
    checkpoint = untrained(tiny_pipeline, "one_step")
    with pytest.raises(ConfigError, match=words) as caught:
        downscale(
            checkpoint,
            tiny_files / "lr.nc",
            tmp_path / "o.nc",
            sampling=Sampling(block_means=names),
        )
    assert "block_means" in str(caught.value)
    assert not list(tmp_path.iterdir())
