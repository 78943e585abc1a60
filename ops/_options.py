"""Options that both preprocessing tools share."""

from __future__ import annotations

import argparse
from typing import Any

from st_cdgm.data.fit.baseline.combined import strategies
from st_cdgm.data.time.splits import SplitConfig

SPLITS = ("train", "validation", "test")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with what a pipeline needs."""
    made = argparse.ArgumentParser(description=description)
    add = made.add_argument
    for name in ("lr_path", "hr_path", "output_dir"):
        add(f"--{name}", required=True)
    add("--static_path")
    add("--seq_len", type=int, default=10, help="days per window (%(default)s)")
    add("--baseline_strategy", choices=strategies(), default="auto")
    add("--baseline_factor", type=int, default=4, help="of hr_smoothing (%(default)s)")
    add("--normalize", action="store_true", help="standardise the predictors")
    add("--target_transform", choices=("log", "log1p"))
    for name in ("lr_variables", "hr_variables", "static_variables"):
        add(f"--{name}", nargs="+", metavar="NAME")

    add("--means_path", help="predictor statistics from files, with --stds_path")
    add("--stds_path")
    for name in SPLITS:
        text = f"{name} period; without any, statistics come from the whole record"
        add(f"--{name}", nargs=2, metavar=("START", "END"), help=text)
    add("--overwrite", action="store_true", help="replace an existing output")
    return made


def pipeline_options(given: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``NetCDFDataPipeline`` but for the three files."""
    own = ("seq_len", "baseline_strategy", "baseline_factor", "normalize")
    own += ("target_transform", "lr_variables", "hr_variables", "static_variables")
    own += ("means_path", "stds_path")
    periods = {n: getattr(given, n) for n in SPLITS if getattr(given, n)}
    splits = {"splits": SplitConfig(**periods)} if periods else {}
    return {name: getattr(given, name) for name in own} | splits
