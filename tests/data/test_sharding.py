"""Workers and ranks share the windows: each once, from whatever the data lie in (D15).

What is expected comes from the dates in the file, counted with pandas, and from the
prepared fields of the whole record.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tests.data import prepared_task, small_task
from torch import distributed
from torch import multiprocessing as mp
from torch.utils.data import DataLoader, DistributedSampler

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.store.preprocess import create_shards, write_zarr
from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.data.task.datasets import WindowDataset
from st_cdgm.data.time.splits import SplitConfig

SOURCES = ("netcdf", "netcdf, little memory", "data sets", "zarr", "webdataset")
LITTLE = "600 kB"
WORKERS = (0, 1, 4)
SEQ_LEN = 4

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write the task with two gaps as files, Zarr stores and shards."""
    folder = tmp_path_factory.mktemp("sharding")
    made = prepared_task.pipeline(folder)
    write_zarr(made, folder / "zarr")
    # Ranges of windows in shards do not coincide with shares.
    create_shards(made, folder / "shards", shard_size=17)
    return folder


def source(name: str, folder: Path) -> Any:
    """Return the training windows of one source, opened anew."""
    if name == "webdataset":
        shards = folder / "shards" / "data_*.tar"
        return WebDatasetIterableDataset(shards, split="train")
    return pipeline(name, folder).build_sequence_dataset(split="train")


def pipeline(name: str, folder: Path) -> Any:
    if name == "zarr":
        return ZarrDataPipeline(folder / "zarr", memory=LITTLE)
    if name == "data sets":
        places = [
            xr.open_dataset(folder / f"{n}.nc").load() for n in ("lr", "hr", "static")
        ]
        return NetCDFDataPipeline(
            *places,
            seq_len=SEQ_LEN,
            normalize=True,
            baseline_map=small_task.MAP,
            splits=SplitConfig(**small_task.SPLITS),
        )
    memory = LITTLE if "little" in name else "4 GiB"
    return NetCDFDataPipeline.from_config(small_task.config(folder, memory=memory))


def dates_of_windows(folder: Path, split: str) -> list[list[str]]:
    """Return the dates of every window of a split, from the file with pandas."""
    with xr.open_dataset(folder / "lr.nc") as ds:
        record = pd.Series(0, index=pd.DatetimeIndex(ds.time.values))
    start, end = small_task.SPLITS[split]
    own = record.loc[start:end].index
    runs = np.split(own, np.flatnonzero(np.diff(own) != pd.Timedelta(days=1)) + 1)
    assert len(runs) > 1 or split != "train"
    return [
        run[i : i + SEQ_LEN].strftime("%Y-%m-%d").tolist()
        for run in runs
        for i in range(len(run) - SEQ_LEN + 1)
    ]


@pytest.fixture(scope="module")
def expected(folder) -> Counter:
    """Count the training windows, with all their values."""
    whole = pipeline("netcdf", folder)
    place = {date: day for day, date in enumerate(whole.days.iso())}
    found: Counter = Counter()
    for dates in dates_of_windows(folder, "train"):
        first = place[dates[0]]
        sample: dict[str, Any] = prepared_task.fields(whole, first, first + SEQ_LEN)
        sample |= {"time": dates, "static": whole.static_tensor_np}
        found[prepared_task.mark(sample)] += 1
    assert set(found.values()) == {1}
    return found


@pytest.fixture(scope="module", params=SOURCES)
def dataset(request, folder) -> Any:
    return source(request.param, folder)


def marks(dataset: Any, workers: int) -> list[tuple[str, ...]]:
    # Also where the process itself was spawned: starting workers afresh takes seconds.
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    return [prepared_task.mark(sample) for sample in loader]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 1), (1, 4), (2, 0), (2, 4)])
def test_ranks_by_environment(dataset, expected, monkeypatch, ranks, workers):
    """All sources give the same bits, whoever reads them."""
    shares = []
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        shares.append(Counter(marks(dataset, workers)))
    assert sum(shares, Counter()) == expected
    sizes = [share.total() for share in shares]
    assert max(sizes) - min(sizes) <= max(workers, 1)
    assert len(dataset) == expected.total()


@pytest.mark.parametrize("workers", [0, 4])
def test_shuffled_windows_are_the_same_windows(folder, expected, workers):
    made = pipeline("netcdf, little memory", folder)
    assert not made.fields.in_memory
    shuffled = made.build_sequence_dataset(split="train", shuffle=True, seed=5)
    found = marks(shuffled, workers)
    assert Counter(found) == expected
    if not workers:
        assert found != sorted(found)


@pytest.mark.parametrize(
    ("name", "workers"),
    [("netcdf", 4), ("netcdf, little memory", 0), ("zarr", 1), ("data sets", 0)],
)
def test_batches_of_a_distributed_sampler(folder, name, workers):
    """What training under DDP does: a sampler per rank over one set of windows."""
    windows = pipeline(name, folder).windows("train")
    ends: list[int] = []
    for rank in range(2):
        sampler = DistributedSampler(windows, num_replicas=2, rank=rank, seed=1)
        loader = DataLoader(
            windows,
            batch_size=8,
            sampler=sampler,
            collate_fn=WindowDataset.collate,
            num_workers=workers,
        )
        ends += [int(t) for batch in loader for t in batch.time[:, -1]]
    known = [int(d[-1].replace("-", "")) for d in dates_of_windows(folder, "train")]
    # Both ranks take equally many steps: of an odd number, one window comes twice.
    assert len(known) % 2 == 1
    assert len(ends) == len(known) + 1
    assert set(ends) == set(known)


def read(rank: int, folder: Path, out: Path) -> None:
    """Read every source with every number of workers, as one of two ranks."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{out}/meeting", rank=rank, world_size=2
    )
    found = {
        f"{name}; {workers}": marks(source(name, folder), workers)
        for name in SOURCES
        for workers in WORKERS
    }
    (out / f"{rank}.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_of_a_process_group(folder, expected, tmp_path, monkeypatch):
    """Two processes of torch.distributed, with 0, 1 and 4 workers each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RANK", raising=False)
    mp.spawn(read, args=(folder, tmp_path), nprocs=2)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert len(ranks[0]) == len(SOURCES) * len(WORKERS)
    for key in ranks[0]:
        first, second = (Counter(map(tuple, rank[key])) for rank in ranks)
        assert first + second == expected, key
        assert not first & second, key
        assert torch.tensor(first.total() - second.total()).abs() <= 4, key
