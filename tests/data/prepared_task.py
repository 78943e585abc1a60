"""The small task, prepared once per format, for the tests of the storage layer."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from tests.data import small_task

from st_cdgm.data.pipeline import NetCDFDataPipeline

# 240 days without two stretches of them, so that there are three runs of days.
GAPS = [*range(60), *range(63, 200), *range(205, 240)]
DIMS = ("lr", "baseline", "residual", "hr")


def pipeline(folder: Path, **options) -> NetCDFDataPipeline:
    """Return a pipeline over files with gaps and three splits."""
    small_task.write(folder, time=small_task.stamps(keep=GAPS))
    return NetCDFDataPipeline.from_config(small_task.config(folder, **options))


def unsplit(folder: Path) -> NetCDFDataPipeline:
    """Return a pipeline over the same files, with no splits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return NetCDFDataPipeline(
            folder / "lr.nc",
            folder / "hr.nc",
            seq_len=4,
            baseline_map=small_task.MAP,
        )


def fields(made, start: int, stop: int) -> dict[str, np.ndarray]:
    """Return copies of the prepared fields of some days."""
    return {key: value.copy() for key, value in made.prepared(start, stop).items()}


def sums(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def mark(sample: dict) -> tuple[str, ...]:
    """Return what tells a sample from all others: dates and all bytes."""
    marks = [",".join(sample["time"])]
    for key in (*DIMS, "static"):
        if key in sample:
            values = torch.as_tensor(sample[key]).contiguous()
            digest = hashlib.sha256(values.numpy().tobytes())
            marks.append(f"{key} {tuple(values.shape)} {digest.hexdigest()}")
    return tuple(marks)
