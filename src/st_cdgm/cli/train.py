"""``st-cdgm train``: fit a model and keep its checkpoints."""

from __future__ import annotations

import typer

from st_cdgm.cli import _options as options


def train(
    ctx: typer.Context,
    config: options.ConfigOption,
    overrides: options.Overrides = None,
    dry_run: options.DryRunOption = False,
    resume: options.ResumeOption = False,
    overwrite: options.OverwriteOption = False,
) -> None:
    """Train a model; the best and the last state end in RUN/checkpoints.

    Example: st-cdgm train --config iberia data.root=DIR training.epochs=5
    """
    settings = options.load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import train_workflow

    train_workflow(settings, options.session(ctx), resume=resume, overwrite=overwrite)
