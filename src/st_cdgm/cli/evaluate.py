"""``st-cdgm evaluate``: score an ensemble against the truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged, split


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
    mask: Annotated[
        str,
        typer.Option(
            metavar="common|truth|strict",
            help="common: score the variables, cells and days that all have. truth: "
            "all that has a truth must be predicted. strict: and no more.",
        ),
    ] = "common",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A metric beside the standard ones; may be repeated. List: st-cdgm "
            "plugins --kind metric.",
        ),
    ] = None,
    figures: Annotated[
        bool,
        typer.Option(
            "--figures", help="Draw maps, spectra, ranks ... into DIR/figures."
        ),
    ] = False,
) -> None:
    """Score an ensemble and write scorecard.json, scorecard.csv, diagnostics.nc.

    Example: st-cdgm evaluate --prediction OUT.nc --truth HR.nc --output scores
    --reference analogs=ANALOGS.nc
    """
    references = _references(reference or [], prediction.stem)
    from st_cdgm.outputs import check_output_directory
    from st_cdgm.runs.score_table import show_scorecard
    from st_cdgm.runs.scoring import draw_figures, score_files

    current = logged(ctx)
    check_output_directory(output)
    scorecard = score_files(
        prediction,
        truth,
        output,
        references=references,
        mask=mask,
        metrics=metric or [],
        session=current,
    )

    show_scorecard(scorecard, metric or [])
    typer.echo(scorecard.protocol["scored"]["mask"]["text"].replace(" | ", "\n  "))
    typer.echo(f"Scores: {output / 'scorecard.json'}")
    if figures:
        drawn = draw_figures(output, session=current)
        typer.echo(f"Figures: {len(drawn)} in {output / 'figures'}")


def _references(texts: list[str], prediction: str) -> dict[str, Path]:
    """Read the references; each needs a name of its own, as ``prediction`` has."""
    references: dict[str, Path] = {}
    for text in texts:
        name, file = split(text, option="--reference", form="NAME=FILE")
        if name == prediction or name in references:
            raise typer.BadParameter(
                f"the name {name} is taken; choose another: OTHER_NAME={file}",
                param_hint="--reference",
            )
        references[name] = Path(file)
    return references
