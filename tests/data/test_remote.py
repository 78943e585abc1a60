from __future__ import annotations

import gc
import pickle
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from climate_files import LAT, LON, predictors, times, write
from servers import web_server

from st_cdgm.data.files import redirects, remote, remote_files
from st_cdgm.data.files.open import file_label, open_dataset, resolve_paths
from st_cdgm.data.files.remote_files import RemoteFile
from st_cdgm.data.inspect.files import inspect_file
from st_cdgm.data.read.readers import read_channels
from st_cdgm.errors import InputError, MissingFileError

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")
pytest.importorskip("h5netcdf")

DAYS = 40
FORMATS = ("classic.nc", "offset.nc", "four.nc", "v2.zarr", "v3.zarr")


def wide(days: int = DAYS) -> xr.Dataset:
    """Noise on 30 x 40 cells, packed by day, so that one day is a small part."""
    rng = np.random.default_rng(3)
    lat, lon = np.linspace(50, 40, 30), np.linspace(-10, 10, 40)
    ds = xr.Dataset(
        {
            "t_850": (
                ("time", "lat", "lon"),
                rng.normal(280, 5, (days, 30, 40)).astype("f4"),
                {"units": "K"},
            )
        },
        coords={"time": times(days, calendar="noleap"), "lat": lat, "lon": lon},
    )
    ds.lat.attrs = {"units": "degrees_north"}
    ds.lon.attrs = {"units": "degrees_east"}
    return ds


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("served")
    ds = wide()
    one_day = {"t_850": {"chunksizes": (1, 30, 40)}}
    ds.to_netcdf(root / "classic.nc", format="NETCDF3_CLASSIC")
    ds.to_netcdf(root / "offset.nc", format="NETCDF3_64BIT")
    ds.to_netcdf(root / "four.nc", encoding=one_day)
    chunks = {"t_850": {"chunks": (1, 30, 40)}}
    ds.to_zarr(root / "v2.zarr", zarr_format=2, consolidated=True, encoding=chunks)
    ds.to_zarr(root / "v3.zarr", zarr_format=3, consolidated=True, encoding=chunks)
    for part, days in (("one", slice(0, 25)), ("two", slice(25, DAYS))):
        write(ds.isel(time=days), root / f"part_{part}.nc")
    return root


@pytest.fixture(scope="module", params=[True, False], ids=["ranges", "no ranges"])
def server(request, folder):
    with web_server(folder, ranges=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def ranged(folder):
    with web_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def bucket(folder, module_environment):
    moto = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    module_environment.setenv("AWS_ACCESS_KEY_ID", "test")
    module_environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
    options = {"endpoint_url": f"http://{host}:{port}"}
    module_environment.setitem(fsspec.config.conf, "s3", dict(options))
    fs = s3fs.S3FileSystem(key="test", secret="test", **options)
    fs.mkdir("climate")
    fs.put(str(folder) + "/", "climate/", recursive=True)
    yield options
    server.stop()


@pytest.fixture(scope="module")
def module_environment():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def same(url, name, folder):
    """Both ways of reading give the same bytes, coordinates and labels."""
    there = open_dataset(url, role="lr")
    here = open_dataset(folder / name, role="lr")
    assert there.t_850.chunks is not None
    assert file_label(there) == url
    assert list(there.time.values) == list(here.time.values)
    for key in ("lat", "lon", "t_850"):
        assert there[key].dtype == here[key].dtype
        assert there[key].values.tobytes() == here[key].values.tobytes()
    assert there.t_850.attrs == here.t_850.attrs


@pytest.mark.parametrize("name", FORMATS)
def test_http_gives_what_the_disk_gives(server, folder, name):
    same(server.url(name), name, folder)


@pytest.mark.parametrize("name", FORMATS)
def test_s3_gives_what_the_disk_gives(bucket, folder, name):
    same(f"s3://climate/{name}", name, folder)


@pytest.mark.parametrize("name", ["classic.nc", "four.nc", "v3.zarr"])
def test_other_protocols_give_what_the_disk_gives(ranged, folder, name):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / name), f"/box/{name}", recursive=True)
    same(f"memory://box/{name}", name, folder)
    same(f"simplecache::{ranged.url(name)}", name, folder)
    local = open_dataset((folder / name).as_uri(), role="lr")
    assert local.sizes["time"] == DAYS
    memory.rm("/box", recursive=True)


@pytest.mark.parametrize("name", ["four.nc", "v2.zarr", "v3.zarr"])
def test_one_day_costs_less_than_the_file(ranged, folder, name, monkeypatch):
    monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1 << 14)
    ranged.forget()
    day = open_dataset(ranged.url(name), role="lr").t_850[7].load()
    total = sum(f.stat().st_size for f in (folder / name).rglob("*") if f.is_file())
    total = total or (folder / name).stat().st_size
    assert day.notnull().all()
    assert 0 < ranged.sent < 0.6 * total


def test_a_copy_is_made_once_and_stays_out_of_the_folder(folder):
    with web_server(folder, ranges=False) as server:
        before = sorted(folder.iterdir())
        open_dataset(server.url("classic.nc"), role="lr").load()
        assert sorted(folder.iterdir()) == before
        copies = list(Path(remote._folder().name).iterdir())
        assert all(not copy.name.endswith(".part") for copy in copies)


@pytest.mark.parametrize(
    "url", ["s3://climate/part_*.nc", "s3://climate/part_[a-z]*.nc"]
)
def test_pattern_on_an_object_store(bucket, url):
    opened = open_dataset(url, role="lr")
    assert opened.sizes["time"] == DAYS
    assert "2 files" in file_label(opened)
    xr.testing.assert_equal(opened.t_850.load(), wide().t_850)


def test_list_of_urls_and_paths(ranged, folder):
    urls = [ranged.url("part_two.nc"), folder / "part_one.nc"]
    opened = open_dataset(urls, role="lr")
    xr.testing.assert_equal(opened.t_850.load(), wide().t_850)


def test_folder_of_an_object_store(bucket, folder):
    import s3fs

    fs = s3fs.S3FileSystem(key="test", secret="test", **bucket)
    fs.put(str(folder / "part_one.nc"), "climate/years/a.nc")
    fs.put(str(folder / "part_two.nc"), "climate/years/b.nc")
    opened = open_dataset("s3://climate/years", role="lr")
    assert opened.sizes["time"] == DAYS


def test_the_readers_take_urls(ranged):
    cube = read_channels(ranged.url("four.nc"))
    assert cube.file == ranged.url("four.nc")
    np.testing.assert_array_equal(cube.load()[:, 0], wide().t_850)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("classic.nc", "NETCDF3"), ("four.nc", "NETCDF4"), ("v3.zarr", "Zarr")],
)
def test_inspection_of_a_url(ranged, folder, name, kind):
    report = inspect_file(ranged.url(name))
    here = inspect_file(folder / name)
    assert report.file == ranged.url(name)
    assert report.format == kind
    assert report.size_bytes == (0 if kind == "Zarr" else here.size_bytes)
    assert report.problems == here.problems
    assert report.variables == here.variables


def test_options_from_the_environment(bucket, monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {**bucket, "anon": False})
    assert open_dataset("s3://climate/four.nc", role="lr").sizes["time"] == DAYS


# -- Refusals --------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(remote_files, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(remote_files, "READ_SECONDS", 1.0)


@pytest.mark.parametrize(
    ("name", "error", "problem", "found"),
    [
        ("none.nc", MissingFileError, "does not exist", "nothing at this URL"),
        ("none.zarr", MissingFileError, "does not exist", "nothing at this URL"),
        ("403/a.nc", MissingFileError, "may not be read", "denied"),
        ("401/a.nc", MissingFileError, "may not be read", "denied"),
        ("500/a.nc", InputError, "does not answer", "500"),
        ("503/a.zarr", InputError, "does not answer", "503"),
        ("page/a.nc", InputError, "cannot be read", "web page"),
        ("silent/a.nc", InputError, "does not answer", "no answer"),
        ("short/classic.nc", InputError, "cannot be read", "96608 of 193216"),
        ("part_*.nc", InputError, "by a pattern", "HTTP"),
    ],
)
def test_web_servers_that_say_no(ranged, impatient, name, error, problem, found):
    url = ranged.url(name)
    with pytest.raises(error, match=problem) as caught:
        open_dataset(url, role="lr").load()
    assert caught.value.facts["file"] == url
    assert found in caught.value.facts["found"]
    assert caught.value.facts["remedy"]


def test_nobody_listens(impatient, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="does not answer"):
            open_dataset(f"http://127.0.0.1:{port}/a.nc", role="lr")
        options = {
            "endpoint_url": f"http://127.0.0.1:{port}",
            "key": "test",
            "secret": "test",
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        with pytest.raises(InputError, match="does not answer"):
            open_dataset("s3://box/a.nc", role="lr")


@pytest.mark.parametrize(
    "url", ["s3://climate/no.nc", "s3://climate/no_*.nc", "s3://nowhere/a.nc"]
)
def test_absent_objects(bucket, url):
    with pytest.raises(MissingFileError, match="does not exist") as caught:
        open_dataset(url, role="hr")
    assert caught.value.facts["file"] == url


def test_server_that_goes_away_later(folder, impatient, monkeypatch):
    monkeypatch.setattr(remote_files, "BLOCK_BYTES", 1 << 12)
    with web_server(folder) as server:
        url = server.url("four.nc")
        opened = open_dataset(url, role="lr")
    with pytest.raises(InputError, match="values cannot be read") as caught:
        opened.t_850[20].load()
    assert caught.value.facts["file"] == url
    assert caught.value.facts["variable"] == "t_850"


def test_zarr_without_consolidated_metadata_on_the_web(tmp_path):
    wide(2).to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with (
        web_server(tmp_path) as server,
        pytest.raises(InputError, match="cannot be listed") as caught,
    ):
        open_dataset(server.url("a.zarr"), role="lr")
    assert "consolidate" in caught.value.facts["remedy"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_without_consolidated_metadata_on_s3(bucket, tmp_path, zarr_format):
    import s3fs

    name = f"plain{zarr_format}.zarr"
    wide(2).to_zarr(tmp_path / name, zarr_format=zarr_format, consolidated=False)
    fs = s3fs.S3FileSystem(key="test", secret="test", **bucket)
    fs.put(str(tmp_path / name), f"climate/{name}", recursive=True)
    same(f"s3://climate/{name}", name, tmp_path)


def test_a_url_that_became_a_path():
    with pytest.raises(InputError, match="lost a slash"):
        open_dataset(Path("https://example.org/a.nc"), role="lr")


def test_unknown_protocol():
    with pytest.raises(InputError, match="URL cannot be used"):
        open_dataset("gopher://example.org/a.nc", role="lr")


@pytest.mark.parametrize(
    ("module", "url"),
    [
        ("s3fs", "s3://b/a.nc"),
        ("aiohttp", "http://h/a.nc"),
        ("h5netcdf", "memory://box.nc"),
    ],
)
def test_missing_library_names_the_extra(folder, monkeypatch, module, url):
    from fsspec.registry import _registry

    fsspec.filesystem("memory").put(str(folder / "four.nc"), "/box.nc")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    for protocol in ("s3", "http"):
        monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.delitem(
        __import__("sys").modules, "fsspec.implementations.http", raising=False
    )
    with pytest.raises(InputError, match="library that is not installed") as caught:
        open_dataset(url, role="lr")
    assert "st-cdgm[remote]" in caught.value.facts["remedy"]


def test_local_paths_leave_urls_out(tmp_path):
    path = write(predictors(), tmp_path / "a.nc")
    assert resolve_paths([path, "s3://box/a.nc", path.as_uri()]) == [path, path]


# -- Files in place --------------------------------------------------------------------


def test_remote_file_survives_pickling_and_reads_any_part(ranged, folder):
    data = (folder / "four.nc").read_bytes()
    file = pickle.loads(pickle.dumps(RemoteFile(ranged.url("four.nc"))))  # own bytes
    assert file.seek(-10, 2) == len(data) - 10
    assert file.read() == data[-10:]
    assert file.seek(100) == file.tell() == 100
    assert file.read(50) == data[100:150]
    file.close()
    assert file.closed


def test_collection_of_dead_hdf5_objects_while_reading_does_not_lock_up(
    ranged, folder, monkeypatch
):
    """The thread of fsspec must not collect HDF5 objects while HDF5 waits for it."""
    import fsspec.asyn
    import h5py

    state = []
    fetch = RemoteFile._open

    def watched(self):
        fetch(self)
        read = self._file.read

        def noting(length):
            state.append(gc.isenabled())
            return read(length)

        self._file.read = noting

    monkeypatch.setattr(RemoteFile, "_open", watched)
    with h5py.File(RemoteFile(ranged.url("four.nc")), "r") as file:
        assert file["t_850"].shape == (DAYS, 30, 40)
    assert state
    assert not any(state)
    assert gc.isenabled()
    assert fsspec.asyn.iothread[0] is not threading.current_thread()


def test_fingerprint_changes_with_the_content(tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/print.nc", b"one")
    first = remote.fingerprint("memory://print.nc")
    memory.pipe("/print.nc", b"other")
    assert remote.fingerprint("memory://print.nc") != first
    with pytest.raises(MissingFileError):
        remote.fingerprint("memory://absent.nc")


# -- Data sets in memory ---------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_data_set_in_memory_reads_as_from_a_file(tmp_path, lazy):
    ds = predictors(6, time=np.arange("2001-03-01", 6, dtype="datetime64[D]"))
    ds = ds.chunk(time=2) if lazy else ds
    from_file = read_channels(write(ds, tmp_path / "a.nc"))
    from_memory = read_channels(ds)
    assert from_memory.file == "data set in memory"
    assert from_memory.names == from_file.names
    np.testing.assert_array_equal(from_memory.days.day, from_file.days.day)
    assert from_memory.days.calendar == "standard"
    assert from_memory.load().tobytes() == from_file.load().tobytes()
    assert ds.time.dtype.kind == "M"  # the caller's data set is untouched
    assert "source" not in ds.encoding


def test_undecoded_time_in_memory():
    attrs = {"units": "days since 2000-02-28", "calendar": "360_day"}
    ds = predictors(4).assign_coords(time=("time", np.arange(4), attrs))
    assert list(read_channels(ds).days.day) == [20000228, 20000229, 20000230, 20000301]
    bad = ds.assign_coords(time=("time", np.arange(4), {"units": "days since never"}))
    with pytest.raises(InputError, match="cannot be decoded"):
        open_dataset(bad, role="lr")


def test_data_set_opened_without_dask_stays_lazy(tmp_path):
    path = write(predictors(), tmp_path / "a.nc")
    with xr.open_dataset(path) as ds:
        opened = open_dataset(ds, role="lr")
        assert opened.t_850.chunks is not None
        assert file_label(opened) == str(path)
    assert LAT.size * LON.size == opened.t_850[0].size


# -- redirects -------------------------------------------------------------------------


@pytest.fixture
def seen_from_outside(folder, monkeypatch):
    """A server under a name that counts as public; it redirects to its number."""
    addresses = redirects._addresses

    async def told(host):
        return ["93.184.216.34"] if host == "localhost" else await addresses(host)

    monkeypatch.setattr(redirects, "_addresses", told)
    with web_server(folder) as server:
        yield lambda name: server.url(name).replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("name", ["elsewhere/four.nc", "elsewhere/classic.nc"])
def test_a_redirect_into_this_network_is_refused(seen_from_outside, name):
    with pytest.raises(InputError, match="redirects to a local address") as caught:
        open_dataset(seen_from_outside(name), role="lr")
    assert "ST_CDGM_LOCAL_REDIRECTS=1" in str(caught.value)


def test_such_a_redirect_can_be_asked_for(seen_from_outside, monkeypatch):
    monkeypatch.setenv("ST_CDGM_LOCAL_REDIRECTS", "1")
    assert open_dataset(seen_from_outside("elsewhere/four.nc"), role="lr").sizes["time"]


def test_a_local_server_may_redirect_to_itself(folder):
    with web_server(folder) as server:
        ds = open_dataset(server.url("elsewhere/four.nc"), role="lr")
        assert ds.sizes["time"] == DAYS


def test_configured_options_keep_the_watch(monkeypatch):
    conf = {"http": {"client_kwargs": {"trust_env": True}}}
    monkeypatch.setattr("fsspec.config.conf", conf)
    options = remote_files.bounded_options("http://host/x.nc")["client_kwargs"]
    assert set(options) == {"trust_env", "timeout", "trace_configs"}
