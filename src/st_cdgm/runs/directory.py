"""The directory of a run: whose it is, what belongs to it, what a failure leaves.

One process at a time works there, and says so in a lock file. A run is begun where none
lies. Over an old one it is begun only if that was asked for:
``resume`` goes on with the old run, ``overwrite`` puts its files aside, removes them as
soon as the new data were read, and puts them back if they could not be.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from st_cdgm.config.load import config_to_yaml, load_config
from st_cdgm.errors import ConfigError, InputError, OutputError
from st_cdgm.outputs import (
    check_output_directory,
    flat,
    is_alive,
    recover_directory,
    remove,
    remove_leftovers,
    write_bytes,
)
from st_cdgm.redaction import redacted
from st_cdgm.runs.console import Session, start_logging
from st_cdgm.runs.provenance import provenance
from st_cdgm.runs.scoring import is_figure

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config

logger = logging.getLogger(__name__)
CONFIG, PROVENANCE, LOG = "config.yaml", "provenance.json", "run.log"
# What a run directory holds before anything was computed.
RECORDS = {CONFIG, PROVENANCE, LOG}
# What took long to make; a directory with one of these holds a run.
RESULTS = ("checkpoints", "downscaled.nc", "scorecard.json")
# What a run writes; `references/NAME.nc` comes from its configuration.
_WRITTEN = (
    *("checkpoints/best", "checkpoints/last", "downscaled.nc", "scorecard.json"),
    *("logs/metrics.csv", "logs/hparams.yaml", "logs/tensorboard"),
    *("scorecard.csv", "diagnostics.nc", "conditioning.json"),
    *("networks", "failures.json"),
    *("dag.json", "dag.csv", "dag.png", "dag.graphml", "dag_acyclic.json"),
    *("edges.json", "edges.csv", "tests.npz", "certificate.json"),
    *("weights.json", "weights.csv", "weights.png", "report.html"),
)
# Keys that may change when a run is resumed: they do not decide about its results.
_FREE = {"run.dir", "run.log_level"} | {
    *(f"training.{key}" for key in ("max_minutes", "num_workers", "state_minutes")),
    *(f"checkpoint.{key}" for key in ("save_every", "max_checkpoints", "save_dir")),
}
_ASIDE = ".replaced"
LOCK = ".lock"
_WRITING_SECONDS = 10.0
# Drafts of earlier versions, which told nothing of their process.
_DRAFT = re.compile(r"\.(best|last|networks)-(?!old$).+")
_PART = re.compile(r"\.(.+)\.[0-9a-f-]+\.part")


def check_run_directory(
    config: Config, *, resume: bool = True, overwrite: bool = False
) -> Path:
    """Return the run directory if a run may be begun, or resumed, there.

    Raises
    ------
    ConfigError
        It holds a run, and neither ``resume`` nor ``overwrite`` was asked for; or both;
        or the run to resume has another configuration.
    OutputError
        It cannot be written.
    """
    run_dir = Path(config.run.dir).expanduser()
    if resume and overwrite:
        raise ConfigError(
            "a run is either resumed or replaced",
            variable="--resume, --overwrite",
            remedy="leave one of them out",
        )
    _check_writable(run_dir)

    held = [name for name in RESULTS if (run_dir / name).exists()]
    if held and not (resume or overwrite):
        raise ConfigError(
            "the run directory holds a run already",
            file=run_dir,
            variable="run.dir",
            found=_described(run_dir, held),
            expected="a new directory",
            remedy="go on with that run: --resume; replace it: --overwrite; or keep "
            "it and choose another directory: run.dir=DIR",
        )
    if held and resume:
        _check_same_run(run_dir, config)
    return run_dir


def check_state(run_dir: Path) -> None:
    """Raise InputError where no training left a state to go on from."""
    from st_cdgm.training.fit import check_resumable

    check_resumable(run_dir)


def _check_writable(run_dir: Path) -> None:
    try:
        check_output_directory(run_dir)
    except OutputError as error:
        raise OutputError(
            "the run directory cannot be written",
            file=run_dir,
            variable="run.dir",
            found=error.facts["found"],
            expected="a directory that exists or can be created",
            remedy="choose another run directory: run.dir=DIR",
        ) from error


def _described(run_dir: Path, held: list[str]) -> str:
    """Return the results of a run and when it was begun."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        text = (run_dir / PROVENANCE).read_text("utf-8")
        return f"{', '.join(held)}, of a run begun {json.loads(text)['created']}"
    return ", ".join(held)


def _check_same_run(run_dir: Path, config: Config) -> None:
    """Raise ConfigError unless the run in the directory has this configuration."""
    stored = run_dir / CONFIG
    if not stored.is_file():
        return
    try:
        other = _differences(load_config(stored, trusted=False), config)
    except ConfigError:  # written by another version
        other = ["it cannot be read by this version"]

    if other:
        raise ConfigError(
            "the run directory holds a run with another configuration",
            file=run_dir,
            found="; ".join(other[:5]) + ("; ..." if len(other) > 5 else ""),
            expected="the configuration of that run",
            remedy="use its configuration to resume it, replace it (--overwrite), or "
            "choose another directory: run.dir=DIR",
        )


def _differences(stored: Config, asked: Config) -> list[str]:
    """Return the keys whose values decide about the results and differ."""
    ours, theirs = (
        dict(flat(yaml.safe_load(redacted(config_to_yaml(one)))))
        for one in (asked, stored)
    )
    return [
        f"{key}: {theirs.get(key)} there, {ours.get(key)} here"
        for key in sorted({*ours, *theirs} - _FREE)
        if ours.get(key) != theirs.get(key)
    ]


# -- Beginning -------------------------------------------------------------------------


def prepare_run(config: Config, session: Session) -> Path:
    """Make the run directory, start its log, write config.yaml and provenance.json.

    Raises
    ------
    ConfigError, OutputError
        See :func:`check_run_directory`.
    MissingFileError
        A data file does not exist; nothing is written then.
    """
    run_dir = check_run_directory(config)
    data = config.data
    named = [data.lr_path, data.hr_path, data.static_path]
    if data.store:
        named = [str(Path(data.store) / "metadata.json")]
    origin = provenance([data.resolve(p) for p in named if p], seed=config.run.seed)

    start_logging(session, level=config.run.log_level, run_dir=run_dir)
    write_bytes(run_dir / CONFIG, redacted(config_to_yaml(config)).encode())
    text = json.dumps(origin, indent=2) + "\n"
    (run_dir / PROVENANCE).write_text(text, encoding="utf-8")
    return run_dir


@contextmanager
def nothing_left_behind(run_dir: Path, *, overwrite: bool = False) -> Iterator[None]:
    """Work alone in a run directory; undo what bad input kept from becoming a run.

    A new directory is removed again. With ``overwrite`` the files of an old run are put
    aside, and back after any failure; :func:`discard_replaced` removes them. What a
    killed process left is removed first.

    Raises
    ------
    ConfigError
        Another process works there.
    """
    run_dir = run_dir.expanduser().absolute()
    new = [path for path in (run_dir, *run_dir.parents) if not path.exists()]

    with _alone(run_dir):
        _sweep(run_dir)
        if overwrite:
            _restore(run_dir)  # of a command that was killed
            _put_aside(run_dir)

        try:
            yield
        except BaseException as error:
            if isinstance(error, InputError) and run_dir in new and run_dir.is_dir():
                _remove(run_dir, new)
            _restore(run_dir)
            raise
        discard_replaced(run_dir)


def discard_replaced(run_dir: Path) -> None:
    """Remove the files of the old run: the new one has read its data."""
    shutil.rmtree(run_dir.expanduser() / _ASIDE, ignore_errors=True)


def own_files(run_dir: Path) -> list[Path]:
    """Return the files and folders of a run in its directory, nobody else's."""
    names = {*RECORDS, *_WRITTEN}
    with suppress(InputError):
        stored = load_config(run_dir / CONFIG, trusted=False)
        names |= {f"references/{name}.nc" for name in stored.evaluation.references}
        copies = run_dir / stored.checkpoint.save_dir
        if copies.is_relative_to(run_dir):
            found = copies.glob("epoch_[0-9][0-9][0-9][0-9]*")
            names |= {str(path.relative_to(run_dir)) for path in found}

        drawn = (run_dir / stored.evaluation.output_dir).glob("*-*.*")
        names |= {str(p.relative_to(run_dir)) for p in drawn if is_figure(p)}
    return [run_dir / name for name in sorted(names) if (run_dir / name).exists()]


def _put_aside(run_dir: Path) -> None:
    """Move the files of a run into a hidden folder of its directory."""
    for path in own_files(run_dir):
        to = run_dir / _ASIDE / path.relative_to(run_dir)
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
        with suppress(OSError):  # somebody else's file lies beside it
            if path.parent != run_dir:
                path.parent.rmdir()


def _restore(run_dir: Path) -> None:
    """Move what was put aside back, in the place of what came meanwhile."""
    aside = run_dir / _ASIDE
    if not aside.is_dir():
        return
    _close_log()
    for path in own_files(aside):
        to = run_dir / path.relative_to(aside)
        shutil.rmtree(to) if to.is_dir() else to.unlink(missing_ok=True)
        to.parent.mkdir(parents=True, exist_ok=True)
        path.rename(to)
    discard_replaced(run_dir)


def _remove(run_dir: Path, new: list[Path]) -> None:
    """Remove the records of a run and the directories that were made for it."""
    (run_dir / LOCK).unlink(missing_ok=True)
    left = {path.name for path in run_dir.iterdir()}
    if not left <= RECORDS:
        return
    _close_log()
    for name in left:
        (run_dir / name).unlink()
    with suppress(OSError):  # something else came to lie there
        for path in new:
            path.rmdir()


# -- One process at a time -------------------------------------------------------------


@contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Hold the lock file of a run directory, which is made if need be."""
    lock = run_dir / LOCK
    run_dir.mkdir(parents=True, exist_ok=True)
    _take(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _take(lock: Path) -> None:
    """Write this process into a lock file that nobody else holds."""
    own = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    while True:
        with suppress(FileExistsError), lock.open("x", encoding="utf-8") as file:
            file.write(json.dumps(own) + "\n")
            return
        holder = _holder(lock)
        if not _is_over(lock, holder):
            raise _busy(lock, holder)
        logger.info("%s: the lock of a process that is over is removed", lock)
        lock.unlink(missing_ok=True)


def _holder(lock: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(lock.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _is_over(lock: Path, holder: dict[str, Any]) -> bool:
    """Whether a lock was left behind: its process ran here and runs no more."""
    try:
        written = lock.stat().st_mtime
    except FileNotFoundError:
        return True
    process = holder.get("pid")
    if not isinstance(process, int):  # just being written, or a kill came in between
        return time.time() - written > _WRITING_SECONDS
    here = holder.get("host") == platform.node()
    alive = process != os.getpid() and is_alive(process, since=written + 1)
    return here and not alive


def _busy(lock: Path, holder: dict[str, Any]) -> ConfigError:
    found = ", ".join(f"{key} {value}" for key, value in holder.items())
    return ConfigError(
        "another process works in this run directory",
        file=lock.parent,
        variable="run.dir",
        found=found,
        expected="one process at a time",
        remedy="wait for it, or choose another directory: run.dir=DIR; if it is over "
        f"on its machine, remove {lock}",
    )


def _sweep(run_dir: Path) -> None:
    """Remove what killed processes left; give `last` its name back."""
    folders = [run_dir / name for name in ("", "checkpoints", "references", "logs")]
    folders += run_dir.glob("networks/*/checkpoints")
    for folder in folders:
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if part := _PART.fullmatch(path.name):
                remove_leftovers(folder / part[1])
            elif _DRAFT.fullmatch(path.name):
                remove(path)

    for checkpoints in {folder for folder in folders if folder.name == "checkpoints"}:
        for name in ("best", "last"):
            recover_directory(checkpoints / name)
            if (checkpoints / name).exists():
                remove(checkpoints / f".{name}-old")


def _close_log() -> None:
    """Let go of ``run.log``."""
    log = logging.getLogger("st_cdgm")
    for handler in [h for h in log.handlers if isinstance(h, logging.FileHandler)]:
        log.removeHandler(handler)
        handler.close()
