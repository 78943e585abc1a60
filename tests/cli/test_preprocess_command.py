"""``st-cdgm preprocess``: both formats, checks, messages."""

from __future__ import annotations

import pytest
import yaml
from tests.data import small_task
from typer.testing import CliRunner

from st_cdgm.cli.main import EXIT_INPUT, EXIT_INTERRUPTED, app
from st_cdgm.data.store import preprocess as library
from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    small_task.write(folder, time=small_task.stamps(240))
    file = folder / "task.yaml"
    data = {
        "root": str(folder),
        "lr_path": "lr.nc",
        "hr_path": "hr.nc",
        "static_path": "static.nc",
        "seq_len": 4,
        "baseline_map": small_task.MAP,
        "splits": small_task.SPLITS,
    }
    file.write_text(yaml.safe_dump({"data": data}))
    return file


def call(*arguments):
    return CliRunner().invoke(app, ["preprocess", *map(str, arguments)])


def test_zarr(config, tmp_path):
    out = tmp_path / "z"
    result = call("--config", config, "--out", out)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"Written: {out} (")
    assert lines[1] == (
        "Content: 240 days, 2001-01-01..2001-08-28; splits: train, validation, test"
    )
    assert f"ZarrDataPipeline('{out}')" in lines[2]
    assert len(ZarrDataPipeline(out).windows("train")) == 117
    checked = call("--verify", out)
    assert checked.exit_code == 0
    assert checked.stdout.startswith(f"Sound: {out}, ")
    (out / "static.zarr" / "orog" / "zarr.json").write_text("{}")
    assert call("--verify", out).exit_code == EXIT_INPUT


def test_webdataset_with_overrides(config, tmp_path):
    out = tmp_path / "s"
    result = call(
        "--config",
        config,
        "--format",
        "webdataset",
        "--out",
        out,
        "--shard-size",
        20,
        "data.seq_len=5",
        "data.stride=2",
    )
    assert result.exit_code == 0, result.output
    dataset = WebDatasetIterableDataset(out / "data_*.tar", split="train")
    assert len(next(iter(dataset))["time"]) == 5
    assert len(dataset) == 58
    assert "windows of 240 days" in result.stdout
    assert str(out / "data_*.tar") in result.stdout


def test_existing_output_is_noticed_before_anything_is_read(config, tmp_path):
    (tmp_path / "z").mkdir()
    result = call("--config", config, "--out", tmp_path / "z", "data.lr_path=no.nc")
    assert result.exit_code == EXIT_INPUT
    assert "exists already" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "--config is missing"),
        (["--config", "demo"], "--out is missing"),
        (["--config", "demo", "--out", "x", "--memory", "much"], "amount of memory"),
        (["--config", "demo", "--out", "x", "--format", "csv"], "csv"),
        (["--config", "demo", "--out", "x", "data.root=/nowhere"], "does not exist"),
        (["--verify", "/nowhere"], "not a preprocessed directory"),
    ],
)
def test_bad_calls(arguments, found):
    result = call(*arguments)
    assert result.exit_code == EXIT_INPUT
    assert found in result.stderr
    assert "Traceback" not in result.stderr


def test_dry_run(config, tmp_path):
    result = call("--config", config, "--dry-run", "data.seq_len=9")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout)["data"]["seq_len"] == 9


def test_interrupted_run_says_how_to_go_on(config, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(library, "write_zarr", interrupted)
        result = call("--config", config, "--out", tmp_path / "z")
    assert result.exit_code == EXIT_INTERRUPTED
    assert "run the same command again" in result.stderr
