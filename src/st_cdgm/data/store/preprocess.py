"""Write the prepared fields of a pipeline once, as Zarr stores or WebDataset shards.

Both writers stay within a memory budget, work in blocks that may be shared out among
dask workers, appear under their name only when complete, and go on after a kill.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from st_cdgm.data.store.block_job import (
    Resources,
    write_blocks,
)
from st_cdgm.data.store.manifest import check_files, describe, read_metadata
from st_cdgm.data.store.shards import SHARD_NAME, ShardBlocks
from st_cdgm.data.store.work import block_need
from st_cdgm.data.store.zarr_store import (
    STORES,
    ZarrBlocks,
    codec_of,
    create_stores,
    plan_layout,
    write_static,
)
from st_cdgm.data.task.days import memory_bytes
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.windows import sample_bounds
from st_cdgm.errors import InputError, check_least


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
        ``memory``, ``workers``, ``scheduler``, ``overwrite``, ``progress``: the fields
        of :class:`st_cdgm.data.store.block_job.Resources`.

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

    def metadata() -> dict[str, Any]:
        fine, coarse = layout.chunks["hr"], layout.chunks["lr"]

        return {
            "format": "zarr",
            **describe(pipeline),
            "chunk_sizes": {
                "time": fine[0],
                "lr_lat": coarse[1],
                "lr_lon": coarse[2],
                "hr_lat": fine[1],
                "hr_lon": fine[2],
            },
            "shapes": {
                store: [layout.n_days, len(names), *layout.shapes[store]]
                for store, names in layout.names.items()
            },
            "storage": storage,
        }

    return write_blocks(
        pipeline,
        output_dir,
        Resources(**resources),
        facts={"format": "zarr", "storage": storage},
        work=partial(ZarrBlocks, read=pipeline.prepared_reader(), layout=layout),
        count=len(layout),
        need=block_need(layout.need, layout.bytes_per_day),
        begin=begin,
        metadata=metadata,
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

    # A shard is a block: its samples are known before any field is computed.
    work = partial(
        ShardBlocks,
        read=pipeline.prepared_reader(),
        windows=windows,
        iso=tuple(days.iso()),
        shard_size=shard_size,
        bytes_per_day=prep.bytes_per_day,
        static=static,
    )
    count = -(-len(windows) // shard_size)

    def metadata() -> dict[str, Any]:
        common = describe(pipeline)
        splits = common["splits"]
        for name, samples in ranges.items():
            splits[name]["samples"] = samples

        return {
            "format": "webdataset",
            **common,
            **options,
            "splits": splits,
            "num_samples": len(windows),
            "shards": [
                {
                    "name": SHARD_NAME.format(number),
                    "first": start,
                    "samples": min(shard_size, len(windows) - start),
                }
                for number, start in enumerate(range(0, len(windows), shard_size))
            ],
        }

    return write_blocks(
        pipeline,
        output_dir,
        Resources(**resources),
        facts={"format": "webdataset", "options": options},
        work=work,
        count=count,
        need=block_need(2 * length * prep.bytes_per_day, prep.bytes_per_day),
        begin=lambda root: None,
        metadata=metadata,
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

    Parameters
    ----------
    lr_path, hr_path, static_path
        See :class:`NetCDFDataPipeline`.
    output_dir
        See :func:`write_zarr`.
    memory : str or int
        What may be resident while writing; the pipeline keeps a part of it.
    **options
        Other options of :class:`NetCDFDataPipeline` (``seq_len``, ``normalize``,
        ``splits`` ...) and of :func:`write_zarr` (``chunk_size_time``, ``compressor``,
        ``overwrite`` ...).

    Returns
    -------
    Path
        The directory.

    Raises
    ------
    InputError
        As :class:`NetCDFDataPipeline` and :func:`write_zarr`.
    """
    from st_cdgm.data.pipeline import NetCDFDataPipeline

    writing = {*signature(write_zarr).parameters, *(f.name for f in fields(Resources))}
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
        raise InputError(
            "no window of consecutive days",
            found=f"{len(pipeline.days)} days in {', '.join(ranges)}",
            expected=f"runs of at least {seq_len} days",
            remedy="shorten data.seq_len or give a longer period",
        )
    return tuple(windows), ranges
