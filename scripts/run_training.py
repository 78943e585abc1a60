"""Train a model, with checkpoints, logs and resumption.

--data-format zarr --data-dir DIR reads a store; shards serve loops of your own.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from st_cdgm.config.load import load_config
from st_cdgm.outputs import write_bytes
from st_cdgm.runs.console import Session, run_tool
from st_cdgm.runs.workflow import train_workflow

LOG = os.environ.get("LOG_DIR") and f"{os.environ['LOG_DIR']}/training.log"
KEYS = {
    "checkpoint_dir": "run.dir",
    "epochs": "training.epochs",
    "device": "training.device",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    default = os.environ.get("DEFAULT_CONFIG", "config/training_config.yaml")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="other keys")
    add("--config", default=default, help="preset or file (%(default)s)")
    add("--data-format", choices=("netcdf", "zarr"), default="netcdf")
    add("--data-dir", help="folder of the files, or the prepared store")
    add("--checkpoint-dir", help="run directory: run.dir")
    add("--epochs", type=int)
    add("--device", help="cpu, cuda or auto")
    add("--resume", action="store_true", help="go on with the training in run.dir")
    add(
        "--log-file",
        default=LOG,
        help="copy of run.log",
    )
    given = parser.parse_args()

    values = {key: getattr(given, name) for name, key in KEYS.items()}
    values["data.store" if given.data_format == "zarr" else "data.root"] = (
        given.data_dir
    )
    set_ = [f"{key}={value}" for key, value in values.items() if value is not None]
    config = load_config(given.config, [*given.overrides, *set_])
    try:
        train_workflow(config, Session(), resume=given.resume)
    finally:
        log = Path(config.run.dir) / "run.log"
        if given.log_file and log.is_file():
            write_bytes(given.log_file, log.read_bytes())


if __name__ == "__main__":
    run_tool(main)
