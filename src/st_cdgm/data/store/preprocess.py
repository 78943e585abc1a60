"""Write the prepared fields of a pipeline once, as Zarr stores or WebDataset shards.

Both writers stay within a memory budget, work in blocks that may be shared out among
dask workers, appear under their name only when complete, and go on after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from st_cdgm.data.store.manifest import (
    check_files,
    describe,
    preprocessor_mark,
    read_metadata,
    write_preprocessor,
)
from st_cdgm.data.store.resumable import ResumableOutput
from st_cdgm.data.store.shards import SHARD_NAME, ShardBlocks
from st_cdgm.data.store.work import Work, affordable_workers, block_need, run_blocks
from st_cdgm.data.store.zarr_store import (
    STORES,
    ZarrBlocks,
    codec_of,
    create_stores,
    plan_layout,
    write_static,
)
from st_cdgm.data.task.datasets import no_window
from st_cdgm.data.task.days import memory_bytes
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.windows import sample_bounds
from st_cdgm.errors import check_least
from st_cdgm.outputs import FileFacts


def write_zarr(
    pipeline: PipelineViews,
    output_dir: str | Path,
    *,
    chunk_size_time: int | None = None,
    chunk_size_lat: int | None = None,
    chunk_size_lon: int | None = None,
    compressor: Any = None,
    block_size: str | int = "128 MiB",
    **resources: Any,
) -> Path:
    """Write the prepared fields of a pipeline as Zarr stores.

    Parameters
    ----------
    pipeline : PipelineViews
        :class:`NetCDFDataPipeline` or :class:`ZarrDataPipeline`.
    output_dir : str or Path
        Directory to make: ``lr.zarr``, ``baseline.zarr``, ``residual.zarr``,
        ``hr.zarr``, ``static.zarr``, ``stats``, the preprocessor, ``metadata.json``.
    chunk_size_time, chunk_size_lat, chunk_size_lon : int, optional
        Days, rows and columns of a chunk, clamped to the arrays; None takes whole
        fields and about 4 MiB.
    compressor : {"lz4", "zstd", "none"} or codec, optional
        ``lz4`` by default; see :func:`st_cdgm.data.store.zarr_store.codec_of`.
    block_size : str or int
        Memory of the values of one block of days, which become one shard per variable.
    **resources
        ``memory`` : what may be resident in all processes together, ``"2 GiB"``.
        ``workers`` : processes on this machine, 1; fewer where memory does not suffice.
        ``scheduler`` : address of a dask scheduler to use instead, whose workers see
        inputs and output under the same paths.
        ``overwrite`` : whether an existing output is replaced.
        ``progress`` : called with the blocks finished and the number of all.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    OutputError
        If the output exists, cannot be written, or an unfinished run with other inputs
        or options lies there.
    ConfigError
        If an option is out of range or the memory does not suffice.
    ImportError
        If several workers are asked for without ``dask.distributed``.
    """
    prep = pipeline.preprocessor
    layout = plan_layout(
        prep,
        len(pipeline.days),
        chunk_size_time=chunk_size_time,
        chunk_size_lat=chunk_size_lat,
        chunk_size_lon=chunk_size_lon,
        block_bytes=memory_bytes(block_size, variable="block_size"),
    )
    codec = codec_of(compressor)
    storage = {
        "chunks": {store: list(layout.chunks[store]) for store in STORES},
        "shards": {store: list(layout.shards[store]) for store in STORES},
        "compressor": None if codec is None else codec.to_dict(),
    }

    # Arrays without values come first: blocks write into them in any order.
    def begin(root: Path) -> None:
        create_stores(root, layout, prep, pipeline.days, codec)
        write_static(root, pipeline)

    (days, *fine), (_, *coarse) = layout.chunks["hr"], layout.chunks["lr"]
    chunk_names = ("time", "lr_lat", "lr_lon", "hr_lat", "hr_lon")
    metadata = {
        "format": "zarr",
        **describe(pipeline),
        "chunk_sizes": dict(zip(chunk_names, (days, *coarse, *fine), strict=True)),
        "shapes": {
            store: [layout.n_days, len(names), *layout.shapes[store]]
            for store, names in layout.names.items()
        },
        "storage": storage,
    }
    return _write_blocks(
        pipeline,
        output_dir,
        facts={"storage": storage},
        metadata=metadata,
        work=partial(ZarrBlocks, read=pipeline.prepared_reader(), layout=layout),
        count=len(layout),
        need=block_need(layout.need, layout.bytes_per_day),
        begin=begin,
        **resources,
    )


def create_shards(
    pipeline: PipelineViews,
    output_dir: str | Path,
    seq_len: int | None = None,
    shard_size: int = 1000,
    stride: int = 1,
    *,
    static_members: bool = True,
    **resources: Any,
) -> Path:
    """Write the windows of a pipeline as WebDataset shards.

    Windows are those of :meth:`build_sequence_dataset` for each split, the splits one
    after the other; none crosses a gap or the border of a split.

    Parameters
    ----------
    pipeline : PipelineViews
        As for :func:`write_zarr`.
    output_dir : str or Path
        Directory to make: ``data_000000.tar ...``, the preprocessor, ``metadata.json``.
    seq_len : int, optional
        Days per window; None takes the pipeline's.
    shard_size : int
        Samples per shard.
    stride : int
        Days from one window to the next. Windows that overlap repeat their days: at
        stride 1 the shards are ``seq_len`` times as large as the Zarr stores.
    static_members : bool
        Whether every sample repeats the static fields.
    **resources
        As for :func:`write_zarr`; the unit of work is a shard.

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    OutputError, ConfigError, ImportError
        As :func:`write_zarr`.
    InputError
        If no run of consecutive days is as long as a window.
    """
    prep, days = pipeline.preprocessor, pipeline.days
    length = pipeline.seq_len if seq_len is None else int(seq_len)
    sizes = {"seq_len": length, "stride": stride, "shard_size": shard_size}
    for name, value in sizes.items():
        check_least(name, value, 1)
    windows, ranges = _windows(pipeline, length, stride)
    static = prep.static if static_members and len(prep.static) else None
    options = {**sizes, "static_members": static is not None}

    metadata = {"format": "webdataset", **describe(pipeline), **options}
    for name, samples in ranges.items():
        metadata["splits"][name]["samples"] = samples
    metadata["num_samples"] = count = len(windows)
    metadata["shards"] = [
        {
            "name": SHARD_NAME.format(start // shard_size),
            "first": start,
            "samples": min(shard_size, count - start),
        }
        for start in range(0, count, shard_size)
    ]

    # A shard is a block: its samples are known before any field is computed.
    return _write_blocks(
        pipeline,
        output_dir,
        facts={"options": options},
        metadata=metadata,
        work=partial(
            ShardBlocks,
            read=pipeline.prepared_reader(),
            windows=windows,
            iso=tuple(days.iso()),
            shard_size=shard_size,
            bytes_per_day=prep.bytes_per_day,
            static=static,
        ),
        count=len(metadata["shards"]),
        need=block_need(2 * length * prep.bytes_per_day, prep.bytes_per_day),
        **resources,
    )


def convert_netcdf_to_zarr(
    lr_path: Any,
    hr_path: Any,
    output_dir: str | Path,
    *,
    static_path: Any = None,
    memory: str | int = "2 GiB",
    **options: Any,
) -> Path:
    """Prepare a task from NetCDF and write it as Zarr stores, in one call.

    ``options`` are those of :class:`NetCDFDataPipeline` (``seq_len``, ``normalize``,
    ``splits`` ...) and of :func:`write_zarr` (``chunk_size_time``, ``compressor``,
    ``overwrite`` ...). Of the ``memory`` the pipeline keeps a part.

    Raises
    ------
    InputError
        As :class:`NetCDFDataPipeline` and :func:`write_zarr`.
    """
    from st_cdgm.data.pipeline import NetCDFDataPipeline

    writing = {n for f in (write_zarr, _write_blocks) for n in signature(f).parameters}
    storage = {name: options.pop(name) for name in writing & options.keys()}
    pipeline = NetCDFDataPipeline(
        lr_path, hr_path, static_path, memory=pipeline_memory(memory), **options
    )
    return write_zarr(pipeline, output_dir, memory=memory, **storage)


def pipeline_memory(memory: str | int) -> int:
    """Return what of a budget the pipeline may keep: the writers need the rest."""
    return max(memory_bytes(memory, variable="memory") // 16, 1)


def verify_output(directory: str | Path) -> dict[str, Any]:
    """Check every file of a preprocessed directory against its checksum.

    Returns
    -------
    dict
        The metadata.

    Raises
    ------
    MissingFileError
        If it is no preprocessed directory.
    InputError
        If files are missing or damaged.
    """
    metadata = read_metadata(directory)
    check_files(Path(directory), metadata, contents=True)
    return metadata


def _windows(
    pipeline: PipelineViews, seq_len: int, stride: int
) -> tuple[tuple[tuple[int, int], ...], dict[str, list[int]]]:
    """Return first and last day of all windows, and the samples of each split."""
    windows: list[tuple[int, int]] = []
    ranges: dict[str, list[int]] = {}
    for name, index in pipeline.indices.items():
        if not len(index):
            continue
        days = pipeline.days.select(index)
        own = sample_bounds(days.ordinal, seq_len, stride=stride, drop_last=True)
        ranges[name] = [len(windows), len(windows) + len(own)]
        # Consecutive days of a split are consecutive in the record, too.
        windows += [(int(index[a]), int(index[b - 1]) + 1) for a, b in own]
    if not windows:
        raise no_window(f"{len(pipeline.days)} days in {', '.join(ranges)}", seq_len)
    return tuple(windows), ranges


def _write_blocks(
    pipeline: PipelineViews,
    output_dir: str | Path,
    *,
    facts: Mapping[str, Any],
    metadata: Mapping[str, Any],
    work: Callable[..., Work],
    count: int,
    need: int,
    begin: Callable[[Path], None] = lambda root: None,
    memory: str | int = "2 GiB",
    workers: int = 1,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Run the blocks that are not done yet, then publish the directory.

    ``facts`` are what beside inputs and preprocessor decides the bytes. ``work`` takes
    the directory as ``root`` and returns what writes one of the ``count`` blocks, for
    which ``need`` bytes of memory suffice; ``begin`` writes what comes before them. The
    others are the resources of :func:`write_zarr`.
    """
    budget = memory_bytes(memory, variable="memory")
    all_facts = {
        **{key: metadata[key] for key in ("format_version", "format", "inputs")},
        "preprocessor": preprocessor_mark(pipeline.preprocessor),
        **facts,
    }

    # Once begun, a run goes on behind its last block, also after a kill.
    with ResumableOutput(output_dir, all_facts, overwrite=overwrite) as output:
        if scheduler is None:
            workers = affordable_workers(budget, workers, need)
        if not output.begun:
            begin(output.root)
            write_preprocessor(output.root, pipeline.preprocessor, pipeline.days)
            output.begin()

        def done(number: int, files: FileFacts) -> None:
            output.record(number, files)
            if progress is not None:
                progress(len(output.done), count)

        run_blocks(
            work(root=str(output.root.absolute())),
            [number for number in range(count) if number not in output.done],
            done=done,
            workers=workers,
            scheduler=scheduler,
        )
        return output.publish(metadata)
