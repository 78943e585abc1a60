"""``st-cdgm evaluate``: score an ensemble against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._common import console, session, start_logging

__all__ = ["evaluate"]


def evaluate(
    ctx: typer.Context,
    prediction: Annotated[
        Path, typer.Option(metavar="FILE", help="Ensemble written by downscale.")
    ],
    truth: Annotated[Path, typer.Option(metavar="FILE", help="Fine-grid truth.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory for the scores.")
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE", help="Another forecast to compare; may be repeated."
        ),
    ] = None,
) -> None:
    """Score an ensemble and write scorecard.json, scorecard.csv, diagnostics.nc.

    Example: st-cdgm evaluate --prediction OUT.nc --truth HR.nc --output scores
    --reference analogs=ANALOGS.nc
    """
    from st_cdgm.cli._scores import scorecard_table
    from st_cdgm.cli._workflow import score_files

    current = session(ctx)
    start_logging(current)
    references = dict(_named_file(text) for text in reference or [])
    scorecard = score_files(
        prediction, truth, output, references=references, session=current
    )
    console().print(scorecard_table(scorecard))
    typer.echo(f"Scores: {output / 'scorecard.json'}")


def _named_file(text: str) -> tuple[str, Path]:
    """Split ``NAME=FILE``."""
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise typer.BadParameter(
            f"expected NAME=FILE, found {text}", param_hint="--reference"
        )
    return name, Path(file)
