"""The original's other names of keys: each sets its own, or is refused beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from st_cdgm.data.task.config import DataConfig
from st_cdgm.errors import ConfigError
from st_cdgm.evaluation.config import EvaluationConfig
from st_cdgm.inference.config import InferenceConfig
from st_cdgm.models.config import GraphConfig
from st_cdgm.training.config import TrainingConfig

_LOGGER = logging.getLogger(__name__)
DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "gpu": "gpu"}


class Sections(Protocol):
    """The sections of a configuration that have keys with two names."""

    data: DataConfig
    graph: GraphConfig
    training: TrainingConfig
    inference: InferenceConfig
    evaluation: EvaluationConfig


@dataclass(frozen=True, kw_only=True)
class _Other:
    """A key that is given under another name.

    ``value`` is what ``key`` then has; ``free`` are the values of ``key`` that give way
    to it: nobody chose them.
    """

    name: str
    key: str
    value: Any
    free: tuple[Any, ...]


def settle(config: Sections) -> None:
    """Give every key its value where it stands under the original's name.

    Settling twice changes nothing.

    Raises
    ------
    ConfigError
        Both names are given with different values, or a value is not known.
    """
    for other in _others(config):
        section, _, name = other.key.rpartition(".")
        part = getattr(config, section)
        found = getattr(part, name)
        if found == other.value:
            continue

        if found not in other.free:
            raise ConfigError(
                "one setting is given under two names with two values",
                variable=f"{other.name}, {other.key}",
                found=f"{other.key}={found}",
                expected=f"{other.key}={other.value}, as {other.name} says",
                remedy=f"leave {other.name} out",
            )
        _LOGGER.info("%s: %s=%s", other.name, other.key, other.value)
        setattr(part, name, other.value)


def _others(config: Sections) -> Iterator[_Other]:
    """Yield what is given under another name."""
    training, evaluation = config.training, config.evaluation
    if training.device is not None:
        device = training.device
        if device not in DEVICES:
            raise ConfigError(
                "unknown value of training.device",
                variable="training.device",
                found=device,
                expected=" | ".join(DEVICES),
            )
        cuda = "cuda" if DEVICES[device] == "gpu" else device
        for key, value in (
            ("training.accelerator", DEVICES[device]),
            ("inference.device", cuda),
        ):
            yield _Other(name="training.device", key=key, value=value, free=("auto",))

    if training.use_amp is not None:
        mixed = "mixed" in training.precision
        wanted = training.precision if mixed else "bf16-mixed"
        yield _Other(
            name="training.use_amp",
            key="training.precision",
            value=wanted if training.use_amp else "32-true",
            free=("32-true",) if training.use_amp else (),
        )
    if evaluation.num_samples is not None:
        yield _Other(
            name="evaluation.num_samples",
            key="inference.members",
            value=evaluation.num_samples,
            free=(config.inference.members,),  # of a preset: it has two uses
        )

    # An empty list means no static fields at all, so the file is left out.
    static = config.graph.static_variables
    if static is not None:
        file = config.data.static_path
        yield _Other(
            name="graph.static_variables",
            key="data.static_variables" if static else "data.static_path",
            value=list(static) if static else None,
            free=(None,) if static else (file,),
        )
