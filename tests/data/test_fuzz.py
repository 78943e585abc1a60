"""Damaged files are read or refused; nothing hangs, crashes or stays behind."""

from __future__ import annotations

from pathlib import Path

import fuzz_files
import numpy as np
import pytest
from fuzz_files import DAMAGES, SECONDS_PER_CASE, damaged_copy, run_case, run_cases

from st_cdgm.errors import InputError

QUICK = 42  # three of every kind of damage


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    fuzz_files.write_seeds(folder)
    return folder


def bad(outcomes):
    return [outcome for outcome in outcomes if not outcome.good]


def test_damaged_files_are_read_or_refused(tmp_path):
    outcomes = list(run_cases(range(QUICK), tmp_path))
    assert bad(outcomes) == []
    assert len(outcomes) == QUICK
    assert {outcome.damage for outcome in outcomes} == set(DAMAGES)
    assert {outcome.result for outcome in outcomes} == {"read", "refused"}
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    assert bad(run_cases(range(QUICK, 2000), tmp_path)) == []


def test_sound_files_are_read(seeds, tmp_path, monkeypatch):
    for name in DAMAGES:
        monkeypatch.setitem(DAMAGES, name, lambda _path, _rng: None)
    outcomes = [run_case(case, 0, seeds, tmp_path) for case in range(12)]
    assert {(o.result, o.detail) for o in outcomes if o.target != "read_static"} == {
        ("read", "")
    }


def test_a_case_is_the_same_file_every_time(seeds, tmp_path):
    for case in range(len(DAMAGES)):
        made = []
        for run in "ab":
            folder = tmp_path / f"{run}{case}"
            folder.mkdir()
            damaged_copy(case, 5, seeds, folder)
            made.append(
                {
                    p.relative_to(folder): p.read_bytes()
                    for p in folder.rglob("*")
                    if not p.is_symlink() and p.is_file()
                }
            )
        assert made[0].keys() == made[1].keys()
        if case < list(DAMAGES).index("wrong dtypes"):  # later ones write files anew
            assert made[0] == made[1]


@pytest.mark.parametrize(
    ("what", "result"),
    [
        (InputError("no"), "refused"),
        (ValueError("oops"), "exception"),
        (MemoryError(), "exception"),
        ("file", "leftover"),
        (None, "read"),
    ],
)
def test_outcomes_are_told_apart(seeds, tmp_path, monkeypatch, what, result):
    def target(path: Path, _seeds: Path) -> None:
        if isinstance(what, Exception):
            raise what
        if what == "file":
            (path.parent / "partial.tmp").write_text("left")

    for name, (_, kinds) in dict(fuzz_files.TARGETS).items():
        monkeypatch.setitem(fuzz_files.TARGETS, name, (target, kinds))
    outcome = run_case(3, 0, seeds, tmp_path)
    assert outcome.result == result
    assert outcome.good == (result in ("read", "refused"))


@pytest.mark.parametrize(
    ("code", "result", "detail"),
    [
        ("import time; time.sleep(60)", "hang", "no answer"),
        ("import os; os.abort()", "crash", "SIGABRT"),
        ("raise SystemExit(3)", "crash", "exit 3"),
    ],
)
def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch, code, result, detail):
    start = fuzz_files.subprocess.Popen
    started = []

    def popen(command, **options):
        started.append(command)
        command = [command[0], "-c", code if len(started) == 1 else "pass"]
        return start(command, **options)

    monkeypatch.setattr(fuzz_files.subprocess, "Popen", popen)
    monkeypatch.setattr(fuzz_files, "SECONDS_TO_START", 0.0)
    monkeypatch.setattr(fuzz_files, "write_seeds", lambda _folder: {})
    cases = run_cases(range(1), tmp_path, seconds=0.5)
    (outcome,) = cases
    assert (outcome.case, outcome.result) == (0, result)
    assert detail in outcome.detail
    assert len(started) == 2
    assert SECONDS_PER_CASE > 0.5


def test_damage_to_arrays_and_archives(tmp_path):
    """Directories with ``.npy`` files and tar archives are damaged inside these."""
    import io
    import tarfile

    np.save(tmp_path / "a.npy", np.ones(3, np.float32))
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        data = (tmp_path / "a.npy").read_bytes()
        info = tarfile.TarInfo("one.npy")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    changed = set()
    for seed in range(12):
        for name, content in before.items():
            (tmp_path / name).write_bytes(content)
        DAMAGES["broken members"](tmp_path, np.random.default_rng(seed))
        changed |= {n for n, c in before.items() if (tmp_path / n).read_bytes() != c}
    assert changed == set(before)
