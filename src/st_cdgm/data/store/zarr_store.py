"""Prepared fields as Zarr v3 stores: layout, writing block by block, reading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dask.array
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, ZstdCodec

from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.store.work import in_parts
from st_cdgm.data.task.days import DAYS_PER_BLOCK, DayReader
from st_cdgm.data.task.labels import labelled
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.errors import ConfigError, check_least
from st_cdgm.outputs import FileFacts, digest, sync

STORES = ("lr", "baseline", "residual", "hr")
DAY = 86400  # s
# Read and decoded in one go; smaller ones cost more calls than bytes.
CHUNK_BYTES = 4 << 20
LONGEST_CHUNK = 512  # days
# Prepared values of one block; its files are the shards.
BLOCK_BYTES = 128 << 20
# Measured on prepared fields: lz4 decodes four times as fast as it would have to and
# saves a third of the space; zstd saves 5 % more at half the speed.
_COMPRESSORS = ("lz4", "zstd")
_SHUFFLES = {0: "noshuffle", 1: "shuffle", 2: "bitshuffle"}


@dataclass(frozen=True, kw_only=True)
class ZarrLayout:
    """How the stores are cut: the same days for all, their own rows and columns.

    A chunk ``(days, rows, columns)`` is what is decoded in one go, a shard is one file;
    ``block_days`` are the days of a shard, ``bytes_per_day`` the memory of a prepared
    day over all stores.
    """

    n_days: int
    names: dict[str, list[str]]
    shapes: dict[str, tuple[int, int]]
    chunks: dict[str, tuple[int, ...]]
    shards: dict[str, tuple[int, ...]]
    block_days: int
    bytes_per_day: int

    def __len__(self) -> int:
        return -(-self.n_days // self.block_days)

    def block(self, number: int) -> tuple[int, int]:
        """Return the first and one past the last day of a block."""
        start = number * self.block_days
        return start, min(start + self.block_days, self.n_days)

    @property
    def need(self) -> int:
        """Memory of a block and of one variable's shard while it is encoded, bytes."""
        block = min(self.block_days, self.n_days)
        cells = max(rows * columns for rows, columns in self.shapes.values())
        return block * (self.bytes_per_day + 3 * 4 * cells)


def plan_layout(
    preprocessor: Preprocessor,
    n_days: int,
    *,
    chunk_size_time: int | None = None,
    chunk_size_lat: int | None = None,
    chunk_size_lon: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> ZarrLayout:
    """Choose chunks and shards from the data alone, so that they are the same anywhere.

    All stores have the same shards in time: one block of days fills whole files.
    Chunks hold whole fields and a power-of-two multiple (or part) of the 32 days that
    are read at once, about 4 MiB. Sizes asked for are clamped to the array (D88).

    Raises
    ------
    ConfigError
        If a size is below 1.
    """
    prep = preprocessor
    targets = [target.name for target in prep.targets]
    names = {"lr": [channel.name for channel in prep.channels]}
    names |= dict.fromkeys(STORES[1:], targets)
    shapes = {"lr": prep.lr_grid.shape}
    shapes |= dict.fromkeys(STORES[1:], prep.hr_grid.shape)
    for name, value in (
        ("chunk_size_time", chunk_size_time),
        ("chunk_size_lat", chunk_size_lat),
        ("chunk_size_lon", chunk_size_lon),
    ):
        if value is not None:
            check_least(name, value, 1)

    # No block longer than the record, in whole chunks.
    days = _chunk_days(shapes["hr"], n_days, chunk_size_time)
    most = min(block_bytes // (days * prep.bytes_per_day), -(-n_days // days))
    block_days = int(days * max(most, 1))
    chunks, shards = {}, {}
    for store, shape in shapes.items():
        own = _chunk_days(shape, n_days, chunk_size_time)
        while block_days % own:
            own = max(own // 2, days)

        wished = (chunk_size_lat, chunk_size_lon)
        part = [min(size or n, n) for size, n in zip(wished, shape, strict=True)]
        whole = [-(-n // size) * size for size, n in zip(part, shape, strict=True)]
        chunks[store], shards[store] = (own, *part), (block_days, *whole)

    return ZarrLayout(
        n_days=n_days,
        names=names,
        shapes=shapes,
        chunks=chunks,
        shards=shards,
        block_days=block_days,
        bytes_per_day=prep.bytes_per_day,
    )


def _chunk_days(shape: tuple[int, int], n_days: int, wished: int | None) -> int:
    if wished is not None:
        return min(wished, n_days)
    field = 4 * shape[0] * shape[1]
    days = DAYS_PER_BLOCK
    while days > 1 and days * field > CHUNK_BYTES:
        days //= 2
    while 2 * days <= min(LONGEST_CHUNK, n_days) and 2 * days * field <= CHUNK_BYTES:
        days *= 2
    return min(days, n_days)


def codec_of(compressor: Any) -> Any:
    """Return a Zarr v3 codec, or None for no compression.

    Parameters
    ----------
    compressor : {"lz4", "zstd", "none"}, codec or None
        None is the default, ``lz4``. A codec of Zarr 3 passes as it is; a
        ``numcodecs.Blosc`` of Zarr 2 becomes its counterpart (D87).

    Raises
    ------
    ConfigError
        If it is something else.
    """
    if compressor is None:
        compressor = "lz4"
    if compressor == "none":
        return None
    if isinstance(compressor, str) and compressor in _COMPRESSORS:
        cname = cast("Any", compressor)
        return BloscCodec(typesize=4, cname=cname, clevel=3, shuffle="shuffle")
    if isinstance(compressor, BloscCodec | ZstdCodec):
        return compressor

    config = compressor.get_config() if hasattr(compressor, "get_config") else {}
    if config.get("id") == "blosc":
        return BloscCodec(
            typesize=4,
            cname=config["cname"],
            clevel=config["clevel"],
            shuffle=cast("Any", _SHUFFLES.get(config["shuffle"], "shuffle")),
        )

    raise ConfigError(
        "unknown compressor",
        variable="compressor",
        found=compressor,
        expected="lz4, zstd, none, or a Blosc codec",
    )


# -- Writing ---------------------------------------------------------------------------


def create_stores(
    root: Path,
    layout: ZarrLayout,
    preprocessor: Preprocessor,
    days: CalendarDays,
    codec: Any,
) -> None:
    """Write all stores without their values: arrays, coordinates, attributes."""
    array: Any = dask.array  # its stubs leave these untyped
    for store in STORES:
        grid = preprocessor.lr_grid if store == "lr" else preprocessor.hr_grid
        names, shape = layout.names[store], layout.shapes[store]
        lazy = array.zeros(
            (layout.n_days, len(names), *shape),
            chunks=(layout.block_days, 1, *shape),
            dtype=np.float32,
        )
        ds = labelled(lazy, names, _attrs(store, preprocessor), grid, days)
        encoding: dict[str, Any] = {
            name: {
                "chunks": layout.chunks[store],
                "shards": layout.shards[store],
                "compressors": None if codec is None else (codec,),
            }
            for name in names
        }

        unit = "days" if days.step_seconds == DAY else "seconds"
        encoding["time"] = {
            "units": f"{unit} since 1850-01-01",
            "calendar": days.calendar,
            "dtype": "int64",
            "chunks": (max(layout.n_days, 1),),
        }

        # CF: the grid mapping is a variable that the others name.
        mapping = (grid.mapping or {}).get("variable")
        for name in names if mapping else ():
            ds[name].attrs["grid_mapping"] = str(mapping)
        if mapping:
            ds = ds.reset_coords(str(mapping))

        ds.attrs = {"Conventions": "CF-1.8", "title": _TITLES[store]}
        ds.to_zarr(
            root / f"{store}.zarr",
            mode="w",
            zarr_format=3,
            consolidated=False,
            compute=False,
            encoding=encoding,
        )


_TITLES = {
    "lr": "standardised predictors",
    "baseline": "encoded baseline",
    "residual": "standardised residual of the encoded targets",
    "hr": "encoded targets",
}


def _attrs(store: str, preprocessor: Preprocessor) -> list[dict[str, Any]]:
    if store == "lr":
        return [{"units": "1", "long_name": c.name} for c in preprocessor.channels]
    title = _TITLES[store]
    return [{"long_name": f"{title}: {target.name}"} for target in preprocessor.targets]


def write_static(root: Path, pipeline: PipelineViews) -> None:
    """Write static fields and statistics, ``mean`` and ``std`` alike (D89)."""
    prep = pipeline.preprocessor
    names, shape = [target.name for target in prep.targets], prep.valid.shape
    fields = {f"stats/{key}": table for key, table in pipeline.lr_stats.items()}
    for key in ("residual_mean", "residual_std"):
        full = np.broadcast_to(getattr(prep, key), shape)
        fields[f"stats/{key}"] = labelled(full, names, {}, prep.hr_grid)
    if pipeline.static_dataset is not None:
        fields["static"] = pipeline.static_dataset

    for key, ds in fields.items():
        path = root / f"{key}.zarr"
        ds.to_zarr(path, mode="w", zarr_format=3, consolidated=False)


@dataclass(frozen=True, kw_only=True)
class ZarrBlocks:
    """Compute and write blocks of days to ``root``; may be sent to other processes."""

    read: DayReader
    root: str
    layout: ZarrLayout

    def __call__(self, number: int) -> FileFacts:
        """Write a block; return the facts of its files, which are on disk then."""
        start, stop = self.layout.block(number)
        values = self._compute(start, stop)
        files: FileFacts = {}
        for store in STORES:
            for c, name in enumerate(self.layout.names[store]):
                # Let go of what is written.
                self._write(store, name, slice(start, stop), values.pop((store, c)))
                path = f"{store}.zarr/{name}/c/{number}/0/0"
                if (Path(self.root) / path).is_file():
                    sync(Path(self.root) / path)
                    files[path] = digest(Path(self.root) / path)
        return files

    def _compute(
        self, start: int, stop: int
    ) -> dict[tuple[str, int], NDArray[np.float32]]:
        layout = self.layout
        fields = in_parts(self.read, layout.n_days, layout.bytes_per_day)
        size = fields.days_per_block
        values = {
            (store, c): np.empty((stop - start, *layout.shapes[store]), np.float32)
            for store in STORES
            for c in range(len(layout.names[store]))
        }
        # Cut where the parts begin, so that no two are held at once.
        for begin in range(start // size * size, stop, size):
            first, last = max(begin, start), min(begin + size, stop)
            part = fields.window(first, last)
            for (store, c), array in values.items():
                array[first - start : last - start] = part[store][:, c]
        return values

    def _write(
        self, store: str, name: str, days: slice, values: NDArray[np.float32]
    ) -> None:
        path = Path(self.root) / f"{store}.zarr"
        array = cast("Any", zarr.open_array(path, path=name, mode="r+", zarr_format=3))
        array[days] = values
