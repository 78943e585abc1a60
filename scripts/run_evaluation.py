"""Evaluate a trained model: downscale, score, F1 of extremes, figures, report."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import st_cdgm
from st_cdgm.evaluation.report.build import build_report
from st_cdgm.evaluation.report.export import write_figures
from st_cdgm.runs.console import run_tool

RESULTS = os.environ.get("RESULTS_DIR", "results")
EXTREMES = ("f1_p95", "f1_p99")


def evaluate(checkpoint: str, lr: str, hr: str, output: Path, **draw: Any) -> Path:
    """Write ensemble, scorecard, figures and report; return the report's path."""
    model = st_cdgm.load(checkpoint, device=draw.pop("device", "auto"))
    output.mkdir(parents=True, exist_ok=True)
    ensemble = model.downscale(lr, **draw)
    ensemble.to_netcdf(output / "downscaled.nc")
    card = st_cdgm.evaluate(ensemble, hr, metrics=EXTREMES, output=output)
    sys.stdout.write(f"{card.to_dataframe().round(3)}\n")
    write_figures(output)
    return build_report(output)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--checkpoint", required=True, help="such as RUN/checkpoints/best")
    add("--lr-path", required=True, help="coarse predictors")
    add("--hr-path", required=True, help="fine truth")
    add("--num-samples", type=int, default=10, help="members (%(default)s)")
    add("--output-dir", default=f"{RESULTS}/evaluation", help="(%(default)s)")
    add("--scheduler", help="another sampler than the model's")
    add("--steps", type=int, help="another number of solver steps")
    add("--device", default="auto", help="cpu, cuda or auto")
    add("--start", metavar="YYYY-MM-DD", help="first day")
    add("--end", metavar="YYYY-MM-DD", help="last day")
    given = parser.parse_args()
    draw = {name: getattr(given, name) for name in ("start", "end", "steps", "device")}
    draw |= {"members": given.num_samples, "sampler": given.scheduler}
    output = Path(given.output_dir)
    report = evaluate(given.checkpoint, given.lr_path, given.hr_path, output, **draw)
    sys.stdout.write(f"Report: {report}\n")


if __name__ == "__main__":
    run_tool(main)
