"""The configurations of the original: every key is there, and has its effect."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tests.toy import tiny_model

from st_cdgm.checkpoint.build import build_model
from st_cdgm.config.keys import all_keys
from st_cdgm.config.load import load_config
from st_cdgm.config.schema import Config
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import ConfigError
from st_cdgm.models.config import GraphConfig, ModelConfig, RCNConfig
from st_cdgm.training.callbacks import PlateauSchedule
from st_cdgm.training.config import LrSchedulerConfig, TrainingConfig
from st_cdgm.training.fit import _trainer
from st_cdgm.training.resume import StateStore

ROOT = Path(__file__).parents[2]
FILES = {
    name: ROOT / "config" / f"{name}.yaml"
    for name in ("training_config", "training_config_vice")
}
SAME = {
    "data": {
        "static_path": None,
        "seq_len": 6,
        "stride": 1,
        "baseline_factor": 4,
        "normalize": True,
        "target_transform": None,
        "nan_fill_strategy": "zero",
        "precipitation_delta": 0.01,
        "lr_variables": None,
        "hr_variables": None,
        "static_variables": None,
    },
    "graph": {"lr_shape": [23, 26], "hr_shape": [172, 179], "static_variables": []},
    "encoder": {"hidden_dim": 128, "conditioning_dim": 128},
    "rcn": {"hidden_dim": 128, "dropout": 0.0, "detach_interval": None},
    "diffusion": {
        "conditioning_dim": 128,
        "height": 172,
        "width": 179,
        "steps": 1000,
        "scheduler_type": "ddpm",
        "use_gradient_checkpointing": False,
    },
    "loss": {
        "lambda_gen": 1.0,
        "beta_rec": 0.1,
        "gamma_dag": 0.1,
        "lambda_phy": 0.0,
        "dag_method": "dagma",
        "dagma_s": 1.0,
        "use_focal_loss": False,
        "focal_alpha": 1.0,
        "focal_gamma": 2.0,
        "extreme_weight_factor": 0.0,
        "extreme_percentiles": [95.0, 99.0],
        "dag_l1_regularization": False,
        "dag_l1_weight": 0.01,
        "reconstruction_loss_type": "mse",
    },
    "training": {
        "device": "cpu",
        "use_amp": False,
        "early_stopping": {"patience": 7, "min_delta": 0.0, "restore_best": True},
        "lr_scheduler": {"mode": "min", "factor": 0.5, "patience": 3, "min_lr": 1e-7},
        "physical_loss": {
            "use_predicted_output": False,
            "physical_sample_interval": 10,
            "physical_num_steps": 15,
        },
    },
    "evaluation": {
        "enabled": True,
        "num_samples": 10,
        "compute_f1_extremes": True,
        "f1_percentiles": [95.0, 99.0],
        "save_visualizations": True,
    },
}
OWN = {
    "training_config": {
        "epochs": 1,
        "lr": 5e-5,
        "gradient_clipping": 0.5,
        "log_every": 1,
        "early_stopping": {"enabled": False},
        "lr_scheduler": {"enabled": False},
    },
    "training_config_vice": {
        "epochs": 100,
        "lr": 1e-4,
        "gradient_clipping": 1.0,
        "log_every": 10,
        "early_stopping": {"enabled": True},
        "lr_scheduler": {"enabled": True},
    },
}
# What the original has otherwise: an oracle; sizes that are not those of its data; a
# folder that is the run's own. Metapaths name levels that its data need not have.
OTHERWISE = {
    "data.baseline_strategy": "auto",
    "graph.include_mid_layer": None,
    "rcn.driver_dim": None,
    "rcn.reconstruction_dim": None,
    "diffusion.in_channels": None,
    "encoder.metapaths": [],
    "evaluation.output_dir": "figures",
}


@pytest.fixture(autouse=True)
def no_container(monkeypatch):
    for name in ("DATA_RAW_DIR", "RESULTS_DIR", "USE_AMP", "LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def value(config, key):
    return OmegaConf.select(OmegaConf.structured(config), key)


@pytest.mark.parametrize("name", FILES)
def test_the_files_have_the_values_of_the_original(name):
    config = OmegaConf.structured(load_config(FILES[name]))
    expected = OmegaConf.create({**SAME, "training": SAME["training"]})
    expected = OmegaConf.merge(expected, {"training": OWN[name]})
    assert OmegaConf.to_container(OmegaConf.merge(config, expected)) == (
        OmegaConf.to_container(config)
    )
    for key, found in OTHERWISE.items():
        assert value(config, key) == found
    written = OmegaConf.load(FILES["training_config"])
    for key in OTHERWISE:
        section, _, last = key.rpartition(".")
        assert last in OmegaConf.select(written, section)


def test_the_environment_of_the_container_reaches_the_file(monkeypatch):
    # D93: variables of docker.env that nothing read.
    lines = (ROOT / "config" / "docker.env").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    # D92: a value of it that hides every GPU.
    assert "CUDA_VISIBLE_DEVICES" not in given
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    config = load_config(FILES["training_config"])
    assert config.data.root == "/workspace/data/raw"
    assert config.run.dir == "/workspace/results/training"
    assert config.training.precision == "bf16-mixed"
    assert config.run.log_level == "INFO"
    assert given["DEFAULT_CONFIG"].endswith("config/training_config.yaml")


def test_the_original_name_of_the_default_values(tmp_path):
    text = "defaults: [st_cdgm_default, _self_]\n"
    text += "data: {splits: {train: ['2001', '2002']}}\n"
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("st_cdgm_default", "base"))
    assert load_config(tmp_path / "a.yaml") == load_config(tmp_path / "b.yaml")


# -- Keys that set others --------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("training.device=cpu", "training.accelerator", "cpu"),
        ("training.device=cuda", "training.accelerator", "gpu"),
        ("training.device=cuda", "inference.device", "cuda"),
        ("training.device=auto", "inference.device", "auto"),
        ("training.use_amp=true", "training.precision", "bf16-mixed"),
        ("training.use_amp=false", "training.precision", "32-true"),
        ("evaluation.num_samples=7", "inference.members", 7),
        ("graph.static_variables=[orog]", "data.static_variables", ["orog"]),
        ("graph.static_variables=[]", "data.static_path", None),
    ],
)
def test_another_name_sets_the_key(override, key, expected, caplog, tmp_path):
    with caplog.at_level(logging.INFO, logger="st_cdgm.config.original"):
        config = load_config("demo", [override])
    assert value(config, key) == expected
    if value(load_config("demo"), key) != expected:
        assert f"{key}={expected}" in caplog.text
    # Settled once and for all.
    before = replace(config)
    config.check()
    assert config == before


@pytest.mark.parametrize(
    ("overrides", "right"),
    [
        (["training.device=cuda", "training.accelerator=cpu"], "accelerator=gpu"),
        (["training.device=tpu"], "auto | cpu"),
        (["training.use_amp=false", "training.precision=16-mixed"], "32-true"),
        (
            ["graph.static_variables=[orog]", "data.static_variables=[sftlf]"],
            "data.static_variables=['orog']",
        ),
        (["evaluation.output_dir=../elsewhere"], "a folder in run.dir"),
        (
            ["evaluation.compute_f1_extremes=true", "evaluation.f1_percentiles=[97]"],
            "f1_",
        ),
        (["training.lr_scheduler.mode=mean"], "max"),
        (["training.log_every=0"], "at least 1"),
    ],
)
def test_two_values_for_one_setting_are_refused(overrides, right):
    with pytest.raises(ConfigError) as caught:
        load_config("demo", overrides)
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log1p", "log1p"),
        ("{pr: log1p, sfcWind: log}", {"pr": "log1p", "sfcWind": "log"}),
    ],
)
def test_transforms_of_all_targets_or_of_each(text, expected):
    config = load_config("demo", [f"data.target_transform={text}"])
    assert config.data.target_transform == expected
    with pytest.raises(ConfigError, match="unknown target transform"):
        load_config("demo", ["data.target_transform={pr: cube}"])


def test_percentiles_choose_metrics():
    off = load_config("demo", ["evaluation.f1_percentiles=[90, 99.9]"])
    on = load_config(
        "demo",
        [
            "evaluation.compute_f1_extremes=true",
            "evaluation.f1_percentiles=[90, 99.9]",
            "evaluation.metrics=[fss]",
        ],
    )
    assert off.evaluation.chosen_metrics() == []
    assert on.evaluation.chosen_metrics() == ["fss", "f1_p90", "f1_p99.9"]


# -- Sizes that are checked ------------------------------------------------------------


def stated(**changes):
    """A small model's settings with sizes that a configuration states."""
    config = tiny_model()
    for section, values in changes.items():
        for key, found in values.items():
            setattr(getattr(config, section), key, found)
    return config


def built(pipeline, config: ModelConfig):
    channels = len(pipeline.preprocessor.targets)
    zeros = torch.zeros(channels)
    return build_model(
        pipeline.preprocessor, config, baseline_mean=zeros, baseline_std=zeros + 1
    )


def sizes(pipeline):
    prep = pipeline.preprocessor
    model = built(pipeline, stated())
    return {
        "graph.lr_shape": list(prep.lr_grid.shape),
        "graph.hr_shape": list(prep.hr_grid.shape),
        "graph.include_mid_layer": len([g for g in model.groups if g != "SURF"]) > 1,
        "rcn.hidden_dim": 8,
        "rcn.driver_dim": model.driver_dim,
        "rcn.reconstruction_dim": model.driver_dim,
        "diffusion.in_channels": len(prep.targets),
        "diffusion.conditioning_dim": 8,
        "diffusion.height": prep.hr_grid.shape[0],
        "diffusion.width": prep.hr_grid.shape[1],
    }


def test_right_sizes_pass_and_change_nothing(tiny_pipeline):
    right = sizes(tiny_pipeline)
    config = stated()
    for key, found in right.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, found)
    assert built(tiny_pipeline, config).driver_dim == right["rcn.driver_dim"]


@pytest.mark.parametrize(
    "key",
    [
        "graph.lr_shape",
        "graph.hr_shape",
        "graph.include_mid_layer",
        "rcn.hidden_dim",
        "rcn.driver_dim",
        "rcn.reconstruction_dim",
        "diffusion.in_channels",
        "diffusion.conditioning_dim",
        "diffusion.height",
        "diffusion.width",
    ],
)
def test_a_wrong_size_is_refused_with_the_right_one(tiny_pipeline, key):
    # D31: a graph without the levels of its meta-paths ended in a KeyError.
    # D43: sizes of 8 channels whatever the data.
    section, name = key.split(".")
    right = sizes(tiny_pipeline)[key]
    wrong = {
        bool: lambda v: not v,
        int: lambda v: v + 1,
        list: lambda v: [v[0], v[1] + 1],
    }
    found = wrong[type(right)](right)
    with pytest.raises(ConfigError) as caught:
        built(tiny_pipeline, stated(**{section: {name: found}}))
    assert caught.value.facts["variable"] == key
    assert caught.value.facts["expected"] == f"{key}={right}"


def test_all_wrong_sizes_are_named_at_once(tiny_pipeline):
    config = stated(rcn={"driver_dim": 99}, diffusion={"width": 1})
    with pytest.raises(ConfigError, match=r"rcn\.driver_dim, diffusion\.width"):
        built(tiny_pipeline, config)
    assert GraphConfig().lr_shape is RCNConfig().driver_dim is None


# -- Keys of the training --------------------------------------------------------------


def test_losses_are_logged_every_so_many_updates(tmp_path):
    made = _trainer(TrainingConfig(log_every=7), tmp_path, [], StateStore())
    assert made.log_every_n_steps == 7


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_learning_rate_falls_where_the_score_no_longer_improves(mode):
    class Trainer:
        sanity_checking, callback_metrics = False, {}

    settings = LrSchedulerConfig(enabled=True, mode=mode, patience=0, factor=0.1)
    settings.check()
    schedule, module = PlateauSchedule(settings, 1.0), torch.nn.Linear(1, 1)
    for loss, factor in ((1.0, 1.0), (0.5, 1.0), (0.5, 0.1), (0.4, 0.1), (0.6, 0.01)):
        Trainer.callback_metrics = {"val_loss": torch.tensor(loss)}
        schedule.on_validation_end(Trainer(), module)
        assert module.lr_factor == pytest.approx(factor)


def test_keys_of_the_original_are_keys_here():
    keys = set(all_keys())
    flat = [
        f"{section}.{key}" for section, found in SAME.items() for key in found
    ] + list(OTHERWISE)
    assert [key for key in flat if key not in keys] == []
    assert isinstance(Config().data.splits, SplitConfig)
