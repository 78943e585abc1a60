"""Preprocessing, training and evaluation; any step may be skipped."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from run_evaluation import evaluate
from st_cdgm.config.load import load_config
from st_cdgm.config.schema import Config
from st_cdgm.runs.console import Session, run_tool
from st_cdgm.runs.preparation import write_prepared
from st_cdgm.runs.steps import make_climate
from st_cdgm.runs.workflow import run_workflow, train_workflow


def evaluate_run(config: Config) -> None:
    """Score the model that lies in the run directory on the test period."""
    data, run_dir = config.data, Path(config.run.dir)
    paths = (data.resolve(data.lr_path), data.resolve(data.hr_path))
    test, members = data.splits.periods()["test"], config.inference.members
    draw = {"start": test[0], "end": test[-1], "members": members}
    best, out = f"{run_dir}/checkpoints/best", run_dir / "evaluation"
    sys.stdout.write(f"Report: {evaluate(best, *paths, out, **draw)}\n")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    default = os.environ.get("DEFAULT_CONFIG", "config/training_config.yaml")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="other keys")
    add("--config", default=default, help="preset or file (%(default)s)")
    add("--synthetic", metavar="DIR", help="write a synthetic climate there first")
    for flag in ("skip-preprocessing", "skip-training", "skip-evaluation", "overwrite"):
        add(f"--{flag}", action="store_true")
    given = parser.parse_args()
    how = {"overwrite": given.overwrite}
    root = [f"data.root={given.synthetic}"] if given.synthetic else []
    config, session = load_config(given.config, [*root, *given.overrides]), Session()
    if given.synthetic:
        make_climate(config, Path(given.synthetic), session, **how)

    if not given.skip_preprocessing:
        store = Path(config.run.dir).resolve() / "prepared.zarr"
        store.parent.mkdir(parents=True, exist_ok=True)
        memory = config.data.memory
        write_prepared(config, store, "zarr", how | {"memory": "2GiB"}, session)
        config.data.memory, config.data.store = memory, str(store)
    if not given.skip_training:
        chosen = train_workflow if given.skip_evaluation else run_workflow
        chosen(config, session, **how)
    elif not given.skip_evaluation:
        evaluate_run(config)


if __name__ == "__main__":
    run_tool(main)
