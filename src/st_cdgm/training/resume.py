"""The state of a training on disk, so that an interrupted one goes on as if it had not.

Lightning's own checkpoints are pickles. Here its state goes into the files that a
checkpoint directory has for resuming: tensors into ``optimizer.safetensors``, the rest
into ``state.json``. It is written at the end of every epoch.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from st_cdgm.errors import InputError

TENSORS = "optimizer.safetensors"
STATE = "state.json"
METRICS = "metrics.csv"


# -- files -----------------------------------------------------------------------------


def write_state(directory: Path, state: Mapping[str, Any]) -> list[str]:
    """Write a state into an existing directory; return the names of the files.

    It is made of tensors, numbers, texts, None, lists, tuples and mappings of them.
    """
    tensors: dict[str, Tensor] = {}
    plain = _packed(state, tensors)
    save_file(tensors, directory / TENSORS)
    (directory / STATE).write_text(json.dumps(plain), encoding="utf-8")
    return [TENSORS, STATE]


def read_state(directory: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    try:
        plain = json.loads((directory / STATE).read_text(encoding="utf-8"))
        tensors = load_file(directory / TENSORS)
        state: dict[str, Any] = _unpacked(plain, tensors)
    except (OSError, ValueError, LookupError, SafetensorError) as error:
        raise InputError(
            "the state of the training cannot be read",
            file=directory,
            found=f"{type(error).__name__}: {error}",
            expected=f"{STATE} and {TENSORS} of one training, unchanged",
            remedy="remove the directory, which starts the training anew",
        ) from error
    return state


def _packed(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON has it; what JSON lacks becomes ``{kind: ...}``."""
    if isinstance(value, Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}

    if isinstance(value, Mapping):
        return {"items": [_packed(list(pair), tensors) for pair in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_packed(v, tensors) for v in value]}
    if isinstance(value, list):
        return [_packed(v, tensors) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _packed(value.tolist(), tensors)
    if value is None or isinstance(value, bool | int | float | str):
        return value

    msg = f"a {type(value).__name__} cannot be stored"
    raise TypeError(msg)


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpacked(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value

    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind not in ("tuple", "items"):
        raise ValueError(kind)
    parts = _unpacked(content, tensors)
    return tuple(parts) if kind == "tuple" else dict(parts)


class StateStore(CheckpointIO):
    """Where Lightning leaves its state, and from where it takes it up again."""

    def __init__(self) -> None:
        # What was last left here, of the process that writes.
        self.state: dict[str, Any] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], *_: Any, **__: Any) -> None:
        """Keep the state; `BestCheckpoint` writes it beside the weights."""
        self.state = checkpoint

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read the state from a checkpoint directory."""
        return read_state(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Do nothing: `BestCheckpoint` replaces the directory."""


# -- random numbers --------------------------------------------------------------------


class RandomState(Callback):
    """Keep the state of all random numbers of this process.

    ``shuffling`` is the generator of the training loader.
    """

    def __init__(self, shuffling: torch.Generator) -> None:
        self.shuffling = shuffling

    def state_dict(self) -> dict[str, Any]:
        """Return the states."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - third parties draw from it
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "shuffling": self.shuffling.get_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the states back."""
        random.setstate(state_dict["python"])
        kind, keys, *rest = state_dict["numpy"]
        np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"])
        if state_dict["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])
        self.shuffling.set_state(state_dict["shuffling"])


# -- metrics ---------------------------------------------------------------------------


@rank_zero_only
def take_up_metrics(log: Any, step: int) -> None:
    """Let ``metrics.csv``, which a CSVLogger begins anew, begin with the earlier rows.

    Those of before update ``step``, at which the training goes on.
    """
    path = Path(log.log_dir) / METRICS
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]
        log.experiment.metrics.extend(rows)
        log.experiment.save()
