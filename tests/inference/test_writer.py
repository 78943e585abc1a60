"""The output file: what is in it, who can read it, and what is left after a failure."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cftime
import netCDF4
import numpy as np
import pytest
import xarray as xr

from st_cdgm import outputs
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import InputError, OutputError
from st_cdgm.inference import writer as writer_module
from st_cdgm.inference.cf_layout import FILL_VALUE, encode_days
from st_cdgm.inference.writer import EnsembleWriter, ensemble_dataset
from st_cdgm.outputs import check_output_path

PR = TargetVariable(
    name="pr",
    units="mm day-1",
    standard_name="lwe_precipitation_rate",
    long_name="precipitation",
    cell_methods="time: mean",
)
TASMAX = TargetVariable(
    name="tasmax",
    units="degree_Celsius",
    standard_name="air_temperature",
    cell_methods="time: maximum",
)
TARGETS = (PR, TASMAX)
DAYS = np.array([20000226, 20000227, 20000228, 20000301, 20000302])
MEMBERS = range(3)


def regular_grid() -> Grid:
    return Grid(
        lat=np.linspace(43.0, 36.0, 8),
        lon=np.linspace(-9.0, 3.0, 9),
        y_name="lat",
        x_name="lon",
        y=None,
        x=None,
        y_attrs={"standard_name": "latitude", "units": "degrees_north", "axis": "Y"},
        x_attrs={"standard_name": "longitude", "units": "degrees_east", "axis": "X"},
        mapping=None,
    )


def rotated_grid(*, mapped: bool = True) -> Grid:
    pole_lat, pole_lon = 39.25, -162.0
    y, x = np.linspace(-14.0, -3.0, 8), np.linspace(-22.0, -10.0, 9)
    b, a = np.deg2rad(np.meshgrid(y, x, indexing="ij"))
    tilt = np.deg2rad(90.0 - pole_lat)
    east, north, up = np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)
    px, pz = east * np.cos(tilt) - up * np.sin(tilt), east * np.sin(tilt)
    lat = np.rad2deg(np.arcsin(pz + up * np.cos(tilt)))
    lon = np.rad2deg(np.arctan2(north, px)) + pole_lon + 180.0
    mapping = {
        "variable": "rotated_pole",
        "grid_mapping_name": "rotated_latitude_longitude",
        "grid_north_pole_latitude": pole_lat,
        "grid_north_pole_longitude": pole_lon,
    }
    return Grid(
        lat=lat,
        lon=lon,
        y_name="rlat",
        x_name="rlon",
        y=y,
        x=x,
        y_attrs={"standard_name": "grid_latitude", "units": "degrees", "axis": "Y"},
        x_attrs={"standard_name": "grid_longitude", "units": "degrees", "axis": "X"},
        mapping=mapping if mapped else None,
    )


GRIDS = {
    "regular": regular_grid,
    "rotated": rotated_grid,
    "curvilinear": lambda: rotated_grid(mapped=False),
}


def some_fields(
    days: int = 5, *, targets: int = 2, shape: tuple[int, int] = (8, 9)
) -> np.ndarray:
    rng = np.random.default_rng(0)
    fields = rng.gamma(2.0, 3.0, (days, 3, targets, *shape)).astype(np.float32)
    fields[:, :, 0, :2, :3] = np.nan  # sea
    return fields


def opened(path: Path, grid: Grid | None = None, **options) -> EnsembleWriter:
    options = {"calendar": "noleap", "targets": TARGETS, "members": MEMBERS} | options
    return EnsembleWriter(path, grid=grid or regular_grid(), **options)


def write(path: Path, grid: Grid, *, fields: np.ndarray | None = None, **options):
    fields = some_fields() if fields is None else fields
    with opened(path, grid, **options) as writer:
        writer.append(DAYS[:2], fields[:2])
        writer.append(DAYS[2:2], fields[2:2])  # nothing is a valid block
        writer.append(DAYS[2:], fields[2:])
    return path


def read(path: Path) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    with xr.open_dataset(path, decode_coords="all", decode_times=coder) as ds:
        return ds.load()


def left(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- what is in it --------------------------------------------------------------------


@pytest.mark.parametrize("kind", GRIDS)
def test_file_and_dataset_are_the_same(tmp_path, kind):
    grid, fields = GRIDS[kind](), some_fields()
    attrs = {"title": "A trial", "institution": "Météo", "history": "now", "x": None}
    path = write(tmp_path / "out.nc", grid, attrs=attrs, total_days=5)
    direct = ensemble_dataset(
        fields,
        day=DAYS,
        calendar="noleap",
        targets=TARGETS,
        grid=grid,
        members=MEMBERS,
        attrs=attrs,
    )
    xr.testing.assert_identical(read(path), direct)
    np.testing.assert_array_equal(direct["tasmax"].values, fields[:, :, 1])
    assert direct["pr"].dims == ("time", "realization", grid.y_name, grid.x_name)
    assert "x" not in direct.attrs

    direct.to_netcdf(tmp_path / "again.nc")
    xr.testing.assert_identical(read(tmp_path / "again.nc"), direct)


def test_time_is_the_start_of_the_day_and_bounds_say_so(tmp_path):
    ds = read(write(tmp_path / "out.nc", regular_grid()))
    dates = ds["time"].values
    assert dates[2] == cftime.DatetimeNoLeap(2000, 2, 28)
    assert dates[3] == cftime.DatetimeNoLeap(2000, 3, 1)
    bounds = ds["time_bnds"].values
    assert (bounds[:, 0] == dates).all()
    assert bounds[2, 1] == dates[3]  # 24:00 of 28 February, no leap day


@pytest.mark.parametrize(
    ("cell_methods", "bounds"),
    [
        ("time: sum", True),
        ("area: mean time: minimum", True),
        ("time: point", False),
        ("area: mean", False),
        (None, False),
    ],
)
def test_bounds_only_for_statistics_over_the_day(cell_methods, bounds):
    target = TargetVariable(name="v", units="1", cell_methods=cell_methods)
    ds = ensemble_dataset(
        some_fields(targets=1),
        day=DAYS,
        calendar="noleap",
        targets=[target],
        grid=regular_grid(),
        members=MEMBERS,
    )
    assert ("time_bnds" in ds.coords) is bounds
    assert ds["v"].attrs["long_name"] == "v"


def test_stored_types_and_attributes(tmp_path):
    with netCDF4.Dataset(write(tmp_path / "out.nc", rotated_grid())) as nc:
        nc.set_auto_mask(False)
        assert nc.Conventions == "CF-1.8"
        assert nc.source.startswith("st-cdgm ")
        assert "institution" not in nc.ncattrs()
        assert nc["time"].dtype == np.int32  # int64 is no CF-1.8 type
        assert nc["time"].calendar == "noleap"
        assert nc["time"].axis == "T"
        assert nc["realization"].standard_name == "realization"
        assert nc["realization"].units == "1"
        assert nc["realization"][:].tolist() == [0, 1, 2]
        pr = nc["pr"]
        assert (pr.dtype, pr._FillValue, pr.units) == ("f4", FILL_VALUE, "mm day-1")
        assert (pr.grid_mapping, pr.coordinates) == ("rotated_pole", "lat lon")
        assert pr.cell_methods == "time: mean"
        assert pr.filters()["zlib"]
        assert pr[0, 0, 0, 0] == FILL_VALUE  # NaN is stored as missing
        assert nc["tasmax"].long_name == "air temperature"
        assert "coordinates" not in nc.ncattrs()
        assert "_FillValue" not in nc["lat"].ncattrs()


@pytest.mark.parametrize(
    ("day", "calendar", "number"),
    [
        (18500101, "standard", 0),
        (18500301, "noleap", 59),
        (18520301, "standard", 790),  # 1852 is a leap year: 731 + 31 + 28
        (18520301, "proleptic_gregorian", 790),
        (18520301, "noleap", 789),
        (18510230, "360_day", 360 + 59),
    ],
)
def test_days_are_counted_in_their_calendar(day, calendar, number):
    assert encode_days(np.array([day]), calendar).tolist() == [number]


# --- who can read it ------------------------------------------------------------------


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def needs(binary: str) -> str:
    beside = Path(sys.executable).with_name(binary)
    found = str(beside) if beside.exists() else shutil.which(binary)
    if found is None:
        pytest.skip(f"{binary} is not installed")
    return found


@pytest.mark.parametrize("kind", GRIDS)
def test_cdo_reads_it(tmp_path, kind):
    cdo = needs("cdo")
    path = write(tmp_path / "out.nc", GRIDS[kind]())
    info = run(cdo, "-s", "sinfo", str(path))
    assert info.returncode == 0, info.stderr
    assert not info.stderr.strip()
    assert "5 steps" in info.stdout
    assert "365_day" in info.stdout
    assert "Bounds = true" in info.stdout
    assert "levels=3" in info.stdout
    expected = {"regular": "lonlat", "rotated": "rotated_latitude_longitude"}
    assert expected.get(kind, "curvilinear") in info.stdout

    mean = run(cdo, "-s", "outputf,%.4f", "-fldmean", "-selname,tasmax", str(path))
    assert mean.returncode == 0, mean.stderr
    assert len(mean.stdout.split()) == 5 * 3


def test_ncdump_reads_it(tmp_path):
    ncdump = needs("ncdump")
    header = run(ncdump, "-h", str(write(tmp_path / "out.nc", regular_grid())))
    assert header.returncode == 0
    assert "pr(time, realization, lat, lon)" in header.stdout
    assert "time = UNLIMITED ; // (5 currently)" in header.stdout


def test_compliance_checker_is_content(tmp_path):
    checker = needs("compliance-checker")
    paths = [str(write(tmp_path / f"{kind}.nc", GRIDS[kind]())) for kind in GRIDS]
    # The checker passes stubs too: the content is tested above.
    report = run(checker, "--test=cf:1.8", "--criteria=strict", *paths)
    assert report.returncode == 0, report.stdout
    assert report.stdout.count("All tests passed!") == len(paths)


def test_real_grids(real_data, tmp_path):
    with xr.open_dataset(real_data / "edge_cases/small_rotPole_precipitation.nc") as ds:
        grid = read_grid(ds)
    fields = some_fields(targets=1, shape=grid.shape)
    ds = read(write(tmp_path / "out.nc", grid, targets=[PR], fields=fields))
    np.testing.assert_array_equal(ds["pr"].values, fields[:, :, 0])
    assert ds["pr"].encoding["grid_mapping"] == "rotated_pole"
    assert read_grid(ds).shape == grid.shape


# --- what is left after a failure -----------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_and_the_old_file_survives(tmp_path, error):
    path = tmp_path / "out.nc"
    path.write_text("the previous output")

    def interrupted() -> None:
        with opened(path) as writer:
            writer.append(DAYS, some_fields())
            assert len(left(tmp_path)) == 2
            raise error

    with pytest.raises(error):
        interrupted()
    assert left(tmp_path) == ["out.nc"]
    assert path.read_text() == "the previous output"


def test_success_replaces_the_old_file_and_honours_the_umask(tmp_path):
    path = tmp_path / "out.nc"
    path.write_text("the previous output")
    old = os.umask(0o027)
    try:
        write(path, regular_grid())
    finally:
        os.umask(old)
    assert left(tmp_path) == ["out.nc"]
    assert read(path).sizes["time"] == 5
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda d: d / "absent" / "out.nc", "does not exist"),
        (lambda d: d, "regular file"),
        (lambda d: Path(os.devnull), "regular file"),
    ],
)
def test_unusable_path_is_refused_before_any_work(tmp_path, make, word):
    with pytest.raises(OutputError, match=word):
        opened(make(tmp_path))
    assert left(tmp_path) == []


def test_unwritable_directory_is_refused_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):
            pytest.skip("this user may write everywhere (root)")
        with pytest.raises(OutputError, match="not writable"):
            check_output_path(tmp_path / "out.nc")
    finally:
        tmp_path.chmod(0o700)


def test_read_only_file_system_is_refused(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OutputError, match="Read-only file system") as caught:
        check_output_path(tmp_path / "out.nc")
    assert "out.nc" in str(caught.value)


def test_failure_to_create_leaves_nothing(tmp_path, monkeypatch):
    def fail(_self, path, **_options):
        Path(path).write_bytes(b"half a header")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", fail)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "out.nc", regular_grid())
    assert left(tmp_path) == []


def test_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module.Path, "replace", fail)
    with pytest.raises(OutputError, match="could not be finished"):
        write(tmp_path / "out.nc", regular_grid())
    assert left(tmp_path) == []


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_writer import TARGETS, OutputError, EnsembleWriter, regular_grid

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
rng = np.random.default_rng(0)
try:
    with EnsembleWriter(sys.argv[2], targets=TARGETS, grid=regular_grid(),
                        calendar="360_day", members=range(40)) as writer:
        for month in range(1, 13):
            days = 20000000 + 100 * month + np.arange(1, 31)
            writer.append(days, rng.random((30, 40, 2, 8, 9)))
except OutputError as error:
    sys.exit(0 if "nothing was left behind" in str(error) else 4)
sys.exit(3)
"""


def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path):
    pytest.importorskip("resource", reason="no file size limit on this system")
    here = str(Path(__file__).parent)
    path = str(tmp_path / "out.nc")
    done = run(sys.executable, "-c", FULL_DISK, here, path)
    assert done.returncode == 0, done.stderr
    assert left(tmp_path) == []


def test_a_full_disk_is_named_with_file_and_space(tmp_path, monkeypatch):
    """NetCDF says "HDF error" alone."""

    def fail(_number):
        raise RuntimeError("NetCDF: HDF error")

    def crowded() -> None:
        with opened(tmp_path / "out.nc") as writer:
            monkeypatch.setattr(writer_module, "day_bounds", fail)
            monkeypatch.setattr(
                "shutil.disk_usage", lambda _: SimpleNamespace(free=100, total=10**9)
            )
            writer.append(DAYS, some_fields())

    with pytest.raises(OutputError, match="the disk is full") as caught:
        crowded()
    assert caught.value.facts["file"] == tmp_path / "out.nc"
    assert "0.0 MB free of 1,000 MB" in str(caught.value)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    dead = tmp_path / f".out.nc.{outputs._HERE}-{2**22 - 3}-aaaaaa.part"
    dead.write_text("half a file")
    write(tmp_path / "out.nc", regular_grid())
    assert left(tmp_path) == ["out.nc"]


def test_incomplete_output_is_not_published(tmp_path):
    with pytest.raises(OutputError, match="incomplete") as caught:
        write(tmp_path / "out.nc", regular_grid(), total_days=6)
    assert "5 days written" in str(caught.value)
    with (
        pytest.raises(OutputError, match="incomplete"),
        opened(tmp_path / "out.nc"),
    ):
        pass
    assert left(tmp_path) == []


def test_a_swallowed_write_error_is_not_published(tmp_path, monkeypatch):
    def fail(_number):
        raise RuntimeError("NetCDF: HDF error")

    def careless() -> None:
        with opened(tmp_path / "out.nc") as writer:
            writer.append(DAYS[:2], some_fields(2))
            monkeypatch.setattr(writer_module, "day_bounds", fail)
            with contextlib.suppress(OutputError):
                writer.append(DAYS[2:], some_fields(3))

    with pytest.raises(OutputError, match="incomplete"):
        careless()
    assert left(tmp_path) == []


# --- inputs that do not fit -----------------------------------------------------------


def test_bad_blocks_are_refused_and_the_file_goes_on(tmp_path):
    infinite = some_fields(1)
    infinite[0, 1, 1, 3, 3] = np.inf
    with opened(tmp_path / "out.nc") as writer:
        writer.append(DAYS[:2], some_fields(2))
        with pytest.raises(InputError, match="20000227 after 20000227"):
            writer.append(DAYS[1:2], some_fields(1))
        with pytest.raises(InputError, match="20000301 after 20000302"):
            writer.append(DAYS[[4, 3]], some_fields(2))
        with pytest.raises(InputError, match="shape"):
            writer.append(DAYS[2:], some_fields(2))
        with pytest.raises(InputError, match="tasmax"):
            writer.append(DAYS[2:3], infinite)
        with pytest.raises(InputError, match="does not exist in its calendar"):
            writer.append(np.array([20000229]), some_fields(1))
        with pytest.raises(InputError, match="integers YYYYMMDD"):
            writer.append(np.array([20000303.0]), some_fields(1))
        assert writer.days_written == 2
    assert read(tmp_path / "out.nc").sizes["time"] == 2


def test_append_outside_the_block(tmp_path):
    writer = opened(tmp_path / "out.nc")
    with pytest.raises(RuntimeError, match="with block"):
        writer.append(DAYS, some_fields())


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"targets": (PR, PR)}, "target names"),
        ({"targets": (PR, TargetVariable(name="lat", units="1"))}, "target names"),
        ({"members": [1, 1, 2]}, "Member numbers"),
        ({"calendar": "lunar"}, "lunar"),
    ],
)
def test_what_cannot_be_one_file(tmp_path, options, word):
    with pytest.raises(InputError, match=word):
        write(tmp_path / "out.nc", regular_grid(), **options)
    assert left(tmp_path) == []
