"""``st-cdgm preprocess``: write the prepared data once, for fast training."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_cdgm.cli._options import DryRunOption, Overrides, load, session
from st_cdgm.errors import ConfigError
from st_cdgm.runs.console import Session, error_console, progress, start_logging

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config

EXIT_INTERRUPTED = 130
_USE = {
    "zarr": "from st_cdgm import ZarrDataPipeline; ZarrDataPipeline({path!r})",
    "webdataset": "from st_cdgm.data import WebDatasetIterableDataset; "
    "WebDatasetIterableDataset({path!r}, split='train')",
}


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
    current = session(ctx)
    if verify is not None:
        start_logging(current)
        _verify(verify)
        return
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
    try:
        made = _write(settings, target, format.value, options, current)
    except KeyboardInterrupt:
        error_console().print(
            "Interrupted: run the same command again to go on where it stopped"
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _report(made)


def _needed(name: str, value: Any) -> Any:
    if value is None:
        raise ConfigError(
            f"{name} is missing",
            variable=name,
            expected="--config NAME|FILE and --out DIR, or --verify DIR",
        )
    return value


def _write(
    settings: Config,
    target: Path,
    kind: str,
    options: dict[str, Any],
    current: Session,
) -> Path:
    """Prepare the data and write them; return the directory."""
    from st_cdgm.data.store.preprocess import create_shards, pipeline_memory, write_zarr
    from st_cdgm.data.store.resumable import check_target
    from st_cdgm.runs.steps import open_data

    check_target(target, overwrite=options["overwrite"])
    settings.data.memory = str(pipeline_memory(options["memory"]))
    pipeline = open_data(settings, current)
    with progress(current, f"Writing {target.name}") as advance:
        shown = 0

        def show(done: int, count: int) -> None:
            nonlocal shown
            advance(done - shown, count)
            shown = done

        if kind == "zarr":
            return write_zarr(pipeline, target, progress=show, **options)
        return create_shards(
            pipeline, target, stride=settings.data.stride, progress=show, **options
        )


def _report(directory: Path) -> None:
    """Say what was written and how it is read."""
    from st_cdgm.data.store.manifest import read_metadata

    metadata = read_metadata(directory)
    files = metadata["checksums"]
    size = sum(facts["bytes"] for facts in files.values())
    kind = metadata["format"]
    content = f"{metadata['num_days']} days, {metadata['period']}"
    if kind == "webdataset":
        content = f"{metadata['num_samples']} windows of {content}"
    typer.echo(f"Written: {directory} ({_shown(size)} in {len(files)} files)")
    typer.echo(f"Content: {content}; splits: {', '.join(metadata['splits'])}")
    path = directory if kind == "zarr" else directory / "data_*.tar"
    typer.echo(f"Use:     {_USE[kind].format(path=str(path))}")


def _verify(directory: Path) -> None:
    from st_cdgm.data.store.preprocess import verify_output

    metadata = verify_output(directory)
    count = len(metadata["checksums"])
    typer.echo(f"Sound: {directory}, {count} files ({metadata['format']})")


def _shown(size: int) -> str:
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.3g} {units[0]}"
