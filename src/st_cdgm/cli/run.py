"""``st-cdgm run``: from data files to a report, in one go."""

from __future__ import annotations

import typer

from st_cdgm.cli import _options as options


def run(
    ctx: typer.Context,
    config: options.ConfigOption,
    overrides: options.Overrides = None,
    dry_run: options.DryRunOption = False,
    resume: options.ResumeOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Train, downscale the test period, evaluate and write the report.

    Example: st-cdgm run --config iberia data.root=DIR run.dir=runs/iberia
    """
    settings = options.load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import run_workflow

    run_workflow(settings, options.session(ctx), resume=resume, overwrite=overwrite)
