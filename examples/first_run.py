"""A first run from Python: simulate, train, downscale, score, look.

    python examples/first_run.py runs/first_run

About a minute on two cores, without any download. Replace the two files of the
synthetic climate by your own and the rest stays the same.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import st_cdgm
from st_cdgm.config.load import load_config
from st_cdgm.data.synthetic import write_synthetic

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("first_run")


def main(folder: Path) -> None:
    """Run every step once, in a folder."""
    # 1. Data: a small climate whose causal graph is known. Yours would go here.
    data, where = folder / "data", folder / "run"
    config = load_config("demo_quick", [f"data.root={data}", f"run.dir={where}"])
    files = write_synthetic(config.synthetic, data)
    log.info("%s\n", st_cdgm.inspect(files.lr))

    # 2. Train, downscale the test period, score it against references, write a report.
    run = st_cdgm.run(config)
    log.info("%s\n", run.scorecard.to_dataframe().round(3))

    # 3. What the run learned.
    for edge in run.graph.edges:
        log.info("%s -> %s: %.2f", edge.source, edge.target, edge.weight)

    # 4. The trained model on predictors: five members of ten days, as xarray.
    model = st_cdgm.load(where / "checkpoints" / "best", device="auto")
    log.info("\n%r\n", model)
    ensemble = model.downscale(
        files.lr, members=5, seed=1, start="2003-01-01", end="2003-01-10"
    )
    log.info("%s\n", ensemble)

    # 5. Any forecast can be scored, also one that another tool made.
    scores = st_cdgm.evaluate(ensemble, files.hr)
    log.info("%s\n", scores.to_dataframe().round(3))

    # 6. Pictures.
    figure = model.plot_day(ensemble, "2003-01-05", "pr")
    figure.savefig(folder / "2003-01-05.png")
    log.info("report: %s", run.report)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/first_run"))
