"""``st-cdgm counterfactual``: what the fine fields would have been."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged


def counterfactual(
    ctx: typer.Context,
    checkpoint: Annotated[
        Path, typer.Option(metavar="DIR", help="Such as RUN/checkpoints/best.")
    ],
    lr: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            help="Coarse data, those of the training period too; may be repeated.",
        ),
    ],
    do: Annotated[
        list[str],
        typer.Option(
            metavar="EDIT",
            help='NODE.CHANNEL (=|+=) NUMBER (sd|UNIT), "GP850.q += 1 sd"; may be '
            "repeated.",
        ),
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="YYYY-MM-DD", help="Day of the edit.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="NetCDF file to write.")],
    days: Annotated[
        int, typer.Option(min=1, help="Days to answer for, that of the edit first.")
    ] = 4,
    edit_days: Annotated[
        int, typer.Option(min=1, help="Days that the edit is made on.")
    ] = 1,
    box: Annotated[
        str | None,
        typer.Option(metavar="LAT0,LAT1,LON0,LON1", help="Edit these cells alone."),
    ] = None,
    pattern: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Factor of the number for each coarse cell, NetCDF."
        ),
    ] = None,
    hold_others: Annotated[
        bool,
        typer.Option("--hold-others", help="Let the other levels keep their record."),
    ] = False,
    allow_uncertified: Annotated[
        bool,
        typer.Option("--allow-uncertified", help="Take edges without certificate too."),
    ] = False,
    graph: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Tested graph; default dag.json of the run."),
    ] = None,
    members: Annotated[int, typer.Option(min=1, help="Ensemble members.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    regrid: Annotated[
        str,
        typer.Option(
            metavar="auto|bilinear|conservative|none",
            help="For data on another grid that covers the model's; auto: bilinear.",
        ),
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="auto (CUDA where there is one), cpu, cuda ...")
    ] = "auto",
) -> None:
    """Change the coarse fields of a day and see what the fine fields answer.

    The change goes from day to day along the tested graph; both worlds have the same
    random numbers. Example: st-cdgm counterfactual --checkpoint RUN/checkpoints/best
    --lr LR.nc --do "GP850.q += 1 sd" --from 2003-07-01 --days 4 --output OUT.nc
    """
    from st_cdgm import api
    from st_cdgm.runs.console import show_results
    from st_cdgm.runs.provenance import output_attributes

    current = logged(ctx)
    answer = api.counterfactual(
        checkpoint,
        lr,
        do,
        start=start,
        days=days,
        edit_days=edit_days,
        box=box,
        pattern=pattern,
        hold_others=hold_others,
        allow_uncertified=allow_uncertified,
        graph=graph,
        members=members,
        seed=seed,
        regrid=regrid,
        device=device,
        output=output,
        attrs=output_attributes(checkpoint, lr, command=current.command),
    )

    # What was asked, and how far the answer goes.
    shown = {
        "Edit": "intervention",
        "Estimand": "estimand",
        "Certificate": "certificate",
        "Leads": "valid_leads",
        "Outside of training": "outside_training_range",
    }
    lines = {label: answer.attrs[key] for label, key in shown.items()}
    show_results({"Counterfactual": output, **lines})
