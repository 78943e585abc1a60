"""What is bound to fail, found out before any costly work; nothing left if it does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from st_cdgm.config.load import load_config
from st_cdgm.errors import ConfigError, InputError, MissingFileError, OutputError

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config
    from st_cdgm.data.task.config import DataConfig

ROLES = {"lr_path": "predictor", "hr_path": "target", "static_path": "static"}
# What a run directory holds before anything was computed.
RECORDS = {"config.yaml", "provenance.json", "run.log"}
ORACLE = "hr_smoothing"
INTERPOLATION = "lr_interp"


def check_before_training(config: Config, *, to_the_end: bool) -> None:
    """Check what can be checked without reading the data.

    Parameters
    ----------
    config : Config
        Settings of the run.
    to_the_end : bool
        Whether the test period is to be downscaled and evaluated as well.

    Raises
    ------
    ConfigError
        A period, a path or an option is missing or makes no sense.
    MissingFileError
        A data file does not exist.
    OutputError
        The run directory cannot be written.
    """
    from st_cdgm.outputs import check_output_directory

    if to_the_end or not config.data.store:
        for key, role in ROLES.items():
            _check_file(config, key, role)
    if "validation" not in config.data.splits.names():
        raise ConfigError(
            "there is no validation period: the best state could not be chosen",
            variable="data.splits.validation",
            expected="[start, end], such as [2001-01-01, 2001-12-31]",
        )
    if to_the_end:
        check_test_period(config)
        _check_inference(config)
        _check_references(config)
    try:
        check_output_directory(check_run_directory(config))
    except OutputError as error:
        raise OutputError(
            "the run directory cannot be written",
            file=config.run.dir,
            variable="run.dir",
            found=error.facts["found"],
            expected="a directory that exists or can be created",
            remedy="choose another run directory: run.dir=DIR",
        ) from error


def check_same_settings(asked: DataConfig, stored: DataConfig) -> None:
    """Raise ConfigError where a store was prepared with other settings."""
    places = {"root", "store", "memory", "stride", "lr_path", "hr_path", "static_path"}
    other = [
        f.name
        for f in fields(stored)
        if f.name not in places and getattr(asked, f.name) != getattr(stored, f.name)
    ]
    if other:
        raise ConfigError(
            "the store was prepared with other settings",
            file=asked.store,
            variable=", ".join(f"data.{name}" for name in other),
            found="; ".join(f"{name}: {getattr(stored, name)}" for name in other),
            expected="; ".join(f"{name}: {getattr(asked, name)}" for name in other),
            remedy="prepare it again with this configuration, or change the keys",
        )


def _check_file(config: Config, key: str, role: str) -> None:
    from st_cdgm.data.files.open import resolve_paths

    data = config.data
    path = getattr(data, key)
    if path is None:
        return
    if not path:
        raise ConfigError(
            f"no {role} file is named",
            variable=f"data.{key}",
            expected="a path, relative to data.root or absolute",
            remedy=f"add data.{key}=FILE",
        )
    try:
        resolve_paths(data.resolve(path), role=role)
    except MissingFileError as error:
        root = data.root or "not set, so the current folder"
        raise MissingFileError(
            error.problem,
            file=str(error.facts["file"]),
            variable=f"data.{key}",
            found=error.facts["found"],
            expected=error.facts["expected"],
            remedy=f"correct data.{key}, or set data.root to the folder that holds the "
            f"files (it is {root})",
        ) from error


def _check_inference(config: Config) -> None:
    from st_cdgm.inference.checks import check_sampler

    check_sampler(
        config.inference.sampler,
        config.inference.steps,
        scheduler=config.diffusion.scheduler_type,
        section="inference.",
        guidance_scale=config.inference.guidance_scale,
        condition_dropout=config.diffusion.condition_dropout,
    )
    if config.data.baseline_strategy == ORACLE:
        raise ConfigError(
            "the first guess would be made from the fine truth, which the test period "
            "may not use",
            variable="data.baseline_strategy",
            found=ORACLE,
            expected="auto | lr_interp | climatology | regression",
            remedy="choose one of these, or only train: st-cdgm train",
        )


def _check_references(config: Config) -> None:
    """Raise ConfigError where a reference is asked for that another key rules out."""
    strategy = config.data.baseline_strategy
    if INTERPOLATION in config.evaluation.references and strategy not in (
        "auto",
        INTERPOLATION,
    ):
        raise ConfigError(
            "a reference needs another first guess than the configured one",
            variable="evaluation.references",
            found=f"{INTERPOLATION}, with data.baseline_strategy {strategy}",
            expected=f"data.baseline_strategy {INTERPOLATION}, whose error it measures",
            remedy=f"leave {INTERPOLATION} out of evaluation.references",
        )


@contextmanager
def nothing_left_behind(run_dir: Path) -> Iterator[None]:
    """Remove a new run directory again if bad input kept it from becoming a run."""
    run_dir = run_dir.expanduser().absolute()
    new = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    try:
        yield
    except InputError:
        if run_dir in new and run_dir.is_dir():
            _remove(run_dir, new)
        raise


def _remove(run_dir: Path, new: list[Path]) -> None:
    """Remove the records of a run and the directories that were made for it."""
    left = {path.name for path in run_dir.iterdir()}
    if not left <= RECORDS:
        return
    logger = logging.getLogger("st_cdgm")
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
    for name in left:
        (run_dir / name).unlink()
    with suppress(OSError):  # something else came to lie there
        for path in new:
            path.rmdir()


def check_run_directory(config: Config) -> Path:
    """Return the run directory unless it belongs to another run.

    Raises
    ------
    ConfigError
        The directory holds the checkpoints of a run with another configuration.
    """
    run_dir = Path(config.run.dir).expanduser()
    stored = run_dir / "config.yaml"
    if stored.is_file() and (run_dir / "checkpoints").is_dir():
        try:
            same = load_config(stored, trusted=False) == config
        except ConfigError:  # written by another version
            same = False
        if not same:
            raise ConfigError(
                "the run directory holds a run with another configuration",
                file=run_dir,
                remedy="choose another run directory, or remove this one",
            )
    return run_dir


def check_test_period(config: Config) -> None:
    """Raise ConfigError unless some days are for testing."""
    if "test" not in config.data.splits.names():
        raise ConfigError(
            "there is no test period to downscale and evaluate",
            variable="data.splits.test",
            expected="[start, end]",
            remedy="add data.splits.test, or use `st-cdgm train`",
        )
