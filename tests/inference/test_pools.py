"""Networks of a pool share the members of an ensemble."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint, pool_checkpoints
from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.inference.downscale import downscale
from st_cdgm.runs.steps import network_configs
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import train

DAYS = {"start": "2001-07-15", "end": "2001-07-20"}


@pytest.fixture(scope="module")
def other(tiny_pipeline, tmp_path_factory) -> Path:
    """A second, wider network."""
    model = tiny_model()
    model.encoder.hidden_dim = 12
    return train(
        tiny_pipeline,
        model=model,
        loss=LossConfig(),
        training=TrainingConfig(epochs=1, batch_size=16),
        run_dir=tmp_path_factory.mktemp("other"),
        seed=3,
    ).checkpoint


@pytest.fixture(scope="module")
def pool(trained, other, tmp_path_factory) -> Path:
    first = tmp_path_factory.mktemp("pool") / "best"
    shutil.copytree(trained.checkpoint, first)
    return pool_checkpoints(first, [other])


def made(checkpoint, tiny_files, path, **options) -> xr.Dataset:
    downscale(checkpoint, tiny_files / "lr.nc", path, seed=1, **DAYS, **options)
    with xr.open_dataset(path, decode_times=False) as opened:
        return opened.load()


def test_member_m_is_made_by_network_m_modulo_k(
    pool, trained, other, tiny_files, tmp_path
):
    whole = made(pool, tiny_files, tmp_path / "pool.nc", members=5)
    assert whole["network"].values.tolist() == [0, 1, 0, 1, 0]
    for number, alone in enumerate((trained.checkpoint, other)):
        single = made(alone, tiny_files, tmp_path / f"{number}.nc", members=5)
        assert "network" not in single
        np.testing.assert_allclose(
            whole["tasmin"][:, number::2],
            single["tasmin"][:, number::2],
            atol=1e-4,
        )


def test_fewer_members_than_networks(pool, trained, tiny_files, tmp_path):
    one = made(pool, tiny_files, tmp_path / "one.nc", members=1)
    alone = made(trained.checkpoint, tiny_files, tmp_path / "alone.nc", members=1)
    assert "network" not in one
    np.testing.assert_allclose(one["pr"], alone["pr"], atol=1e-4)


def test_a_pool_is_one_directory(pool, other):
    loaded = load_checkpoint(pool)
    assert len(loaded.networks) == 2
    assert loaded.others[0].model.config.encoder.hidden_dim == 12
    # Pooled again it is the same pool: nothing lies inside of something else.
    pool_checkpoints(pool, [other, other])
    names = sorted(p.name for p in (pool / "networks").iterdir())
    assert names == ["1", "2"]
    assert not (pool / "networks" / "1" / "networks").exists()
    pool_checkpoints(pool, [other])


def test_networks_of_other_variables_are_refused(trained, other, tmp_path, monkeypatch):
    first = tmp_path / "best"
    shutil.copytree(trained.checkpoint, first)
    monkeypatch.setattr("st_cdgm.checkpoint.directory._same_grid", lambda *_: False)
    with pytest.raises(InputError, match="different fields"):
        pool_checkpoints(first, [other])
    assert sorted(p.name for p in first.iterdir()) == [
        p.name for p in sorted(trained.checkpoint.iterdir())
    ]


def test_every_network_has_a_seed_and_its_variant():
    config = load_config(
        "demo",
        [
            "run.seed=5",
            "training.ensemble=3",
            "training.variants=[{},{encoder.hidden_dim: 24}]",
        ],
    )
    found = [(c.run.seed, c.encoder.hidden_dim) for c in network_configs(config)]
    own = config.encoder.hidden_dim
    assert found == [(5, own), (6, 24), (7, own)]
    assert config.run.seed == 5


@pytest.mark.parametrize(
    ("variant", "word"),
    [
        ("{run.dir: elsewhere}", "run.dir"),
        ("{encoder.hiden_dim: 24}", "hiden_dim"),
        ("{encoder.hidden_dim: wide}", "hidden_dim"),
    ],
)
def test_variants_that_make_no_sense_are_refused(variant, word):
    config = load_config(
        "demo", ["training.ensemble=2", f"training.variants=[{{}},{variant}]"]
    )
    with pytest.raises(ConfigError, match=word):
        network_configs(config)
