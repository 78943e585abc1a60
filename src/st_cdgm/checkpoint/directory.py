"""Checkpoints: a directory of safetensors and JSON, enough for inference. No pickle.

``model.safetensors`` holds the weights (keys ``model.*``) and the arrays of the data
layer (keys ``data.*``); ``meta.json`` holds everything else, and the checksum of every
tensor (`integrity`). ``checkpoints/last`` has two more files, from which a training
goes on: `st_cdgm.training.resume`. Further networks of a pool lie in ``networks/1``,
``networks/2`` ... , each a checkpoint itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from st_cdgm._version import __version__
from st_cdgm.checkpoint.build import build_model
from st_cdgm.checkpoint.integrity import (
    CHECKSUMS,
    check_finite,
    check_no_others,
    check_sums,
    checksums,
    damaged,
    sizes_within,
)
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.models.config import ModelConfig
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.outputs import (
    move_directory,
    not_written,
    recover_directory,
    remove_leftovers,
    sync,
    temporary_directory,
    write_atomically,
)
from st_cdgm.registry import naming, plugins

FORMAT_VERSION = 1
WEIGHTS = "model.safetensors"
META = "meta.json"
NETWORKS = "networks"
# What missing or contradictory parts of a checkpoint lead to while it is rebuilt.
REBUILD_ERRORS = (
    LookupError,
    TypeError,
    ValueError,
    RuntimeError,
    MemoryError,
    OmegaConfBaseException,
)


@dataclass(eq=False)
class Checkpoint:
    """A model ready for inference and what it must know of its training data.

    ``others`` are the further networks of a pool, with their own preprocessors.
    """

    model: STCDGM
    preprocessor: Preprocessor
    meta: dict[str, Any]
    others: tuple[Checkpoint, ...] = ()

    @property
    def networks(self) -> tuple[Checkpoint, ...]:
        """All networks; network k of K makes the members k, k + K, k + 2 K ..."""
        return (self, *self.others)


def save_checkpoint(
    directory: Path,
    model: STCDGM,
    preprocessor: Preprocessor,
    *,
    extra: dict[str, Any] | None = None,
    more: Callable[[Path], list[str]] | None = None,
) -> Path:
    """Write a checkpoint directory in one step: it is complete or it is not there.

    ``more`` writes further files into a directory and returns their names.

    Raises
    ------
    OutputError
        It cannot be written; the checkpoint of before is left as it was.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    data_meta, arrays = preprocessor.to_state()
    tensors = {
        f"model.{key}": value.detach().cpu().contiguous().clone()
        for key, value in model.state_dict().items()
    }
    tensors |= {
        f"data.{key}": torch.from_numpy(np.array(value, order="C"))
        for key, value in arrays.items()
    }

    meta = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "model": asdict(model.config),
        "data": data_meta,
        "variables": model.names,
        "baseline_mean": model.baseline_mean.flatten().tolist(),
        "baseline_std": model.baseline_std.flatten().tolist(),
        **(extra or {}),
        CHECKSUMS: checksums(tensors),
    }

    if plugins():
        meta["plugins"] = plugins()

    # Everything is on disk before the directory gets its name.
    remove_leftovers(directory)
    try:
        with temporary_directory(directory) as temporary:
            text = json.dumps(meta, indent=2)
            (temporary / META).write_text(text, encoding="utf-8")
            save_file(tensors, temporary / WEIGHTS)
            names = [WEIGHTS, META, *(more(temporary) if more else [])]

            # safetensors gives its files to their owner alone; the umask decides.
            rights = (temporary / META).stat().st_mode
            for name in names:
                (temporary / name).chmod(rights)
                sync(temporary / name)
            move_directory(temporary, directory)
    except (OSError, SafetensorError) as error:
        raise not_written(directory, error) from error
    return directory


def _what_lies_there(directory: Path) -> str:
    """Describe what is in the place of a checkpoint, or beside it."""
    if directory.is_dir():
        names = sorted(path.name for path in directory.iterdir())[:8]
        return f"a directory with {', '.join(names) or 'nothing'}"
    if directory.exists():
        return "a file"
    if not directory.parent.is_dir():
        return f"no directory {directory.parent}"
    beside = sorted(p.name for p in directory.parent.iterdir() if p.is_dir())[:8]
    return f"nothing of that name; beside it: {', '.join(beside) or 'nothing'}"


def _read_meta(directory: Path) -> dict[str, Any]:
    recover_directory(directory)
    path = directory / META
    if not path.is_file() or not (directory / WEIGHTS).is_file():
        raise MissingFileError(
            "not a checkpoint directory",
            file=directory,
            found=_what_lies_there(directory),
            expected=f"{WEIGHTS} and {META}",
            remedy="pass RUN/checkpoints/best (or last) of a training",
        )

    problem = "the checkpoint's description is not valid JSON"
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise damaged(problem, path, error) from error
    if not isinstance(meta, dict):
        raise damaged(problem, path, type(meta).__name__)

    # Damage first: a half-written file has no format version either.
    if meta.get("format_version") != FORMAT_VERSION:
        raise InputError(
            "the checkpoint was written in another format",
            file=path,
            found=f"format_version {meta.get('format_version')}",
            expected=f"format_version {FORMAT_VERSION}",
            remedy="use the package version named in the file, or train again",
        )
    return meta


def load_checkpoint(
    directory: str | Path, *, device: str | torch.device = "cpu"
) -> Checkpoint:
    """Rebuild model and data description from a checkpoint directory.

    Raises
    ------
    MissingFileError
        The directory or one of its files does not exist.
    InputError
        Damaged files, another format version, or a plugin that is not loaded.
    """
    directory = Path(directory)
    meta = _read_meta(directory)
    tensors = _read_weights(directory, meta)

    try:
        with sizes_within(tensors, directory / META):
            model, preprocessor = _rebuild(meta, tensors, directory / WEIGHTS)
    except (InputError, *REBUILD_ERRORS) as error:
        _check_plugins(meta, directory, error)
        if isinstance(error, InputError):
            raise
        raise damaged(
            "the parts of the checkpoint do not fit together",
            directory,
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected=f"{WEIGHTS} and {META} of one training, unchanged",
        ) from error

    others = [load_checkpoint(p, device=device) for p in _further_networks(directory)]
    return Checkpoint(model.to(device).eval(), preprocessor, meta, tuple(others))


def _read_weights(directory: Path, meta: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint, unchanged since they were written."""
    path = directory / WEIGHTS
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        problem = "the checkpoint's weights cannot be read"
        raise damaged(problem, path, error) from error
    check_sums(tensors, meta.get(CHECKSUMS), path)
    check_finite(_part(tensors, "model"), path)
    return tensors


def _further_networks(directory: Path) -> list[Path]:
    """Return the folders of a pool's networks 1, 2 ... in order."""
    folder = directory / NETWORKS
    found = [p for p in folder.iterdir() if p.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: (len(path.name), path.name))


def _same_grid(one: Preprocessor, other: Preprocessor) -> bool:
    pairs = (
        (one.hr_grid.lat2d, other.hr_grid.lat2d),
        (one.hr_grid.lon2d, other.hr_grid.lon2d),
    )
    return all(np.array_equal(a, b) for a, b in pairs)


def pool_checkpoints(first: Path, others: Sequence[Path]) -> Path:
    """Put networks beside the one in ``first``, replacing those that are there.

    The pool appears in one step, and the other checkpoints stay where they are.

    Raises
    ------
    InputError
        The networks do not make the same variables on the same grid.
    """
    loaded = [load_checkpoint(path) for path in (first, *others)]
    wanted = loaded[0].preprocessor
    for path, found in zip(others, loaded[1:], strict=True):
        prep = found.preprocessor
        if prep.targets != wanted.targets or not _same_grid(prep, wanted):
            raise InputError(
                "the networks of a pool make different fields",
                file=path,
                found=", ".join(t.name for t in prep.targets),
                expected=", ".join(t.name for t in wanted.targets) + ", same grid",
            )

    remove_leftovers(first / NETWORKS)
    with temporary_directory(first / NETWORKS) as new:
        for number, path in enumerate(others, start=1):
            kept = shutil.ignore_patterns(NETWORKS, ".*")
            shutil.copytree(path, new / str(number), ignore=kept)
        move_directory(new, first / NETWORKS)
    return first


def _check_plugins(meta: dict[str, Any], directory: Path, cause: Exception) -> None:
    """Say which plugins the training had and this process has not, if any.

    They are named, never imported: a checkpoint may come from a stranger.
    """
    missing = [str(name) for name in meta.get("plugins", []) if name not in plugins()]
    if missing:
        problem = cause.problem if isinstance(cause, InputError) else str(cause)
        raise InputError(
            "the checkpoint was trained with plugins that are not loaded",
            file=directory,
            found=" ".join(problem.split())[:200],
            expected=f"the plugins {', '.join(missing)}",
            remedy=naming(missing),
        ) from cause


def _rebuild(
    meta: dict[str, Any], tensors: dict[str, torch.Tensor], path: Path
) -> tuple[STCDGM, Preprocessor]:
    arrays = {key: value.numpy() for key, value in _part(tensors, "data").items()}
    preprocessor = Preprocessor.from_state(meta["data"], arrays)
    known = {f"data.{key}" for key in preprocessor.to_state()[1]}
    weights = _part(tensors, "model")
    check_no_others(tensors, known | {f"model.{key}" for key in weights}, path)

    config = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(ModelConfig), meta["model"])
    )
    assert isinstance(config, ModelConfig)

    model = build_model(
        preprocessor,
        config,
        baseline_mean=torch.tensor(meta["baseline_mean"]),
        baseline_std=torch.tensor(meta["baseline_std"]),
    )
    model.load_state_dict(weights)
    return model, preprocessor


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Return the tensors stored as ``NAME.*``, by the rest of their keys."""
    return {
        key.removeprefix(f"{name}."): value
        for key, value in tensors.items()
        if key.startswith(f"{name}.")
    }


def change_settings(directory: Path, part: str, **settings: Any) -> None:
    """Change settings of a part of the model that leave its weights alone.

    Of ``diffusion`` for instance; what was chosen after the training.
    """
    meta = _read_meta(directory)
    meta["model"][part] |= settings
    _write_meta(directory, meta)


def add_to_description(directory: Path, **facts: Any) -> None:
    """Add what was found after the training to what a checkpoint says of itself."""
    _write_meta(directory, _read_meta(directory) | facts)


def _write_meta(directory: Path, meta: dict[str, Any]) -> None:
    text = json.dumps(meta, indent=2)
    write_atomically(directory / META, lambda p: p.write_text(text, encoding="utf-8"))


def load_weights(model: STCDGM, directory: Path) -> None:
    """Put the weights of a checkpoint into the model that wrote it."""
    tensors = _read_weights(directory, _read_meta(directory))
    model.load_state_dict(_part(tensors, "model"))
