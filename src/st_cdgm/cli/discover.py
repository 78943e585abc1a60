"""``st-cdgm discover``: which predictors act on which, tested on held-out years."""

from __future__ import annotations

from pathlib import Path

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
    from st_cdgm.runs.checks import check_before_training
    from st_cdgm.runs.directory import nothing_left_behind, prepare_run
    from st_cdgm.runs.discovery import discover_links
    from st_cdgm.runs.steps import open_data

    current = session(ctx)
    check_before_training(settings, to_the_end=False)
    with nothing_left_behind(Path(settings.run.dir)):
        run_dir = prepare_run(settings, current)
        written = discover_links(
            settings, open_data(settings, current), run_dir, current
        )
    typer.echo(f"Edges: {written}")
