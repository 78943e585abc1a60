"""``st-cdgm run``: from data files to a report, in one go."""

from __future__ import annotations

import typer

from st_cdgm.cli._options import (
    ConfigOption,
    DryRunOption,
    Overrides,
    OverwriteOption,
    ResumeOption,
    load,
    session,
)


def run(
    ctx: typer.Context,
    config: ConfigOption,
    overrides: Overrides = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train, downscale the test period, evaluate and write the report.

    Example: st-cdgm run --config iberia data.root=DIR run.dir=runs/iberia
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import run_workflow

    run_workflow(settings, session(ctx), resume=resume, overwrite=overwrite)
