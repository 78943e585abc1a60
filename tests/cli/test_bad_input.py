"""Bad input: exit code 2, one message with the facts, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from st_cdgm.cli.main import EXIT_INPUT, EXIT_INTERRUPTED, app
from st_cdgm.runs import console as _console
from st_cdgm.runs import steps as _steps
from st_cdgm.runs import workflow as _workflow


@pytest.fixture(scope="session")
def prediction(
    files: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("prediction") / "ensemble.nc"
    result = downscale(files, checkpoint, output, "--end", "2001-01-10")
    assert result.exit_code == 0, result.output
    return output


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def downscale(files: Path, checkpoint: Path, output: Path, *more: object):
    given = ["--checkpoint", checkpoint, "--lr", files / "lr.nc", "--output", output]
    return call("downscale", *given, "--members", "2", *more)


def train(files: Path, run_dir: Path, *overrides: str, verb: str = "train"):
    return call(
        verb,
        "--config=demo_quick",
        f"data.root={files}",
        *("data.lr_path=lr.nc", "data.hr_path=hr.nc", "data.static_path=static.nc"),
        "data.baseline_map={tasmin: tas, tasmax: tas}",
        "data.splits.train=[2001-01-01,2001-05-31]",
        "data.splits.validation=[2001-06-03,2001-07-10]",
        "data.splits.test=[2001-07-15,2001-08-28]",
        "data.seq_len=3",
        f"run.dir={run_dir}",
        *overrides,
    )


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def facts_of(result) -> dict[str, str]:
    """Check that there is one message and no traceback; return its lines by key."""
    assert result.exit_code == EXIT_INPUT, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    lines = result.stderr[result.stderr.index("Error: ") :].splitlines()
    assert sum(line.startswith(("Error: ", "Failed: ")) for line in lines) == 1
    facts = {"problem": lines[0].removeprefix("Error: ")}
    for line in lines[1:]:
        key, _, value = line.strip().partition(": ")
        facts[key] = value
    return facts


# -- train and run ---------------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    """Fail if anything costly begins."""

    def fail(*_args, **_kwargs):
        raise AssertionError("training began")

    for module in (_steps, _workflow):
        monkeypatch.setattr(module, "train_pool", fail)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("override", "file", "variable", "word"),
    [
        ("data.lr_path=none.nc", "none.nc", "data.lr_path", "predictor file"),
        ("data.hr_path=none.nc", "none.nc", "data.hr_path", "target file"),
        ("data.static_path=none.nc", "none.nc", "data.static_path", "static file"),
        ("data.hr_path=text.nc", "text.nc", None, "cannot be read"),
        ("data.hr_path=cut.nc", "cut.nc", None, "cannot be read"),
        ("data.lr_variables=[w_850,tas,u_850]", "lr.nc", "w_850, u_850", "variable"),
        ("data.lr_variables=[q_700]", "lr.nc", "q_700", "level"),
        ("data.hr_variables=[snow]", "hr.nc", "snow", "variable"),
        ("data.static_path=static_narrow.nc", "static_narrow.nc", None, "shape"),
        ("data.hr_path=hr_later.nc", "hr_later.nc", None, "share no day"),
        ("data.hr_path=hr_other_calendar.nc", "other", None, "calendar"),
        ("data.hr_path=hr_empty.nc", "hr_empty.nc", "pr", "no values"),
        ("data.lr_path=lr_empty.nc", "lr_empty.nc", "q_850", "no values"),
        ("data.splits.test=[2031-01-01,2031-02-01]", "lr.nc", None, "no day"),
    ],
)
def test_training_refuses_a_file(files, tmp_path, override, file, variable, word):
    """The run directory is not begun, neither by ``train`` nor by ``run``."""
    for verb in ("train", "run"):
        facts = facts_of(train(files, tmp_path / "runs/été 1", override, verb=verb))
        assert word in facts["problem"]
        assert file in facts["file"]
        assert facts.get("variable") == variable
        assert {"found", "expected", "remedy"} <= set(facts)
        assert below(tmp_path) == []


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("override", "variable", "word"),
    [
        ("data.lr_path=''", "data.lr_path", "no predictor file is named"),
        ("data.splits.test=[]", "data.splits.test", "no test period"),
        ("data.splits.test=[soon,later]", "data.splits.test", "not a date"),
        ("data.splits.validation=[]", "data.splits.validation", "no validation"),
        ("data.baseline_strategy=hr_smoothing", "data.baseline_strategy", "truth"),
        ("inference.members=0", "inference.members", "too small"),
        ("inference.steps=4", "inference.sampler, inference.steps", "one step"),
        ("training.epoch=4", "training.epoch", "unknown configuration key"),
        ("training.epochs=many", "training.epochs", "invalid value"),
        ("training.epochs=-3", "training.epochs", "too small"),
        ("training.batch_size=0", "training.batch_size", "too small"),
    ],
)
def test_run_refuses_a_setting(files, tmp_path, override, variable, word):
    """What would fail after training is found before it."""
    facts = facts_of(train(files, tmp_path / "run", override, verb="run"))
    assert word in facts["problem"]
    assert facts["variable"] == variable
    assert facts["expected"]
    assert below(tmp_path) == []


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("place", ["file", "file/below/run"])
@pytest.mark.parametrize("verb", ["train", "run"])
def test_run_directory_that_cannot_be_made(files, verb, place):
    before = below(files)
    facts = facts_of(train(files, files / place, verb=verb))
    assert facts["file"] == str(files / place)
    assert facts["found"] == f"{files / 'file'} is a file"
    assert facts["variable"] == "run.dir"
    assert facts["remedy"]
    assert below(files) == before


def test_unknown_configuration_lists_the_presets(tmp_path):
    facts = facts_of(call("run", "--config", "iberai"))
    assert facts["found"] == "iberai"
    assert {"demo", "demo_quick", "iberia"} <= set(facts["expected"].split(" | "))


def test_a_data_file_is_no_configuration(files):
    facts = facts_of(call("run", "--config", files / "lr.nc"))
    assert "not a text file" in facts["problem"]
    assert facts["file"] == str(files / "lr.nc")


def test_another_run_is_not_overwritten(files, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("run: {seed: 9}\n")
    before = below(tmp_path)
    facts = facts_of(train(files, tmp_path / "run"))
    assert "holds a run already" in facts["problem"]
    assert "--resume" in facts["remedy"]
    assert "--overwrite" in facts["remedy"]
    facts = facts_of(train(files, tmp_path / "run", "--resume"))
    assert "another configuration" in facts["problem"]
    assert facts["found"]
    assert below(tmp_path) == before


def test_a_directory_with_results_is_kept_on_bad_input(files, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    facts_of(train(files, tmp_path / "run", "data.hr_path=hr_empty.nc"))
    assert "notes.txt" in below(tmp_path / "run")


def test_paths_with_blanks_and_accents_need_no_quotes():
    result = call("run", "--config=demo", "--dry-run", "run.dir=à l'été/run 1")
    assert result.exit_code == 0, result.output
    assert "dir: à l'été/run 1" in result.stdout


def test_iberia_takes_the_folder_of_the_three_files(real_data):
    root = real_data / "iberia"
    result = call("run", "--config=iberia", f"data.root={root}", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = [line.split(": ") for line in result.stdout.splitlines()]
    named = [pair[1] for pair in lines if pair[0].strip().endswith("_path")]
    assert len(named) == 3
    assert all((root / name).is_file() for name in named)


# -- Ctrl-C ----------------------------------------------------------------------------


def press(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_interrupted_training_ends_cleanly(files, tmp_path, monkeypatch):
    monkeypatch.setattr(_console.TrainingWatch, "updated", press)
    result = train(files, tmp_path / "run", "training.batch_size=64")
    assert result.exit_code == EXIT_INTERRUPTED, result.output
    assert result.stdout == ""
    assert "Interrupted: no unfinished file is left" in result.stderr
    assert "Traceback" not in result.stderr
    assert "KeyboardInterrupt" not in result.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_interrupted_downscaling_leaves_nothing(
    files, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("st_cdgm.inference.members.generate_batch", press)
    result = downscale(files, checkpoint, tmp_path / "out.nc")
    assert result.exit_code == EXIT_INTERRUPTED, result.output
    assert "Interrupted" in result.stderr
    assert below(tmp_path) == []


def test_an_ordinary_exit_is_no_interruption(monkeypatch):
    def leave(*_args, **_kwargs):
        raise SystemExit(3)

    monkeypatch.setattr("st_cdgm.data.inspect.files.inspect_file", leave)
    result = call("inspect", "a.nc")
    assert result.exit_code == 3
    assert "Interrupted" not in result.stderr


# -- downscale -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variable", "word"),
    [
        ("none", None, "does not exist"),
        ("text", None, "cannot be read"),
        ("lr_without", "q_850", "variable or level"),
        ("hr", "q_850, z_500, tas", "variable or level"),
        ("lr_narrow", None, "does not cover"),
        ("lr_empty", "q_850", "no values"),
    ],
)
def test_downscale_refuses_predictors(
    files, checkpoint, tmp_path, name, variable, word
):
    file, output = files / f"{name}.nc", tmp_path / "out.nc"
    given = ["--checkpoint", checkpoint, "--lr", file, "--output", output]
    facts = facts_of(call("downscale", *given))
    assert word in facts["problem"]
    assert facts["file"] == str(file)
    assert facts.get("variable") == variable
    assert {"found", "expected", "remedy"} <= set(facts)
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("place", "word"),
    [
        ("absent/out.nc", "does not exist"),
        ("folder", "not a regular file"),
        ("file/out.nc", "cannot be written there"),
    ],
)
def test_downscale_refuses_an_output_before_it_reads(
    files, tmp_path, place, word, monkeypatch
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("st_cdgm.checkpoint.directory.load_checkpoint", press)
    facts = facts_of(downscale(files, tmp_path, tmp_path / place))
    assert word in facts["problem"]
    assert facts["file"] == str(tmp_path / place)
    assert {"found", "expected", "remedy"} <= set(facts)
    assert below(tmp_path) == ["file", "folder"]


def test_downscale_does_not_replace_its_input(files, checkpoint):
    before = (files / "lr.nc").read_bytes()
    facts = facts_of(downscale(files, checkpoint, files / "lr.nc"))
    assert "would replace the predictor file" in facts["problem"]
    assert (files / "lr.nc").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "variable", "word"),
    [
        (["--start", "2001-03-01", "--end", "2001-02-01"], "start, end", "before"),
        (["--start", "yesterday"], "start", "not a date"),
        (["--end", "2001-13-01"], "end", "not a date"),
        (["--start", "2031-01-01"], None, "no day lies in the period"),
        (["--sampler", "heun"], "sampler, steps", "one step"),
    ],
)
def test_downscale_refuses_options(
    files, checkpoint, tmp_path, options, variable, word
):
    facts = facts_of(downscale(files, checkpoint, tmp_path / "out.nc", *options))
    assert word in facts["problem"]
    assert facts.get("variable") == variable
    assert facts["found"]
    assert facts["expected"]
    assert below(tmp_path) == []


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_members_must_be_a_positive_number(files, tmp_path, value):
    result = downscale(files, tmp_path, tmp_path / "out.nc", "--members", value)
    assert result.exit_code == EXIT_INPUT
    assert "--members" in result.stderr
    assert result.stdout == ""


def damaged(checkpoint: Path, folder: Path, how: str) -> Path:
    copy = folder / "best"
    shutil.copytree(checkpoint, copy)
    meta, weights = copy / "meta.json", copy / "model.safetensors"
    if how == "no description":
        meta.unlink()
    elif how == "half a description":
        meta.write_bytes(meta.read_bytes()[:100])
    elif how == "half the weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "no weights":
        weights.unlink()
    elif how == "another format":
        content = json.loads(meta.read_text("utf-8"))
        meta.write_text(json.dumps({**content, "format_version": 99}))
    elif how == "a part is missing":
        content = json.loads(meta.read_text("utf-8"))
        del content["data"]["channels"]
        meta.write_text(json.dumps(content))
    elif how == "another model":
        content = json.loads(meta.read_text("utf-8"))
        content["model"]["encoder"]["hidden_dim"] = 16
        meta.write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    "how",
    [
        "no description",
        "half a description",
        "half the weights",
        "no weights",
        "another format",
        "a part is missing",
        "another model",
    ],
)
def test_downscale_refuses_a_damaged_checkpoint(files, checkpoint, tmp_path, how):
    broken = damaged(checkpoint, tmp_path, how)
    facts = facts_of(downscale(files, broken, tmp_path / "out.nc"))
    assert "checkpoint" in facts["problem"]
    assert facts["file"].startswith(str(broken))
    assert not (tmp_path / "out.nc").exists()


def test_missing_values_and_a_short_record_are_said(files, checkpoint, tmp_path):
    with xr.open_dataset(files / "lr.nc") as whole:
        holes = whole.isel(time=slice(0, 10)).load()
    holes["q_850"][3, 1] = np.nan
    holes.to_netcdf(tmp_path / "holes.nc")
    given = ["--checkpoint", checkpoint, "--lr", tmp_path / "holes.nc", "--members=1"]
    result = call(
        "downscale", *given, "--output", tmp_path / "out.nc", "--end", "2001-02-01"
    )
    assert result.exit_code == 0, result.output
    # One row of 5 out of 20 cells on one day of ten.
    assert "missing values are filled (share missing: q_850 0.025)" in result.stderr
    assert "covers 2001-01-01..2001-01-10 only" in result.stderr


# -- evaluate --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "variable", "word"),
    [
        ("none", None, "does not exist"),
        ("cut", None, "cannot be read"),
        ("hr_without", "pr", "lacks a variable"),
        ("hr_empty", "pr", "no values"),
        ("hr_narrow", None, "beyond the grid"),
        ("hr_later", None, "no day in common"),
        ("hr_other_calendar", None, "another calendar"),
    ],
)
def test_evaluate_refuses_a_truth(files, prediction, tmp_path, name, variable, word):
    truth, output = files / f"{name}.nc", tmp_path / "scores"
    given = ["--prediction", prediction, "--truth", truth, "--output", output]
    strict = name in ("hr_without", "hr_narrow")  # else what both have is scored
    facts = facts_of(call("evaluate", *given, *(["--mask=strict"] if strict else [])))
    assert word in facts["problem"]
    assert facts["file"] in (str(truth), str(prediction))
    assert facts.get("variable") == variable
    assert {"found", "expected", "remedy"} <= set(facts)
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("hr_without", "  variables: left out pr of {prediction}\n"),
        (
            "hr_narrow",
            "  grid: left out 1 of 8 rows and 0 of 10 columns of {prediction}, outside "
            "39.5..45.5 N, -0.5..8.5 E\n",
        ),
    ],
)
def test_evaluate_scores_what_both_have(files, prediction, tmp_path, name, line):
    given = ["--prediction", prediction, "--truth", files / f"{name}.nc"]
    result = call("evaluate", *given, "--output", tmp_path / "scores")
    assert result.exit_code == 0, result.output
    assert line.format(prediction=prediction) in result.stdout
    assert len(below(tmp_path / "scores")) == 3


def test_evaluate_refuses_a_prediction_of_something_else(files, tmp_path):
    given = ["--prediction", files / "lr.nc", "--truth", files / "hr.nc"]
    facts = facts_of(call("evaluate", *given, "--output", tmp_path / "scores"))
    assert facts["variable"] == "q_850, z_500, tas"
    assert facts["found"] == "tasmin, tasmax, pr"
    assert below(tmp_path) == []


@pytest.mark.parametrize("place", ["file", "file/scores"])
def test_evaluate_refuses_an_output_before_it_scores(files, tmp_path, place):
    (tmp_path / "file").write_text("x")
    given = ["--prediction", "absent.nc", "--truth", files / "hr.nc"]
    facts = facts_of(call("evaluate", *given, "--output", tmp_path / place))
    assert facts["file"] == str(tmp_path / place)
    assert facts["found"] == f"{tmp_path / 'file'} is a file"
    assert below(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "references",
    [["absent.nc"], ["a=b.nc"], ["a=a.nc", "a=b.nc"]],
)
def test_a_reference_needs_a_name_of_its_own(files, tmp_path, references):
    given = ["--prediction=a.nc", "--truth=b.nc", "--output", tmp_path / "scores"]
    named = [f"--reference={text}" for text in references]
    result = call("evaluate", *given, *named)
    assert result.exit_code == EXIT_INPUT
    assert "--reference" in result.stderr
    assert below(tmp_path) == []


# -- inspect, report, synthesize, demo -------------------------------------------------


@pytest.mark.parametrize(
    ("name", "word"),
    [("none", "does not exist"), ("text", "cannot be read"), ("cut", "cannot be read")],
)
def test_inspect_refuses_a_file(files, name, word):
    facts = facts_of(call("inspect", files / f"{name}.nc"))
    assert word in facts["problem"]
    assert facts["file"] == str(files / f"{name}.nc")
    assert {"found", "expected", "remedy"} <= set(facts)


def test_inspect_shows_what_is_wrong_inside_a_file(files):
    result = call("inspect", files / "hr_empty.nc")
    assert result.exit_code == 0
    assert "    - no values (variable pr)" in result.stdout.splitlines()


def test_inspect_shortens_a_long_list_of_gaps(files, tmp_path):
    with xr.open_dataset(files / "lr.nc") as whole:
        whole.isel(time=slice(0, 12, 2)).to_netcdf(tmp_path / "gaps.nc")
    shown = call("inspect", tmp_path / "gaps.nc").stdout.splitlines()
    assert (
        "    gaps: 5 (2001-01-01 to 2001-01-03, 2001-01-03 to 2001-01-05, "
        "2001-01-05 to 2001-01-07, ...)"
    ) in shown


@pytest.mark.parametrize(
    ("place", "found"),
    [("none", "nothing of that name"), ("file", "a file"), ("empty", "an empty")],
)
def test_report_refuses_a_directory(tmp_path, place, found):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    facts = facts_of(call("report", tmp_path / place))
    assert facts["file"] == str(tmp_path / place)
    assert found in facts["found"]
    assert {"expected", "remedy"} <= set(facts)
    assert below(tmp_path) == ["empty", "file"]


def test_report_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "report.html").mkdir()
    (tmp_path / "config.yaml").write_text("run: {name: x}\n")
    monkeypatch.setattr("st_cdgm.evaluation.report.build._score_context", press)
    facts = facts_of(call("report", tmp_path))
    assert facts["file"] == str(tmp_path / "report.html")
    assert below(tmp_path) == ["config.yaml", "report.html"]


@pytest.mark.parametrize(
    "verb", [["synthesize", "--output"], ["demo", "--quick", "--out"]]
)
def test_synthetic_climate_that_cannot_be_written(tmp_path, verb, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("st_cdgm.data.synthetic.climate.simulate", press)
    facts = facts_of(call(*verb, tmp_path / "file" / "below"))
    assert facts["found"] == f"{tmp_path / 'file'} is a file"
    assert below(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_directory(files, checkpoint, tmp_path):
    tmp_path.chmod(0o500)
    facts = facts_of(downscale(files, checkpoint, tmp_path / "out.nc"))
    assert "not writable" in facts["problem"]
