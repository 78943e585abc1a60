"""``st-cdgm train``: fit a model and keep its checkpoints."""

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


def train(
    ctx: typer.Context,
    config: ConfigOption,
    overrides: Overrides = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Train a model; the best and the last state end in RUN/checkpoints.

    Example: st-cdgm train --config iberia data.root=DIR training.epochs=5
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import train_workflow

    train_workflow(settings, session(ctx), resume=resume, overwrite=overwrite)
