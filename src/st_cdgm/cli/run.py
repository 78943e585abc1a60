"""``st-cdgm run``: from data files to a report, in one go."""

from __future__ import annotations

import typer

from st_cdgm.cli._common import ConfigOption, DryRunOption, Overrides, load, session

__all__ = ["run"]


def run(
    ctx: typer.Context,
    config: ConfigOption,
    overrides: Overrides = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train, downscale the test period, evaluate and write the report.

    Example: st-cdgm run --config iberia data.root=DIR run.dir=runs/iberia
    """
    settings = load(config, overrides)
    if dry_run:
        from st_cdgm.config.load import config_to_yaml

        typer.echo(config_to_yaml(settings), nl=False)
        return
    from st_cdgm.cli._workflow import run_workflow

    run_workflow(settings, session(ctx))
