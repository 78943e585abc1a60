"""Where a pipeline's data may be: files, lists, patterns, URLs, memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tests.data import small_task

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import InputError, MissingFileError

KEYS = ("lr", "baseline", "residual", "hr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The small task; ``lr_1.nc`` and ``lr_2.nc`` are the two halves of ``lr.nc``."""
    folder = small_task.write(tmp_path_factory.mktemp("task"))
    with xr.open_dataset(folder / "lr.nc") as ds:
        ds.isel(time=slice(None, 100)).to_netcdf(folder / "lr_1.nc")
        ds.isel(time=slice(100, None)).to_netcdf(folder / "lr_2.nc")
    return folder


@pytest.fixture(scope="module")
def expected(folder) -> NetCDFDataPipeline:
    return made(folder / "lr.nc", folder / "hr.nc", folder / "static.nc")


@pytest.fixture
def bucket(folder):
    """Return the URL of the same files in a file system in memory."""
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    for file in folder.glob("*.nc"):
        fs.pipe(f"/bucket/{file.name}", file.read_bytes())
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True)


def made(*places, **options) -> NetCDFDataPipeline:
    options = {
        "seq_len": 4,
        "normalize": True,
        "baseline_map": small_task.MAP,
        "splits": SplitConfig(**small_task.SPLITS),
        **options,
    }
    return NetCDFDataPipeline(*places, **options)


def assert_same(found: NetCDFDataPipeline, expected: NetCDFDataPipeline) -> None:
    days = len(expected.days)
    assert found.days.iso() == expected.days.iso()
    (_, state), (_, known) = (p.preprocessor.to_state() for p in (found, expected))
    for key, values in known.items():
        assert np.array_equal(state[key], values), key
    got, wanted = found.prepared(0, days), expected.prepared(0, days)
    for key in KEYS:
        assert np.array_equal(got[key], wanted[key], equal_nan=True), key


@pytest.mark.parametrize(
    ("root", "path", "resolved"),
    [
        (None, "lr.nc", "lr.nc"),
        ("/data", "lr.nc", "/data/lr.nc"),
        ("/data", "/other/lr.nc", "/other/lr.nc"),
        ("/data", "part_*.nc", "/data/part_*.nc"),
        ("/data", "http://host/lr.nc?x=1", "http://host/lr.nc?x=1"),
        ("/data", "s3://bucket/lr.zarr", "s3://bucket/lr.zarr"),
        ("/data", "memory://box/lr.nc", "memory://box/lr.nc"),
        (
            "/data",
            "simplecache::https://host/lr.nc",
            "simplecache::https://host/lr.nc",
        ),
        (None, "s3://bucket/a_*.nc", "s3://bucket/a_*.nc"),
        ("s3://bucket/task", "lr.nc", "s3://bucket/task/lr.nc"),
        ("s3://bucket/task/", "sub/lr_*.nc", "s3://bucket/task/sub/lr_*.nc"),
        ("s3://bucket", "/local/lr.nc", "/local/lr.nc"),
        ("s3://bucket", "gs://other/lr.nc", "gs://other/lr.nc"),
        (
            "simplecache::http://host/task",
            "lr.nc",
            "simplecache::http://host/task/lr.nc",
        ),
    ],
)
def test_paths_are_resolved_and_urls_are_left_alone(root, path, resolved):
    assert DataConfig(root=root).resolve(path) == resolved


def test_a_home_directory_is_not_looked_for_below_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert DataConfig(root="/data").resolve("~/lr.nc") == "/home/someone/lr.nc"
    assert DataConfig(root="~/data").resolve("lr.nc") == "/home/someone/data/lr.nc"


def test_a_url_that_lost_a_slash_is_noticed():
    with pytest.raises(InputError, match="lost a slash"):
        DataConfig(root="/data").resolve("https:/host/lr.nc")


@pytest.mark.parametrize("names", [["lr_1.nc", "lr_2.nc"], "lr_[12].nc"])
def test_several_files_are_one_record(folder, expected, names):
    several = isinstance(names, list)
    place = [folder / name for name in names] if several else folder / names
    found = made(place, folder / "hr.nc", folder / "static.nc")
    assert_same(found, expected)
    paths = [str(folder / name) for name in names] if several else [str(place)]
    assert found.config.lr_path == ", ".join(paths)


@pytest.mark.parametrize("memory", ["4 GiB", "200 kB"])
def test_data_sets_in_memory_are_taken_as_files(folder, expected, memory):
    with (
        xr.open_dataset(folder / "lr.nc") as lr,
        xr.open_dataset(folder / "hr.nc") as hr,
        xr.open_dataset(folder / "static.nc") as static,
    ):
        places = lr.load(), hr.load(), static.load()
    found = made(*places, memory=memory)
    assert found.fields.in_memory == (memory == "4 GiB")
    assert_same(found, expected)
    assert found.config.lr_path == ""
    arrays, first = load_predictors(found.preprocessor, places[0], start="2001-07-01")
    assert (len(arrays), first) == (240 - 181 + 3, 3)
    test = expected.arrays("test")
    assert np.array_equal(arrays.lr[first:][: len(test)], test.lr)


def test_a_lazy_data_set_is_left_as_it_was(folder, expected):
    with (
        xr.open_dataset(folder / "lr.nc") as lr,
        xr.open_dataset(folder / "hr.nc") as hr,
    ):
        found = made(lr, hr, folder / "static.nc")
        assert_same(found, expected)
        assert lr.time.dtype.kind == "M"
        assert lr.tas.attrs["units"] == "K"


def test_a_configuration_may_name_urls(bucket, expected):
    root = NetCDFDataPipeline.from_config(
        small_task.config(Path(), root=bucket, normalize=True)
    )
    assert_same(root, expected)
    single = made(f"{bucket}/lr.nc", f"{bucket}/hr.nc", f"{bucket}/static.nc")
    assert_same(single, expected)
    pattern = made(f"{bucket}/lr_*.nc", f"{bucket}/hr.nc", f"{bucket}/static.nc")
    assert_same(pattern, expected)
    arrays, _ = load_predictors(single.preprocessor, f"{bucket}/lr.nc")
    assert np.array_equal(arrays.lr, expected.arrays(None).lr)


def test_an_absent_url_is_an_error_with_its_name(bucket):
    with pytest.raises(MissingFileError, match=r"memory://bucket/absent\.nc"):
        made(f"{bucket}/absent.nc", f"{bucket}/hr.nc")
