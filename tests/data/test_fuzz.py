"""Damaged files are read or refused; nothing hangs, crashes or stays behind."""

from __future__ import annotations

import json
import pickle
import shutil
from collections import Counter
from pathlib import Path

import fuzz_files
import fuzz_seeds
import numpy as np
import pytest
from fuzz_damages import DAMAGES, Unpickled
from fuzz_files import SECONDS_PER_CASE, damaged_copy, plan, run_case, run_cases
from fuzz_targets import TARGETS

from st_cdgm.errors import InputError


def sample(each: int = 1) -> list[int]:
    """The first cases that together have all damages and all targets so often."""
    seen: Counter[str] = Counter()
    chosen = []
    for case in range(400):
        names = plan(case, 0)[1:3]
        if min(seen[name] for name in names) < each:
            seen.update(names)
            chosen.append(case)
    return chosen


QUICK = sample()


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    fuzz_seeds.write_seeds(folder)
    return folder


def bad(outcomes):
    return [outcome for outcome in outcomes if not outcome.good]


def test_damaged_files_are_read_or_refused(seeds, tmp_path):
    outcomes = list(run_cases(QUICK, tmp_path, seeds=seeds))
    assert bad(outcomes) == []
    assert [outcome.case for outcome in outcomes] == QUICK
    assert {outcome.damage for outcome in outcomes} == set(DAMAGES)
    assert {outcome.target for outcome in outcomes} == set(TARGETS)
    assert {outcome.result for outcome in outcomes} == {"read", "refused"}
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.slow
def test_many_damaged_files(tmp_path):
    assert bad(run_cases(range(2000), tmp_path)) == []


@pytest.mark.parametrize("target", TARGETS)
def test_sound_files_are_read(seeds, tmp_path, target):
    """Nothing is refused without damage, and everything is cleared away."""
    read, kinds = TARGETS[target]
    source = fuzz_seeds.seed_path(seeds, kinds[0])
    path = tmp_path / source.name
    fuzz_seeds.copy(source, path)
    read(path, seeds)
    assert [left.name for left in tmp_path.iterdir()] == [source.name]


def test_a_case_is_the_same_file_every_time(seeds, tmp_path):
    cases = [case for case in range(5 * len(DAMAGES)) if case % 5 == 0]
    for case in cases:
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
        # The later damages write files anew, with dates in them.
        if list(DAMAGES).index(plan(case, 5)[1]) < list(DAMAGES).index("wrong dtypes"):
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

    for name, (_, kinds) in dict(TARGETS).items():
        monkeypatch.setitem(TARGETS, name, (target, kinds))
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


# -- Nothing is unpickled --------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_trap_works(here):
    pickle.loads(pickle.dumps(Unpickled()))
    assert (here / "unpickled").exists()


CODECS = {
    "compressor": {"compressor": {"id": "pickle"}, "filters": None},
    "filter": {"compressor": None, "filters": [{"id": "pickle"}]},
    "objects": {
        "compressor": None,
        "filters": [{"id": "pickle"}],
        "dtype": "|O",
        "fill_value": None,
    },
}


@pytest.mark.parametrize("change", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("target", ["inspect_file", "read_channels", "file metadata"])
def test_zarr_2_arrays_are_not_unpickled(seeds, here, change, target):
    path = here / "v2.zarr"
    shutil.copytree(fuzz_seeds.seed_path(seeds, "zarr2"), path)
    (path / ".zmetadata").unlink()
    array = json.loads((path / "q" / ".zarray").read_text())
    (path / "q" / ".zarray").write_text(json.dumps(array | change))
    for chunk in (path / "q").glob("[0-9]*"):
        chunk.write_bytes(pickle.dumps(Unpickled()))
    with pytest.raises(InputError):
        TARGETS[target][0](path, seeds)
    assert not (here / "unpickled").exists()


@pytest.mark.parametrize("codec", ["pickle", "numcodecs.pickle"])
@pytest.mark.parametrize("target", ["stores", "shards of stores"])
def test_prepared_stores_are_not_unpickled(seeds, here, codec, target):
    path = here / "stores"
    shutil.copytree(fuzz_seeds.seed_path(seeds, "stores"), path)
    file = path / "lr.zarr" / "tas" / "zarr.json"
    array = json.loads(file.read_text())
    array["codecs"] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": codec, "configuration": {}},
    ]
    file.write_text(json.dumps(array))
    for chunk in (path / "lr.zarr" / "tas" / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(pickle.dumps(Unpickled()))
    fuzz_seeds.forge(path)
    with pytest.raises(InputError, match="cannot be read"):
        TARGETS[target][0](path, seeds)
    assert not (here / "unpickled").exists()


@pytest.mark.parametrize("name", ["00000000.lr.pkl", "00000000.pkl", "a.hr.pyd"])
@pytest.mark.parametrize("target", ["shards", "bare shards"])
def test_shards_are_not_unpickled(seeds, here, name, target):
    import io
    import tarfile

    path = here / "shards"
    shutil.copytree(fuzz_seeds.seed_path(seeds, "shards"), path)
    content = pickle.dumps(Unpickled())
    with tarfile.open(path / "data_000000.tar", "a") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    fuzz_seeds.forge(path)
    with pytest.raises(InputError, match="a member that is not read"):
        TARGETS[target][0](path, seeds)
    assert not (here / "unpickled").exists()
