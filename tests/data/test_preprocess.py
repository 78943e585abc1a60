"""Preprocessing: layout, metadata, budget, resuming, clean failures."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numcodecs
import numpy as np
import psutil
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data import prepared_task, small_task
from zarr.codecs import BloscCodec, ZstdCodec

from st_cdgm.data.store import work as work_plan
from st_cdgm.data.store.manifest import (
    days_of_runs,
    read_config,
    read_preprocessor,
    write_preprocessor,
)
from st_cdgm.data.store.preprocess import (
    convert_netcdf_to_zarr,
    create_shards,
    verify_output,
    write_zarr,
)
from st_cdgm.data.store.resumable import ResumableOutput, check_target
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.data.store.zarr_store import STORES, codec_of, plan_layout
from st_cdgm.data.task.days import DAYS_PER_BLOCK
from st_cdgm.errors import ConfigError, InputError, MissingFileError, OutputError

BLOCKS = {"block_size": "200 kB", "chunk_size_time": 32}  # four blocks of 64 days


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def pipeline(folder):
    return prepared_task.pipeline(folder)


@pytest.fixture(scope="module")
def stores(pipeline, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "zarr"
    return write_zarr(pipeline, out, **BLOCKS)


@pytest.fixture(scope="module")
def metadata(stores):
    return json.loads((stores / "metadata.json").read_text("utf-8"))


def grids(fine=(172, 179), coarse=(23, 26), targets=3, channels=10):
    """Stand in for a preprocessor: what the layout looks at."""
    cells = 4 * (channels * np.prod(coarse) + 3 * targets * np.prod(fine))
    return SimpleNamespace(
        lr_grid=SimpleNamespace(shape=coarse),
        hr_grid=SimpleNamespace(shape=fine),
        channels=[SimpleNamespace(name=f"c{i}") for i in range(channels)],
        targets=[SimpleNamespace(name=f"t{i}") for i in range(targets)],
        bytes_per_day=int(cells),
    )


# -- Layout ----------------------------------------------------------------------------


def test_layout_of_a_common_grid():
    layout = plan_layout(grids(), 5000)
    # 32 days of 172 x 179 float32 are 3.9 MB; 96 days of all values are 111 MB.
    assert layout.chunks["hr"] == (32, 172, 179)
    assert layout.shards["hr"] == (96, 172, 179)
    assert layout.chunks["lr"] == (32, 23, 26)
    assert layout.shards["lr"] == (96, 23, 26)
    assert len(layout) == 53
    assert (layout.block(0), layout.block(52)) == ((0, 96), (4992, 5000))


def test_chunks_of_a_huge_grid_are_single_days():
    layout = plan_layout(grids(fine=(2000, 2000)), 400)
    assert layout.chunks["hr"] == (1, 2000, 2000)
    assert layout.block_days == 1


@given(
    n_days=st.integers(1, 3000),
    rows=st.integers(1, 900),
    columns=st.integers(1, 900),
    wished=st.tuples(*[st.none() | st.integers(1, 4000)] * 3),
)
@settings(max_examples=200, deadline=None)
def test_layout_is_aligned_and_clamped(n_days, rows, columns, wished):
    """D88: no chunk of 0, none larger than the array, whole chunks in every shard."""
    time, lat, lon = wished
    layout = plan_layout(
        grids(fine=(rows, columns)),
        n_days,
        chunk_size_time=time,
        chunk_size_lat=lat,
        chunk_size_lon=lon,
    )
    for store in STORES:
        array = (n_days, *layout.shapes[store])
        chunk, shard = layout.chunks[store], layout.shards[store]
        assert all(1 <= c <= n for c, n in zip(chunk, array, strict=True))
        assert all(s % c == 0 for s, c in zip(shard, chunk, strict=True))
        assert shard[0] == layout.block_days
        if time is None and n_days >= 512:
            days = chunk[0]
            assert days % DAYS_PER_BLOCK == 0 or DAYS_PER_BLOCK % days == 0
    if lat:
        assert layout.chunks["hr"][1] == min(lat, rows)
    covered = [layout.block(number) for number in range(len(layout))]
    assert covered[0][0] == 0
    assert covered[-1][1] == n_days
    assert all(a[1] == b[0] for a, b in zip(covered, covered[1:], strict=False))


def test_chunk_sizes_are_applied_in_every_dimension(pipeline, tmp_path):
    """D88: options that are recorded are also used."""
    out = write_zarr(
        pipeline,
        tmp_path / "z",
        chunk_size_time=50,
        chunk_size_lat=3,
        chunk_size_lon=1000,
        block_size="300 kB",
    )
    array = zarr.open_array(out / "hr.zarr", path="pr", mode="r")
    assert (array.chunks, array.shards) == ((50, 3, 9), (100, 9, 9))
    assert zarr.open_array(out / "lr.zarr", path="tas", mode="r").chunks == (50, 3, 5)
    noted = json.loads((out / "metadata.json").read_text("utf-8"))["chunk_sizes"]
    assert noted == {"time": 50, "lr_lat": 3, "lr_lon": 5, "hr_lat": 3, "hr_lon": 9}
    made = ZarrDataPipeline(out)
    for key, values in pipeline.prepared(0, 232).items():
        np.testing.assert_array_equal(made.prepared(0, 232)[key], values)
    with pytest.raises(ConfigError, match="chunk_size_lat"):
        write_zarr(pipeline, tmp_path / "z2", chunk_size_lat=0)


def test_short_series(tmp_path):
    """D88: a series shorter than any chunk."""
    small_task.write(tmp_path, time=small_task.stamps(7))
    with pytest.warns(UserWarning, match="no splits"):
        out = convert_netcdf_to_zarr(
            tmp_path / "lr.nc",
            tmp_path / "hr.nc",
            tmp_path / "z",
            seq_len=3,
            baseline_map=small_task.MAP,
        )
    array = zarr.open_array(out / "hr.zarr", path="pr", mode="r")
    assert (array.shape[0], array.chunks[0]) == (7, 7)
    assert len(ZarrDataPipeline(out).build_sequence_dataset()) == 5


@pytest.mark.parametrize(
    ("compressor", "expected"),
    [
        (None, BloscCodec(typesize=4, cname="lz4", clevel=3, shuffle="shuffle")),
        ("zstd", BloscCodec(typesize=4, cname="zstd", clevel=3, shuffle="shuffle")),
        ("none", None),
        (ZstdCodec(level=2), ZstdCodec(level=2)),
        (
            numcodecs.Blosc(cname="zstd", clevel=2, shuffle=2),
            BloscCodec(typesize=4, cname="zstd", clevel=2, shuffle="bitshuffle"),
        ),
    ],
)
def test_compressors(compressor, expected):
    """D87: codecs of Zarr 2 and of Zarr 3."""
    assert codec_of(compressor) == expected


@pytest.mark.parametrize("compressor", ["gzip", 3, numcodecs.GZip()])
def test_unknown_compressor(compressor):
    with pytest.raises(ConfigError, match="compressor"):
        codec_of(compressor)


def test_stores_are_plain_xarray_data_sets(stores, pipeline):
    ds = xr.open_zarr(
        stores / "residual.zarr",
        consolidated=False,
        decode_times=xr.coders.CFDatetimeCoder(use_cftime=True),
    )
    assert dict(ds.sizes) == {"time": 232, "lat": 8, "lon": 9}
    assert ds.time.dt.calendar == pipeline.days.calendar
    assert ds.time.values[60].isoformat() == "2001-03-05T00:00:00"
    assert ds.lat.attrs["units"] == "degrees_north"
    group = zarr.open_group(stores / "residual.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    assert group["pr"].shards == (64, 8, 9)
    assert group["pr"].chunks == (32, 8, 9)


def test_rotated_grid_keeps_its_coordinates(tmp_path):
    """Two-dimensional latitudes and the grid mapping come back."""
    hr = small_task.targets(small_task.stamps(40))
    lat, lon = np.meshgrid(small_task.HR_LAT, small_task.HR_LON, indexing="ij")
    rows = {"standard_name": "grid_latitude", "units": "degrees"}
    columns = {"standard_name": "grid_longitude", "units": "degrees"}
    hr = hr.rename(lat="rlat", lon="rlon").assign_coords(
        rlat=("rlat", small_task.HR_LAT - 40, rows),
        rlon=("rlon", small_task.HR_LON + 5, columns),
        lat=(("rlat", "rlon"), lat, {"units": "degrees_north"}),
        lon=(("rlat", "rlon"), lon, {"units": "degrees_east"}),
    )
    hr["rotated_pole"] = (
        (),
        0,
        {
            "grid_mapping_name": "rotated_latitude_longitude",
            "grid_north_pole_latitude": 50.0,
        },
    )
    for name in ("pr", "tasmin", "tasmax"):
        hr[name].attrs["grid_mapping"] = "rotated_pole"
    small_task.write(tmp_path, hr=hr, time=small_task.stamps(40))
    with pytest.warns(UserWarning, match="no splits"):
        out = convert_netcdf_to_zarr(
            tmp_path / "lr.nc",
            tmp_path / "hr.nc",
            tmp_path / "z",
            baseline_map=small_task.MAP,
        )
    found = ZarrDataPipeline(out).hr_dataset
    assert found["pr"].dims == ("time", "rlat", "rlon")
    np.testing.assert_allclose(found.lat, lat)
    assert found.rotated_pole.attrs["grid_north_pole_latitude"] == 50.0


# -- Metadata --------------------------------------------------------------------------


def test_metadata(metadata, pipeline):
    """D89: variables, shapes, epsilon, format version and scope are there."""
    assert metadata["format"] == "zarr"
    assert metadata["format_version"] == 1
    assert (metadata["seq_len"], metadata["baseline_strategy"]) == (4, "auto")
    assert (metadata["normalize"], metadata["baseline_factor"]) == (True, 4)
    assert metadata["transform_epsilon"] == 1e-6
    assert "sqrt" in [part["codec"] for part in metadata["codec"]["parts"]]
    assert metadata["dims"]["hr_lat"] == "lat"
    assert metadata["variables"]["lr"] == ["q_850", "tas", "pr"]
    assert metadata["variables"]["hr"] == ["pr", "tasmin", "tasmax"]
    assert metadata["variables"]["static"] == ["orog", "sftlf"]
    assert metadata["shapes"]["lr"] == [232, 3, 4, 5]
    assert metadata["hr_shape"] == [8, 9]
    assert metadata["splits"]["train"]["days"] == [[0, 117]]
    assert metadata["splits"]["test"]["period"] == small_task.SPLITS["test"]
    assert metadata["calendar"] == "standard"
    names = [fact["role"] for fact in metadata["inputs"]]
    assert names == ["lr_path", "hr_path", "static_path"]
    assert metadata["inputs"][0]["bytes"] == Path(pipeline.lr_path).stat().st_size


def test_statistics_are_stored_under_matching_names(stores, pipeline, metadata):
    """D89: ``mean`` and ``std``, of the training period."""
    for key in ("mean", "std"):
        found = xr.open_zarr(stores / "stats" / f"{key}.zarr", consolidated=False)
        xr.testing.assert_equal(found.load(), pipeline.lr_stats[key])
        spread = metadata["statistics"]["lr"]["mean_over_cells"]["tas"][key]
        np.testing.assert_allclose(spread, found["tas"][0, 0], rtol=1e-6)
    assert metadata["statistics"]["lr"]["scope"] == "per_variable"
    assert metadata["statistics"]["period"] == small_task.SPLITS["train"]
    residual = xr.open_zarr(stores / "stats" / "residual_std.zarr", consolidated=False)
    np.testing.assert_array_equal(residual["pr"], pipeline.preprocessor.residual_std[0])


def test_checksums_cover_every_file(stores, metadata):
    found = prepared_task.sums(stores)
    del found["metadata.json"]
    listed = {name: facts["sha256"] for name, facts in metadata["checksums"].items()}
    assert listed == found
    assert verify_output(stores) == metadata


def test_configuration_comes_back(metadata, pipeline):
    assert read_config(metadata) == pipeline.config


def test_days_and_preprocessor_come_back(pipeline, tmp_path):
    """Also steps shorter than a day."""
    clock = np.arange(len(pipeline.days), dtype=np.int64) % 24 * 3600
    days = dataclasses.replace(pipeline.days, second=clock, step_seconds=3600)
    write_preprocessor(tmp_path, pipeline.preprocessor, days)
    prep, found = read_preprocessor(tmp_path)
    assert found.iso() == days.iso()
    assert found.step_seconds == 3600
    np.testing.assert_array_equal(found.season, days.season)
    meta, arrays = prep.to_state()
    expected_meta, expected = pipeline.preprocessor.to_state()
    assert meta == expected_meta
    for name, value in expected.items():
        np.testing.assert_array_equal(arrays[name], value)


def test_runs_of_days():
    index = np.array([2, 3, 4, 9, 10, 12])
    assert days_of_runs(index) == [[2, 5], [9, 11], [12, 13]]


# -- Damage ----------------------------------------------------------------------------


def copy_of(stores: Path, target: Path) -> Path:
    for path in stores.rglob("*"):
        if path.is_file():
            own = target / path.relative_to(stores)
            own.parent.mkdir(parents=True, exist_ok=True)
            own.write_bytes(path.read_bytes())
    return target


def test_a_changed_byte_is_found(stores, tmp_path):
    broken = copy_of(stores, tmp_path / "z")
    shard = broken / "hr.zarr" / "pr" / "c" / "1" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[10] ^= 1
    shard.write_bytes(content)
    ZarrDataPipeline(broken)  # sizes alone do not tell
    with pytest.raises(InputError, match=r"hr\.zarr/pr/c/1/0/0"):
        ZarrDataPipeline(broken, verify=True)
    with pytest.raises(InputError, match="other contents"):
        verify_output(broken)


def test_a_lost_or_short_shard_is_found_on_opening(stores, tmp_path):
    """Zarr itself would read a lost shard as zeros."""
    broken = copy_of(stores, tmp_path / "z")
    shard = broken / "hr.zarr" / "pr" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="another size"):
        ZarrDataPipeline(broken)
    shard.unlink()
    with pytest.raises(InputError, match="missing"):
        ZarrDataPipeline(broken)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"format": "zarr", "format_version": 99}', "another format version"),
        ('{"format": "webdataset", "format_version": 1}', "another format"),
    ],
)
def test_metadata_that_cannot_be_used(tmp_path, content, problem):
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        ZarrDataPipeline(tmp_path)


def test_no_preprocessed_directory(tmp_path):
    with pytest.raises(MissingFileError, match=r"no metadata\.json"):
        ZarrDataPipeline(tmp_path)
    with pytest.raises(ValueError, match="no directory"):
        ZarrDataPipeline(tmp_path / "nothing")


def test_damaged_preprocessor(stores, tmp_path):
    broken = copy_of(stores, tmp_path / "z")
    file = broken / "preprocessor.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(InputError, match="preprocessor cannot be read"):
        read_preprocessor(broken)
    with pytest.raises(InputError, match="other contents than written"):
        ZarrDataPipeline(broken)


# -- Resuming --------------------------------------------------------------------------

KILLED = """
    import os, signal, sys, warnings
    from st_cdgm.data.store import zarr_store
    from st_cdgm.data.store.preprocess import write_zarr
    from st_cdgm.data.pipeline import NetCDFDataPipeline
    from tests.data import small_task
    from pathlib import Path

    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    pipeline = NetCDFDataPipeline.from_config(small_task.config(folder))
    count = 0
    write = zarr_store.ZarrBlocks._write
    def killed(self, *arguments):
        global count
        count += 1
        if count == 30:  # in the third block of twelve arrays
            stray = Path(self.root) / "hr.zarr/pr/c/2/0/0.ab.partial"
            stray.parent.mkdir(parents=True, exist_ok=True)
            stray.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, *arguments)
    zarr_store.ZarrBlocks._write = killed
    write_zarr(pipeline, out, block_size="200 kB", chunk_size_time=32)
"""


def test_killed_run_goes_on_to_the_same_bytes(pipeline, folder, stores, tmp_path):
    out = tmp_path / "z"
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(out)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    seen = []
    write_zarr(pipeline, out, progress=lambda *of: seen.append(of), **BLOCKS)
    assert seen == [(3, 4), (4, 4)]
    assert prepared_task.sums(out) == prepared_task.sums(stores)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z"]


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after(count: int):
    def progress(done: int, total: int) -> None:
        if done == count:
            raise StoppedError

    return progress


@pytest.mark.parametrize("write", ["zarr", "shards"])
def test_stopped_run_computes_only_what_is_left(pipeline, tmp_path, write):
    options = BLOCKS if write == "zarr" else {"seq_len": 4, "shard_size": 60}
    function = write_zarr if write == "zarr" else create_shards
    whole = function(pipeline, tmp_path / "whole", **options)
    with pytest.raises(StoppedError):
        function(pipeline, tmp_path / "z", progress=stop_after(2), **options)
    assert not (tmp_path / "z").exists()
    seen = []
    resumed = function(
        pipeline, tmp_path / "z", progress=lambda *of: seen.append(of[0]), **options
    )
    assert seen[0] == 3
    assert prepared_task.sums(resumed) == prepared_task.sums(whole)


def test_torn_journal_line_is_done_again(pipeline, stores, tmp_path):
    with pytest.raises(StoppedError):
        write_zarr(pipeline, tmp_path / "z", progress=stop_after(2), **BLOCKS)
    journal = tmp_path / ".z.part" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    seen = []
    write_zarr(
        pipeline, tmp_path / "z", progress=lambda *o: seen.append(o[0]), **BLOCKS
    )
    assert seen == [2, 3, 4]
    assert prepared_task.sums(tmp_path / "z") == prepared_task.sums(stores)


def test_other_options_do_not_go_on_with_an_unfinished_run(pipeline, tmp_path):
    with pytest.raises(StoppedError):
        write_zarr(pipeline, tmp_path / "z", progress=stop_after(1), **BLOCKS)
    with pytest.raises(OutputError, match="other storage") as caught:
        write_zarr(pipeline, tmp_path / "z", compressor="none", **BLOCKS)
    assert "--overwrite" in str(caught.value)
    out = write_zarr(
        pipeline, tmp_path / "z", compressor="none", overwrite=True, **BLOCKS
    )
    fresh = write_zarr(pipeline, tmp_path / "y", compressor="none", **BLOCKS)
    assert prepared_task.sums(out) == prepared_task.sums(fresh)


def test_changed_input_does_not_go_on_with_an_unfinished_run(tmp_path):
    pipeline = prepared_task.pipeline(tmp_path / "task")
    with pytest.raises(StoppedError):
        write_zarr(pipeline, tmp_path / "z", progress=stop_after(1), **BLOCKS)
    os.utime(tmp_path / "task" / "hr.nc", (1, 1))
    with pytest.raises(OutputError, match="other inputs"):
        write_zarr(pipeline, tmp_path / "z", **BLOCKS)


# -- Output ----------------------------------------------------------------------------


def test_existing_output_is_replaced_only_on_demand(pipeline, tmp_path):
    out = write_zarr(pipeline, tmp_path / "z", **BLOCKS)
    with pytest.raises(OutputError, match="exists already"):
        write_zarr(pipeline, out, **BLOCKS)
    replaced = write_zarr(pipeline, out, compressor="none", overwrite=True, **BLOCKS)
    stored = json.loads((replaced / "metadata.json").read_text("utf-8"))
    assert stored["storage"]["compressor"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["z"]


def test_foreign_directories_are_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(OutputError, match="not made by preprocessing"):
        check_target(tmp_path / "thesis", overwrite=True)
    (tmp_path / "empty").mkdir()
    assert check_target(tmp_path / "empty", overwrite=True) == tmp_path / "empty"
    with pytest.raises(OutputError):
        check_target(tmp_path / "empty")


def test_failed_write_leaves_nothing_and_can_go_on(pipeline, stores, tmp_path):
    """A full disk, stood for by a limit on the size of files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, before[1]))
    try:
        with pytest.raises(OutputError, match="could not be written") as caught:
            write_zarr(pipeline, tmp_path / "z", **BLOCKS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "run the same command again" in str(caught.value)
    assert not (tmp_path / "z").exists()
    out = write_zarr(pipeline, tmp_path / "z", **BLOCKS)
    assert prepared_task.sums(out) == prepared_task.sums(stores)


def test_two_processes_do_not_write_the_same_output(tmp_path):
    second = ResumableOutput(tmp_path / "z", {"a": 1})
    with ResumableOutput(tmp_path / "z", {"a": 1}) as first:
        first.begin()
        with pytest.raises(OutputError, match="Another process"):
            second.__enter__()


# -- Budget and workers ----------------------------------------------------------------


def test_days_computed_at_once_fit_their_part():
    assert work_plan.days_at_once(1 << 20) == 32
    assert work_plan.days_at_once(3 << 20) == 16
    assert work_plan.days_at_once(1 << 30) == 1


def test_reader_computes_fixed_parts_once():
    """The same parts, and so the same bytes, wherever a span begins."""
    asked = []

    def read(start, stop):
        asked.append((start, stop))
        return {"lr": np.arange(start, stop, dtype=np.float32)[:, None]}

    reader = work_plan.in_parts(read, 100, 4)
    for start in (30, 31, 60, 62):
        stop = start + 6
        found = reader.window(start, stop)["lr"][:, 0]
        np.testing.assert_array_equal(found, np.arange(start, stop))
    assert asked == [(0, 32), (32, 64), (64, 96)]


def test_memory_decides_how_many_work_side_by_side(caplog):
    here = psutil.Process().memory_info().rss
    need = 100 << 20
    each = work_plan.WORKER_BYTES + need
    with caplog.at_level(logging.WARNING):
        assert work_plan.affordable_workers(here + 5 * each, 4, need) == 4
        assert not caplog.records
        assert work_plan.affordable_workers(here + 3 * each, 8, need) in (2, 3)
    assert "instead of 8" in caplog.text
    with pytest.raises(ConfigError, match="memory does not suffice"):
        work_plan.affordable_workers(here // 2, 1, need)
    with pytest.raises(ConfigError, match="at least one"):
        work_plan.affordable_workers(here * 9, 0, need)


def test_too_little_memory_is_said_before_anything_is_written(pipeline, tmp_path):
    with pytest.raises(ConfigError, match="block_size"):
        write_zarr(pipeline, tmp_path / "z", memory="1 MB")
    assert list(tmp_path.iterdir()) == []


def test_dask_scheduler_gives_the_same_bytes(pipeline, stores, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        out = write_zarr(pipeline, tmp_path / "z", scheduler=address, **BLOCKS)
        shards = create_shards(
            pipeline, tmp_path / "s", 4, shard_size=60, scheduler=address
        )
    assert prepared_task.sums(out) == prepared_task.sums(stores)
    alone = create_shards(pipeline, tmp_path / "s1", 4, shard_size=60)
    assert prepared_task.sums(shards) == prepared_task.sums(alone)


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(pipeline, stores, tmp_path):
    pytest.importorskip("distributed")
    out = write_zarr(pipeline, tmp_path / "z", workers=2, memory="8 GiB", **BLOCKS)
    assert prepared_task.sums(out) == prepared_task.sums(stores)


def test_absent_scheduler(monkeypatch, pipeline, tmp_path):
    distributed = pytest.importorskip("distributed")

    def refuse(*_, **__):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(ConfigError, match="does not answer"):
        write_zarr(pipeline, tmp_path / "z", scheduler="tcp://localhost:1", **BLOCKS)


def test_workers_without_dask_distributed(monkeypatch, pipeline, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"st-cdgm\[dist\]"):
        write_zarr(pipeline, tmp_path / "z", workers=2, memory="64 GiB", **BLOCKS)


def test_preprocessing_from_zarr_gives_the_same_shards(pipeline, stores, tmp_path):
    one = create_shards(pipeline, tmp_path / "a", 4)
    other = create_shards(ZarrDataPipeline(stores), tmp_path / "b", 4)
    name = "data_000000.tar"
    assert (one / name).read_bytes() == (other / name).read_bytes()


def test_converted_in_one_call(folder, tmp_path):
    """The documented call, with statistics of the whole record."""
    with pytest.warns(UserWarning, match="no splits"):
        out = convert_netcdf_to_zarr(
            str(folder / "lr.nc"),
            str(folder / "hr.nc"),
            str(tmp_path / "z"),
            static_path=str(folder / "static.nc"),
            seq_len=5,
            normalize=True,
            target_transform="log1p",
            hr_variables=("pr",),
            chunk_size_time=30,
        )
    made = ZarrDataPipeline(out)
    assert made.preprocessor.codec.chosen["pr"] == "log1p"
    assert made.metadata["target_transform"] == "log1p"
    assert made.metadata["variables"]["hr"] == ["pr"]
    assert made.seq_len == 5
    assert list(made.indices) == ["train"]
