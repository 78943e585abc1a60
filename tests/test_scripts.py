"""The original's command-line tools: help, options, and what they do."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import xarray as xr

from st_cdgm.config.load import load_config
from st_cdgm.data.store.preprocess import verify_output

ROOT = Path(__file__).parents[1]
PERIODS = ["--train", "2001-01-01", "2001-05-31", "--test", "2001-07-15", "2001-08-28"]
# Every tool with some of its options.
TOOLS = {
    "ops/train_st_cdgm": ["KEY=VALUE", "--config", "--resume"],
    "ops/preprocess_to_zarr": ["--lr_path", "--seq_len", "--chunk_size_time"],
    "ops/preprocess_to_shards": ["--lr_path", "--stride", "--shard_size"],
    "scripts/run_training": ["--data-format", "--checkpoint-dir", "--log-file"],
    "scripts/run_preprocessing": ["--format", "--lr-path", "--output-dir"],
    "scripts/run_evaluation": ["--num-samples", "--scheduler", "--steps"],
    "scripts/run_full_pipeline": ["--skip-preprocessing", "--synthetic"],
    "scripts/load_model": ["--checkpoint", "--device"],
    "scripts/save_model": ["--checkpoint", "--output-dir"],
    "scripts/test_pipeline": [],
    "scripts/test_installation": [],
    "scripts/validate_setup": ["--root"],
    "scripts/sync_datastore": ["--save-to-datastore", "--list", "--dry-run"],
    "scripts/vice_utils": [],
    "scripts/cleanup_repeated_lines": ["notebook", "--dry-run"],
}


@pytest.fixture
def tool(monkeypatch, capsys):
    """Run a tool as a program would; return its exit status and output."""

    def run(name, *arguments):
        path = ROOT / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        monkeypatch.syspath_prepend(str(path.parent))
        code = 0
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as error:
            code = error.code or 0
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture
def functions(monkeypatch):
    """Return the functions of a tool."""

    def load(name):
        monkeypatch.syspath_prepend(str((ROOT / name).parent))
        return runpy.run_path(str(ROOT / f"{name}.py"), run_name="tool")

    return load


@pytest.fixture
def configuration(tiny_files, tmp_path):
    """Write the settings of a training of seconds on the toy climate."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
run: {{dir: {tmp_path}/run}}
data:
  root: {tiny_files}
  lr_path: lr.nc
  hr_path: hr.nc
  static_path: static.nc
  seq_len: 3
  stride: 8
  splits:
    train: ["2001-01-01", "2001-05-31"]
    validation: ["2001-06-03", "2001-07-10"]
    test: ["2001-07-15", "2001-08-28"]
encoder: {{hidden_dim: 8, conditioning_dim: 8}}
diffusion:
  spatial_channels: 8
  noise_margin: 2
  unet: {{block_out_channels: [8, 16], norm_num_groups: 4, attention_head_dim: 4}}
training: {{epochs: 1, validation_stride: 8, fit_noise_memory: false}}
"""
    )
    return path


@pytest.mark.parametrize("name", TOOLS)
def test_help(tool, name):
    code, text = tool(name, "--help")
    assert code == 0
    assert all(option in text for option in TOOLS[name])
    lines = (ROOT / f"{name}.py").read_text("utf-8").splitlines()
    assert len(lines) <= 60, "a tool is thin: what it does is in the package"


def test_every_tool_is_listed():
    found = {
        f"{path.parent.name}/{path.stem}"
        for folder in ("ops", "scripts")
        for path in (ROOT / folder).glob("*.py")
    }
    assert found - {"ops/_options", "scripts/demo_picture"} == set(TOOLS)


@pytest.mark.parametrize("kind", ["zarr", "shards"])
def test_preprocessing_with_the_options_of_the_original(
    tool, tiny_files, tmp_path, kind
):
    # D90: a factor of 2.0, which the shard writer refused.
    out = tmp_path / "out"
    files = ["--lr_path", tiny_files / "lr.nc", "--hr_path", tiny_files / "hr.nc"]
    code, text = tool(
        f"ops/preprocess_to_{kind}",
        *files,
        *("--output_dir", out, "--seq_len", 3, "--normalize", *PERIODS),
        *("--target_transform", "log1p", "--hr_variables", "pr"),
    )
    assert code == 0, text
    assert f"Written: {out}" in text
    made = verify_output(out)
    assert (made["baseline_factor"], made["target_transform"]) == (4, "log1p")
    assert made["variables"]["residual"] == ["pr"]
    assert set(made["splits"]) == {"train", "test"}


def test_preprocessing_checks_the_files_first(
    tool, configuration, tiny_files, tmp_path
):
    out = tmp_path / "new" / "store"
    given = ["--config", configuration, "--output-dir", out]
    code, text = tool("scripts/run_preprocessing", *given, "--lr-path", tmp_path)
    assert code == 2
    assert "the predictor file does not exist" in text
    code, text = tool("scripts/run_preprocessing", *given)
    assert code == 0, text
    assert verify_output(out)["num_days"] > 200


def test_training_keeps_checkpoint_and_logs(tool, configuration, tmp_path):
    code, text = tool(
        "scripts/run_training",
        *("--config", configuration, "--epochs", 2, "--device", "cpu"),
        *("--checkpoint-dir", tmp_path / "mine", "--log-file", tmp_path / "log.txt"),
        "training.batch_size=16",
    )
    assert code == 0, text
    run = tmp_path / "mine"
    assert (run / "checkpoints" / "best").is_dir()
    kept = load_config(run / "config.yaml")
    assert (kept.training.epochs, kept.training.accelerator) == (2, "cpu")
    assert "training:" in (tmp_path / "log.txt").read_text("utf-8")


@pytest.mark.slow
def test_evaluation_writes_scores_figures_and_report(
    tool, trained, tiny_files, tmp_path
):
    out = tmp_path / "scores"
    code, text = tool(
        "scripts/run_evaluation",
        *("--checkpoint", trained.checkpoint, "--num-samples", 2),
        *("--lr-path", tiny_files / "lr.nc", "--hr-path", tiny_files / "hr.nc"),
        *("--start", "2001-07-15", "--end", "2001-08-05", "--output-dir", out),
    )
    assert code == 0, text
    assert "f1_p99" in text
    with xr.open_dataset(out / "downscaled.nc") as made:
        assert made.sizes["realization"] == 2
    assert (out / "report.html").is_file()
    assert list((out / "figures").glob("maps-*.png"))


def test_models_are_saved_and_loaded(tool, trained, tmp_path):
    code, text = tool(
        "scripts/save_model",
        *("--checkpoint", trained.checkpoint, "--output-dir", tmp_path / "kept"),
        *("--note", "first"),
    )
    assert code == 0, text
    (description,) = (tmp_path / "kept").glob("st_cdgm_*.json")
    content = json.loads(description.read_text("utf-8"))
    assert content["note"] == "first"
    assert content["targets"]["pr"] == "mm day-1"
    code, text = tool(
        *("scripts/load_model", "--device", "cpu"),
        *("--checkpoint", description.with_suffix("")),
    )
    assert code == 0, text
    assert "M parameters" in text


def test_a_sound_checkout_and_a_broken_one(tool, tmp_path):
    code, text = tool("scripts/validate_setup")
    assert (code, text) == (0, "The checkout is sound.\n")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "bad.py").write_text("def f(:\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "a.yaml").write_text("training: {epoch: 3}\n")
    code, text = tool("scripts/validate_setup", "--root", tmp_path)
    assert code == 1
    assert "README.md: missing" in text
    assert "src/bad.py: invalid syntax" in text
    assert "training.epochs" in text


def test_the_installation_is_checked(tool):
    code, text = tool("scripts/test_installation")
    assert code == 0, text
    assert "all parts" in text
    assert "CyVerse VICE" in text


# -- A store like CyVerse's ------------------------------------------------------------


def test_the_store_is_found(functions, tmp_path, monkeypatch):
    tools = functions("scripts/vice_utils")
    for name in tools["VARIABLES"]:
        monkeypatch.delenv(name, raising=False)
    store = tmp_path / "data-store"
    assert not tools["on_vice"](store)
    for name in ("me", "shared"):
        (store / "home" / name).mkdir(parents=True)
    assert tools["on_vice"](store)
    assert tools["store_home"](store) == store / "home" / "me"
    monkeypatch.setenv("IPLANT_USER", "you")
    assert tools["store_home"](store) == store / "home" / "you"
    monkeypatch.chdir(tmp_path)
    assert [path.is_dir() for path in tools["ensure_folders"]()] == [True] * 3


def test_copies_go_on_delete_nothing_and_stay_inside(tool, tmp_path, monkeypatch):
    store, disk = tmp_path / "store", tmp_path / "disk"
    (disk / "deep").mkdir(parents=True)
    (disk / "a.txt").write_text("a")
    (disk / "deep" / "b.txt").write_text("b")
    store.mkdir()
    (store / "mine").mkdir()
    (store / "mine" / "old.txt").write_text("old")
    save = ("scripts/sync_datastore", "--root", store, "--save-to-datastore", disk)

    code, text = tool(*save, "mine", "--dry-run")
    assert (code, text.count("would copy")) == (0, 2)
    assert not (store / "mine" / "a.txt").exists()
    (store / "mine" / "a.txt").write_text("interrupted")
    assert tool(*save, "mine")[1].count("copied") == 2
    assert (store / "mine" / "a.txt").read_text() == "a"
    assert (store / "mine" / "deep" / "b.txt").read_text() == "b"
    assert (store / "mine" / "old.txt").read_text() == "old"
    assert tool(*save, "mine") == (0, "")
    assert "mine/" in tool("scripts/sync_datastore", "--root", store, "--list")[1]

    code, _ = tool(*save, "../elsewhere")
    assert "outside the store" in code
    assert not (tmp_path / "elsewhere").exists()
    back = ("--copy-from-datastore", "mine", tmp_path / "back")
    tool("scripts/sync_datastore", "--root", store, *back)
    assert (tmp_path / "back" / "deep" / "b.txt").read_text() == "b"


def test_repeated_lines_go_once_with_a_backup(tool, tmp_path):
    path = tmp_path / "n.ipynb"
    cells = [
        {"cell_type": "code", "source": ["x = 1\n", "x = 1\n", "\n", "\n", "y"]},
        {"cell_type": "markdown", "source": "one\none"},
    ]
    before = json.dumps({"cells": cells})
    path.write_text(before)
    name = "scripts/cleanup_repeated_lines"
    assert "2 repeated lines found" in tool(name, path, "--dry-run")[1]
    assert path.read_text() == before
    assert "2 repeated lines removed" in tool(name, path)[1]
    made = [cell["source"] for cell in json.loads(path.read_text())["cells"]]
    assert made == [["x = 1\n", "\n", "\n", "y"], "one"]
    assert "0 repeated lines" in tool(name, path)[1]
    assert (tmp_path / "n.ipynb.bak").read_text() == before


# -- The whole way ---------------------------------------------------------------------


@pytest.mark.slow
def test_the_whole_pipeline_and_its_steps(tool, configuration, tmp_path):
    given = ("scripts/run_full_pipeline", "--config", configuration)
    less = ("evaluation.references=[climatology]", "inference.members=2")
    code, text = tool(*given, *less)
    assert code == 0, text
    run = tmp_path / "run"
    assert (run / "prepared.zarr").is_dir()
    assert (run / "report.html").is_file()
    assert tool(*given, *less)[0] == 2  # nothing is replaced unasked
    code, text = tool(*given, *less, "--skip-preprocessing", "--skip-training")
    assert code == 0, text
    assert (run / "evaluation" / "report.html").is_file()


@pytest.mark.slow
def test_the_end_to_end_check(tool):
    code, text = tool("scripts/test_pipeline")
    assert code == 0, text
    assert "The pipeline works." in text
