"""``st-cdgm synthesize``: write the synthetic climate as data files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import Overrides, load, logged


def synthesize(
    ctx: typer.Context,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the NetCDF files.")
    ],
    overrides: Overrides = None,
) -> None:
    """Write a small synthetic climate with a known causal graph.

    Example: st-cdgm synthesize --output data/synthetic synthetic.seed=3
    """
    from st_cdgm.runs.steps import make_climate

    settings = load("demo", overrides)
    session = logged(ctx, level=settings.run.log_level)
    written = make_climate(settings, output, session)
    for path in (written.lr, written.hr, written.static, written.truth_json):
        typer.echo(str(path))
