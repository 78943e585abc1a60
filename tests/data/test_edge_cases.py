"""What opens, what is refused and why: real files, and the same kinds made here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
from climate_files import LAT, LON, dataset, field, on_levels, predictors, times, write

from st_cdgm.data.files.open import data_variables, open_dataset
from st_cdgm.data.read.readers import read_channels, read_static, read_targets
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import interpolation
from st_cdgm.data.tables.selection import cut_region
from st_cdgm.errors import InputError, MissingVariableError

MM_PER_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Opens:
    """What a file that opens looks like."""

    kind: str
    shape: tuple[int, int]
    lat: tuple[float, float]  # first and last row
    lon: tuple[float, float]  # first and last column (of the first row)
    calendar: str
    days: int
    first_day: int
    channels: dict[str, str]  # name -> canonical units
    scale: float = 1.0  # from the units of the file


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a file is refused."""

    error: type[InputError]
    problem: str
    found: str


# file (or the one file that matches) -> expectation
REAL: dict[str, Opens | Refused] = {
    # Two months of a climatology, packed as int16 with a negative scale factor, with
    # pressure levels: no dates anywhere.
    "eraint_uvz.nc": Refused(
        error=MissingVariableError, problem="no time coordinate", found="month=2"
    ),
    # "Month since Jan 1988": no CF time.
    "uvt.nc": Refused(
        error=InputError, problem="cannot be read as dates", found="units 'Month'"
    ),
    # CORDEX, rotated pole, 365_day; three rows and four columns taken far apart.
    "pr_NAM-22_*_OURANOS-CRCM5_v1_day_*.nc": (
        Opens(
            kind="rotated_latitude_longitude",
            shape=(3, 4),
            lat=(10.4022, 48.6108),
            lon=(-126.2539, -69.3275),
            calendar="noleap",
            days=1825,
            first_day=20510101,
            channels={"pr": "mm day-1"},
            scale=MM_PER_DAY,
        )
    ),
    # CMIP6 decadal prediction; tiny negative precipitation from packing.
    "pr_day_EC-Earth3_*.nc": Opens(
        kind="regular",
        shape=(3, 6),
        lat=(-89.4628, 50.8771),
        lon=(0.0, 351.5625),
        calendar="standard",
        days=61,
        first_day=19611101,
        channels={"pr": "mm day-1"},
        scale=MM_PER_DAY,
    ),
    # ENSEMBLES, rotated pole, NetCDF 3, a bounds variable named like its dimension.
    "small_rotPole_precipitation.nc": Opens(
        kind="rotated_latitude_longitude",
        shape=(190, 174),
        lat=(26.5861, 63.6002),
        lon=(-5.2420, 34.9159),
        calendar="standard",
        days=4,
        first_day=19580101,
        channels={"pr": "mm day-1"},
        scale=MM_PER_DAY,
    ),
    # CMIP6, one day, Gaussian latitudes, 0..360, scalar height.
    "tas_day_MIROC6_*.nc": Opens(
        kind="regular",
        shape=(128, 256),
        lat=(-88.9277, 88.9277),
        lon=(0.0, 358.59375),
        calendar="standard",
        days=1,
        first_day=20150101,
        channels={"tas": "K"},
    ),
    # CMIP6 with months of 30 days: 30 November and 30 December exist.
    "tasmin_day_HadGEM3-GC31-MM_*.nc": (
        Opens(
            kind="regular",
            shape=(4, 5),
            lat=(-89.7222, 76.9445),
            lon=(0.4167, 333.75),
            calendar="360_day",
            days=60,
            first_day=19601101,
            channels={"tasmin": "K"},
        )
    ),
    # CORDEX, one month: only the bounds tell its mean from a day.
    "tas_EUR-22_*_mon_202101.nc": Refused(
        error=InputError, problem="longer than a day", found="steps of 31 days"
    ),
}
OPENING = [name for name, wanted in REAL.items() if isinstance(wanted, Opens)]


def check(path: Path, wanted: Opens | Refused) -> None:
    if isinstance(wanted, Refused):
        with pytest.raises(wanted.error, match=wanted.problem) as caught:
            read_channels(path).load()
        assert wanted.found in str(caught.value.facts["found"])
        assert caught.value.facts["remedy"]
        assert str(path) in str(caught.value.facts["file"])
        return
    cube = read_channels(path)
    grid = cube.grid
    assert (grid.kind, grid.shape) == (wanted.kind, wanted.shape)
    ends = (grid.lat2d[0, 0], grid.lat2d[-1, 0], grid.lon2d[0, 0], grid.lon2d[0, -1])
    np.testing.assert_allclose(ends, (*wanted.lat, *wanted.lon), atol=1e-4)
    assert (cube.days.calendar, len(cube.days)) == (wanted.calendar, wanted.days)
    assert cube.days.day[0] == wanted.first_day
    assert {c.name: c.units for c in cube.channels} == wanted.channels
    assert cube.load().shape == (wanted.days, len(wanted.channels), *wanted.shape)


def real_file(root: Path, name: str) -> Path:
    (path,) = (root / "edge_cases").glob(name)
    return path


@pytest.mark.parametrize("name", list(REAL))
def test_real_file(real_data, name):
    check(real_file(real_data, name), REAL[name])


def test_every_real_file_is_in_the_table(real_data):
    for path in (real_data / "edge_cases").iterdir():
        assert sum(path.match(name) for name in REAL) == 1, path


@pytest.mark.parametrize("name", OPENING)
def test_real_values_are_those_of_the_netcdf_library(real_data, name):
    path, wanted = real_file(real_data, name), REAL[name]
    cube = read_channels(path)
    with netCDF4.Dataset(path) as file:
        for c, channel in enumerate(wanted.channels):
            values = np.ma.filled(file[channel][:].astype("f4"), np.nan)
            np.testing.assert_allclose(
                cube.load()[:, c], values * np.float32(wanted.scale), rtol=1e-6
            )
        lat, lon = file["lat"][:].astype("f8"), file["lon"][:].astype("f8")
        stamps = netCDF4.num2date(
            file["time"][:], file["time"].units, file["time"].calendar
        )
    np.testing.assert_array_equal(cube.grid.lat, lat)
    np.testing.assert_array_equal(cube.grid.lon, lon)
    keys = [s.year * 10000 + s.month * 100 + s.day for s in stamps]
    np.testing.assert_array_equal(cube.days.day, keys)


@pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed")
@pytest.mark.parametrize("name", OPENING)
def test_real_dates_are_those_of_cdo(real_data, name):
    path = real_file(real_data, name)
    done = subprocess.run(
        ["cdo", "-s", "showdate", str(path)], capture_output=True, text=True, check=True
    )
    keys = [int(date.replace("-", "")) for date in done.stdout.split()]
    np.testing.assert_array_equal(read_channels(path).days.day, keys)


def test_real_packed_levels_with_negative_scale(real_data):
    """The climatology has no dates, but its fields unpack as the library says."""
    path = real_data / "edge_cases" / "eraint_uvz.nc"
    ds = open_dataset(path, role="lr")
    assert data_variables(ds) == ["z", "u", "v"]
    with netCDF4.Dataset(path) as file:
        file["z"].set_auto_mask(False)  # a fill value of NaN says nothing to integers
        np.testing.assert_allclose(ds.z.values, file["z"][:], rtol=1e-6)
    grid = read_grid(ds, variable="z")
    assert (grid.shape, grid.lat[0], grid.lat[-1]) == ((241, 480), 90.0, -90.0)


# -- The same kinds, made here ---------------------------------------------------------

SMALL = {
    "kind": "regular",
    "shape": (3, 4),
    "lat": (40.0, 45.0),
    "lon": (-5.0, 2.5),
    "calendar": "standard",
    "days": 4,
    "first_day": 20010101,
    "channels": {"t_850": "K", "t_500": "K", "pr": "mm day-1"},
}


def opens(**changed: Any) -> Opens:
    return Opens(**{**SMALL, **changed})


def refused(problem: str, found: str, error: type[InputError] = InputError) -> Refused:
    return Refused(error=error, problem=problem, found=found)


def with_lon(*values: float) -> xr.Dataset:
    return predictors().assign_coords(lon=("lon", list(values), EAST))


NORTH, EAST = {"units": "degrees_north"}, {"units": "degrees_east"}
TWO_D_LAT = np.linspace(40.0, 50.0, 12).reshape(3, 4)
TWO_D_LON = np.linspace(0.0, 10.0, 12).reshape(4, 3).T


def off_axes(y: str = "y", x: str = "x") -> xr.Dataset:
    return predictors().drop_vars(["lat", "lon"]).rename(lat=y, lon=x)


def curvilinear(lat: str, lon: str, **attrs: Any) -> xr.Dataset:
    ds = off_axes()
    ds[lat] = (("y", "x"), TWO_D_LAT, attrs.get("north", {}))
    ds[lon] = (("y", "x"), TWO_D_LON, attrs.get("east", {}))
    return ds


def rotated_pole() -> xr.Dataset:
    ds = off_axes("rlat", "rlon")
    ds["lat"] = (("rlat", "rlon"), TWO_D_LAT, NORTH | {"bounds": "lat_vertices"})
    ds["lon"] = (("rlat", "rlon"), TWO_D_LON, EAST)
    ds["lat_vertices"] = (("rlat", "rlon", "vertices"), np.zeros((3, 4, 4)), NORTH)
    mapping = "rotated_latitude_longitude"
    ds["rotated_pole"] = ((), b"", {"grid_mapping_name": mapping})
    for name in ("t_850", "t_500", "pr"):
        ds[name].attrs |= {"grid_mapping": "rotated_pole", "coordinates": "lon lat"}
    axes = {"rlat": ("Y", "grid_latitude"), "rlon": ("X", "grid_longitude")}
    for name, (axis, standard) in axes.items():
        attrs = {"axis": axis, "standard_name": standard, "units": "degrees"}
        ds = ds.assign_coords({name: (name, np.arange(float(ds.sizes[name])), attrs)})
    return ds


def wrf() -> xr.Dataset:
    """Names, time-dependent coordinates and dates beside the time axis as in WRF."""
    ds = predictors().drop_vars(["lat", "lon"])
    ds = ds.rename(lat="south_north", lon="west_east", time="XTIME")
    ds = ds.swap_dims(XTIME="Time").drop_vars("Time", errors="ignore")
    dims = ("Time", "south_north", "west_east")
    every = (4, 3, 4)
    ds["XLAT"] = (dims, np.broadcast_to(TWO_D_LAT, every), {"units": "degree_north"})
    ds["XLONG"] = (dims, np.broadcast_to(TWO_D_LON, every), {"units": "degree_east"})
    return ds


def moving_nest() -> xr.Dataset:
    ds = wrf()
    return ds.assign(XLAT=ds.XLAT + xr.DataArray(np.arange(4.0), dims="Time"))


def helpers() -> xr.Dataset:
    """Bounds, grid mappings, text and weights, which are no channels."""
    ds = predictors()
    ds["lat_bnds"] = (("lat", "bnds"), np.zeros((3, 2)))
    ds["lat"].attrs["bounds"] = "lat_bnds"
    ds["crs"] = ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"})
    ds["lat_lon"] = ((), b"", {"grid_mapping_name": "latitude_longitude"})
    ds["pr"].attrs["grid_mapping"] = "crs"
    ds["station"] = ("lat", np.array(["a", "bb", "ccc"], dtype="S3"))
    ds["note"] = ((), "text")
    return ds


def with_dim(name: str, values: Any, **attrs: str) -> xr.Dataset:
    axis = xr.DataArray(values, dims=name, attrs=attrs)
    return predictors().expand_dims({name: axis}).assign_coords({name: axis})


def stamped(values: Any, units: str, calendar: str = "standard") -> xr.Dataset:
    attrs = {"units": units, "calendar": calendar}
    return predictors(len(values)).assign_coords(time=("time", values, attrs))


def hybrid() -> xr.Dataset:
    ds = on_levels([0.1, 0.5, 0.9], "1", name="lev")
    name = "atmosphere_hybrid_sigma_pressure_coordinate"
    ds.lev.attrs["standard_name"] = name
    return ds


def unstructured() -> xr.Dataset:
    pr = xr.DataArray(np.ones((4, 6)), dims=("time", "cell"), attrs={"units": "mm"})
    here = {
        "lat": ("cell", np.arange(6.0), NORTH),
        "lon": ("cell", np.arange(6.0), EAST),
    }
    return xr.Dataset({"pr": pr}, coords={"time": times(4), **here})


def two_grids() -> xr.Dataset:
    ds = predictors()
    ds["sst"] = (("time", "b", "a"), np.full((4, 2, 2), 290.0), {"units": "K"})
    return ds.assign_coords(b=("b", [1.0, 2.0], NORTH), a=("a", [1.0, 2.0], EAST))


def radians() -> xr.Dataset:
    attrs = {"units": "radian", "standard_name": "latitude"}
    return predictors().assign_coords(lat=("lat", np.deg2rad(LAT), attrs))


def swapped_units() -> xr.Dataset:
    ds = predictors()
    ds.lat.attrs, ds.lon.attrs = dict(EAST), dict(NORTH)
    return ds


def hole_in_lat() -> xr.Dataset:
    ds = curvilinear("lat", "lon", north=NORTH, east=EAST)
    return ds.assign(lat=ds.lat.where(ds.lat > 40.0))


def late_start() -> xr.Dataset:
    """A forecast: one start date, several valid dates."""
    start = xr.DataArray(times(1, start="2000-12-31"), dims="init")
    return predictors().expand_dims(init=start).assign_coords(init=start)


HUS = {"psl": "Pa", "hus_850": "kg kg-1", "hus_500": "kg kg-1"}
CURVED = {"kind": "curvilinear", "lat": (40.0, 47.2727), "lon": (0.0, 8.1818)}
ON_LEVELS = {"days": 2, "channels": HUS}
Made = tuple[Callable[[], xr.Dataset], Opens | Refused]

MADE: dict[str, Made] = {
    # grids
    "latitudes from north to south": (
        lambda: predictors().isel(lat=slice(None, None, -1)),
        opens(lat=(45.0, 40.0)),
    ),
    "longitudes 0..360 across Greenwich": (
        lambda: with_lon(350.0, 355.0, 0.0, 5.0),
        opens(lon=(-10.0, 5.0)),
    ),
    "longitudes 0..360, no break": (
        lambda: with_lon(200.0, 210.0, 220.0, 230.0),
        opens(lon=(200.0, 230.0)),
    ),
    "across the dateline": (
        lambda: with_lon(175.0, 177.5, -180.0, -177.5),
        opens(lon=(175.0, 182.5)),
    ),
    "longitudes from east to west": (
        lambda: with_lon(5.0, 2.5, 0.0, -2.5),
        opens(lon=(5.0, -2.5)),
    ),
    "the first meridian twice": (
        lambda: with_lon(0.0, 120.0, 240.0, 360.0),
        opens(lon=(0.0, 360.0)),
    ),
    "transposed": (lambda: predictors().transpose("lon", "lat", "time"), opens()),
    "time not first": (lambda: predictors().transpose("lat", "lon", "time"), opens()),
    "latitude, longitude without attributes": (
        lambda: (
            predictors()
            .rename(lat="latitude", lon="longitude")
            .assign_coords(latitude=LAT, longitude=LON)
        ),
        opens(),
    ),
    "units degrees only": (
        lambda: predictors().assign_coords(
            lat=("lat", LAT, {"units": "degrees"}), lon=("lon", LON, {"units": "deg"})
        ),
        opens(),
    ),
    "one row": (
        lambda: predictors().isel(lat=[0]),
        opens(shape=(1, 4), lat=(40.0, 40.0)),
    ),
    "nav_lat, nav_lon": (lambda: curvilinear("nav_lat", "nav_lon"), opens(**CURVED)),
    "2-D lat, lon": (
        lambda: curvilinear("lat", "lon", north=NORTH, east=EAST),
        opens(**CURVED),
    ),
    "rotated pole": (
        rotated_pole,
        opens(**{**CURVED, "kind": "rotated_latitude_longitude"}),
    ),
    "WRF": (wrf, opens(**CURVED)),
    "WRF, moving nest": (
        moving_nest,
        refused("no latitude and longitude", "XLONG(", MissingVariableError),
    ),
    "projection without lat, lon": (
        off_axes,
        refused("no latitude and longitude", "time", MissingVariableError),
    ),
    "unstructured": (
        unstructured,
        refused("no latitude and longitude", "lat('cell',)", MissingVariableError),
    ),
    "latitudes in radians": (radians, refused("units of the latitude", "radian")),
    "latitudes in metres": (
        lambda: predictors().assign_coords(lat=("lat", LAT * 1e5, {"units": "m"})),
        refused("units of the latitude", "'m'"),
    ),
    "latitudes beyond the pole": (
        lambda: predictors().assign_coords(lat=("lat", LAT * 3, NORTH)),
        refused("not in degrees north", "120..135"),
    ),
    "units of lat and lon swapped": (
        swapped_units,
        refused("units of the latitude", "degrees_north"),
    ),
    "a hole in the coordinates": (hole_in_lat, refused("missing values", "1 missing")),
    "latitudes not sorted": (
        lambda: predictors().isel(lat=[1, 0, 2]),
        refused("neither increasing nor decreasing", "42.5 40"),
    ),
    "two grids": (two_grids, refused("different grids", "sst on")),
    "no rows": (
        lambda: predictors().isel(lat=slice(0, 0)),
        refused("coordinate is empty", "0 missing of 0"),
    ),
    # further dimensions
    "bounds, mappings, text": (helpers, opens()),
    "one member": (lambda: with_dim("member", [1]), opens()),
    "two members": (
        lambda: with_dim("realization", [1, 2], standard_name="realization"),
        refused("further dimension", "realization of 2"),
    ),
    "scalar height": (
        lambda: predictors().assign_coords(
            height=((), 2.0, {"units": "m", "axis": "Z"})
        ),
        opens(),
    ),
    "one height": (
        lambda: with_dim("height", [2.0], units="m", axis="Z", positive="up"),
        opens(),
    ),
    "three heights": (
        lambda: with_dim("height", [2.0, 10.0, 100.0], units="m", axis="Z"),
        refused("not a set of pressure levels", "'m'"),
    ),
    "hybrid levels": (hybrid, refused("not a set of pressure levels", "'1'")),
    "levels in Pa": (
        lambda: on_levels([85000.0, 50000.0], "Pa"),
        opens(**ON_LEVELS),
    ),
    "levels in hPa, upwards": (
        lambda: on_levels([500, 850], "hPa"),
        opens(
            days=2, channels={"psl": "Pa", "hus_500": "kg kg-1", "hus_850": "kg kg-1"}
        ),
    ),
    "levels in bar": (lambda: on_levels([0.85, 0.5], "bar"), opens(**ON_LEVELS)),
    "levels in millibars": (
        lambda: on_levels([850, 500], "millibars", name="level"),
        opens(**ON_LEVELS),
    ),
    "levels without units": (
        lambda: on_levels([850, 500], None, name="level"),
        opens(**ON_LEVELS),
    ),
    # time
    "noleap": (
        lambda: predictors(time=times(4, calendar="noleap")),
        opens(calendar="noleap"),
    ),
    "360_day": (
        lambda: predictors(time=times(4, calendar="360_day", start="2001-02-28")),
        opens(calendar="360_day", first_day=20010228),
    ),
    "julian": (
        lambda: predictors(time=times(4, calendar="julian")),
        opens(calendar="julian"),
    ),
    "hours as integers": (
        lambda: stamped(np.arange(4, dtype="i8") * 24, "hours since 2001-01-01"),
        opens(),
    ),
    "one start date": (late_start, opens()),
    "months since": (
        lambda: stamped(np.arange(4.0), "months since 2001-01-01"),
        refused("time axis cannot be decoded", "months since"),
    ),
    "dates as %Y%m%d": (
        lambda: stamped(np.arange(20010101.0, 20010105.0), "day as %Y%m%d.%f"),
        refused("cannot be read as dates", "%Y%m%d"),
    ),
    "text dates": (
        lambda: predictors().assign_coords(time=[f"2001-01-0{i}" for i in range(1, 5)]),
        refused("cannot be read as dates", "2001-01-01"),
    ),
    "backwards": (
        lambda: predictors().isel(time=slice(None, None, -1)),
        refused("not in order", "2001-01-04"),
    ),
    "no steps": (
        lambda: predictors().isel(time=slice(0, 0)),
        refused("time axis is empty", "0 time stamps"),
    ),
    "no fields": (
        lambda: predictors()[["time"]],
        refused("no latitude and longitude", "time('time',)", MissingVariableError),
    ),
    "only missing values": (
        lambda: predictors().where(False),
        refused("no values", "missing everywhere"),
    ),
}


@pytest.mark.parametrize("name", list(MADE))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_made_file(tmp_path, name):
    make, wanted = MADE[name]
    check(write(make(), tmp_path / "a.nc"), wanted)


VALUES = predictors().t_850.values


@pytest.mark.parametrize(
    "name",
    [n for n, (_, w) in MADE.items() if isinstance(w, Opens) and "t_850" in w.channels],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_made_values_keep_their_place(tmp_path, name):
    """Every value stays with the coordinates that the plain library gives it."""
    ds = MADE[name][0]()
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    plane = cube.load()[2, 0]
    rest = [
        d for d in ds.t_850.dims if ds.sizes[d] == 1 and d not in ("lat", "latitude")
    ]
    own = ds.t_850.isel(dict.fromkeys(rest, 0))
    own = own.transpose(*(d for d in own.dims if str(d).lower() in TIME_NAMES), ...)
    written = own.values[2]
    if written.shape != plane.shape or name == "transposed":
        written = written.T
    np.testing.assert_array_equal(plane, written)


TIME_NAMES = ("time", "xtime")


# -- Formats and encodings -------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "NETCDF3_CLASSIC",
        "NETCDF3_64BIT",
        "NETCDF3_64BIT_DATA",
        "NETCDF4_CLASSIC",
        "NETCDF4",
        "unlimited",
        "v2",
        "v2 consolidated",
        "v3",
        "v3 consolidated",
        "v3 sharded",
    ],
)
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_formats(tmp_path, kind):
    ds = predictors()
    if kind.startswith("v"):
        path = tmp_path / "store"  # recognised without the ending
        consolidated = "consolidated" in kind
        sharded = {"chunks": (1, 3, 4), "shards": (2, 3, 4)}
        ds.to_zarr(
            path,
            zarr_format=int(kind[1]),
            consolidated=consolidated,
            encoding={"t_850": sharded} if "sharded" in kind else None,
        )
    elif kind == "unlimited":
        path = tmp_path / "a.nc"
        ds.to_netcdf(path, unlimited_dims=["time"])
    else:
        path = tmp_path / "a.nc"
        engine = "netcdf4"
        ds.to_netcdf(path, format=kind, engine=engine)
    check(path, opens())
    values = read_channels(path, variables=["t_850"]).load()[:, 0]
    np.testing.assert_array_equal(values, VALUES)
    if kind.startswith("v"):  # the order of a listing is that of the file system
        assert read_channels(path).names == ("pr", "t_500", "t_850")


def test_plain_hdf5_without_dimensions(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["pr"] = np.zeros((4, 3, 4))
    check(path, refused("no time coordinate", "phony_dim_0=4", MissingVariableError))


def test_variables_in_groups(tmp_path):
    path = tmp_path / "a.nc"
    predictors().to_netcdf(path, group="model")
    check(path, refused("variables in groups", "model", MissingVariableError))


def packed(path: Path, fill: Callable[[netCDF4.Dataset], None]) -> Path:
    write(predictors(), path)
    with netCDF4.Dataset(path, "a") as file:
        file.set_auto_maskandscale(False)
        fill(file)
    return path


def test_packed_with_a_negative_scale_factor(tmp_path):
    def fill(file):
        new = file.createVariable(
            "hurs", "i2", ("time", "lat", "lon"), fill_value=-32767
        )
        new.set_auto_maskandscale(False)
        new.setncatts({"units": "%", "scale_factor": -0.01, "add_offset": 50.0})
        new[:] = np.arange(48).reshape(4, 3, 4) * 100 - 2000
        new[0, 0, 0] = -32767

    path = packed(tmp_path / "a.nc", fill)
    values = read_channels(path, variables=["hurs"]).load()[:, 0]
    wanted = 50.0 - 0.01 * (np.arange(48.0).reshape(4, 3, 4) * 100 - 2000)
    wanted[0, 0, 0] = np.nan
    np.testing.assert_allclose(values, wanted, rtol=1e-6)


def test_nan_fill_and_missing_value_together(tmp_path):
    def fill(file):
        new = file.createVariable(
            "hurs", "f4", ("time", "lat", "lon"), fill_value=np.nan
        )
        new.set_auto_maskandscale(False)
        new.setncatts({"units": "%", "missing_value": np.float32(-999.0)})
        new[:] = 50.0
        new[0, 0, 0], new[1, 1, 1] = np.nan, -999.0

    path = packed(tmp_path / "a.nc", fill)
    values = read_channels(path, variables=["hurs"]).load()
    assert np.isnan(values).sum() == 2
    assert np.isnan(values[0, 0, 0, 0])
    assert np.isnan(values[1, 0, 1, 1])


def test_bytes_that_mean_unsigned_numbers(tmp_path):
    def fill(file):
        new = file.createVariable("hurs", "i1", ("time", "lat", "lon"), fill_value=-1)
        new.set_auto_maskandscale(False)
        new.setncatts({"units": "%", "_Unsigned": "true", "scale_factor": 0.5})
        new[:] = np.uint8(160).astype("i1")  # 160 as unsigned, -96 as signed
        new[0, 0, 0] = -1  # 255: missing

    path = packed(tmp_path / "a.nc", fill)
    values = read_channels(path, variables=["hurs"]).load()
    assert np.isnan(values[0, 0, 0, 0])
    assert values[0, 0, 0, 1] == 80.0


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f4"])
def test_byte_order(tmp_path, dtype):
    path = tmp_path / "a.nc"
    predictors().to_netcdf(path, encoding={"t_850": {"dtype": dtype}})
    values = read_channels(path).load()
    assert values.dtype == np.float32
    assert values.dtype.isnative
    np.testing.assert_array_equal(values[:, 0], VALUES)


# -- Several files ---------------------------------------------------------------------


def halves(tmp_path: Path, change: Callable[[xr.Dataset], xr.Dataset]) -> list[Path]:
    ds = predictors(6)
    first, second = ds.isel(time=slice(0, 3)), ds.isel(time=slice(3, 6))
    return [write(first, tmp_path / "a.nc"), write(change(second), tmp_path / "b.nc")]


def test_units_that_change_between_files(tmp_path):
    def in_mm(ds: xr.Dataset) -> xr.Dataset:
        pr = (ds.pr * 86400.0).assign_attrs(units="mm day-1")
        return ds.assign(pr=pr)

    with pytest.raises(InputError, match="in different units") as caught:
        open_dataset(halves(tmp_path, in_mm), role="lr")
    assert caught.value.facts["variable"] == "pr"
    assert "kg m-2 s-1 in a.nc, mm day-1 in b.nc" in caught.value.facts["found"]


def test_latitude_order_that_changes_between_files(tmp_path):
    files = halves(tmp_path, lambda ds: ds.isel(lat=slice(None, None, -1)))
    with pytest.raises(InputError, match="do not fit together"):
        open_dataset(files, role="lr")


def test_axis_order_that_changes_between_files(tmp_path):
    files = halves(tmp_path, lambda ds: ds.transpose("lon", "time", "lat"))
    joined = read_channels(files).load()
    np.testing.assert_array_equal(joined[:, 0], predictors(6).t_850)


# -- Regions and other readers ---------------------------------------------------------


def test_region_across_the_dateline(tmp_path):
    lon = np.arange(0.0, 360.0, 30.0)
    pr = field(0.0, 1e-4, lon=lon, units="kg m-2 s-1")
    ds = open_dataset(write(dataset({"pr": pr}, lon=lon), tmp_path / "a.nc"), role="lr")
    cut = cut_region(ds, lon_range=(150.0, -150.0))
    np.testing.assert_array_equal(cut.lon, [150.0, 180.0, 210.0])
    cut = cut_region(ds, lon_range=(-31.0, 31.0))
    np.testing.assert_array_equal(cut.lon, [-30.0, 0.0, 30.0])
    assert list(read_grid(cut).lon) == [-30.0, 0.0, 30.0]


def test_both_longitude_conventions_interpolate_alike(tmp_path):
    target = read_grid(with_lon(176.0, 178.0, 179.0, 181.0))
    ramp = np.arange(4.0)[None, :].repeat(3, axis=0)
    east = read_grid(with_lon(175.0, 177.5, 180.0, 182.5))
    both = read_grid(with_lon(175.0, 177.5, -180.0, -177.5))
    first, second = (interpolation(g, target).apply(ramp) for g in (east, both))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[0], [0.4, 1.2, 1.6, 2.4])


def test_targets_and_static_fields_have_the_same_rules(tmp_path):
    targets = read_targets(write(rotated_pole(), tmp_path / "hr.nc"), variables=["pr"])
    static = rotated_pole().drop_vars(["t_850", "t_500"]).isel(time=0, drop=True)
    static = static.rename(pr="orog")
    static.orog.attrs["units"] = "m"
    names, values = read_static(write(static, tmp_path / "s.nc"), grid=targets.grid)
    assert names == ("orog",)
    assert values.shape == (1, 3, 4)
    with pytest.raises(InputError, match="units of the latitude"):
        read_targets(write(radians(), tmp_path / "bad.nc"))
