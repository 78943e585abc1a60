"""``st-cdgm run``: from data files to a report, in one go."""

from __future__ import annotations

from pathlib import Path

import typer

from st_cdgm.cli._options import (
    ConfigOption,
    DryRunOption,
    Overrides,
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
) -> None:
    """Train, downscale the test period, evaluate and write the report.

    Example: st-cdgm run --config iberia data.root=DIR run.dir=runs/iberia
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.checks import check_before_training, nothing_left_behind
    from st_cdgm.runs.workflow import run_workflow

    check_before_training(settings, to_the_end=True)
    with nothing_left_behind(Path(settings.run.dir)):
        run_workflow(settings, session(ctx), resume=resume)
