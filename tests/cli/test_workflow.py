"""Run directories, provenance, tables; and the whole way on a tiny climate (slow)."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, MissingFileError
from st_cdgm.evaluation.scorecard import Scorecard
from st_cdgm.runs import checks as _checks
from st_cdgm.runs import directory, steps, workflow
from st_cdgm.runs import provenance as _provenance
from st_cdgm.runs.console import Session
from st_cdgm.runs.score_table import scorecard_table


@pytest.fixture
def config(tmp_path: Path):
    root = tmp_path / "data"
    root.mkdir()
    for name in ("predictors.nc", "targets.nc", "static.nc"):
        (root / name).write_bytes(name.encode())
    return load_config("demo", [f"data.root='{root}'", f"run.dir='{tmp_path / 'run'}'"])


def test_run_directory_says_where_it_comes_from(config, tmp_path):
    run_dir = directory.prepare_run(config, Session())
    assert run_dir == tmp_path / "run"
    assert load_config(run_dir / "config.yaml") == config
    origin = json.loads((run_dir / "provenance.json").read_text("utf-8"))
    file = tmp_path / "data" / "predictors.nc"
    assert origin["data"][str(file)] == hashlib.sha256(b"predictors.nc").hexdigest()
    assert len(origin["data"]) == 3
    assert origin["seed"] == config.run.seed
    assert origin["libraries"]["torch"]
    assert (run_dir / "run.log").is_file()


def test_missing_data_leaves_no_run_directory(config, tmp_path):
    (tmp_path / "data" / "targets.nc").unlink()
    with pytest.raises(MissingFileError, match=r"targets\.nc"):
        directory.prepare_run(config, Session())
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_mixed_with_another(config):
    run_dir = directory.prepare_run(config, Session())
    config.training.epochs += 1
    directory.prepare_run(config, Session())  # nothing was trained yet
    (run_dir / "checkpoints").mkdir()
    directory.prepare_run(config, Session())  # the same run once more
    config.training.epochs += 1
    with pytest.raises(ConfigError, match="another configuration"):
        directory.prepare_run(config, Session())


def test_demo_refuses_before_it_writes(tmp_path):
    from typer.testing import CliRunner

    from st_cdgm.cli.main import app

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("run: {seed: 9}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert "another configuration" in result.stderr
    assert not (tmp_path / "data").exists()


def test_checksum_of_a_directory_and_of_a_pattern(tmp_path):
    store = tmp_path / "a.zarr"
    store.mkdir()
    (store / "zarr.json").write_bytes(b"1")
    (store / "c").write_bytes(b"2")
    for name in ("x_1.nc", "x_2.nc"):
        (tmp_path / name).write_bytes(name.encode())
    found = _provenance.checksums([str(store), str(tmp_path / "x_*.nc")])
    assert found[str(store)] == hashlib.sha256(b"21").hexdigest()
    assert len(found) == 3


def test_a_run_needs_a_test_period(config):
    config.data.splits.test = []
    with pytest.raises(ConfigError, match="no test period"):
        _checks.check_test_period(config)


def test_table_marks_the_best_source():
    rows = [
        ("st-cdgm", "pr", "crps", 0.5, "mm day-1"),
        ("ridge", "pr", "crps", 0.75, "mm day-1"),
        ("st-cdgm", "tas", "crps", 1.5, "degC"),
        ("ridge", "tas", "crps", 1.25, "degC"),
        ("lr_interp", "tas", "crps", math.nan, "degC"),
    ]
    frame = pd.DataFrame(
        rows, columns=["source", "variable", "metric", "value", "units"]
    )
    out = io.StringIO()
    Console(file=out, width=100).print(scorecard_table(Scorecard(rows=frame)))
    lines = {
        line.split()[0]: line.split()[1:]
        for line in out.getvalue().splitlines()
        if line.strip()
    }
    assert lines["source"] == ["pr", "[mm", "day-1]", "tas", "[degC]"]
    assert lines["st-cdgm"] == ["0.500", "*", "1.500"]
    assert lines["ridge"] == ["0.750", "1.250", "*"]
    assert lines["lr_interp"] == ["-", "-"]


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    config = load_config(
        "demo_quick",
        [
            f"data.root='{tmp_path / 'data'}'",
            f"run.dir='{tmp_path / 'run'}'",
            "synthetic.hr_shape=[16,16]",
            "data.stride=8",
            "training.epochs=1",
            "inference.members=3",
            "evaluation.stride=10",
        ],
    )
    steps.make_climate(config, tmp_path / "data", Session())
    report = workflow.run_workflow(config, Session())
    run_dir = tmp_path / "run"
    assert report == run_dir / "report.html"
    card = Scorecard.from_json(run_dir / "scorecard.json")
    assert set(card.rows["source"]) == {"st-cdgm", *config.evaluation.references}
    assert (run_dir / "checkpoints" / "best" / "model.safetensors").is_file()
    for name in ("downscaled.nc", "dag.json", "dag.csv", "diagnostics.nc", "run.log"):
        assert (run_dir / name).stat().st_size > 0
