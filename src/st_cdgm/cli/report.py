"""``st-cdgm report``: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged


def report(
    ctx: typer.Context,
    run_dir: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Directory of a finished run.")
    ],
    title: Annotated[str | None, typer.Option(help="Title of the page.")] = None,
) -> None:
    """Build RUN_DIR/report.html from the files of a run.

    Example: st-cdgm report runs/iberia
    """
    from st_cdgm.runs.scoring import write_report

    logged(ctx)
    typer.echo(f"Report: {write_report(run_dir, title=title)}")
