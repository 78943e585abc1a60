"""What a preprocessed directory says about itself: metadata, statistics, checksums.

``metadata.json`` is written last, so a directory that has one is complete. Beside it
lie ``preprocessor.json`` and ``preprocessor.safetensors``: the fitted preprocessor and
the days of the record. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from st_cdgm._version import __version__
from st_cdgm.data.files.open import is_url, resolve_paths
from st_cdgm.data.files.remote import fingerprint as remote_version
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.store.manifest_check import (
    REMEDY,
    check_metadata,
    check_state,
    check_types,
)
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.data.time.windows import runs_of_days
from st_cdgm.data.variables.table import Named
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.outputs import FileFacts, digest, sync, write_json
from st_cdgm.redaction import redacted

FORMAT_VERSION = 1
METADATA = "metadata.json"
STATE_JSON = "preprocessor.json"
STATE_ARRAYS = "preprocessor.safetensors"
STATE = (STATE_JSON, STATE_ARRAYS)
_SHOWN = 5  # file names in a message
_PATHS = ("lr_path", "hr_path", "static_path", "means_path", "stds_path", "zarr_dir")


def check_files(
    directory: Path, metadata: Mapping[str, Any], *, contents: bool = False
) -> None:
    """Compare the files of a directory with its metadata.

    ``contents`` compares the SHA-256 of every file, not only its size. Of the fitted
    preprocessor, which is small, the contents are always compared.

    Raises
    ------
    InputError
        If files are missing or damaged.
    """
    listed: FileFacts = metadata["checksums"]
    missing, resized, changed = [], [], []
    for name, facts in listed.items():
        file = directory / name
        if not file.is_file():
            missing.append(name)
        elif file.stat().st_size != facts["bytes"]:
            resized.append(name)
        elif (contents or name in STATE) and digest(file) != facts:
            changed.append(name)

    # The worst is told, in which the others may have their cause.
    for problem, names in (
        ("files are missing", missing),
        ("files have another size than when written", resized),
        ("files have other contents than written", changed),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise InputError(
                f"a preprocessed directory is damaged: {problem}",
                file=directory,
                found=", ".join(names[:_SHOWN]) + more,
                expected=f"the files as listed in {METADATA}",
                remedy=f"{REMEDY} with --overwrite",
            )


# -- Metadata --------------------------------------------------------------------------


def read_metadata(directory: str | Path, *, kind: str | None = None) -> dict[str, Any]:
    """Read ``metadata.json``; ``kind`` is the format it must have.

    Raises
    ------
    MissingFileError
        If the directory or its metadata do not exist.
    InputError
        If the metadata are no JSON, of another format or version, or an entry is not
        what a sound directory has.
    """
    path = Path(directory) / METADATA
    if not path.is_file():
        there = Path(directory).is_dir()
        raise MissingFileError(
            "not a preprocessed directory",
            file=directory,
            found=f"no {METADATA} in it" if there else "no directory of that name",
            expected="a directory written by: st-cdgm preprocess",
        )

    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, format_ = found["format_version"], found["format"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            "the metadata cannot be read",
            file=path,
            found=f"{type(error).__name__}: {error}",
            remedy=REMEDY,
        ) from error

    # What this version writes, and what the caller can read.
    if version != FORMAT_VERSION:
        raise InputError(
            "a preprocessed directory of another format version",
            file=path,
            found=version,
            expected=FORMAT_VERSION,
            remedy="preprocess again, or use the version of the package that wrote it",
        )
    if kind is not None and format_ != kind:
        raise InputError(
            "a preprocessed directory of another format",
            file=path,
            found=format_,
            expected=kind,
            remedy="ZarrDataPipeline reads zarr, WebDatasetIterableDataset webdataset",
        )
    check_metadata(found, file=path)
    return found


def read_config(
    metadata: Mapping[str, Any], *, file: str | Path | None = None
) -> DataConfig:
    """Return the configuration with which a directory was made.

    Raises
    ------
    InputError
        If an option is of another type or out of range; it names ``file``.
    """
    stored = _known(metadata["config"], DataConfig)
    stored["splits"] = _known(stored.get("splits", {}), SplitConfig)
    for part, cls in ((stored["splits"], SplitConfig), (stored, DataConfig)):
        check_types(part, cls, file=file)
    return DataConfig(**{**stored, "splits": SplitConfig(**stored["splits"])})


def _known(stored: Mapping[str, Any], cls: Any) -> dict[str, Any]:
    """Return the options that this version has."""
    names = {item.name for item in fields(cls)}
    return {key: value for key, value in stored.items() if key in names}


def describe(pipeline: PipelineViews) -> dict[str, Any]:
    """Return what the metadata of both formats share (D89, D90)."""
    prep, days, config = pipeline.preprocessor, pipeline.days, pipeline.config
    transform = pipeline.target_transform
    targets = [target.name for target in prep.targets]

    # What readers take, what tells how the values were made, and from which files.
    return {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "seq_len": int(pipeline.seq_len),
        "baseline_strategy": config.baseline_strategy,
        "baseline": prep.baseline.strategy,
        "oracle": bool(prep.baseline.oracle),
        "baseline_factor": config.baseline_factor,
        "normalize": config.normalize,
        "target_transform": None if callable(transform) else transform,
        "transform_epsilon": float(pipeline.transform_epsilon),
        "codec": prep.codec.to_dict(),
        "calendar": days.calendar,
        "period": days.period(),
        "step_seconds": int(days.step_seconds),
        "num_days": len(days),
        "dims": asdict(pipeline.dims),
        "lr_shape": [int(n) for n in prep.lr_grid.shape],
        "hr_shape": [int(n) for n in prep.hr_grid.shape],
        "variables": {
            "lr": [channel.name for channel in prep.channels],
            "baseline": targets,
            "residual": targets,
            "hr": targets,
            "static": list(prep.static_names),
        },
        "splits": {
            name: {
                "period": list(prep.periods.get(name, [])),
                "days": days_of_runs(index),
            }
            for name, index in pipeline.indices.items()
            if len(index)
        },
        "statistics": _statistics(prep),
        "config": json.loads(redacted(json.dumps(asdict(config)))),
        "inputs": input_facts(pipeline),
    }


def days_of_runs(index: NDArray[np.int64]) -> list[list[int]]:
    """Return increasing indices as runs ``[start, stop)``."""
    return [[int(index[r[0]]), int(index[r[-1]]) + 1] for r in runs_of_days(index)]


def _statistics(prep: Preprocessor) -> dict[str, Any]:
    """Return one mean and spread per channel; the full fields are in the state."""

    def table(
        variables: Iterable[Named], mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> dict[str, Any]:
        scope = "per_variable" if mean.shape[1:] == (1, 1) else "per_gridpoint"
        cells = {
            one.name: {
                "mean": float(np.mean(m, dtype=np.float64)),
                "std": float(np.mean(s, dtype=np.float64)),
            }
            for one, m, s in zip(variables, mean, std, strict=True)
        }
        return {"scope": scope, "mean_over_cells": cells}

    return {
        "period": list(prep.periods.get("train", [])),
        "lr": table(prep.channels, prep.lr_mean, prep.lr_std),
        "residual": table(prep.targets, prep.residual_mean, prep.residual_std),
    }


# -- Inputs ----------------------------------------------------------------------------


def input_facts(pipeline: PipelineViews) -> list[dict[str, Any]]:
    """Return name, size and date of every input, from which a change can be seen."""
    facts = []
    for role in _PATHS:
        given = getattr(pipeline, role, None)
        for one in given if isinstance(given, list | tuple) else [given]:
            facts += [{"role": role, **fact} for fact in _one_input(one, role)]
    return facts


def _one_input(path: Any, role: str) -> list[dict[str, Any]]:
    if path is None:
        return []
    if role == "zarr_dir":
        return [_local(Path(path))]
    if isinstance(path, xr.Dataset):
        return [
            {
                "name": "data set in memory",
                "sizes": {str(k): int(v) for k, v in path.sizes.items()},
                "variables": [str(name) for name in path.data_vars],
            }
        ]
    if is_url(path):
        name = redacted(str(path))
        return [{"name": name, "version": remote_version(str(path))}]

    return [_local(file) for file in resolve_paths(path, role="input")]


def _local(path: Path) -> dict[str, Any]:
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    stats = [file.stat() for file in inside]
    return {
        "name": str(path),
        "bytes": sum(stat.st_size for stat in stats),
        "modified_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


# -- Fitted state ----------------------------------------------------------------------


def preprocessor_mark(preprocessor: Preprocessor) -> str:
    """Return the SHA-256 of all that was fitted."""
    meta, arrays = preprocessor.to_state()
    mark = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        mark.update(f"{name} {array.dtype.str} {array.shape}".encode())
        mark.update(array.tobytes())
    return mark.hexdigest()


def write_preprocessor(
    directory: Path, preprocessor: Preprocessor, days: CalendarDays
) -> None:
    """Write the fitted preprocessor and the days of the record."""
    meta, arrays = preprocessor.to_state()
    stored = {f"preprocessor.{name}": value for name, value in arrays.items()}
    plain: dict[str, Any] = {}
    for item in fields(days):
        value = getattr(days, item.name)
        if isinstance(value, np.ndarray):
            stored[f"days.{item.name}"] = value
        elif value is not None:
            plain[item.name] = value
    content = save(
        {name: np.ascontiguousarray(stored[name]) for name in sorted(stored)}
    )
    # Not by the library, which makes a file that only its owner may read.
    (directory / STATE_ARRAYS).write_bytes(content)
    sync(directory / STATE_ARRAYS)
    write_json(directory / STATE_JSON, {"preprocessor": meta, "days": plain})


# What building objects from other values than were written may raise.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, RecursionError, SafetensorError),
)


def read_preprocessor(directory: Path) -> tuple[Preprocessor, CalendarDays]:
    """Read what :func:`write_preprocessor` has written.

    Raises
    ------
    InputError
        If a file is missing, damaged or of another version.
    """
    file = directory / STATE_JSON
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        arrays = load((directory / STATE_ARRAYS).read_bytes())

        preprocessor = Preprocessor.from_state(
            meta["preprocessor"], _under(arrays, "preprocessor.")
        )
        days = CalendarDays(**meta["days"], **_under(arrays, "days."))
        check_state(preprocessor, days, file=file)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            "the fitted preprocessor cannot be read",
            file=file,
            found=f"{type(error).__name__}: {error}",
            expected=f"{STATE_JSON} and {STATE_ARRAYS} as written",
            remedy=REMEDY,
        ) from error
    return preprocessor, days


def _under(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
