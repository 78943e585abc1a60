"""``st-cdgm discover``: which variables act on which, tested on held-out years."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import CONFIG, DryRunOption, Overrides, load, session


def discover(
    ctx: typer.Context,
    config: Annotated[str | None, CONFIG] = None,
    overrides: Overrides = None,
    series: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Plain series instead: CSV, NetCDF, one per column."
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV of drivers from outside, such as an index of ENSO.",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="var,pcmci,pcmci+", help="Other methods beside ours."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where to write the graph."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Test every lagged link; write dag.json, edges.csv, dag.graphml and others.

    With --config: links between levels and from levels to the targets, on the days of
    the training period; no trained model is needed. With --series: links between the
    columns of a table or the variables of a file, of any step, gaps allowed; KEY=VALUE
    are settings of the section discovery.

    Examples: st-cdgm discover --config iberia data.root=DIR discovery.folds=3
    st-cdgm discover --series indices.csv --known enso.csv max_lag=2 --compare var
    """
    if (config is None) == (series is None):
        raise typer.BadParameter("give either --config or --series")
    if config is not None:
        settings = load(config, overrides, dry_run=dry_run)
        from st_cdgm.runs.workflow import discover_workflow

        typer.echo(f"Graph: {discover_workflow(settings, session(ctx))}")
        return

    assert series is not None
    from st_cdgm.runs.discovery import discover_file

    methods = [name.strip() for name in (compare or "").split(",") if name.strip()]
    written = discover_file(
        series, overrides or [], known=known, methods=methods, output=output
    )
    if written is not None:
        typer.echo(f"Graph: {written}")
