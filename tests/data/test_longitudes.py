"""Regions that a file cuts in two at the end of its longitudes come in one piece."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from st_cdgm.data.files.layouts import first_column, in_one_piece
from st_cdgm.data.files.open import open_dataset
from st_cdgm.data.inspect.files import inspect_file
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.read.readers import read_channels, read_static, read_targets
from st_cdgm.data.space.coordinates import locate
from st_cdgm.data.space.grid import interpolation
from st_cdgm.errors import InputError

LAT = np.array([50.0, 47.5, 45.0])
# As a file has them, and as they are read: 0..360 and -180..180, both directions.
CASES = {
    "greenwich": ([0.0, 2.5, 355.0, 357.5], [-5.0, -2.5, 0.0, 2.5]),
    "greenwich, one column east": ([0.0, 352.5, 355.0, 357.5], [-7.5, -5.0, -2.5, 0.0]),
    "greenwich, from the east": (
        [357.5, 355.0, 2.5, 0.0],
        [2.5, 0.0, -2.5, -5.0],
    ),
    "dateline": ([-180.0, -177.5, 175.0, 177.5], [175.0, 177.5, 180.0, 182.5]),
    "dateline, mostly east of it": (
        [-180.0, -177.5, -175.0, -172.5, 177.5],
        [-182.5, -180.0, -177.5, -175.0, -172.5],
    ),
    "more than half the globe": (
        [*np.arange(0.0, 101.0, 20.0), *np.arange(260.0, 341.0, 20.0)],
        [*np.arange(-100.0, 101.0, 20.0)],
    ),
}
# Sound ones, and those whose order nothing but a mistake explains.
LEFT = {
    "plain": [-5.0, -2.5, 0.0, 2.5],
    "across greenwich": [355.0, 357.5, 0.0, 2.5],
    "from the east": [2.5, 0.0, 357.5, 355.0],
    "globe": list(np.arange(0.0, 360.0, 30.0)),
    "globe from the dateline": [180.0, 240.0, 300.0, 0.0, 60.0, 120.0],
    "two regions": [0.0, 2.5, 5.0, 100.0, 102.5, 105.0],
    "one column": [0.0],
    "two columns": [0.0, 357.5],
    "unsorted": [0.0, 355.0, 2.5, 357.5],
    "repeated": [0.0, 0.0, 355.0, 357.5],
    "missing": [0.0, np.nan, 355.0, 357.5],
}


def labels(lon) -> np.ndarray:
    """A number that tells a cell by its place on the globe. Shape ``(y, x)``."""
    return 100.0 * LAT[:, None] + np.asarray(lon)[None, :] % 360.0


def dataset(lon, **names) -> xr.Dataset:
    """Days of cells that hold their own label, with bounds and a static field."""
    lon = np.asarray(lon)
    cells = labels(lon)
    days = xr.date_range("2001-01-01", periods=3, use_cftime=True)
    dims = ("time", "lat", "lon")
    edges = np.stack([lon - 1.25, lon + 1.25], axis=1)
    edges = np.where(lon[:, None] < 0, edges, edges % 360.0)
    return xr.Dataset(
        {
            "tas": (dims, np.stack([cells] * 3) / 20, {"units": "K"}),
            "q": (dims, np.stack([cells] * 3) / 1e7, {"units": "kg kg-1"}),
            "orog": (dims[1:], cells, {"units": "m"}),
            "lon_bnds": (("lon", "bnds"), edges),
        },
        coords={
            "time": days,
            "lat": ("lat", LAT, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east", "bounds": "lon_bnds"}),
            "place": ("lon", [f"{degree % 360:g}" for degree in lon]),
        },
        **names,
    )


@pytest.mark.parametrize(("stored", "read"), CASES.values(), ids=CASES)
def test_a_region_in_two_pieces_opens_in_one(tmp_path, stored, read):
    dataset(stored).to_netcdf(tmp_path / "a.nc")
    opened = open_dataset(tmp_path / "a.nc", role="lr")
    np.testing.assert_array_equal(opened.lon, read)
    np.testing.assert_allclose(opened.orog, labels(read))
    np.testing.assert_allclose(opened.tas, [labels(read) / 20] * 3, rtol=1e-6)
    assert list(opened.place.values) == [f"{degree % 360:g}" for degree in read]
    half = [-1.25, 1.25]
    np.testing.assert_allclose(opened.lon_bnds, np.add.outer(read, half))
    assert opened.lon.attrs["units"] == "degrees_east"
    assert opened.encoding["source"] == str(tmp_path / "a.nc")


@pytest.mark.parametrize(("stored", "read"), CASES.values(), ids=CASES)
def test_readers_give_each_cell_its_own_values(tmp_path, stored, read):
    file = tmp_path / "a.nc"
    dataset(stored).to_netcdf(file)
    for fields in (
        read_channels(file, variables=["tas", "q"]),
        read_targets(file, variables=["q"]),
    ):
        np.testing.assert_array_equal(fields.grid.lon, read)
        loaded = np.asarray(fields.load())
        np.testing.assert_allclose(loaded[0, -1], labels(read) / 1e7, rtol=1e-6)
    _, static = read_static(file, grid=fields.grid, variables=["orog"])
    np.testing.assert_allclose(static[0], labels(read), rtol=1e-6)
    assert "error" not in str(inspect_file(file)).lower()


def test_the_same_region_in_any_order_is_the_same_grid(tmp_path):
    """Static fields of one order belong to targets of another, and between grids."""
    stored, read = CASES["greenwich"]
    dataset(stored).to_netcdf(tmp_path / "two.nc")
    dataset(read).to_netcdf(tmp_path / "one.nc")
    two = read_targets(tmp_path / "two.nc", variables=["q"])
    one = read_targets(tmp_path / "one.nc", variables=["q"])
    two.grid.check_same(one.grid)
    _, static = read_static(tmp_path / "one.nc", grid=two.grid, variables=["orog"])
    np.testing.assert_allclose(static[0], labels(read), rtol=1e-6)
    weights = interpolation(two.grid, one.grid)
    np.testing.assert_allclose(weights.apply(labels(read)), labels(read))


def test_files_of_one_region_are_joined(tmp_path):
    stored, read = CASES["greenwich"]
    days = dataset(stored)
    days.isel(time=[0, 1]).to_netcdf(tmp_path / "tas_1.nc")
    days.isel(time=[2]).to_netcdf(tmp_path / "tas_2.nc")
    joined = open_dataset(str(tmp_path / "tas_*.nc"), role="lr")
    assert joined.sizes["time"] == 3
    np.testing.assert_array_equal(joined.lon, read)
    np.testing.assert_allclose(joined.tas, [labels(read) / 20] * 3, rtol=1e-6)


@pytest.mark.parametrize("case", ["greenwich", "dateline"])
def test_a_task_on_a_region_in_two_pieces(tmp_path, case):
    """Predictors, targets and static fields of two orders make one sound task."""
    made = {}
    for name, lon in zip(("two", "one"), CASES[case], strict=True):
        days = xr.date_range("2001-01-01", periods=40, use_cftime=True)
        folder = tmp_path / name
        folder.mkdir()
        fields = dataset(lon).isel(time=[0] * 40).assign_coords(time=days)
        noise = np.random.default_rng(0).random(40)[:, None, None]
        fields["tas"] = fields.tas + noise
        fields[["tas"]].to_netcdf(folder / "lr.nc")
        fields[["tas"]].rename(tas="t2m").to_netcdf(folder / "hr.nc")
        fields[["orog"]].to_netcdf(folder / "static.nc")
        made[name] = NetCDFDataPipeline(
            folder / "lr.nc",
            folder / "hr.nc",
            folder / "static.nc",
            seq_len=2,
            baseline_map={"t2m": "tas"},
        )
    one, two = made["one"], made["two"]
    np.testing.assert_array_equal(two.preprocessor.hr_grid.lon, CASES[case][1])
    np.testing.assert_array_equal(two.preprocessor.static, one.preprocessor.static)
    for key, values in one.prepared(0, 40).items():
        np.testing.assert_array_equal(two.prepared(0, 40)[key], values)


@pytest.mark.parametrize("lon", LEFT.values(), ids=LEFT)
def test_other_longitudes_are_left_as_they_are(lon):
    assert first_column(np.array(lon)) == 0
    given = xr.Dataset(coords={"lat": LAT, "lon": lon})
    assert in_one_piece(given, locate(given).pair()) is given


@pytest.mark.parametrize("lon", [LEFT["unsorted"], LEFT["repeated"]])
def test_what_stays_irregular_is_refused(tmp_path, lon):
    dataset(lon).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(InputError, match="neither increasing nor decreasing"):
        read_channels(tmp_path / "a.nc")


def test_columns_of_another_name_without_coordinate(tmp_path):
    """Longitudes listed as a plain variable on a dimension ``x``."""
    stored, read = CASES["greenwich"]
    ds = dataset(stored).drop_vars("lon_bnds").rename_dims(lon="x", lat="y")
    ds = ds.drop_indexes(["lon", "lat"]).reset_coords(["lon", "lat"])
    del ds.lon.attrs["bounds"]
    ds.to_netcdf(tmp_path / "a.nc")
    channels = read_channels(tmp_path / "a.nc", variables=["q"])
    np.testing.assert_array_equal(channels.grid.lon, read)
    np.testing.assert_allclose(
        np.asarray(channels.load())[0, 0], labels(read) / 1e7, rtol=1e-6
    )
