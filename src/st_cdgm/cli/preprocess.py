"""``st-cdgm preprocess``: write the prepared data once, for fast training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from st_cdgm.cli._options import DryRunOption, Overrides, load, session
from st_cdgm.errors import ConfigError
from st_cdgm.runs.console import start_logging


class Format(StrEnum):
    """What ``--format`` offers."""

    ZARR = "zarr"
    WEBDATASET = "webdataset"


def preprocess(
    ctx: typer.Context,
    overrides: Overrides = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", metavar="NAME|FILE", help="Packaged preset or YAML file."
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Format,
        typer.Option(help="Zarr stores, or WebDataset shards of ready windows."),
    ] = Format.ZARR,
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
    """Write standardised predictors, first guess, residual and targets once.

    A killed run goes on where it stopped: run the same command again.

    Example: st-cdgm preprocess --config iberia --format zarr --out iberia_zarr
    data.root=DIR
    """
    from st_cdgm.runs.preparation import verified_line, write_prepared, written_lines

    current = session(ctx)
    if verify is not None:
        start_logging(current)
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
    if format is Format.WEBDATASET:
        options["shard_size"] = shard_size

    start_logging(current, level=settings.run.log_level)
    made = write_prepared(settings, target, format.value, options, current)
    typer.echo("\n".join(written_lines(made)))


def _needed(name: str, value: Any) -> Any:
    if value is None:
        raise ConfigError(
            f"{name} is missing",
            variable=name,
            expected="--config NAME|FILE and --out DIR, or --verify DIR",
        )
    return value
