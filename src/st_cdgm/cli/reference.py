"""``st-cdgm reference``: a method that the model must beat, on the same days."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli._options import (
    ConfigOption,
    DryRunOption,
    Overrides,
    load,
    logged,
)


def reference(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Such as ridge, glm, analogs.")
    ],
    config: ConfigOption,
    output: Annotated[Path, typer.Option(metavar="FILE", help="NetCDF file to write.")],
    overrides: Overrides = None,
    members: Annotated[int, typer.Option(min=1, help="Ensemble members.")] = 20,
    dry_run: DryRunOption = False,
) -> None:
    """Fit a reference to the training days, make the test days and score them.

    Example: st-cdgm reference ridge --config iberia --output ridge.nc data.root=DIR
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import reference_workflow

    settings.inference.members = members
    current = logged(ctx, level=settings.run.log_level)
    reference_workflow(settings, name, output, current)
