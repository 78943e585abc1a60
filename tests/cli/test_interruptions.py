"""Runs that are ended, locked, or cannot be analysed; what they leave and say."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.test_bad_input import below, downscale, facts_of, train

from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.report import build as report_build
from st_cdgm.inference.writer import EnsembleWriter
from st_cdgm.runs import scoring
from st_cdgm.runs.checks import check_test_predictors
from st_cdgm.runs.console import TrainingWatch
from st_cdgm.runs.directory import LOCK, nothing_left_behind

FAST = ("training.epochs=1", "training.batch_size=64")
DEAD = 2**22 - 3  # above what the system gives out by default


def end_after(monkeypatch, updates: int) -> None:
    """Send SIGTERM after so many updates."""
    updated = TrainingWatch.updated

    def stop(self) -> None:
        updated(self)
        if self.done == updates:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainingWatch, "updated", stop)


def test_sigterm_ends_a_training_with_143_and_says_how_to_go_on(
    files, tmp_path, monkeypatch
):
    """It ended with exit 0 and no message after 2 of 200 epochs."""
    small = ("training.batch_size=32", "training.epochs=2")
    with monkeypatch.context() as patch:
        end_after(patch, 1)
        result = train(files, tmp_path / "run", *small)
    assert result.exit_code == 143, result.output
    assert "Terminated: no unfinished file is left" in result.stderr
    assert result.stderr.strip().endswith("--resume")
    assert (tmp_path / "run" / "checkpoints" / "last" / "state.json").is_file()
    assert not [name for name in below(tmp_path) if "/." in name]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    again = train(files, tmp_path / "run", *small, "--resume")
    assert again.exit_code == 0, again.output


def test_sigterm_in_downscale_leaves_nothing_and_says_so(
    files, checkpoint, tmp_path, monkeypatch
):
    append = EnsembleWriter.append

    def stop(self, *days) -> None:
        append(self, *days)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EnsembleWriter, "append", stop)
    result = downscale(files, checkpoint, tmp_path / "out.nc")
    assert result.exit_code == 143, result.output
    assert "Terminated: no unfinished file is left" in result.stderr
    assert "run the same command again" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_resuming_nothing_is_an_error(files, tmp_path):
    """``--resume`` began anew where the state had been lost."""
    facts = facts_of(train(files, tmp_path / "run", *FAST, "--resume"))
    assert facts["problem"] == "there is nothing to resume"
    assert "--overwrite" in facts["remedy"]
    assert below(tmp_path) == []


# -- one process at a time -------------------------------------------------------------


def locked_by(run_dir: Path, **holder) -> Path:
    run_dir.mkdir(exist_ok=True)
    (run_dir / LOCK).write_text(json.dumps(holder))
    return run_dir


def test_two_runs_do_not_share_a_directory(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = {"pid": child.pid, "host": platform.node()}
    run_dir = locked_by(tmp_path / "run", **holder)
    try:
        with (
            pytest.raises(ConfigError, match=f"pid {child.pid}") as caught,
            nothing_left_behind(run_dir),
        ):
            pass
        assert str(run_dir / LOCK) in str(caught.value)
    finally:
        child.communicate(b"\n")

    # Now it is over, and its lock is stale.
    with nothing_left_behind(run_dir):
        assert json.loads((run_dir / LOCK).read_text())["pid"] == os.getpid()
    assert list(run_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("holder", "over"),
    [
        ({"pid": DEAD, "host": platform.node()}, True),
        ({"pid": DEAD, "host": "another.machine"}, False),  # nobody here can know
        ({}, True),  # killed while it was written, some time ago
    ],
)
def test_which_locks_are_stale(tmp_path, holder, over):
    run_dir = locked_by(tmp_path / "run", **holder)
    os.utime(run_dir / LOCK, (0, 0))
    if over:
        with nothing_left_behind(run_dir):
            pass
        assert not (run_dir / LOCK).exists()
        return
    with (
        pytest.raises(ConfigError, match="another process"),
        nothing_left_behind(run_dir),
    ):
        pass
    assert (run_dir / LOCK).exists()


def test_a_second_run_leaves_the_files_of_the_first_alone(tmp_path):
    run_dir = locked_by(tmp_path / "run", pid=DEAD, host="another.machine")
    (run_dir / "config.yaml").write_text("x")
    before = below(run_dir)
    with (
        pytest.raises(ConfigError),
        nothing_left_behind(run_dir, overwrite=True),
    ):
        pass
    assert below(run_dir) == before


def test_a_new_directory_of_a_failed_run_goes_with_its_lock(tmp_path):
    with pytest.raises(InputError), nothing_left_behind(tmp_path / "a" / "run"):
        raise InputError("bad data")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    run_dir = tmp_path / "run"
    for name in (
        ".last-abcd1234",  # of earlier versions
        f".best.{'0' * 8}-1-aaaaaa.part",  # of another machine: it stays
        ".best-old",
        "best",
        ".last-old",  # there is no last
    ):
        (run_dir / "checkpoints" / name).mkdir(parents=True)
    (run_dir / "checkpoints" / ".last-old" / "meta.json").write_text("{}")
    with nothing_left_behind(run_dir):
        pass
    left = {path.name for path in (run_dir / "checkpoints").iterdir()}
    assert left == {"best", "last", f".best.{'0' * 8}-1-aaaaaa.part"}
    assert (run_dir / "checkpoints" / "last" / "meta.json").is_file()


def test_the_test_period_is_known_to_work_before_the_training(files, tiny_pipeline):
    """A prepared store and a coarse file that does not fit it, for instance."""
    config = load_config("demo_quick", [f"data.root={files}", "data.lr_path=lr.nc"])
    check_test_predictors(config, tiny_pipeline.preprocessor)
    config.data.lr_path = "lr_without.nc"
    with pytest.raises(InputError, match="q_850"):
        check_test_predictors(config, tiny_pipeline.preprocessor)
    config.data.lr_path = "lr_later.nc"
    with pytest.raises(InputError):
        check_test_predictors(config, tiny_pipeline.preprocessor)


# -- analyses --------------------------------------------------------------------------


def test_an_analysis_that_fails_costs_neither_the_others_nor_the_report(tmp_path):
    """``zero-size array`` in the ablations lost a day of training and scoring."""
    analyses = scoring.Analyses(tmp_path)
    done = []
    with analyses.spared("the ablations"):
        raise ValueError("zero-size array to reduction operation")
    with analyses.spared("the learned graph"):
        done.append("graph")
    analyses.check_scored()
    assert done == ["graph"]

    (tmp_path / "config.yaml").write_text("run: {name: x}\n")
    page = report_build.build_report(tmp_path).read_text("utf-8")
    assert "Missing here: the ablations" in page
    assert "zero-size array" in page

    # The next run begins without the old failures.
    scoring.Analyses(tmp_path)
    page = report_build.build_report(tmp_path).read_text("utf-8")
    assert "Missing here" not in page


def test_scores_that_fail_are_an_error_after_the_report(tmp_path):
    analyses = scoring.Analyses(tmp_path)
    with analyses.spared(scoring.SCORES):
        raise InputError("no common day")
    with pytest.raises(InputError, match="no common day"):
        analyses.check_scored()
