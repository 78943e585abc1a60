"""``st-cdgm train``: fit a model and keep its checkpoints."""

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


def train(
    ctx: typer.Context,
    config: ConfigOption,
    overrides: Overrides = None,
    dry_run: DryRunOption = False,
    resume: ResumeOption = False,
) -> None:
    """Train a model; the best and the last state end in RUN/checkpoints.

    Example: st-cdgm train --config iberia data.root=DIR training.epochs=5
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.checks import check_before_training, nothing_left_behind
    from st_cdgm.runs.steps import open_data, prepare_run, train_model

    current = session(ctx)
    check_before_training(settings, to_the_end=False)
    with nothing_left_behind(Path(settings.run.dir)):
        run_dir = prepare_run(settings, current)
        pipeline = open_data(settings, current)
        checkpoint = train_model(settings, pipeline, run_dir, current, resume=resume)
    typer.echo(f"Checkpoint: {checkpoint}")
