"""Run the whole way on a synthetic climate in a temporary folder: exit 0 if it works.

Files, preparation, a forward pass, training, downscaling, scores and report; about a
minute on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import st_cdgm
from st_cdgm.config.load import load_config
from st_cdgm.data.synthetic import write_synthetic


def check_pipeline(folder: Path) -> None:
    """Raise where a step does not give what it should."""
    data, where = folder / "data", folder / "run"
    config = load_config("demo_quick", [f"data.root={data}", f"run.dir={where}"])
    files = write_synthetic(config.synthetic, data)
    run = st_cdgm.run(config)

    # Every part of the run is there, and the ensemble is one.
    assert run.report.is_file()
    assert run.graph.variables
    crps = run.scorecard.wide("crps")
    assert np.isfinite(crps.loc["st-cdgm"]).all(), crps
    model = st_cdgm.load(where / "checkpoints" / "best", device="cpu")
    made = model.downscale(files.lr, members=2, start="2003-01-01", end="2003-01-03")
    assert {"time": 3, "realization": 2}.items() <= dict(made.sizes).items()
    for name in made.data_vars:
        assert np.isfinite(made[name]).any(), name


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check_pipeline(Path(folder))
    sys.stdout.write("The pipeline works.\n")
