"""``st-cdgm discover``: which predictors act on which, tested on held-out years."""

from __future__ import annotations

import typer

from st_cdgm.cli._options import ConfigOption, DryRunOption, Overrides, load, session


def discover(
    ctx: typer.Context,
    config: ConfigOption,
    overrides: Overrides = None,
    dry_run: DryRunOption = False,
) -> None:
    """Test every lagged link between levels; write edges.json and edges.csv.

    Works on the predictors of all days that are not for testing, with a causal network
    of its own: no trained model is needed. Four years at least.

    Example: st-cdgm discover --config iberia data.root=DIR discovery.folds=3
    """
    settings = load(config, overrides, dry_run=dry_run)
    from st_cdgm.runs.workflow import discover_workflow

    typer.echo(f"Edges: {discover_workflow(settings, session(ctx))}")
