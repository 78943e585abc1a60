"""What is bound to fail, found out before any costly work."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import ConfigError, MissingFileError
from st_cdgm.registry import get, names

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config
    from st_cdgm.data.fit.preprocessor import Preprocessor
    from st_cdgm.data.task.config import DataConfig

ROLES = {"lr_path": "predictor", "hr_path": "target", "static_path": "static"}
INTERPOLATION = "lr_interp"


def check_before_training(config: Config, *, to_the_end: bool) -> None:
    """Check what can be checked without reading the data.

    With ``to_the_end`` the test period is to be downscaled and evaluated as well.

    Raises
    ------
    ConfigError
        A value, a period, a path or an option is missing or makes no sense.
    MissingFileError
        A data file does not exist.
    """
    config.check()  # made in Python, it was not checked when it was read
    if to_the_end or not config.data.store:
        check_files(config)
    if "validation" not in config.data.splits.names():
        raise ConfigError(
            "there is no validation period: the best state could not be chosen",
            variable="data.splits.validation",
            expected="[start, end], such as [2001-01-01, 2001-12-31]",
        )
    if to_the_end:
        check_test_period(config)
        _check_inference(config)
        for name in config.evaluation.references:
            check_reference(config, name)


def check_test_predictors(config: Config, preprocessor: Preprocessor) -> None:
    """Raise InputError unless the test period can be downscaled from the coarse file.

    Nothing big is read: this is what a model would find after its training.
    """
    from st_cdgm.data.task.predictor_check import open_predictors
    from st_cdgm.data.task.predictors import find_predictors

    path = config.data.resolve(config.data.lr_path)
    test = preprocessor.periods["test"]
    opened = open_predictors(preprocessor, path)
    find_predictors(preprocessor, opened, start=test[0], end=test[-1])


def check_files(config: Config) -> None:
    """Raise ConfigError or MissingFileError for a data file that is not there."""
    for key, role in ROLES.items():
        _check_file(config, key, role)


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

    # A file that the preset expects and nobody named, or one that is not there.
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
        remedy = f"correct data.{key}, or set data.root to the folder that holds the "
        remedy += f"files (it is {root})"
        facts: dict[str, Any] = error.facts | {
            "variable": f"data.{key}",
            "remedy": remedy,
        }
        raise MissingFileError(error.problem, **facts) from error


def _check_inference(config: Config) -> None:
    config.inference.sampling.check(config.diffusion, section="inference.")
    strategy = config.data.baseline_strategy
    honest = [name for name in names("baseline") if not get("baseline", name).oracle]
    if strategy not in ("auto", *honest):
        raise ConfigError(
            "the baseline would be made from the fine truth, which the test period "
            "may not use",
            variable="data.baseline_strategy",
            found=strategy,
            expected=" | ".join(["auto", *honest]),
            remedy="choose one of these, or only train: st-cdgm train",
        )


def check_reference(config: Config, name: str) -> None:
    """Raise ConfigError for an unknown reference, or one that another key rules out."""
    get("reference", name)
    strategy = config.data.baseline_strategy
    if name == INTERPOLATION and strategy not in ("auto", INTERPOLATION):
        raise ConfigError(
            "a reference needs another baseline than the configured one",
            variable="evaluation.references",
            found=f"{INTERPOLATION}, with data.baseline_strategy {strategy}",
            expected=f"data.baseline_strategy {INTERPOLATION}, whose error it measures",
            remedy=f"leave {INTERPOLATION} out of evaluation.references",
        )


def check_test_period(config: Config) -> None:
    """Raise ConfigError unless some days are for testing."""
    if "test" not in config.data.splits.names():
        raise ConfigError(
            "there is no test period to downscale and evaluate",
            variable="data.splits.test",
            expected="[start, end]",
            remedy="add data.splits.test, or use `st-cdgm train`",
        )
