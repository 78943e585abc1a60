"""What a first user stumbles over: each is told what to do instead."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import netCDF4
import numpy as np
import pytest
import xarray as xr
from tests.cli.test_bad_input import below, call, downscale, facts_of, train

from st_cdgm.cli.main import EXIT_FAILED, EXIT_INPUT, EXIT_INTERRUPTED
from st_cdgm.data.time.periods import check_dates
from st_cdgm.errors import ConfigError, OutputError
from st_cdgm.inference.writer import EnsembleWriter, check_netcdf_name
from st_cdgm.outputs import digest
from st_cdgm.runs import console, provenance
from st_cdgm.runs.console import Session, TrainingWatch

FAST = ("training.batch_size=64", "training.epochs=2")


def rows(run_dir: Path) -> list[str]:
    return (run_dir / "logs" / "metrics.csv").read_text("utf-8").splitlines()


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    result = train(files, run_dir, *FAST)
    assert result.exit_code == 0, result.output
    return run_dir, result


@pytest.fixture
def run_dir(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "run")
    return tmp_path / "run"


# -- A directory that holds a run ------------------------------------------------------


@pytest.mark.parametrize("verb", ["train", "run"])
def test_a_run_is_not_replaced_unasked(files, run_dir, verb):
    before = {name: (run_dir / name).stat().st_mtime_ns for name in below(run_dir)}
    facts = facts_of(train(files, run_dir, *FAST, verb=verb))
    assert facts["problem"] == "the run directory holds a run already"
    assert facts["file"] == str(run_dir)
    assert facts["found"].startswith("checkpoints, of a run begun 20")
    assert "--resume" in facts["remedy"]
    assert "--overwrite" in facts["remedy"]
    after = {name: (run_dir / name).stat().st_mtime_ns for name in below(run_dir)}
    assert after == before


def test_resume_and_overwrite_exclude_each_other(files, run_dir):
    facts = facts_of(train(files, run_dir, *FAST, "--resume", "--overwrite"))
    assert "either resumed or replaced" in facts["problem"]


def test_overwriting_removes_the_old_run_and_nothing_else(files, run_dir):
    for name in ("notes.txt", "checkpoints/mine.txt", "references/other.nc"):
        (run_dir / name).parent.mkdir(exist_ok=True)
        (run_dir / name).write_text("mine")
    for name in (
        "scorecard.json",
        "report.html",
        "certificate.json",
        "references/ridge.nc",
    ):
        (run_dir / name).write_text("of the old run")
    old = digest(run_dir / "checkpoints" / "best" / "model.safetensors")
    result = train(files, run_dir, *FAST, "run.seed=5", "--overwrite")
    assert result.exit_code == 0, result.output
    left = below(run_dir)
    assert {"notes.txt", "checkpoints/mine.txt", "references/other.nc"} <= set(left)
    gone = {
        *("scorecard.json", "report.html", "certificate.json", "references/ridge.nc"),
    }
    assert not gone & set(left)
    assert not [name for name in left if name.startswith(".")]
    assert digest(run_dir / "checkpoints" / "best" / "model.safetensors") != old
    assert (run_dir / "run.log").read_text("utf-8").count("training: ") == 2


def test_a_run_that_bad_input_would_replace_is_put_back(files, run_dir):
    def content() -> dict[str, bytes]:
        paths = [path for path in run_dir.rglob("*") if path.is_file()]
        return {str(p.relative_to(run_dir)): p.read_bytes() for p in paths}

    before = content()
    facts_of(train(files, run_dir, "data.hr_path=hr_empty.nc", "--overwrite"))
    assert content() == before


def test_resuming_keeps_history_and_log(files, run_dir):
    """The directory of a training of two epochs goes on where it stopped."""
    log, history = (run_dir / "run.log").read_text("utf-8"), rows(run_dir)
    result = train(files, run_dir, *FAST, "run.log_level=WARNING", "--resume")
    assert result.exit_code == 0, result.output
    assert rows(run_dir)[: len(history)] == history
    assert (run_dir / "run.log").read_text("utf-8").startswith(log)
    assert result.stdout.startswith("Checkpoint: ")
    other = facts_of(train(files, run_dir, *FAST, "training.lr=0.5", "--resume"))
    assert "another configuration" in other["problem"]
    assert "training.lr: 0.0" in other["found"]


def test_an_interrupted_training_goes_on_by_the_command_that_it_names(
    files,
    tmp_path,
    monkeypatch,
):
    small = ("training.batch_size=32", "training.epochs=2")
    updated = TrainingWatch.updated

    def stop(self) -> None:
        updated(self)
        if self.done == 3:  # in the second epoch of two updates
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingWatch, "updated", stop)
        result = train(files, tmp_path / "run", *small, "--overwrite")
    assert result.exit_code == EXIT_INTERRUPTED, result.output
    named = result.stderr.rpartition("Go on with: st-cdgm ")[2].strip()
    assert named.startswith("train --config=demo_quick ")
    assert named.endswith("--resume")
    assert "--overwrite" not in named
    first = rows(tmp_path / "run")
    again = train(files, tmp_path / "run", *small, "--resume")
    assert again.exit_code == 0, again.output
    assert rows(tmp_path / "run")[1:2] == first[1:2]
    steps = [line.split(",") for line in rows(tmp_path / "run")]
    assert len(steps) > len(first)


# -- Outputs ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.zarr", "x.ZARR", "x.zarr.zip"])
def test_zarr_output_is_refused(files, checkpoint, tmp_path, name):
    facts = facts_of(downscale(files, checkpoint, tmp_path / name))
    assert facts["problem"] == "Zarr output is not written yet."
    assert facts["file"] == str(tmp_path / name)
    assert "such as x.nc" in facts["expected"]
    assert ".nc" in facts["remedy"]
    assert below(tmp_path) == []


def test_zarr_output_is_refused_from_python_too(tiny_pipeline, tmp_path):
    with pytest.raises(OutputError, match="Zarr"):
        EnsembleWriter(
            tmp_path / "x.zarr",
            targets=tiny_pipeline.preprocessor.targets,
            grid=tiny_pipeline.preprocessor.hr_grid,
            calendar="noleap",
            members=range(1),
        )
    check_netcdf_name("a.zarr_but_not.nc")


def test_an_ensemble_says_where_it_comes_from(files, checkpoint, tmp_path):
    output = tmp_path / "a b.nc"
    result = downscale(files, checkpoint, output, "--end", "2001-01-05")
    assert result.exit_code == 0, result.output
    with netCDF4.Dataset(output) as written:
        attrs = {name: written.getncattr(name) for name in written.ncattrs()}
    stamp, command = attrs["history"].split(" ", 1)
    assert stamp.endswith("Z")
    assert len(stamp) == len("2001-01-01T00:00:00Z")
    assert command.startswith(f"st-cdgm downscale --checkpoint {checkpoint} --lr ")
    assert f"--output '{output}' --members 2 --end 2001-01-05 (st-cdgm " in command
    assert "torch" in command
    mark = digest(files / "lr.nc")["sha256"]
    assert attrs["input_files"] == f"lr.nc sha256:{mark}"
    mark = digest(checkpoint / "model.safetensors")["sha256"]
    assert attrs["checkpoint"] == f"{checkpoint} (model.safetensors sha256:{mark})"
    lines = result.stdout.splitlines()
    assert lines[0] == f"Ensemble: {output}"
    assert lines[1] == "Content:  5 days, 2 members of tasmin, tasmax, pr"
    assert lines[2].startswith("Size:     ")
    assert len(lines) == 3


def test_the_compliance_checker_takes_these_attributes(files, checkpoint, tmp_path):
    checker = Path(sys.executable).with_name("compliance-checker")
    if not checker.is_file():
        pytest.skip("compliance-checker is not installed")
    output = tmp_path / "o.nc"
    made = downscale(files, checkpoint, output, "--end", "2001-01-05")
    assert made.exit_code == 0, made.output
    done = subprocess.run(
        [checker, "--test=cf:1.8", "--criteria=strict", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "All tests passed!" in done.stdout, done.stdout


def test_huge_and_remote_inputs_are_named_without_reading(
    checkpoint,
    tmp_path,
    monkeypatch,
):
    (tmp_path / "big.nc").write_bytes(b"12345")
    monkeypatch.setattr(provenance, "HASHED_BYTES", 4)
    found = provenance.output_attributes(
        checkpoint, [str(tmp_path / "big.nc"), "https://example.org/a/b.nc"]
    )
    assert found["input_files"] == "big.nc of 5 bytes, b.nc"
    assert "written from Python" in found["history"]


# -- inspect ---------------------------------------------------------------------------


def test_a_bad_file_does_not_hide_the_others(files):
    given = [files / "hr.nc", files / "text.nc", files / "none.nc", files / "lr.nc"]
    result = call("inspect", *given)
    assert result.exit_code == EXIT_INPUT
    assert str(files / "hr.nc") in result.stdout.splitlines()
    assert str(files / "lr.nc") in result.stdout.splitlines()
    lines = result.stderr.splitlines()
    assert sum(line.startswith("Error: ") for line in lines) == 2
    last = result.stderr.splitlines()[-1]
    assert last == "Summary: 2 of 4 files could not be read"
    printed = json.loads(call("inspect", *given, "--json").stdout)
    assert "cannot be read" in printed[str(files / "text.nc")]["error"]
    assert printed[str(files / "lr.nc")]["verdicts"]


def test_files_are_shown_as_they_come(files, monkeypatch):
    from st_cdgm.data.inspect import files as library

    inspect_file, order = library.inspect_file, []
    monkeypatch.setattr(
        library, "inspect_file", lambda file: order.append("read") or inspect_file(file)
    )
    monkeypatch.setattr(
        "st_cdgm.runs.inspection.show_file", lambda _: order.append("show")
    )
    call("inspect", files / "hr.nc", files / "lr.nc")
    assert order == ["read", "show", "read", "show"]


def test_an_unexpected_failure_in_one_of_many_files(files, monkeypatch):
    from st_cdgm.data.inspect import files as library

    inspect_file = library.inspect_file

    def fail(file: str):
        if file.endswith("hr.nc"):
            raise RuntimeError("disk on fire")
        return inspect_file(file)

    monkeypatch.setattr(library, "inspect_file", fail)
    result = call("inspect", files / "hr.nc", files / "lr.nc")
    assert result.exit_code == EXIT_FAILED
    assert "Failed: RuntimeError: disk on fire" in result.stderr
    assert str(files / "lr.nc") in result.stdout.splitlines()


# -- Progress and estimates ------------------------------------------------------------


def test_a_pipe_gets_a_plain_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "PLAIN_SECONDS", 0.05)
    with console.progress(Session(), "Training", 8) as advance:
        advance(2, None)
        time.sleep(0.6)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("Training: 2/8, 1 s so far, about ")
    assert "\x1b" not in captured.err
    with console.progress(Session(log_level="ERROR"), "Training", 8):
        time.sleep(0.2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (0, 0, 30, "Reading: 30 s"),
        (0, 40, 61, "Reading: 0/40, 61 s so far"),
        (10, 40, 600, "Reading: 10/40, 10 min so far, about 30 min left"),
        (1, 25, 7200, "Reading: 1/25, 2.0 h so far, about 2 days left"),
        (40, 40, 600, "Reading: 40/40, 10 min so far"),
    ],
)
def test_progress_line(done, total, seconds, line):
    found = console.progress_line("Reading", done=done, total=total, seconds=seconds)
    assert found == line


def test_log_and_bars_share_one_console(monkeypatch):
    from rich.logging import RichHandler

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    console.error_console.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        handler = console._terminal_handler()
        assert isinstance(handler, RichHandler)
        assert handler.console is console.error_console()
    console.error_console.cache_clear()


class FakeTrainer:
    estimated_stepping_batches, global_step = 100, 0
    max_epochs, current_epoch = 10, 0


def test_a_training_is_estimated_after_a_few_updates(monkeypatch, capsys):
    clock = iter(range(0, 10_000, 60))  # a minute an update
    stub = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr(console, "time", stub)
    watch = TrainingWatch(Session(), lambda *_: None)
    watch.started(FakeTrainer())
    for _ in range(watch.SKIPPED):
        watch.updated()
    for _ in range(watch.MEASURED + 20):
        watch.updated()
    watch.epoch_ended()
    assert capsys.readouterr().err == (
        "training: about 12 min for 10 epochs, validation not counted\n"
    )


def test_training_and_downscaling_tell_size_and_time(
    trained, files, checkpoint, tmp_path
):
    assert "training: about " in trained[1].stderr
    assert "for 2 epochs" in trained[1].stderr
    result = downscale(files, checkpoint, tmp_path / "o.nc", "--end", "2001-01-30")
    assert "downscaling: 30 days, 2 members, up to 57.6 kB" in result.stderr
    assert "downscaling: about " in result.stderr


def test_results_are_aligned(trained):
    run_dir, result = trained
    lines = result.stdout.splitlines()
    assert lines[0] == f"Checkpoint:      {run_dir / 'checkpoints' / 'best'}"
    assert lines[1].startswith("Validation loss: ")
    assert lines[2].startswith("Training:        ")
    assert len(lines) == 3


# -- Spelling --------------------------------------------------------------------------


def test_a_mistyped_verb():
    result = call("trian")
    assert result.exit_code == EXIT_INPUT
    assert "Did you mean 'train'?" in result.stderr


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--training.epochs", "5"], "training.epochs=5"),
        (["--epochs", "5"], "training.epochs=5"),
        (["--epochs=5"], "training.epochs=5"),
        (["--batch-size", "8"], "training.batch_size=8"),
        (["--epoch", "5"], None),
    ],
)
def test_a_key_given_as_an_option(given, written, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = call("train", "--config", "demo", *given)
    assert result.exit_code == EXIT_INPUT
    assert "No such option" in result.stderr
    assert written is None or f"Write {written}" in result.stderr


# -- Ctrl-C, dates, completion ---------------------------------------------------------


def test_an_interrupted_downscaling_says_that_it_starts_anew(
    files,
    checkpoint,
    tmp_path,
    monkeypatch,
):
    def press(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("st_cdgm.inference.members.generate_batch", press)
    result = downscale(files, checkpoint, tmp_path / "out.nc")
    assert result.exit_code == EXIT_INTERRUPTED
    assert "run the same command again: it starts anew" in result.stderr


@pytest.mark.parametrize("option", ["--start", "--end"])
@pytest.mark.parametrize("day", ["2001-02-30", "2001-02-31"])
def test_a_day_that_does_not_exist(files, checkpoint, tmp_path, option, day):
    facts = facts_of(downscale(files, checkpoint, tmp_path / "o.nc", option, day))
    assert "does not exist" in facts["problem"]
    assert facts["variable"] == option.removeprefix("--")
    assert facts["found"] == day
    assert below(tmp_path) == []


def test_a_day_that_does_not_exist_in_a_split(files, tmp_path):
    split = "data.splits.test=[2001-07-15,2001-02-30]"
    facts_of(train(files, tmp_path / "run", split))
    split = "data.splits.train=[2001-01-01,2001-02-30]"
    facts = facts_of(train(files, tmp_path / "run", split))
    assert facts["variable"] == "data.splits.train"
    assert "calendar noleap" in facts["expected"]
    assert below(tmp_path) == []


@pytest.mark.parametrize(
    ("day", "calendar", "good"),
    [
        ("2003-02-30", "360_day", True),
        ("2003-02-30", "standard", False),
        ("2003-02-29", "noleap", False),
        ("2003-02-29", "360_day", True),
        ("2003-02-29", "all_leap", True),
        ("2004-02-29", "noleap", True),  # of the ordinary calendar
        ("2003-12-31", "360_day", True),
        ("2003-02", "standard", True),
        ("2003", "standard", True),
        (None, "standard", True),
    ],
)
def test_days_of_calendars(day, calendar, good):
    if good:
        check_dates({"start": day}, calendar)
        return
    with pytest.raises(ConfigError, match="does not exist"):
        check_dates({"start": day}, calendar)


def test_downscale_takes_the_thirtieth_of_february_of_360_days(
    files,
    checkpoint,
    tmp_path,
):
    with xr.open_dataset(files / "lr.nc") as right:
        days = xr.date_range(
            "2001-01-01",
            periods=right.sizes["time"],
            use_cftime=True,
            calendar="360_day",
        )
        right.assign_coords(time=days).to_netcdf(tmp_path / "lr.nc")
    output = tmp_path / "o.nc"
    given = ["--checkpoint", checkpoint, "--lr", tmp_path / "lr.nc", "--output", output]
    result = call(
        "downscale", *given, "--members=1", "--start=2001-02-29", "--end=2001-02-30"
    )
    assert result.exit_code == 0, result.output
    with xr.open_dataset(output) as made:
        assert np.array_equal(made.time.dt.day, [29, 30])


def test_completion_is_offered_and_light():
    code = "from st_cdgm.cli.main import app; app(prog_name='st-cdgm')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={
            **os.environ,
            "_ST_CDGM_COMPLETE": "complete_bash",
            "COMP_WORDS": "st-cdgm tr",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["train"]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "st_cdgm.cli.main" in imported
    assert not imported & {"torch", "hydra", "omegaconf", "numpy", "xarray"}
