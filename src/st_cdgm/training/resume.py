"""The state of a training on disk, so that an interrupted one goes on as if it had not.

Lightning's own checkpoints are pickles. Here its state goes into the files that a
checkpoint directory has for resuming: tensors into ``optimizer.safetensors``, the rest,
with checksums of both, into ``state.json``. It is written at the end of every epoch,
every few minutes inside one, and when the process is asked to end.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import RandomSampler

from st_cdgm.checkpoint.integrity import check_sums, checksums, damaged
from st_cdgm.errors import InputError
from st_cdgm.outputs import write_atomically

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
    document = {
        "state": plain,
        "sha256": _mark(plain),
        "checksums": checksums(tensors),
    }
    save_file(tensors, directory / TENSORS)
    (directory / STATE).write_text(json.dumps(document), encoding="utf-8")
    return [TENSORS, STATE]


def _mark(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def _check_mark(plain: Any, stored: str | None, path: Path) -> None:
    """Raise InputError where a state is not the one that was written."""
    if stored is not None and stored != _mark(plain):
        problem = "the state of the training is not the one that was written"
        raise damaged(problem, path, "another content than its checksum says")


def read_state(directory: Path) -> dict[str, Any]:
    """Read what `write_state` wrote; earlier versions wrote no checksums.

    Raises
    ------
    InputError
        A file is missing or damaged.
    """
    try:
        document = json.loads((directory / STATE).read_text(encoding="utf-8"))
        tensors = load_file(directory / TENSORS)
        plain = document.get("state", document)

        # Earlier versions wrote no checksums.
        _check_mark(plain, document.get("sha256"), directory / STATE)
        check_sums(tensors, document.get("checksums"), directory / TENSORS)
        state: dict[str, Any] = _unpacked(plain, tensors)
    except InputError:
        raise
    except (OSError, AttributeError, ValueError, LookupError, SafetensorError) as error:
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


class EpochOrder(RandomSampler):
    """Shuffled windows of an epoch; of one that goes on, those that are left.

    Attributes
    ----------
    begun : Tensor or None
        State of the generator at the beginning of the epoch.
    """

    def __init__(self, windows: Any, generator: torch.Generator) -> None:
        super().__init__(windows, generator=generator)
        self.begun: Tensor | None = None
        self._again: Tensor | None = None
        self._skipped = 0

    def go_on(self, begun: Tensor, done: int) -> None:
        """Begin the next epoch as one began of which so many windows are done."""
        self._again, self._skipped = begun, done

    def __iter__(self) -> Iterator[int]:
        if self._again is not None:
            self.generator.set_state(self._again)
        self.begun, self._again = self.generator.get_state(), None
        skipped, self._skipped = self._skipped, 0
        yield from islice(super().__iter__(), skipped, None)


class RandomState(Callback):
    """Keep the state of all random numbers of this process.

    ``order`` are the windows of the training loader, ``batch_size`` at a time.
    """

    def __init__(self, order: EpochOrder, batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size
        self._done = 0  # batches of this epoch

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the batches of an epoch."""
        self._done = batch_idx + 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._done = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the states."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),  # noqa: NPY002 - third parties draw from it
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "shuffling": self.order.generator.get_state(),
            "epoch": [self._done, self.order.begun],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the states back."""
        random.setstate(state_dict["python"])
        kind, keys, *rest = state_dict["numpy"]
        np.random.set_state((kind, np.asarray(keys, dtype=np.uint32), *rest))  # noqa: NPY002
        torch.set_rng_state(state_dict["torch"])
        if state_dict["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state_dict["cuda"])

        # The windows, from the middle of an epoch where the state is of there.
        self.order.generator.set_state(state_dict["shuffling"])
        done, begun = state_dict.get("epoch", [0, None])
        if done:
            self.order.go_on(begun, done * self.batch_size)


# -- metrics ---------------------------------------------------------------------------


class MetricsWriter(ExperimentWriter):
    """``metrics.csv``, to which rows are only added.

    A row that brings a new column is the one reason to write the file anew, in one
    step. ``rows`` are all rows so far.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.path = Path(log_dir) / METRICS
        self.rows: list[dict[str, Any]] = []

    def _check_log_dir_exists(self) -> None:
        """Leave the earlier file until there is a row, or rows to go on from."""

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Go on after these rows: those of a state, whatever the file has become."""
        self.rows = [dict(row) for row in rows]
        self.metrics_keys = sorted({key for row in rows for key in row})
        self.metrics = []
        self.path.unlink(missing_ok=True)
        if rows:
            self._write_all()

    def save(self) -> None:
        """Add the new rows, and bring them to disk."""
        new, self.metrics = self.metrics, []
        if not new:
            return
        first = not self.rows
        self.rows += new
        columns = sorted({*self.metrics_keys, *(key for row in new for key in row)})
        if first or columns != self.metrics_keys:
            self.metrics_keys = columns
            self._write_all()
            return

        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns).writerows(new)
            file.flush()
            os.fsync(file.fileno())

    def _write_all(self) -> None:
        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.metrics_keys)
                writer.writeheader()
                writer.writerows(self.rows)

        write_atomically(self.path, write)


class MetricsLog(CSVLogger):
    """Log to ``metrics.csv`` with a `MetricsWriter`."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        if self._experiment is None:
            self._experiment = MetricsWriter(self.log_dir)
        return self._experiment


class MetricsState(Callback):
    """Keep the rows of ``metrics.csv`` with the state that they lead to."""

    def __init__(self, log: MetricsLog) -> None:
        self.table = log  # Lightning gives callbacks a `log` of its own

    def state_dict(self) -> dict[str, Any]:
        """Return the rows; all of them are on disk before the state is."""
        self.table.save()
        return {"rows": self.table.experiment.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the file hold these rows and no others."""
        self.table.experiment.begin(state_dict["rows"])


def complete_rows(path: Path, step: int) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.csv`` of before an update, as far as it is whole.

    For states of earlier versions, which hold no rows. A line that was cut is none.
    """
    if not path.is_file():
        return []
    text = path.read_bytes().decode(errors="replace")
    whole = [line for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    rows = []
    for row in csv.DictReader(whole):
        fields = {key: value for key, value in row.items() if value}
        if None in row or None in row.values() or not fields.get("step", "").isdigit():
            continue
        if int(fields["step"]) < step:
            rows.append(fields)
    return rows


# -- the end ---------------------------------------------------------------------------


class EndRequest:
    """Whether this process was asked to end (SIGTERM)."""

    def __init__(self) -> None:
        self.made = False


@contextmanager
def requests_to_end(request: EndRequest) -> Iterator[None]:
    """Take note of SIGTERM inside, instead of ending at once in the middle of a step.

    Outside the main thread, where signals are not to be had, nothing is noted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(*_: Any) -> None:
        request.made = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
