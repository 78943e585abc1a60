"""Shards: what is in them, who reads which sample, in which order, and what is refused.

The three formats are compared here: the same windows with the same values, once each,
for any number of workers and ranks.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import textwrap
from collections import Counter
from pathlib import Path

import cftime
import numpy as np
import pytest
import torch
from tests.data import prepared_task, small_task
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.store.preprocess import create_shards, verify_output, write_zarr
from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
from st_cdgm.data.store.shard_names import expand_shards
from st_cdgm.data.store.shards import Shard
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.errors import ConfigError, InputError, MissingFileError

SIZE = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def pipeline(folder):
    return prepared_task.pipeline(folder)


@pytest.fixture(scope="module")
def shards(pipeline, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "shards"
    return create_shards(pipeline, out, 4, SIZE, 1)


@pytest.fixture(scope="module")
def stores(pipeline, tmp_path_factory):
    return write_zarr(pipeline, tmp_path_factory.mktemp("out") / "zarr")


@pytest.fixture(scope="module")
def metadata(shards):
    return json.loads((shards / "metadata.json").read_text("utf-8"))


def dates(dataset) -> list[str]:
    return [sample["time"][0] for sample in dataset]


def rewritten(shards: Path, target: Path, change) -> Path:
    """Copy the first shard; ``change(name, content)`` returns name and content."""
    target.mkdir(parents=True, exist_ok=True)
    with (
        tarfile.open(shards / "data_000000.tar") as source,
        tarfile.open(target / "data_000000.tar", "w") as copy,
    ):
        for member in source:
            name, content = change(member.name, source.extractfile(member).read())
            if name is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                copy.addfile(info, io.BytesIO(content))
    return target / "data_000000.tar"


# -- Content ---------------------------------------------------------------------------


def test_metadata(metadata):
    """D90: lr_shape and hr_shape are [lat, lon]."""
    assert (metadata["lr_shape"], metadata["hr_shape"]) == ([4, 5], [8, 9])
    # Runs of days: 60 and 57, 41, 19 and 27; each gives three windows fewer.
    counts = {k: s["samples"] for k, s in metadata["splits"].items()}
    assert counts == {"train": [0, 111], "validation": [111, 149], "test": [149, 189]}
    assert metadata["num_samples"] == 189
    assert (metadata["seq_len"], metadata["stride"], metadata["shard_size"]) == (
        4,
        1,
        SIZE,
    )
    assert [s["samples"] for s in metadata["shards"]] == [30] * 6 + [9]
    assert metadata["shards"][6] == {
        "name": "data_000006.tar",
        "first": 180,
        "samples": 9,
    }
    assert metadata["variables"]["hr"] == ["pr", "tasmin", "tasmax"]
    assert metadata["format_version"] == 1


def test_only_arrays_and_json(shards):
    """No pickle, no dates, no owners."""
    with tarfile.open(shards / "data_000000.tar") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names[:6] == [
        "00000000.lr.npy",
        "00000000.baseline.npy",
        "00000000.residual.npy",
        "00000000.hr.npy",
        "00000000.static.npy",
        "00000000.time.json",
    ]
    assert {Path(name).suffix for name in names} == {".npy", ".json"}
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {
        (0, 0, 0, "", 0o644)
    }
    assert len(names) == SIZE * 6


def test_same_data_same_bytes(pipeline, shards, tmp_path):
    again = create_shards(pipeline, tmp_path / "again", 4, SIZE, 1)
    assert prepared_task.sums(again) == prepared_task.sums(shards)
    assert verify_output(again)["num_samples"] == 189


def test_windows_do_not_cross_gaps_or_borders(shards, metadata):
    for split, facts in metadata["splits"].items():
        first, last = facts["period"]
        for sample in WebDatasetIterableDataset(shards / "data_*.tar", split=split):
            days = np.array(sample["time"], dtype="datetime64[D]")
            assert (np.diff(days) == np.timedelta64(1, "D")).all()
            assert np.datetime64(first) <= days[0]
            assert days[-1] <= np.datetime64(last)


@pytest.mark.parametrize("stride", [3, 7])
def test_stride(pipeline, tmp_path, stride):
    out = create_shards(pipeline, tmp_path / "s", 4, stride=stride)
    found = dates(WebDatasetIterableDataset(out / "data_000000.tar", split="test"))
    expected = pipeline.build_sequence_dataset(split="test", stride=stride)
    assert found == dates(expected)


def test_static_fields_may_be_left_out(pipeline, tmp_path):
    out = create_shards(pipeline, tmp_path / "s", 4, static_members=False)
    sample = next(iter(WebDatasetIterableDataset(out / "data_*.tar")))
    assert list(sample) == ["lr", "baseline", "residual", "hr", "time"]


@pytest.mark.parametrize("option", [{"shard_size": 0}, {"stride": 0}, {"seq_len": 0}])
def test_bad_sizes(pipeline, tmp_path, option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        create_shards(pipeline, tmp_path / "s", **option)


def test_windows_longer_than_every_run(pipeline, tmp_path):
    with pytest.raises(InputError, match="no window"):
        create_shards(pipeline, tmp_path / "s", 100)


def test_readable_by_the_webdataset_library(shards):
    """D20: an independent reader sees the same samples."""
    wds = pytest.importorskip("webdataset")
    others = wds.WebDataset(
        str(shards / "data_{000000..000006}.tar"), shardshuffle=False
    ).decode()
    count = 0
    own = WebDatasetIterableDataset(shards / "data_*.tar", as_torch=False)
    for sample, other in zip(own, others, strict=True):
        assert other["__key__"] == f"{count:08d}"
        assert other["time.json"] == sample["time"]
        for key in ("lr", "baseline", "residual", "hr", "static"):
            np.testing.assert_array_equal(other[f"{key}.npy"], sample[key])
        count += 1
    assert count == 189


def test_shards_of_the_webdataset_library_are_read(tmp_path):
    wds = pytest.importorskip("webdataset")
    values = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)
    with wds.TarWriter(str(tmp_path / "own.tar")) as writer:
        for number in range(3):
            writer.write(
                {
                    "__key__": f"{number:08d}",
                    "lr.npy": values + number,
                    "time.json": ["2001-01-01"],
                }
            )
    samples = list(WebDatasetIterableDataset(tmp_path / "own.tar"))
    assert [float(sample["lr"][0, 0, 0, 0]) for sample in samples] == [0, 1, 2]
    assert samples[0]["time"] == ["2001-01-01"]


# -- Three formats, workers, ranks -----------------------------------------------------


@pytest.fixture(scope="module")
def formats(pipeline, stores, shards):
    """Every format's windows of the training days."""
    options = {"split": "train"}
    tiny = ZarrDataPipeline(stores, memory="400 kB")
    return {
        "netcdf": pipeline.build_sequence_dataset(**options),
        "zarr": tiny.build_sequence_dataset(**options),
        "webdataset": WebDatasetIterableDataset(shards / "data_*.tar", **options),
    }


@pytest.fixture(scope="module")
def windows(pipeline):
    """Count every window, straight from the prepared fields."""
    days = pipeline.days.iso()
    runs = (range(57), range(60, 114))  # starts of windows; 1-3 March are missing
    found: Counter = Counter()
    for start in (s for run in runs for s in run):
        sample = prepared_task.fields(pipeline, start, start + 4)
        sample |= {"time": days[start : start + 4]}
        found[prepared_task.mark(sample | {"static": pipeline.static_tensor_np})] += 1
    return found


def counted(dataset, monkeypatch, ranks: int, workers: int) -> Counter:
    found: Counter = Counter()
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        loader = DataLoader(dataset, batch_size=None, num_workers=workers)
        found.update(prepared_task.mark(sample) for sample in loader)
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", ["netcdf", "zarr", "webdataset"])
def test_no_duplicates_no_losses(formats, windows, monkeypatch, name, ranks, workers):
    """D15: the multiset of windows, with all their values, is always the same."""
    assert len(windows) == 111
    assert counted(formats[name], monkeypatch, ranks, workers) == windows


def test_formats_agree_without_splits(pipeline, folder, tmp_path):
    whole = prepared_task.unsplit(folder)
    out = create_shards(whole, tmp_path / "s", 4, shard_size=1000)
    found = [
        prepared_task.mark(s) for s in WebDatasetIterableDataset(out / "data_*.tar")
    ]
    expected = [prepared_task.mark(s) for s in whole.build_sequence_dataset()]
    assert found == expected


def test_formats_agree_on_steps_shorter_than_a_day(tmp_path):
    stamps = cftime.num2date(
        np.arange(120) * 6, "hours since 2001-01-01", calendar="noleap"
    )
    small_task.write(tmp_path, time=stamps)
    with pytest.warns(UserWarning, match="no splits"):
        original = NetCDFDataPipeline(
            tmp_path / "lr.nc",
            tmp_path / "hr.nc",
            seq_len=4,
            baseline_map=small_task.MAP,
            time_step="native",
        )
    stored = ZarrDataPipeline(write_zarr(original, tmp_path / "z"))
    out = create_shards(stored, tmp_path / "s")
    expected = [prepared_task.mark(s) for s in original.build_sequence_dataset()]
    assert expected[0][0].startswith("2001-01-01T00:00:00,2001-01-01T06:00:00")
    for dataset in (
        stored.build_sequence_dataset(),
        WebDatasetIterableDataset(out / "data_*.tar"),
    ):
        assert [prepared_task.mark(sample) for sample in dataset] == expected
    assert stored.lr_dataset.time.dt.hour.values[:5].tolist() == [0, 6, 12, 18, 0]


def test_batches_and_dates_of_a_loader(shards):
    """D14: dates are strings, so that batches can be collated."""
    dataset = WebDatasetIterableDataset(shards / "data_*.tar")
    batch = next(iter(DataLoader(dataset, batch_size=3)))
    assert batch["lr"].shape == (3, 4, 3, 4, 5)
    assert batch["hr"].dtype == torch.float32
    assert batch["time"][0] == ("2001-01-01", "2001-01-02", "2001-01-03")
    assert batch["time"][3] == ("2001-01-04", "2001-01-05", "2001-01-06")


def test_uneven_ends_can_be_dropped(shards, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    counts = {}
    for even in (False, True):
        dataset = WebDatasetIterableDataset(shards / "data_*.tar", drop_uneven=even)
        counts[even] = []
        for rank in range(4):
            monkeypatch.setenv("RANK", str(rank))
            counts[even].append(len(list(dataset)))
    assert counts == {False: [48, 47, 47, 47], True: [47, 47, 47, 47]}


def test_samples_own_their_memory(shards):
    dataset = WebDatasetIterableDataset(shards / "data_*.tar")
    first = next(iter(dataset))
    kept = first["hr"].clone()
    first["hr"].zero_()
    torch.testing.assert_close(next(iter(dataset))["hr"], kept, equal_nan=True)


# -- Order -----------------------------------------------------------------------------


def test_shuffling_is_reproducible(shards):
    def order(**options):
        dataset = WebDatasetIterableDataset(
            shards / "data_*.tar", shuffle=True, **options
        )
        return dates(dataset)

    plain = dates(WebDatasetIterableDataset(shards / "data_*.tar"))
    one = order(seed=1)
    assert one == order(seed=1)
    assert one != plain
    assert one != order(seed=2)
    assert sorted(one) == sorted(plain)


def test_epochs_differ_and_can_be_repeated(shards):
    dataset = WebDatasetIterableDataset(shards / "data_*.tar", shuffle=True, seed=3)
    first = dates(dataset)
    dataset.set_epoch(1)
    second = dates(dataset)
    dataset.set_epoch(0)
    assert dates(dataset) == first
    assert first != second
    assert sorted(first) == sorted(second)


def test_order_does_not_depend_on_workers(shards):
    """Workers take turns in one order; with one sample a batch it is the same."""
    dataset = WebDatasetIterableDataset(shards / "data_*.tar", shuffle=True, seed=3)
    alone = dates(dataset)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert dates(loader) == alone


def test_persistent_workers_follow_the_epoch(shards):
    dataset = WebDatasetIterableDataset(shards / "data_*.tar", shuffle=True, seed=3)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, persistent_workers=True
    )
    first = dates(loader)
    dataset.set_epoch(1)
    second = dates(loader)
    assert second == dates(dataset)
    assert second != first


def test_shardshuffle_shuffles_shards(shards):
    """D20: whole shards change places; samples keep theirs without a buffer."""
    dataset = WebDatasetIterableDataset(
        shards / "data_*.tar", shuffle=True, shuffle_buffer_size=1, seed=5
    )
    plain = dates(WebDatasetIterableDataset(shards / "data_*.tar"))
    blocks = [plain[start : start + SIZE] for start in range(0, 189, SIZE)]
    found = dates(dataset)
    place, order = 0, []
    while place < len(found):
        number = next(i for i, b in enumerate(blocks) if b[0] == found[place])
        assert found[place : place + len(blocks[number])] == blocks[number]
        order.append(number)
        place += len(blocks[number])
    assert sorted(order) == list(range(7))
    assert order != list(range(7))


def test_buffer_keeps_shards_in_order_where_asked(shards):
    """A sample leaves at most a buffer's length before its turn."""
    dataset = WebDatasetIterableDataset(
        shards / "data_*.tar",
        shuffle=True,
        shardshuffle=False,
        shuffle_buffer_size=10,
    )
    plain = dates(WebDatasetIterableDataset(shards / "data_*.tar"))
    found = dates(dataset)
    assert found != plain
    assert all(plain.index(day) - place < 10 for place, day in enumerate(found))


# -- Names -----------------------------------------------------------------------------


def test_patterns(tmp_path):
    """D20: brace ranges and globs."""
    for number in range(12):
        (tmp_path / f"data_{number:06d}.tar").touch()
    base = str(tmp_path / "data_")

    def names(pattern):
        return [int(Path(p).stem[-6:]) for p in expand_shards(pattern)]

    assert names(base + "{000002..000004}.tar") == [2, 3, 4]
    assert names(base + "*.tar") == list(range(12))
    assert names(base + "{000001,000007}.tar") == [1, 7]
    assert names(base + "00000{8..9}.tar") == [8, 9]
    assert names([base + "000003.tar", Path(base + "000001.tar")]) == [3, 1]
    assert names(base + "0000{0,1}{0..1}.tar") == [0, 1, 10, 11]
    with pytest.raises(MissingFileError, match=r"data_000012\.tar"):
        names(base + "{000010..000012}.tar")
    with pytest.raises(MissingFileError):
        names(str(tmp_path / "*.tgz"))
    with pytest.raises(MissingFileError):
        names([])
    with pytest.raises(InputError, match="commands are not run"):
        names("pipe:cat x.tar")


def test_metadata_are_found_or_named(shards, tmp_path):
    dataset = WebDatasetIterableDataset(str(shards / "data_{000000..000006}.tar"))
    assert dataset.metadata["num_samples"] == len(dataset) == 189
    alone = tmp_path / "data_000000.tar"
    alone.write_bytes((shards / "data_000000.tar").read_bytes())
    without = WebDatasetIterableDataset(alone)
    assert (without.metadata, len(without)) == ({}, SIZE)
    named = WebDatasetIterableDataset(alone, metadata_path=shards / "metadata.json")
    assert named.metadata["seq_len"] == 4
    with pytest.raises(ConfigError, match="no train split"):
        WebDatasetIterableDataset(alone, split="train")
    with pytest.raises(MissingFileError):
        WebDatasetIterableDataset(alone, metadata_path=tmp_path / "no.json")


def test_part_of_the_shards(shards):
    part = WebDatasetIterableDataset(shards / "data_00000[3-4].tar", split="train")
    assert len(part) == 21  # samples 90 to 110 of shard 3; shard 4 has none
    assert len(list(part)) == 21


def test_lost_shard_is_noticed_behind_a_glob(shards, tmp_path):
    for path in shards.glob("*"):
        if path.name != "data_000003.tar":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(MissingFileError, match=r"data_000003\.tar"):
        WebDatasetIterableDataset(tmp_path / "data_*.tar")


def test_shards_behind_a_url(shards):
    """Through any file system of fsspec, here its memory."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/remote-shards", recursive=True)
    try:
        url = "memory://remote-shards/data_{000000..000003}.tar"
        dataset = WebDatasetIterableDataset(url, split="train")
        found = [prepared_task.mark(sample) for sample in dataset]
    finally:
        memory.rm("/remote-shards", recursive=True)
    local = WebDatasetIterableDataset(shards / "data_*.tar", split="train")
    assert found == [prepared_task.mark(sample) for sample in local]


# -- Damage ----------------------------------------------------------------------------


def test_verification_finds_a_changed_byte(shards, tmp_path):
    for path in shards.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    WebDatasetIterableDataset(tmp_path / "data_*.tar", verify=True)
    broken = tmp_path / "data_000002.tar"
    content = bytearray(broken.read_bytes())
    content[5000] ^= 1
    broken.write_bytes(content)
    with pytest.raises(InputError, match=r"data_000002\.tar"):
        WebDatasetIterableDataset(tmp_path / "data_*.tar", verify=True)
    with pytest.raises(InputError, match="cannot be verified"):
        WebDatasetIterableDataset(
            rewritten(shards, tmp_path / "x", lambda n, c: (n, c)), verify=True
        )


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def in_place(name: str, content: bytes):
    """Replace one member of the sample 00000001."""
    return lambda n, c: (n, content if n == f"00000001.{name}" else c)


@pytest.mark.parametrize(
    ("change", "problem", "where"),
    [
        (in_place("hr.npy", b"\x93NUMPY damaged"), "damaged", "00000001.hr.npy"),
        (in_place("hr.npy", npy(np.zeros(3))), "float64", "00000001.hr.npy"),
        (
            in_place("hr.npy", npy(np.asfortranarray(np.ones((2, 3), "f4")))),
            "C order",
            "00000001.hr.npy",
        ),
        (
            in_place("hr.npy", npy(np.array([{}], dtype=object))),
            "damaged",
            "00000001.hr.npy",
        ),
        (
            in_place("hr.npy", npy(np.zeros(9, "f4"))[:-4]),
            "damaged",
            "00000001.hr.npy",
        ),
        (in_place("time.json", b"{}"), "not a list of dates", "00000001.time.json"),
        (in_place("time.json", b"[1"), "damaged", "00000001.time.json"),
        (in_place("time.json", b""), "empty", "00000001.time.json"),
    ],
)
def test_damaged_members_are_named(shards, tmp_path, change, problem, where):
    broken = rewritten(shards, tmp_path, change)
    with pytest.raises(InputError, match=problem) as caught:
        list(WebDatasetIterableDataset(broken))
    assert str(broken) in str(caught.value)
    assert where in str(caught.value)


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("suffix", ["pkl", "pyd", "pt", "hr.pickle", "hr.json"])
def test_pickles_are_refused_not_read(shards, tmp_path, suffix):
    content = pickle.dumps(Harmful())

    def change(name, own):
        is_it = name == "00000001.time.json"
        return (f"00000001.{suffix}", content) if is_it else (name, own)

    with pytest.raises(InputError, match="not read") as caught:
        WebDatasetIterableDataset(rewritten(shards, tmp_path, change))
    assert f"00000001.{suffix}" in str(caught.value)


def test_pickled_arrays_are_not_unpickled(shards, tmp_path):
    content = npy(np.array([Harmful()], dtype=object))
    broken = rewritten(shards, tmp_path, in_place("hr.npy", content))
    with pytest.raises(InputError, match="not float32"):
        list(WebDatasetIterableDataset(broken))


@pytest.mark.parametrize("length", [0, 100, 512, 5000, 40_000, "members", "half end"])
def test_cut_off_shards(shards, tmp_path, length):
    """Also where the cut falls between two members."""
    content = (shards / "data_000000.tar").read_bytes()
    with tarfile.open(shards / "data_000000.tar") as archive:
        last = archive.getmembers()[-1]
    if length == "members":
        length = last.offset
    elif length == "half end":
        length = last.offset_data + 512 + 100
    broken = tmp_path / "data_000000.tar"
    broken.write_bytes(content[:length])
    with pytest.raises(InputError, match=r"cut off|no readable tar"):
        Shard(broken)


@pytest.mark.parametrize(
    ("rename", "problem"),
    [
        ({"00000001.hr.npy": "00000001.lr.npy"}, "twice"),
        ({"00000003.lr.npy": "00000001.lr.npy"}, "two places"),
    ],
)
def test_repeated_members(shards, tmp_path, rename, problem):
    broken = rewritten(shards, tmp_path, lambda n, c: (rename.get(n, n), c))
    with pytest.raises(InputError, match=problem):
        Shard(broken)


def test_shards_of_another_run_are_noticed(shards, tmp_path):
    """Metadata and shard disagree on the number of samples."""
    broken = rewritten(
        shards, tmp_path, lambda n, c: (None if n.startswith("00000029") else n, c)
    )
    dataset = WebDatasetIterableDataset(broken, metadata_path=shards / "metadata.json")
    with pytest.raises(InputError, match="number of samples"):
        list(dataset)


DISTRIBUTED = """
    import json, sys
    from pathlib import Path
    import torch.distributed as dist
    import torch.multiprocessing as mp
    from torch.utils.data import DataLoader
    from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
    from tests.data import prepared_task, small_task

    def read(rank, meeting, shards, stores, out):
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
        )
        zarr = ZarrDataPipeline(stores)
        made = {  # spawned workers do not inherit the process group
            ("webdataset", "spawn"): WebDatasetIterableDataset(shards + "/data_*.tar"),
            ("zarr", "fork"): zarr.build_sequence_dataset(split="train"),
        }
        found = {}
        for (name, start), dataset in made.items():
            loader = DataLoader(
                dataset, batch_size=None, num_workers=2, multiprocessing_context=start
            )
            found[name] = [prepared_task.mark(sample) for sample in loader]
        Path(f"{out}/{rank}.json").write_text(json.dumps(found))
        dist.barrier()
        dist.destroy_process_group()

    if __name__ == "__main__":
        mp.spawn(read, args=tuple(sys.argv[1:]), nprocs=2)
"""


@pytest.mark.slow
def test_ranks_of_a_process_group(shards, stores, tmp_path):
    """Under torch.distributed, with two workers on each of two ranks."""
    script = tmp_path / "read.py"
    script.write_text(textwrap.dedent(DISTRIBUTED))
    root = Path(__file__).parents[2]
    arguments = [tmp_path / "meeting", shards, stores, tmp_path]
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    expected = {
        "webdataset": WebDatasetIterableDataset(shards / "data_*.tar"),
        "zarr": ZarrDataPipeline(stores).build_sequence_dataset(split="train"),
    }
    for name, dataset in expected.items():
        own = Counter(prepared_task.mark(sample) for sample in dataset)
        halves = [Counter(map(tuple, rank[name])) for rank in ranks]
        assert halves[0] + halves[1] == own
        assert not halves[0] & halves[1]
