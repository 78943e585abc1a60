from __future__ import annotations

import os
import signal

import pytest
from climate_files import predictors, write

from st_cdgm.data.files import sniff as trial
from st_cdgm.data.files.open import open_dataset
from st_cdgm.errors import InputError

ANSWER = "import sys\nfor line in sys.stdin:\n    {}\n    print('done', flush=True)\n"
ENDLESS = """
import json, signal, sys
signal.signal(signal.SIGPROF, signal.SIG_DFL)
for line in sys.stdin:
    signal.setitimer(signal.ITIMER_PROF, json.loads(line)[1])
    while True:
        pass
"""


@pytest.fixture
def helper(monkeypatch):
    """A helper of its own, that runs the code a test gives it."""
    made = trial._Helper()
    monkeypatch.setattr(trial, "_helper", made)
    yield lambda code: monkeypatch.setattr(trial, "_CHILD", code)
    made.stop()


def test_a_sound_file_is_tried_once(tmp_path, helper):
    path = write(predictors(), tmp_path / "a.nc")
    open_dataset(path, role="lr").close()
    process = trial._helper.process
    assert process is not None
    helper(ANSWER.format("raise SystemExit"))
    open_dataset(path, role="lr").close()
    assert trial._helper.process is process
    write(predictors(6), path)
    open_dataset(path, role="lr")
    assert len(trial._helper.known) == 2


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (ENDLESS, "does not come to an end"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
    ],
)
def test_a_file_that_would_take_the_process_down(
    tmp_path, helper, monkeypatch, code, found
):
    monkeypatch.setattr(trial, "CPU_SECONDS", 0.2)
    helper(code)
    path = write(predictors(), tmp_path / "a.nc")
    with pytest.raises(InputError, match="target file cannot be read") as caught:
        open_dataset(path, role="hr")
    assert found in caught.value.facts["found"]
    assert caught.value.facts["file"] == path
    helper(ANSWER.format("pass"))  # the next file gets a new helper
    open_dataset(path, role="hr")


def test_other_formats_and_missing_helpers_do_not_matter(tmp_path, helper, monkeypatch):
    old = tmp_path / "old.nc"
    predictors().to_netcdf(old, format="NETCDF3_CLASSIC")
    open_dataset(old, role="lr")
    assert trial._helper.process is None
    monkeypatch.setattr(trial.sys, "executable", str(tmp_path / "nothing"))
    assert open_dataset(write(predictors(), tmp_path / "a.nc"), role="lr").sizes["time"]


def test_a_helper_that_cannot_start_lets_files_through(tmp_path, helper):
    helper("raise SystemExit(1)")
    assert open_dataset(write(predictors(), tmp_path / "a.nc"), role="lr").sizes["time"]


def test_a_fork_gets_its_own_helper(tmp_path, helper):
    trial.try_opening(write(predictors(), tmp_path / "a.nc"), role="lr")
    first = trial._helper.process
    second_file = write(predictors(6), tmp_path / "b.nc")
    child = os.fork()
    if child == 0:  # pragma: no cover  (another process)
        signal.alarm(20)
        trial.try_opening(second_file, role="lr")
        fresh = trial._helper.process is not first
        trial._helper.stop()
        os._exit(0 if fresh else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert first is not None
    assert first.poll() is None
