"""One schema for presets, files and the command line: the layers' own dataclasses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from st_cdgm.config.original import settle
from st_cdgm.data.synthetic.config import SyntheticConfig
from st_cdgm.data.task.config import DataConfig
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.errors import check_choice, check_least
from st_cdgm.evaluation.config import EvaluationConfig
from st_cdgm.inference.config import InferenceConfig
from st_cdgm.models.config import (
    DiffusionConfig,
    EncoderConfig,
    GraphConfig,
    ModelConfig,
    RCNConfig,
)
from st_cdgm.training.config import CheckpointConfig, LossConfig, TrainingConfig

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(kw_only=True)
class RunConfig:
    """One run.

    Attributes
    ----------
    dir : str
        Run directory: every file that the run writes lies in it.
    name : str
        Short name, used in titles and in file attributes.
    seed : int
        Seed of every random draw.
    log_level : str
        DEBUG, INFO, WARNING or ERROR, on the terminal; ``run.log`` holds INFO at least.
    """

    dir: str = "runs/st-cdgm"
    name: str = "st-cdgm"
    seed: int = 0
    log_level: str = "INFO"

    def check(self) -> None:
        """Raise ConfigError for a value out of range."""
        check_choice("log_level", self.log_level, LOG_LEVELS, section="run.")
        check_least("seed", self.seed, 0, section="run.")


@dataclass(kw_only=True)
class Config:
    """Everything a run depends on.

    Each section is the dataclass of the layer that reads it; the root stops in the
    command line, which hands every layer its own section.

    Attributes
    ----------
    plugins : list of str
        Modules of other packages that register samplers, codecs, baselines, derived
        predictors, metrics or references; imported before names are looked up.
        Importing runs their code.
    """

    plugins: list[str] = field(default_factory=list)
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    rcn: RCNConfig = field(default_factory=RCNConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    discovery: DiscoveryConfig = field(default_factory=DiscoveryConfig)

    def check(self) -> None:
        """Settle keys that have two names, then let every section check itself.

        Raises
        ------
        ConfigError
            A value is out of range, or contradicts another one.
        """
        settle(self)
        for section in _sections(self):
            if check := getattr(section, "check", None):
                check()

    def model(self) -> ModelConfig:
        """Return the sections that a checkpoint needs to rebuild the model."""
        return ModelConfig(
            graph=self.graph,
            encoder=self.encoder,
            rcn=self.rcn,
            diffusion=self.diffusion,
        )


def _sections(root: Any) -> Iterator[Any]:
    """Yield the dataclasses in a dataclass, and those inside."""
    for item in fields(root):
        part = getattr(root, item.name)
        if is_dataclass(part):
            yield part
            yield from _sections(part)
