"""``st-cdgm certify``: how far the links of a run's graph can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged


def certify(
    ctx: typer.Context,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")],
    seeds: Annotated[
        int, typer.Option(min=1, help="Orders in which years are held out.")
    ] = 5,
    resamples: Annotated[
        int, typer.Option(min=1, help="Resamples of the years in each order.")
    ] = 50,
    surrogates: Annotated[
        int, typer.Option(min=0, help="Surrogates without links, of each kind.")
    ] = 5,
) -> None:
    """Refit the graph in every way that should not change it; write certificate.json.

    A link is certified when it is found in 90 % of the refits, with one sign in both
    halves of the record and without the mark of a hidden driver. Until then a graph is
    tested, not certified. Minutes for a few years of a region.

    Example: st-cdgm certify runs/demo
    """
    from st_cdgm.runs.discovery import certify_run

    written = certify_run(
        run_dir,
        logged(ctx),
        seeds=seeds,
        resamples=resamples,
        surrogates=surrogates,
    )
    typer.echo(f"Certificate: {written}")
