"""What the toy chain gives under fixed seeds: the record that refactorings must keep.

``python -m tests.golden`` prints what differs from the record and with ``--write``
replaces it; a change of the record belongs into a decision that names its cause.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RECORD = Path(__file__).with_name("golden.json")


def machine() -> dict[str, str]:
    """Return what floating point results may depend on."""
    import torch

    return {
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
    }


def summary(values: Any) -> dict[str, Any]:
    """Return shape, moments, some values and the digest of an array."""
    array = np.ascontiguousarray(values)
    finite = array[np.isfinite(array)].astype(np.float64)
    return {
        "shape": list(array.shape),
        "missing": int(array.size - finite.size),
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "some": finite[:: max(1, finite.size // 7)][:7].tolist(),
        "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
    }


def compute(pipeline: Any, folder: Path) -> dict[str, Any]:
    """Run the toy chain once; return its values by name."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "batch": dict(_batch(pipeline)),
            "stores": dict(_stores(pipeline, folder)),
            "train_epoch": _loop(),
            **_trained(pipeline, folder),
        }
    finally:
        torch.set_num_threads(threads)


def _batch(pipeline: Any) -> Iterator[tuple[str, Any]]:
    batch = pipeline.windows("train").batch([0, 7, 20])
    for name in ("lr", "truth", "baseline", "static", "valid", "day_of_year"):
        if hasattr(batch, name):
            yield name, summary(getattr(batch, name).numpy())


def _stores(pipeline: Any, folder: Path) -> Iterator[tuple[str, Any]]:
    """Digests of what is written, without the documents that name the inputs."""
    from st_cdgm.data import create_shards, write_zarr

    write_zarr(pipeline, folder / "store")
    create_shards(pipeline, folder / "shards", 3, shard_size=50)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".json":
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield str(path.relative_to(folder)), digest


def _loop() -> dict[str, float]:
    """Return the losses of one pass of the documented loop, once per generator."""
    import torch

    from tests.training.test_training_loop import Models, batches

    means: dict[str, float] = {}
    for kind in ("ddpm", "one_step"):
        torch.manual_seed(5)
        found = Models(kind).train(batches(3))
        means |= {f"{kind}_{name}": value for name, value in found.items()}
    return means


def _trained(pipeline: Any, folder: Path) -> dict[str, Any]:
    """Train with both generators for two epochs; downscale with the first."""
    import xarray as xr
    from safetensors.numpy import load_file

    from st_cdgm.inference.downscale import downscale
    from st_cdgm.training.config import LossConfig, TrainingConfig
    from st_cdgm.training.fit import train
    from tests.toy import tiny_model

    found: dict[str, Any] = {}
    for kind in ("one_step", "edm"):
        result = train(
            pipeline,
            model=tiny_model(kind),
            loss=LossConfig(),
            training=TrainingConfig(
                epochs=2,
                batch_size=16,
                lr=3e-3,
                validation_every=1,
                validation_stride=3,
            ),
            run_dir=folder / kind,
            seed=3,
        )
        weights = load_file(result.checkpoint / "model.safetensors")
        found[f"fit_{kind}"] = {
            "best_loss": result.best_loss,
            "weights": summary(
                np.concatenate([weights[k].ravel() for k in sorted(weights)])
            ),
            "tensors": sorted(weights),
        }
        output = folder / f"{kind}.nc"
        downscale(
            result.checkpoint,
            [pipeline.lr_path],
            output,
            members=2,
            seed=1,
            start="2001-07-15",
            end="2001-07-20",
        )
        with xr.open_dataset(output) as ds:
            found[f"downscaled_{kind}"] = {
                str(name): summary(ds[name].values)
                for name in pipeline.preprocessor.codec.names
            }
    return found


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf with its path."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield from flat(value, f"{prefix}/{key}")
    elif isinstance(values, list):
        for i, value in enumerate(values):
            yield from flat(value, f"{prefix}/{i}")
    else:
        yield prefix.removeprefix("/"), values


def differences(found: Any, record: Any, *, tolerance: float, exact: bool) -> list[str]:
    """Return in words what differs by more than a relative tolerance.

    With ``exact`` the digests must agree too.
    """
    left, right = dict(flat(found)), dict(flat(record))
    out = [f"{key}: only on one side" for key in sorted(left.keys() ^ right.keys())]
    for key in sorted(left.keys() & right.keys()):
        a, b = left[key], right[key]
        if isinstance(a, float) and isinstance(b, float):
            if abs(a - b) > tolerance * max(abs(a), abs(b), 1e-6):
                out.append(f"{key}: {a!r} against {b!r}")
        elif a != b and (exact or not _is_digest(b)):
            out.append(f"{key}: {a} against {b}")
    return out


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64


def main(arguments: list[str]) -> None:
    from tests import conftest, toy

    class Factory:
        def mktemp(self, name: str) -> Path:
            return Path(tempfile.mkdtemp(prefix=name))

    files = conftest.tiny_files.__wrapped__(Factory())
    pipeline = toy.tiny_pipeline.__wrapped__(files)
    found = {"machine": machine(), **compute(pipeline, Factory().mktemp("golden"))}
    if "--write" in arguments:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    record = json.loads(RECORD.read_text("utf-8"))
    lines = differences(found, record, tolerance=0.0, exact=True)
    sys.stdout.write("\n".join(lines) + f"\n{len(lines)} differences\n")


if __name__ == "__main__":
    main(sys.argv[1:])
