"""What reads damaged files, and what has to be true afterwards."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fuzz_seeds import SHARDS, ZARR, copy, remove, seed_path, task_pipeline

# Takes the damaged path and the folder of sound ones.
Target = Callable[[Path, Path], object]

CLIMATE = ("classic", "netcdf4", "packed", "zarr2", "zarr3")
STORES = ("stores", "other stores")
INPUTS = ("lr", "hr", "fine")

# -- Climate files ---------------------------------------------------------------------


def _inspect(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.inspect.files import inspect_file

    return inspect_file(path)


def _channels(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.read.readers import read_channels

    return read_channels(path).load()


def _targets(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.read.readers import read_targets

    return read_targets(path).load()


def _static(path: Path, seeds: Path) -> object:
    from st_cdgm.data.read.readers import read_static, read_targets

    return read_static(path, grid=read_targets(seeds / "netcdf4.nc").grid)


def _table(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.netcdf_utils import process_netcdf_file

    return process_netcdf_file(
        path, lat_range=(41, 49), lon_range=(-4, 6), time_slice=("2001", None)
    )


def _tables(path: Path, _seeds: Path) -> object:
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame

    with NetCDFToDataFrame(path) as file:
        file.format_time()
        file.select_region(lat_range=(41, 49))
        file.select_time_period(start_date="2001-01-30")
        return [file.to_dataframe(method=how) for how in ("point", "stacked", "mean")]


def _metadata(path: Path, _seeds: Path) -> object:
    """Describe a file; both files of metadata are whole or not there."""
    from st_cdgm.data.netcdf_utils import NetCDFToDataFrame, export_metadata

    text, out = io.StringIO(), path.parent

    with NetCDFToDataFrame(path) as file:
        file.get_info(file=text)
        file.get_info(detailed=False, file=text)
    for kind in ("json", "csv"):
        export_metadata(path, out / f"all.{kind}", kind=kind)
    assert text.getvalue()
    json.loads((out / "all.json").read_text("utf-8"), parse_constant=_no_constant)
    for kind in ("json", "csv"):
        (out / f"all.{kind}").unlink()
    return None


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} in JSON")


# -- Preprocessed directories ----------------------------------------------------------


def _iterate(made: Any, splits: Sequence[str | None] = (None,)) -> None:
    """Read every window of both kinds of data sets."""
    for split in splits:
        for _ in made.build_sequence_dataset(split=split, as_torch=split is None):
            pass
        windows = made.windows(split)
        windows.batch(range(len(windows)))


def _stores(path: Path, _seeds: Path) -> None:
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline

    made = ZarrDataPipeline(path)
    _iterate(made, (None, *made.indices))
    made.arrays()
    for view in (made.residual_dataset, made.hr_dataset_raw, made.lr_dataset_raw):
        view.load()


def _store_blocks(path: Path, _seeds: Path) -> None:
    """With little memory, so that days are read again and again."""
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline

    _iterate(ZarrDataPipeline(path, memory=300_000), ("test",))


def _shards(path: Path, _seeds: Path) -> None:
    from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset

    pattern = path / "data_*.tar"
    for options in ({}, {"shuffle": True, "split": "train"}):
        samples = WebDatasetIterableDataset(pattern, **options)
        assert sum(1 for _ in samples) == len(samples)


def _bare_shards(path: Path, _seeds: Path) -> None:
    """The tar files alone, as someone else may hand them on."""
    from st_cdgm.data.store.shard_dataset import WebDatasetIterableDataset

    (path / "metadata.json").unlink(missing_ok=True)
    for _ in WebDatasetIterableDataset(path / "data_*.tar", as_torch=False):
        pass


def _manifest(path: Path, _seeds: Path) -> None:
    from st_cdgm.data.store.manifest import (
        read_config,
        read_metadata,
        read_preprocessor,
    )
    from st_cdgm.data.store.preprocess import verify_output

    metadata = read_metadata(path)
    read_config(metadata)
    read_preprocessor(path)
    verify_output(path)


# -- Preprocessing ---------------------------------------------------------------------


def _written(
    write: Callable[[], object], check: Callable[[Path], None], path: Path, sound: Path
) -> None:
    """Write from damaged input to ``out``: whole and readable, or refused and nothing.

    After a refusal the same call with sound input works; where blocks were finished
    before the damage was met, only once it is told to start again.
    """
    from st_cdgm.errors import InputError, OutputError

    out = path.parent / "out"
    try:
        write()
    except InputError:
        assert not out.exists(), "a partial output"
        assert not _readable(out.with_name(".out.part")), "an unfinished run is read"
        copy(sound, path)
        try:
            write()
        except OutputError as error:
            if "unfinished run" not in error.problem:
                raise
            shutil.rmtree(out.with_name(".out.part"))
            write()
        check(out)
        shutil.rmtree(out)
        remove(path)  # what was lost in it is there again
        raise
    check(out)
    shutil.rmtree(out)


def _readable(part: Path) -> bool:
    from st_cdgm.data.store.manifest import METADATA

    return part.exists() and any(part.rglob(METADATA))


def _check_stores(out: Path) -> None:
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline

    _iterate(ZarrDataPipeline(out, verify=True))


def _check_shards(out: Path) -> None:
    from st_cdgm.data.store.preprocess import verify_output

    verify_output(out)
    _shards(out, out)


def _preprocess_zarr(path: Path, seeds: Path) -> None:
    from st_cdgm.data.store.preprocess import write_zarr

    def write() -> None:
        pipeline = task_pipeline(seeds, **{path.stem: path})
        write_zarr(pipeline, path.parent / "out", **ZARR)

    _written(write, _check_stores, path, seed_path(seeds, path.stem))


def _preprocess_shards(path: Path, seeds: Path) -> None:
    """With so little memory that the files are read again while writing."""
    from st_cdgm.data.store.preprocess import create_shards

    def write() -> None:
        pipeline = task_pipeline(seeds, memory=100_000, **{path.stem: path})
        create_shards(pipeline, path.parent / "out", **SHARDS)

    _written(write, _check_shards, path, seed_path(seeds, path.stem))


def _shards_of_stores(path: Path, seeds: Path) -> None:
    from st_cdgm.data.store.preprocess import create_shards
    from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline

    def write() -> None:
        pipeline = ZarrDataPipeline(path, memory=300_000)
        create_shards(pipeline, path.parent / "out", **SHARDS)

    _written(write, _check_shards, path, seeds / path.name)


# name -> (function, kinds of files it is tried on)
TARGETS: dict[str, tuple[Target, tuple[str, ...]]] = {
    "inspect_file": (_inspect, (*CLIMATE, "static")),
    "read_channels": (_channels, CLIMATE),
    "read_targets": (_targets, CLIMATE),
    "read_static": (_static, ("static", "zarr3")),
    "process_netcdf_file": (_table, CLIMATE),
    "NetCDFToDataFrame": (_tables, CLIMATE),
    "file metadata": (_metadata, (*CLIMATE, "static")),
    "stores": (_stores, STORES),
    "stores by blocks": (_store_blocks, STORES),
    "shards": (_shards, ("shards",)),
    "bare shards": (_bare_shards, ("shards",)),
    "manifest": (_manifest, (*STORES, "shards")),
    "preprocess to zarr": (_preprocess_zarr, INPUTS),
    "preprocess to shards": (_preprocess_shards, INPUTS),
    "shards of stores": (_shards_of_stores, STORES),
}
