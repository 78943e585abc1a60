"""How fast training windows come out of each format, side by side in one run.

One year of daily predictors (15 channels, 23 x 26) and one target (172 x 179); windows
of 6 days, stride 1: 2.4 MB each; batches of 8, every page of every batch touched, page
cache warm. The yardstick is a plain NumPy copy of the same bytes into a batch. The
others: xbatcher on the prepared data sets in memory, and xarray's ``isel`` on them, a
window at a time.

    python benchmarks/data.py [--rounds 5] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.time.splits import SplitConfig

DAYS, SEQ_LEN, BATCH = 365, 6, 8
COARSE, FINE = (23, 26), (172, 179)
LEVELS = (850, 500, 250)
KEYS = ("lr", "baseline", "residual", "hr")
TOUCHED = 1024  # every 4 KiB page of float32


def write_task(folder: Path) -> None:
    """Write a year of noise with the shapes of a CMIP6 task."""
    rng = np.random.default_rng(0)
    time_axis = xr.date_range("2001-01-01", periods=DAYS, use_cftime=True)
    dims = ("time", "lat", "lon")

    def axes(shape: tuple[int, int]) -> dict:
        lat = np.linspace(-47, -33, shape[0])
        lon = np.linspace(165, 179, shape[1])
        north = {"units": "degrees_north", "standard_name": "latitude"}
        east = {"units": "degrees_east", "standard_name": "longitude"}
        return {
            "time": time_axis,
            "lat": ("lat", lat, north),
            "lon": ("lon", lon, east),
        }

    names = {"ta": ("K", 250), "ua": ("m s-1", 0), "va": ("m s-1", 0)}
    names |= {"wap": ("Pa s-1", 0), "hus": ("kg kg-1", 0.005)}
    fields = {}
    for name, (units, mean) in names.items():
        for level in LEVELS:
            noise = rng.standard_normal((DAYS, *COARSE)).astype(np.float32)
            scale = 0.001 if name == "hus" else 0.1
            fields[f"{name}_{level}"] = (dims, mean + scale * noise, {"units": units})
    xr.Dataset(fields, coords=axes(COARSE)).to_netcdf(folder / "lr.nc")
    pr = np.maximum(rng.standard_normal((DAYS, *FINE)), 0).astype(np.float32)
    rate = {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}
    xr.Dataset({"pr": (dims, 9 * pr, rate)}, coords=axes(FINE)).to_netcdf(
        folder / "hr.nc"
    )


def open_task(folder: Path, memory: str = "4 GiB") -> NetCDFDataPipeline:
    """Return the pipeline; all days are one split."""
    return NetCDFDataPipeline(
        folder / "lr.nc",
        folder / "hr.nc",
        seq_len=SEQ_LEN,
        baseline_strategy="climatology",
        normalize=True,
        splits=SplitConfig(train=["2001-01-01", "2001-12-31"]),
        memory=memory,
    )


def touch(batch: dict) -> None:
    """Read one number of every page."""
    for key in KEYS:
        value = batch[key]
        flat = value.view(-1) if torch.is_tensor(value) else value.reshape(-1)
        flat[::TOUCHED].sum()


def loader(dataset) -> Callable[[], int]:
    """Return a pass over a data set in batches."""

    def run() -> int:
        count = 0
        for batch in DataLoader(dataset, batch_size=BATCH):
            touch(batch)
            count += len(batch["lr"])
        return count

    return run


def plain_copy(arrays: dict[str, np.ndarray]) -> Callable[[], int]:
    """Return a pass that only copies the bytes of the windows into one batch."""
    shapes = {key: (BATCH, SEQ_LEN, *value.shape[1:]) for key, value in arrays.items()}

    def run() -> int:
        windows = DAYS - SEQ_LEN + 1
        for first in range(0, windows, BATCH):
            batch = {key: np.empty(shape, np.float32) for key, shape in shapes.items()}
            for row in range(min(BATCH, windows - first)):
                start = first + row
                for key, value in arrays.items():
                    np.copyto(batch[key][row], value[start : start + SEQ_LEN])
            touch(batch)
        return windows

    return run


def stacked(datasets: dict[str, xr.Dataset]) -> dict[str, np.ndarray]:
    return {
        key: np.stack([dataset[name].values for name in dataset], axis=1)
        for key, dataset in datasets.items()
    }


def batches(windows: Iterator[dict[str, np.ndarray]]) -> int:
    """Join windows into batches, as a loader would."""
    count, kept = 0, []
    for window in windows:
        kept.append(window)
        count += 1
        if len(kept) == BATCH:
            touch({key: np.stack([w[key] for w in kept]) for key in KEYS})
            kept = []
    return count


def naive_xarray(datasets: dict[str, xr.Dataset]) -> Callable[[], int]:
    def windows() -> Iterator[dict[str, np.ndarray]]:
        for start in range(DAYS - SEQ_LEN + 1):
            part = slice(start, start + SEQ_LEN)
            yield stacked({k: d.isel(time=part) for k, d in datasets.items()})

    return lambda: batches(windows())


def with_xbatcher(datasets: dict[str, xr.Dataset]) -> Callable[[], int] | None:
    try:
        import xbatcher
    except ImportError:
        return None

    def windows() -> Iterator[dict[str, np.ndarray]]:
        generators = {
            key: xbatcher.BatchGenerator(
                dataset,
                input_dims={"time": SEQ_LEN},
                input_overlap={"time": SEQ_LEN - 1},
                preload_batch=False,
            )
            for key, dataset in datasets.items()
        }
        for parts in zip(*generators.values(), strict=True):
            yield stacked(dict(zip(generators, parts, strict=True)))

    return lambda: batches(windows())


def cases(folder: Path) -> dict[str, Callable[[], int]]:
    from st_cdgm.data.store.preprocess import create_shards, write_zarr
    from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline

    pipeline = open_task(folder)
    write_zarr(pipeline, folder / "zarr")
    create_shards(pipeline, folder / "shards", SEQ_LEN)
    datasets = {
        "lr": pipeline.lr_dataset,
        "baseline": pipeline.baseline_prepared,
        "residual": pipeline.residual_dataset,
        "hr": pipeline.hr_prepared,
    }
    zarr = ZarrDataPipeline(folder / "zarr")
    short = ZarrDataPipeline(folder / "zarr", memory="64 MiB")
    shards = WebDatasetIterableDataset(str(folder / "shards" / "data_*.tar"))
    found = {
        "plain NumPy copy": plain_copy(stacked(datasets)),
        "NetCDF pipeline": loader(pipeline.build_sequence_dataset()),
        "Zarr pipeline": loader(zarr.build_sequence_dataset()),
        "NetCDF pipeline, 64 MiB": loader(
            open_task(folder, "64 MiB").build_sequence_dataset()
        ),
        "Zarr pipeline, 64 MiB": loader(short.build_sequence_dataset()),
        "shards": loader(shards),
        "xbatcher": with_xbatcher(datasets),
        "xarray isel": naive_xarray(datasets),
    }
    return {name: case for name, case in found.items() if case is not None}


def measure(found: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Return windows per second of each case in interleaved rounds, after one more."""
    speed: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, case in found.items():
            started = time.perf_counter()
            windows = case()
            seconds = time.perf_counter() - started
            assert windows == DAYS - SEQ_LEN + 1, (name, windows)
            if number:
                speed[name].append(windows / seconds)
    return speed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder))
        speed = measure(cases(Path(folder)), options.rounds)
    limit = statistics.median(speed["plain NumPy copy"])
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}")
    print(f"{'':26}{'windows/s':>12}{'lowest':>9}{'of a copy':>11}")
    for name, values in speed.items():
        middle = statistics.median(values)
        share = f"{middle / limit:.1%}"
        print(f"{name:26}{middle:12.0f}{min(values):9.0f}{share:>11}")
    if options.out:
        options.out.write_text(json.dumps(speed, indent=2))


if __name__ == "__main__":
    main()
