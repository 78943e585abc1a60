"""Killed anywhere, a training goes on to the same end, and leaves nothing hidden."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.cli.test_bad_input import below

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ST_CDGM_KILLS", "6"))


def command(files: Path, run_dir: Path, *more: str) -> list[str]:
    program = "from st_cdgm.cli.main import main; main()"
    data = (f"data.root={files}", "data.lr_path=lr.nc", "data.hr_path=hr.nc")
    splits = (
        "data.splits.train=[2001-01-01,2001-05-31]",
        "data.splits.validation=[2001-06-03,2001-07-10]",
        "data.splits.test=[2001-07-15,2001-08-28]",
    )
    return [
        *(
            sys.executable,
            "-c",
            program,
            "train",
            "--config=demo_quick",
            *data,
            *splits,
        ),
        *("data.static_path=static.nc", "data.baseline_map={tasmin: tas, tasmax: tas}"),
        *("data.seq_len=3", "training.epochs=12", "training.batch_size=24"),
        *("training.fit_noise_memory=false", f"run.dir={run_dir}"),
        # Nearly every update writes a state: many kills fall into a writing.
        *("training.state_minutes=0.001", *more),
    ]


def content(run_dir: Path) -> dict[str, bytes]:
    return {
        name: (run_dir / name).read_bytes()
        for name in (
            "checkpoints/best/model.safetensors",
            "checkpoints/last/model.safetensors",
            "checkpoints/last/optimizer.safetensors",
            "checkpoints/last/state.json",
            "logs/metrics.csv",
        )
    }


def hidden(run_dir: Path) -> list[str]:
    return [name for name in below(run_dir) if Path(name).name.startswith(".")]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_training_that_is_killed_again_and_again(tiny_files, tmp_path, how):
    """The same bytes as without a kill, but for what tells of dates and durations."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    begun = time.monotonic()
    subprocess.run(command(tiny_files, whole), check=True, capture_output=True)
    lasting = time.monotonic() - begun

    rng, state = np.random.default_rng(0), cut / "checkpoints" / "last" / "state.json"
    ended = 0
    for _ in range(KILLS):
        ways = ["--resume"] if state.is_file() else ["--overwrite"]
        child = subprocess.Popen(
            command(tiny_files, cut, *ways), stderr=subprocess.PIPE, text=True
        )
        time.sleep(float(rng.uniform(0.3, 0.9) * lasting))
        child.send_signal(how)
        _, told = child.communicate()
        ended += child.returncode == (143 if how == signal.SIGTERM else -how)
        assert child.returncode in (0, 143, -how), told
        if how == signal.SIGTERM:
            assert hidden(cut) == [], told
    assert ended, "no kill hit: the machine is too fast for this test"

    if not state.is_file():
        pytest.skip("no kill came after the first state")
    subprocess.run(
        command(tiny_files, cut, "--resume"), check=True, capture_output=True
    )
    assert content(cut) == content(whole)
    assert hidden(cut) == []
