"""The directory of a run: whose it is, what belongs to it, what a failure leaves.

A run is begun where none lies. Over an old one it is begun only if that was asked for:
``resume`` goes on with the old run, ``overwrite`` puts its files aside, removes them as
soon as the new data were read, and puts them back if they could not be.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from st_cdgm.config.load import config_to_yaml, load_config
from st_cdgm.errors import ConfigError, InputError, OutputError
from st_cdgm.outputs import check_output_directory, flat, write_bytes
from st_cdgm.redaction import redacted
from st_cdgm.runs.console import Session, start_logging
from st_cdgm.runs.provenance import provenance

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config

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
    "networks",
    *("dag.json", "dag.csv", "dag.png", "edges.json", "edges.csv", "report.html"),
)
# Keys that may change when a run is resumed: they do not decide about its results.
_FREE = {"run.dir", "run.log_level"} | {
    f"training.{key}" for key in ("max_minutes", "num_workers", "state_minutes")
}
_ASIDE = ".replaced"


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
    """Undo what was begun in a run directory if bad input kept it from becoming a run.

    A new directory is removed again. With ``overwrite`` the files of an old run are put
    aside, and back after any failure; :func:`discard_replaced` removes them.
    """
    run_dir = run_dir.expanduser().absolute()
    new = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
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
    left = {path.name for path in run_dir.iterdir()}
    if not left <= RECORDS:
        return
    _close_log()
    for name in left:
        (run_dir / name).unlink()
    with suppress(OSError):  # something else came to lie there
        for path in new:
            path.rmdir()


def _close_log() -> None:
    """Let go of ``run.log``."""
    log = logging.getLogger("st_cdgm")
    for handler in [h for h in log.handlers if isinstance(h, logging.FileHandler)]:
        log.removeHandler(handler)
        handler.close()
