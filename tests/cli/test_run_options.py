"""``--resume`` of the verbs that train, and options of ``downscale``."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from st_cdgm.cli.main import app
from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError
from st_cdgm.inference import downscale as inference
from st_cdgm.training import fit


class StopError(Exception):
    """Nothing more is to happen."""


@pytest.fixture
def trained_with(monkeypatch):
    """Record how the training is called; go no further."""
    seen = {}

    def fake(*_, **options):
        seen.update(options)
        raise StopError

    monkeypatch.setattr(fit, "train", fake)
    return seen


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_training_is_resumed_if_asked_for(tiny_files, tmp_path, trained_with, more):
    given = [
        *("train", "--config=demo_quick", *more, f"data.root={tiny_files}"),
        *("data.lr_path=lr.nc", "data.hr_path=hr.nc", "data.static_path=static.nc"),
        "data.baseline_map={tasmin: tas, tasmax: tas}",
        "data.splits.train=[2001-01-01,2001-05-31]",
        "data.splits.validation=[2001-06-03,2001-07-10]",
        "data.splits.test=[2001-07-15,2001-08-28]",
        *("data.seq_len=3", f"run.dir={tmp_path / 'run'}"),
    ]
    state = tmp_path / "run" / "checkpoints" / "last" / "state.json"
    if more:  # without one there is nothing to resume
        state.parent.mkdir(parents=True)
        state.write_text("{}")
    CliRunner().invoke(app, given)
    assert trained_with["resume"] is bool(more)


def test_downscale_hands_on_guidance_and_block_means(monkeypatch):
    seen = {}

    def fake(*_, **options):
        seen.update(options)
        raise StopError

    monkeypatch.setattr(inference, "downscale", fake)
    files = ["--checkpoint", "a", "--lr", "b.nc", "--output", "c.nc"]
    CliRunner().invoke(
        app,
        ["downscale", *files, "--guidance-scale", "1.5", "--block-means", "pr=pr"],
    )
    assert seen["sampling"].guidance_scale == 1.5
    assert seen["sampling"].block_means == {"pr": "pr"}
    assert seen["sampling"].calibrate is True
    assert seen["device"] == "auto"
    CliRunner().invoke(app, ["downscale", *files, "--no-calibrate"])
    assert seen["sampling"].calibrate is False
    wrong = CliRunner().invoke(app, ["downscale", *files, "--block-means", "pr"])
    assert wrong.exit_code == 2
    assert "TARGET=PREDICTOR" in wrong.stderr


def test_the_settings_are_within_reach():
    config = load_config(
        "demo",
        [
            "inference.guidance_scale=1.5",
            "inference.block_means={pr: pr}",
            "diffusion.scheduler_type=edm",
            "diffusion.condition_dropout=0.1",
            "training.lr_scheduler.enabled=true",
            "training.early_stopping.restore_best=false",
        ],
    )
    assert config.inference.block_means == {"pr": "pr"}
    assert config.training.lr_scheduler.min_lr == 1e-7
    for text in (
        "inference.guidance_scale=nan",
        "training.lr_scheduler.factor=2",
        "training.early_stopping.patience=0",
    ):
        key = text.partition("=")[0]
        with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
            load_config("demo", [text])
