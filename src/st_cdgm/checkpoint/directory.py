"""Checkpoints: a directory of safetensors and JSON, enough for inference. No pickle.

``model.safetensors`` holds the weights (keys ``model.*``) and the arrays of the data
layer (keys ``data.*``); ``meta.json`` holds everything else. ``checkpoints/last`` has
two more files, from which a training goes on: `st_cdgm.training.resume`. Further
networks of a pool lie in ``networks/1``, ``networks/2`` ... , each a checkpoint itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from st_cdgm._version import __version__
from st_cdgm.checkpoint.build import build_model
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.models.config import ModelConfig
from st_cdgm.models.st_cdgm import STCDGM
from st_cdgm.outputs import move_directory, sync, write_atomically
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
    }

    if plugins():
        meta["plugins"] = plugins()

    # Everything is on disk before the directory gets its name.
    name = f".{directory.name}-"
    with TemporaryDirectory(prefix=name, dir=directory.parent) as folder:
        temporary = Path(folder)
        save_file(tensors, temporary / WEIGHTS)
        (temporary / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")
        names = [WEIGHTS, META, *(more(temporary) if more else [])]

        temporary.chmod(0o755)
        for name in names:
            (temporary / name).chmod(0o644)
            sync(temporary / name)
        move_directory(temporary, directory)
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
        raise _damaged(problem, path, error) from error
    if not isinstance(meta, dict):
        raise _damaged(problem, path, type(meta).__name__)

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


def _damaged(
    problem: str,
    path: Path,
    found: object,
    *,
    expected: str = "the file that the training wrote",
) -> InputError:
    return InputError(
        problem,
        file=path,
        found=found,
        expected=expected,
        remedy="copy the checkpoint again, or use another one",
    )


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
    weights = directory / WEIGHTS
    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError) as error:
        problem = "the checkpoint's weights cannot be read"
        raise _damaged(problem, weights, error) from error

    try:
        model, preprocessor = _rebuild(meta, tensors)
    except (InputError, *REBUILD_ERRORS) as error:
        _check_plugins(meta, directory, error)
        if isinstance(error, InputError):
            raise
        raise _damaged(
            "the parts of the checkpoint do not fit together",
            directory,
            f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            expected=f"{WEIGHTS} and {META} of one training, unchanged",
        ) from error

    others = [load_checkpoint(p, device=device) for p in _further_networks(directory)]
    return Checkpoint(model.to(device).eval(), preprocessor, meta, tuple(others))


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

    with TemporaryDirectory(prefix=".networks-", dir=first) as folder:
        new = Path(folder) / NETWORKS
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
    meta: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> tuple[STCDGM, Preprocessor]:
    arrays = {key: value.numpy() for key, value in _part(tensors, "data").items()}
    preprocessor = Preprocessor.from_state(meta["data"], arrays)

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
    model.load_state_dict(_part(tensors, "model"))
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
    model.load_state_dict(_part(load_file(directory / WEIGHTS), "model"))
