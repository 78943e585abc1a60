"""Peak memory of preprocessing against the size of the input, measured and plotted.

The inputs are generated day by day as they are read, so that only the output needs
disk. Each size is preprocessed to Zarr in a child process; the resident memory of the
child and of its own children together is sampled.

    python benchmarks/memory.py --gib 2 5 10 20 --out /scratch/preprocessed
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import psutil
import xarray as xr

GIB = 2**30
FINE, COARSE = (172, 179), (23, 26)
LEVELS = (850, 500, 250)
TEXTURE = 512
DAYS_PER_CHUNK = 32
SAMPLE_SECONDS = 0.05
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "preprocessing_memory.png"


# -- Inputs ----------------------------------------------------------------------------


def axes(shape: tuple[int, int]) -> dict[str, tuple]:
    """Return a regular grid over western Europe."""
    lat = np.linspace(36.0, 58.0, shape[0])
    lon = np.linspace(-10.0, 16.0, shape[1])
    return {
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
    }


def waves(days: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Return travelling waves plus weather of the day. Shape ``(n, Y, X)``."""
    random = np.random.default_rng((seed, int(days[0])))
    y = np.linspace(0, 2 * np.pi, shape[0], dtype=np.float32)
    x = np.linspace(0, 3 * np.pi, shape[1], dtype=np.float32)
    phase = random.uniform(0, 6, (len(days), 1, 1)).astype(np.float32)
    season = np.cos(2 * np.pi * days / 365).astype(np.float32)[:, None, None]
    field = np.sin(x[None, None, :] + phase) * np.cos(y[None, :, None] - phase)
    # Weather: another cut of one large random field every day.
    texture = _texture(seed)
    corner = random.integers(0, TEXTURE - max(shape), (len(days), 2))
    for i, (row, column) in enumerate(corner):
        field[i] += texture[row : row + shape[0], column : column + shape[1]]
    return field + 2 * season


@lru_cache
def _texture(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return 0.05 * random.standard_normal((TEXTURE, TEXTURE), np.float32)


def lazy(n_days: int, shape: tuple[int, int], make) -> da.Array:
    """Return ``make(days)`` over the record, computed as it is read."""
    blocks = []
    for start in range(0, n_days, DAYS_PER_CHUNK):
        days = np.arange(start, min(start + DAYS_PER_CHUNK, n_days))
        part = dask.delayed(make)(days)
        blocks.append(da.from_delayed(part, (len(days), *shape), np.float32))
    return da.concatenate(blocks)


def predictors(n_days: int) -> xr.Dataset:
    """Return lazy coarse predictors, ten channels."""
    fields = {}
    for i, level in enumerate(LEVELS):
        for j, (name, mean, spread, units) in enumerate(
            (
                ("q", 5e-3, 1e-3, "kg kg-1"),
                ("t", 260, 8, "K"),
                ("z", 3e4, 900, "m2 s-2"),
            )
        ):
            fields[f"{name}_{level}"] = _variable(
                n_days, COARSE, 10 * i + j, mean, spread, units
            )
    fields["tas"] = _variable(n_days, COARSE, 90, 285, 6, "K")
    return _dataset(fields, n_days, COARSE)


def targets(n_days: int) -> xr.Dataset:
    """Return lazy fine targets, sea missing."""
    sea = waves(np.arange(1), FINE, 99)[0] > 1.9

    def masked(values: np.ndarray) -> np.ndarray:
        values[:, sea] = np.nan
        return values

    def minimum(days: np.ndarray) -> np.ndarray:
        return masked(8 + 6 * waves(days, FINE, 90))

    def maximum(days: np.ndarray) -> np.ndarray:
        return masked(16 + 6 * waves(days, FINE, 90) + np.abs(waves(days, FINE, 91)))

    def rain(days: np.ndarray) -> np.ndarray:
        return masked(np.maximum(8 * waves(days, FINE, 92) - 4, 0))

    dims = ("time", "lat", "lon")
    celsius = {"units": "degC", "standard_name": "air_temperature"}
    wet = {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}
    fields = {
        "tasmin": (dims, lazy(n_days, FINE, minimum), celsius),
        "tasmax": (dims, lazy(n_days, FINE, maximum), celsius),
        "pr": (dims, lazy(n_days, FINE, rain), wet),
    }
    return _dataset(fields, n_days, FINE)


def _variable(
    n_days: int,
    shape: tuple[int, int],
    seed: int,
    mean: float,
    spread: float,
    units: str,
) -> tuple:
    def make(days: np.ndarray) -> np.ndarray:
        return (mean + spread * waves(days, shape, seed)).astype(np.float32)

    return ("time", "lat", "lon"), lazy(n_days, shape, make), {"units": units}


def _dataset(fields: dict, n_days: int, shape: tuple[int, int]) -> xr.Dataset:
    stamps = xr.date_range(
        "1851-01-01", periods=n_days, calendar="noleap", use_cftime=True
    )
    return xr.Dataset(fields, coords={"time": stamps, **axes(shape)})


def days_for(gib: float) -> int:
    """Return the length of a record whose inputs are so large."""
    per_day = 4 * (3 * FINE[0] * FINE[1] + 10 * COARSE[0] * COARSE[1])
    return max(int(gib * GIB / per_day), DAYS_PER_CHUNK)


# -- Measurement -----------------------------------------------------------------------


def preprocess(gib: float, out: Path, memory: str, workers: int) -> None:
    """Preprocess one size; the body of the child process."""
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from st_cdgm.data.store.preprocess import pipeline_memory, write_zarr
    from st_cdgm.data.time.splits import SplitConfig

    n_days = days_for(gib)
    coarse, fine = predictors(n_days), targets(n_days)
    last = 1851 + max(n_days // 365 * 7 // 10, 1) - 1
    with dask.config.set(scheduler="synchronous"):
        pipeline = NetCDFDataPipeline(
            coarse,
            fine,
            normalize=True,
            baseline_strategy="climatology",
            splits=SplitConfig(train=["1851-01-01", f"{last}-12-31"]),
            memory=pipeline_memory(memory),
        )
        write_zarr(pipeline, out, memory=memory, workers=workers, overwrite=True)


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its descendants."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def measure(gib: float, out: Path, memory: str, workers: int) -> dict[str, float]:
    """Preprocess one size in a child process; return what it took."""
    command = [sys.executable, __file__, "--child", str(gib), "--out", str(out)]
    command += ["--memory", memory, "--workers", str(workers)]
    started, peak = time.perf_counter(), 0
    child = subprocess.Popen(command)
    watched = psutil.Process(child.pid)
    while child.poll() is None:
        try:
            peak = max(peak, resident(watched))
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_SECONDS)
    if child.wait():
        sys.exit(f"the child failed with {child.returncode}")
    written = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    shutil.rmtree(out)
    return {
        "input_gib": gib,
        "days": days_for(gib),
        "peak_gib": peak / GIB,
        "written_gib": written / GIB,
        "minutes": (time.perf_counter() - started) / 60,
    }


def plot(rows: list[dict[str, float]], budget: float, path: Path) -> None:
    """Draw peak memory and the budget against the size of the input."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), constrained_layout=True)
    sizes = [row["input_gib"] for row in rows]
    axis.plot(sizes, [row["peak_gib"] for row in rows], "o-", label="peak, measured")
    axis.axhline(budget, color="0.4", ls="--", label=f"--memory, {budget:g} GiB")
    axis.plot(sizes, sizes, color="0.7", lw=1, label="as large as the input")
    axis.set(
        xlabel="input (GiB)",
        ylabel="resident memory (GiB)",
        ylim=(0, 1.3 * budget),
        xlim=(0, None),
    )
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure all sizes, print a table, draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--out", type=Path, default=Path("preprocessed_benchmark"))
    parser.add_argument("--memory", default="2 GiB")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--image", type=Path, default=IMAGE)
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        preprocess(given.child, given.out, given.memory, given.workers)
        return
    from st_cdgm.data.task.days import memory_bytes

    rows = []
    print(
        f"{'input GiB':>9} {'days':>7} {'peak GiB':>9} {'written GiB':>11} {'min':>6}"
    )
    for gib in given.gib:
        row = measure(gib, given.out, given.memory, given.workers)
        rows.append(row)
        print(
            f"{row['input_gib']:9.1f} {row['days']:7.0f} {row['peak_gib']:9.2f} "
            f"{row['written_gib']:11.1f} {row['minutes']:6.1f}",
            flush=True,
        )
    budget = memory_bytes(given.memory) / GIB
    plot(rows, budget, given.image)


if __name__ == "__main__":
    main()
