"""Draw the README's picture from a run directory of ``st-cdgm demo``.

Usage: python scripts/demo_picture.py runs/demo docs/images/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from st_cdgm.evaluation.report.inputs import read_run
from st_cdgm.evaluation.report.maps import plot_day_maps
from st_cdgm.evaluation.report.plots import figure_png

VARIABLE = "pr"


def main(run_dir: Path, output: Path) -> None:
    """Draw the first chosen day (the wettest) of the evaluation."""
    diagnostics = read_run(run_dir).diagnostics
    if diagnostics is None:
        sys.exit(f"{run_dir} has no diagnostics.nc")
    fields = {f.variable: f for f in diagnostics.cases[0].fields}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(figure_png(plot_day_maps(fields[VARIABLE], diagnostics.grid)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
