"""Check input files, then write the prepared data as Zarr stores or shards.

python scripts/run_preprocessing.py --format zarr --lr-path lr.nc --hr-path hr.nc
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from st_cdgm.config.load import load_config
from st_cdgm.data.inspect.pairs import inspect_pair
from st_cdgm.runs.console import Session, run_tool
from st_cdgm.runs.preparation import write_prepared, written_lines


def main() -> int:
    """Run the command line; 2 where the files cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    processed = os.environ.get("DATA_PROCESSED_DIR", "data/processed")
    default = os.environ.get("DEFAULT_CONFIG", "config/training_config.yaml")
    add("overrides", nargs="*", metavar="KEY=VALUE", help="other keys")
    add("--config", default=default, help="preset or file (%(default)s)")
    add("--format", choices=("zarr", "webdataset"), default="zarr")
    for name in ("lr", "hr", "static"):
        add(f"--{name}-path", help=f"instead of data.{name}_path")
    add("--output-dir", help=f"default: {processed}/FORMAT")
    add("--overwrite", action="store_true", help="replace an existing output")
    given = parser.parse_args()

    paths = {
        f"data.{n}_path": getattr(given, f"{n}_path") for n in ("lr", "hr", "static")
    }
    set_ = [f"{key}={Path(path).resolve()}" for key, path in paths.items() if path]
    config = load_config(given.config, [*given.overrides, *set_])
    report = inspect_pair(
        *(config.data.resolve(p) for p in (config.data.lr_path, config.data.hr_path))
    )
    for finding in report.findings:
        sys.stderr.write(f"{finding.problem}; {finding.remedy}\n")
    if report.shared_days == 0:
        return 2

    target = Path(given.output_dir or f"{processed}/{given.format}")
    target.parent.mkdir(parents=True, exist_ok=True)
    options = {"memory": "2GiB", "overwrite": given.overwrite}
    made = write_prepared(config, target, given.format, options, Session())
    sys.stdout.write("\n".join(written_lines(made)) + "\n")
    return 0


if __name__ == "__main__":
    run_tool(main)
