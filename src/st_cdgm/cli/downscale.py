"""``st-cdgm downscale``: an ensemble of fine fields from new coarse data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import logged, split


def downscale(
    ctx: typer.Context,
    checkpoint: Annotated[
        Path, typer.Option(metavar="DIR", help="Such as RUN/checkpoints/best.")
    ],
    lr: Annotated[
        list[str], typer.Option(metavar="FILE", help="Coarse data; may be repeated.")
    ],
    output: Annotated[Path, typer.Option(metavar="FILE", help="NetCDF file to write.")],
    members: Annotated[int, typer.Option(min=1, help="Ensemble members.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    start: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="First day.")
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Another sampler than the checkpoint's.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Another number of solver steps.")
    ] = None,
    guidance_scale: Annotated[
        float, typer.Option(help="Strength of the causal states; 1: the model itself.")
    ] = 1.0,
    regrid: Annotated[
        str,
        typer.Option(
            metavar="auto|bilinear|conservative|none",
            help="For data on another grid that covers the model's; auto: bilinear.",
        ),
    ] = "auto",
    block_means: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET=PREDICTOR",
            help="Give a target the coarse means of a predictor; may be repeated.",
        ),
    ] = None,
    on_invalid: Annotated[
        str,
        typer.Option(
            metavar="error|mask",
            help="Impossible values: refuse them all, or leave those cells empty.",
        ),
    ] = "error",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Put bias and spread right as the checkpoint says, if it does.",
        ),
    ] = True,
    device: Annotated[
        str, typer.Option(help="auto (CUDA where there is one), cpu, cuda ...")
    ] = "auto",
) -> None:
    """Downscale coarse data with a trained model. No truth is needed.

    Example: st-cdgm downscale --checkpoint RUN/checkpoints/best --lr NEW.nc
    --output OUT.nc --members 20 --seed 1
    """
    from st_cdgm.config import InferenceConfig
    from st_cdgm.runs.console import show_results
    from st_cdgm.runs.steps import downscale_files, ensemble_results

    current = logged(ctx)

    # What is not an option here stays as the checkpoint has it.
    form = "TARGET=PREDICTOR, such as pr=pr"
    means = [
        split(text, option="--block-means", form=form) for text in block_means or ()
    ]
    options = InferenceConfig(
        sampler=sampler,
        steps=steps,
        guidance_scale=guidance_scale,
        block_means=dict(means),
        calibrate=calibrate,
    )

    written = downscale_files(
        checkpoint,
        lr,
        output,
        session=current,
        members=members,
        seed=seed,
        start=start,
        end=end,
        regrid=regrid,
        sampling=options.sampling,
        device=device,
        on_invalid=on_invalid,
    )
    show_results(ensemble_results(written))
