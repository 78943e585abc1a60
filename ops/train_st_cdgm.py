"""Train from a configuration file and KEY=VALUE overrides, as the original's driver.

    python ops/train_st_cdgm.py data.lr_path=lr.nc training.epochs=5

The same as `st-cdgm train --config FILE KEY=VALUE ...`. The settings classes and the
helpers that the driver had are names of this module; the package is their home.
"""

from __future__ import annotations

import argparse
import os

from st_cdgm.config.load import config_to_yaml, load_config
from st_cdgm.config.schema import Config as STCDGMConfig
from st_cdgm.data.task.config import DataConfig as DataConfig
from st_cdgm.models.config import DiffusionConfig as DiffusionConfig
from st_cdgm.models.config import EncoderConfig as EncoderConfig
from st_cdgm.models.config import GraphConfig as GraphConfig
from st_cdgm.models.config import MetaPathConfig as MetaPathConfig
from st_cdgm.models.config import RCNConfig as RCNConfig
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
from st_cdgm.runs.console import Session, run_tool, show
from st_cdgm.runs.workflow import train_workflow
from st_cdgm.training.config import LossConfig as LossConfig
from st_cdgm.training.config import TrainingConfig as TrainingConfig
from st_cdgm.training.training_loop import convert_sample_to_batch, iterate_batches

_convert_sample_to_batch, _iterate_batches = convert_sample_to_batch, iterate_batches
DEFAULT = os.environ.get("DEFAULT_CONFIG", "config/training_config.yaml")


def _build_encoder(cfg: STCDGMConfig) -> IntelligibleVariableEncoder:
    """Return the encoder of a configuration that names its meta-paths."""
    paths = [
        IntelligibleVariableConfig(p.name, (p.src, p.relation, p.target), pool=p.pool)
        for p in cfg.encoder.metapaths
    ]
    width, tokens = cfg.encoder.hidden_dim, cfg.encoder.conditioning_dim
    return IntelligibleVariableEncoder(paths, width, conditioning_dim=tokens)


def main(cfg: STCDGMConfig, *, resume: bool = False) -> None:
    """Print the configuration, train, and say where the checkpoint is."""
    show("Configuration", config_to_yaml(cfg))
    train_workflow(cfg, Session(), resume=resume)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument(
        "--config", default=DEFAULT, help="preset or file (%(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a training")
    given = parser.parse_args()
    words = (given.config, given.overrides)
    run_tool(lambda: main(load_config(*words), resume=given.resume))
