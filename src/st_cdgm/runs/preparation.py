"""Write the prepared data once, for fast training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.runs.console import Session, byte_size, progress
from st_cdgm.runs.steps import open_data

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config

_USE = {
    "zarr": "from st_cdgm import ZarrDataPipeline; ZarrDataPipeline({path!r})",
    "webdataset": "from st_cdgm.data import WebDatasetIterableDataset; "
    "WebDatasetIterableDataset({path!r}, split='train')",
}


def write_prepared(
    settings: Config, target: Path, kind: str, options: dict[str, Any], session: Session
) -> Path:
    """Prepare the data and write them as ``zarr`` or ``webdataset``; return where.

    ``options`` are those of `st_cdgm.data.store.preprocess.write_zarr` or
    ``create_shards``.
    """
    from st_cdgm.data.store.preprocess import create_shards, pipeline_memory, write_zarr
    from st_cdgm.data.store.resumable import check_target

    check_target(target, overwrite=options["overwrite"])
    settings.data.memory = str(pipeline_memory(options["memory"]))
    pipeline = open_data(settings, session)

    with progress(session, f"Writing {target.name}") as advance:
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


def written_lines(directory: Path) -> list[str]:
    """Say what was written and how it is read."""
    from st_cdgm.data.store.manifest import read_metadata

    metadata = read_metadata(directory)
    files = metadata["checksums"]
    size = sum(facts["bytes"] for facts in files.values())
    kind = metadata["format"]
    content = f"{metadata['num_days']} days, {metadata['period']}"
    if kind == "webdataset":
        content = f"{metadata['num_samples']} windows of {content}"

    path = directory if kind == "zarr" else directory / "data_*.tar"
    return [
        f"Written: {directory} ({byte_size(size)} in {len(files)} files)",
        f"Content: {content}; splits: {', '.join(metadata['splits'])}",
        f"Use:     {_USE[kind].format(path=str(path))}",
    ]


def verified_line(directory: Path) -> str:
    """Check the files of a directory against their checksums; say that they agree."""
    from st_cdgm.data.store.preprocess import verify_output

    metadata = verify_output(directory)
    count = len(metadata["checksums"])
    return f"Sound: {directory}, {count} files ({metadata['format']})"
