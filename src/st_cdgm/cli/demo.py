"""``st-cdgm demo``: the whole way on a synthetic climate, without any download."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import load, session


def demo(
    ctx: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute instead of several; worse scores.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Run directory to write.")
    ] = Path("runs/demo"),
) -> None:
    """Make a synthetic climate, learn it, downscale it and report.

    Example: st-cdgm demo --quick --out runs/demo
    """
    from st_cdgm.runs.directory import check_run_directory
    from st_cdgm.runs.steps import make_climate
    from st_cdgm.runs.workflow import run_workflow

    data = out / "data"
    settings = load("demo_quick" if quick else "demo", None)
    settings.run.dir, settings.data.root = str(out), str(data)
    check_run_directory(settings)  # an earlier demo is replaced, another run is not
    current = session(ctx)
    make_climate(settings, data, current, overwrite=True)
    run_workflow(settings, current, overwrite=True)
