"""``st-cdgm preprocess``: write the prepared data once, for fast training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from st_cdgm.cli._options import CONFIG, DryRunOption, Overrides, load, logged
from st_cdgm.errors import ConfigError


def preprocess(
    ctx: typer.Context,
    overrides: Overrides = None,
    config: Annotated[str | None, CONFIG] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["zarr", "webdataset"],
        typer.Option(help="Zarr stores, or WebDataset shards of ready windows."),
    ] = "zarr",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to make.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this machine (dask).")
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A running dask scheduler instead."),
    ] = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="What may be resident in all.")
    ] = "2GiB",
    shard_size: Annotated[int, typer.Option(min=1, help="Windows per shard.")] = 1000,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing output.")
    ] = False,
    verify: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only check a directory's checksums."),
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write standardised predictors, baseline, residual and targets once.

    A killed run goes on where it stopped: run the same command again.

    Example: st-cdgm preprocess --config iberia --format zarr --out iberia_zarr
    data.root=DIR
    """
    from st_cdgm.runs.preparation import verified_line, write_prepared, written_lines

    if verify is not None:
        logged(ctx)
        typer.echo(verified_line(verify))
        return

    # Everything that can be refused is refused before the data are read.
    settings = load(_needed("--config", config), overrides, dry_run=dry_run)
    target = Path(_needed("--out", out))
    options = {
        "memory": memory,
        "workers": workers,
        "scheduler": scheduler,
        "overwrite": overwrite,
    }
    if format == "webdataset":
        options["shard_size"] = shard_size

    session = logged(ctx, level=settings.run.log_level)
    made = write_prepared(settings, target, format, options, session)
    typer.echo("\n".join(written_lines(made)))


def _needed(name: str, value: Any) -> Any:
    if value is None:
        raise ConfigError(
            f"{name} is missing",
            variable=name,
            expected="--config NAME|FILE and --out DIR, or --verify DIR",
        )
    return value
