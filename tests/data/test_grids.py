from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from climate_files import LAT, LON, predictors
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.files.open import open_dataset
from st_cdgm.data.space.coordinates import locate, read_grid
from st_cdgm.data.space.grid import Grid, interpolation, nearest_index
from st_cdgm.data.tables.selection import cut_region
from st_cdgm.errors import GridMismatchError, InputError, MissingVariableError


def regular(lat, lon) -> Grid:
    return Grid(
        lat=np.asarray(lat, float),
        lon=np.asarray(lon, float),
        y_name="lat",
        x_name="lon",
    )


def turned(*, rows=6, columns=7, angle=30.0) -> Grid:
    """A plane grid around (45 N, 5 E) turned against the parallels."""
    y, x = np.meshgrid(np.arange(rows) - 2.5, np.arange(columns) - 3.0, indexing="ij")
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    lat, lon = 45.0 + 0.5 * (c * y + s * x), 5.0 + 0.5 * (c * x - s * y)
    return Grid(lat=lat, lon=lon, y_name="y", x_name="x")


def great_circle(lat1, lon1, lat2, lon2):
    p, q = np.deg2rad(lat1), np.deg2rad(lat2)
    half = np.sin((p - q) / 2) ** 2 + np.cos(p) * np.cos(q) * (
        np.sin(np.deg2rad(lon1 - lon2) / 2) ** 2
    )
    return 2 * np.arcsin(np.sqrt(half))


# -- Finding ---------------------------------------------------------------------------


def test_regular_grid_keeps_the_order_of_the_file():
    ds = predictors().isel(lat=slice(None, None, -1))
    grid = read_grid(ds)
    assert grid.regular
    assert grid.shape == (3, 4)
    np.testing.assert_array_equal(grid.lat, LAT[::-1])
    np.testing.assert_array_equal(grid.lat2d[:, 2], LAT[::-1])
    np.testing.assert_array_equal(grid.lon2d[1], LON)
    assert "north to south" in str(grid)


def test_d11_coordinates_are_found_by_attributes_not_by_substrings():
    """``flat`` and ``relative_longitude_index`` only look like coordinates."""
    ds = predictors().rename(lat="phi", lon="lambda")
    ds = ds.assign_coords(flat=("time", np.arange(4.0)))
    ds["relative_longitude_index"] = ("lambda", np.arange(4.0))
    assert locate(ds).pair(ds["t_850"].dims) == ("phi", "lambda")
    grid = read_grid(ds)
    assert (grid.y_name, grid.x_name) == ("phi", "lambda")


def test_names_serve_where_there_are_no_attributes():
    ds = predictors()
    for name in ("lat", "lon"):
        ds[name].attrs.clear()
    grid = read_grid(ds.rename(lat="Latitude", lon="Longitude"))
    assert grid.y_attrs["standard_name"] == "latitude"
    assert grid.x_attrs["units"] == "degrees_east"


def test_two_dimensional_coordinates_stored_as_plain_variables():
    grid = turned()
    ds = xr.Dataset(
        {
            "pr": (("time", "y", "x"), np.zeros((2, 6, 7))),
            "nav_lat": (("y", "x"), grid.lat),
            "nav_lon": (("y", "x"), grid.lon),
        }
    )
    found = read_grid(ds, variable="pr")
    assert not found.regular
    assert found.kind == "curvilinear"
    assert found.y is None
    np.testing.assert_array_equal(found.lat, grid.lat)


def test_transposed_coordinates_follow_the_axis_attributes():
    grid = turned()
    ds = xr.Dataset(
        coords={"lat": (("x", "y"), grid.lat.T, {"standard_name": "latitude"})}
    )
    ds = ds.assign_coords(
        lon=(("x", "y"), grid.lon.T, {"standard_name": "longitude"}),
        x=("x", np.arange(7.0), {"axis": "X"}),
        y=("y", np.arange(6.0), {"axis": "Y"}),
    )
    found = read_grid(ds)
    assert (found.y_name, found.x_name) == ("y", "x")
    np.testing.assert_array_equal(found.lat, grid.lat)


def test_bounds_with_units_of_latitude_are_not_coordinates(real_data):
    name = "tas_EUR-22_MPI-M-MPI-ESM-LR_rcp85_r1i1p1_GERICS-REMO2015_v1_mon_202101.nc"
    ds = open_dataset(real_data / "edge_cases" / name, role="lr")
    grid = read_grid(ds, variable="tas")
    assert grid.shape == (201, 225)
    assert grid.kind == "rotated_latitude_longitude"
    assert grid.mapping is not None
    assert grid.mapping["variable"] == "rotated_latitude_longitude"
    assert grid.y is not None
    assert grid.y_attrs["standard_name"] == "grid_latitude"
    # On a rotated grid the area goes with cos(rlat), whatever the true latitude.
    expected = np.broadcast_to(np.cos(np.deg2rad(grid.y))[:, None], grid.shape)
    weights = grid.area_weights()
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=2e-3)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda ds: ds.drop_vars("lat"), "no latitude"),
        (lambda ds: ds.assign_coords(lat=ds.lat * 1000.0), "degrees north"),
        (lambda ds: ds.isel(lat=[1, 0, 2]), "neither increasing nor decreasing"),
        (lambda ds: ds.assign_coords(lon=ds.lon.where(ds.lon < 0)), "missing values"),
        (lambda ds: ds.isel(lat=slice(0, 0)), "empty"),
    ],
)
def test_unusable_coordinates(change, problem):
    ds = predictors()
    changed = change(ds)
    for name in ("lat", "lon"):
        if name in changed.coords:
            changed[name].attrs = ds[name].attrs
    with pytest.raises(InputError, match=problem) as caught:
        read_grid(changed, file="a.nc")
    assert caught.value.facts["file"] == "a.nc"
    assert caught.value.facts["remedy"]


def test_unstructured_grid_is_refused():
    ds = xr.Dataset(
        {"tas": (("time", "cell"), np.zeros((2, 5)))},
        coords={
            "lat": ("cell", np.arange(5.0), {"standard_name": "latitude"}),
            "lon": ("cell", np.arange(5.0), {"standard_name": "longitude"}),
        },
    )
    with pytest.raises(MissingVariableError, match="two-dimensional grid"):
        read_grid(ds)


# -- Longitudes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([355.0, 357.5, 0.0, 2.5], [-5.0, -2.5, 0.0, 2.5]),
        ([175.0, 177.5, 180.0, -177.5], [175.0, 177.5, 180.0, 182.5]),
        ([235.0, 237.5, 240.0, 242.5], [235.0, 237.5, 240.0, 242.5]),
        ([0.0, 90.0, 180.0, 270.0], [0.0, 90.0, 180.0, 270.0]),
    ],
)
def test_longitudes_are_continuous_and_otherwise_untouched(given, expected):
    ds = predictors()
    ds = ds.assign_coords(lon=("lon", given, ds.lon.attrs))
    np.testing.assert_allclose(read_grid(ds).lon, expected)


def test_two_dimensional_longitudes_across_greenwich():
    grid = turned()
    lon = (grid.lon - 5.0) % 360.0
    ds = xr.Dataset(
        coords={
            "lat": (("y", "x"), grid.lat, {"standard_name": "latitude"}),
            "lon": (("y", "x"), lon, {"standard_name": "longitude"}),
        }
    )
    assert np.abs(np.diff(lon, axis=1)).max() > 300
    np.testing.assert_allclose(read_grid(ds).lon, grid.lon - 5.0, atol=1e-9)


# -- Comparison ------------------------------------------------------------------------


def test_check_same_accepts_rounding_and_whole_turns():
    grid = regular(LAT, LON)
    grid.check_same(regular(LAT + 5e-4, LON + 360.0))


def test_check_same_tells_turned_latitudes_apart():
    with pytest.raises(GridMismatchError, match="opposite latitude order") as caught:
        regular(LAT, LON).check_same(
            regular(LAT[::-1], LON), file="b.nc", role="static"
        )
    assert "invertlat" in caught.value.facts["remedy"]
    assert caught.value.facts["file"] == "b.nc"


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (regular(LAT[:2], LON), "another shape"),
        (regular(LAT + 0.01, LON), "other cell centres"),
        (regular(LAT, LON + 1.0), "other cell centres"),
    ],
)
def test_check_same_refuses_other_grids(other, problem):
    with pytest.raises(GridMismatchError, match=problem) as caught:
        regular(LAT, LON).check_same(other)
    assert "3 x 4 regular" in caught.value.facts["expected"]


def test_contains():
    coarse = regular([30.0, 40.0, 50.0], [350.0, 360.0, 370.0])
    assert coarse.contains(regular([31.0, 49.0], [-9.0, 9.0]))
    assert not coarse.contains(regular([29.0, 49.0], [-9.0, 9.0]))
    assert coarse.contains(regular([29.0, 49.0], [-9.0, 9.0]), 1.0)
    assert not coarse.contains(regular([31.0, 49.0], [-9.0, 12.0]), 1.0)
    world = regular([-80.0, 80.0], np.arange(0.0, 360.0, 2.5))
    assert world.contains(regular([10.0, 20.0], [358.9, 359.5]))
    assert turned().contains(regular([44.8, 45.2], [4.8, 5.2]))
    assert not turned().contains(regular([44.8, 45.2], [4.8, 25.2]))


def test_area_weights_are_the_cosine_of_latitude():
    weights = regular([0.0, 60.0], [0.0, 1.0, 2.0]).area_weights()
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [[4 / 3] * 3, [2 / 3] * 3], rtol=1e-6)


# -- State and coordinates -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["regular", "rotated"])
def test_state_round_trip_through_json(kind):
    grid = turned()
    if kind == "regular":
        grid = read_grid(predictors())
    else:
        grid = Grid(
            lat=grid.lat,
            lon=grid.lon,
            y_name="rlat",
            x_name="rlon",
            y=np.arange(6.0),
            x=np.arange(7.0),
            y_attrs={"standard_name": "grid_latitude"},
            x_attrs={},
            mapping={
                "grid_mapping_name": "rotated_latitude_longitude",
                "variable": "rp",
            },
        )
    meta, arrays = grid.to_state()
    again = Grid.from_state(json.loads(json.dumps(meta)), arrays)
    again.check_same(grid)
    assert (again.y_name, again.y_attrs, again.mapping) == (
        grid.y_name,
        grid.y_attrs,
        grid.mapping,
    )
    if grid.y is not None:
        np.testing.assert_array_equal(again.y, grid.y)


def test_coords_give_back_the_grid(real_data):
    """A data set built from ``coords`` alone is read as the same grid."""
    name = "small_rotPole_precipitation.nc"
    ds = open_dataset(real_data / "edge_cases" / name, role="lr")
    grid = read_grid(ds, variable="pr")
    coords = grid.coords()
    assert (
        coords["rotated_pole"][2]["grid_mapping_name"] == "rotated_latitude_longitude"
    )
    again = read_grid(xr.Dataset(coords=coords))
    grid.check_same(again)
    assert again.mapping == grid.mapping
    np.testing.assert_array_equal(again.x, grid.x)


# -- Interpolation ---------------------------------------------------------------------


def test_bilinear_by_hand():
    source = regular([0.0, 1.0], [10.0, 12.0])
    target = regular([0.0, 0.25], [10.0, 11.5])
    field = np.array([[0.0, 2.0], [4.0, 6.0]])
    out = interpolation(source, target).apply(field)
    np.testing.assert_allclose(out, [[0.0, 1.5], [1.0, 2.5]], rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    up=st.booleans(),
    right=st.booleans(),
    turns=st.integers(-1, 1),
    slopes=st.tuples(st.floats(-5, 5), st.floats(-5, 5)),
)
def test_bilinear_reproduces_planes_in_any_axis_order(up, right, turns, slopes):
    lat, lon = np.array([36.0, 38.5, 41.0, 46.0]), np.array([-10.0, -7.5, -4.0, 1.0])
    source = regular(lat if up else lat[::-1], lon if right else lon[::-1])
    target = regular(
        np.linspace(36.0, 46.0, 7), np.linspace(-10.0, 1.0, 9) + 360 * turns
    )
    a, b = slopes
    plane = a * source.lat2d + b * source.lon2d
    wanted = a * target.lat2d + b * (target.lon2d - 360 * turns)
    out = interpolation(source, target).apply(plane)
    np.testing.assert_allclose(out, wanted, atol=2e-4)


def test_d3_beyond_the_outer_centres_the_edge_holds_and_nothing_is_nan():
    source = regular([40.0, 42.0, 44.0], [0.0, 2.0])
    target = regular([35.0, 43.0, 50.0], [-9.0, 1.0, 20.0])
    field = np.arange(6.0).reshape(3, 2)
    out = interpolation(source, target).apply(field)
    np.testing.assert_allclose(
        out, [[0.0, 0.5, 1.0], [3.0, 3.5, 4.0], [4.0, 4.5, 5.0]], rtol=1e-6
    )


def test_global_source_is_periodic():
    lon = np.arange(0.0, 360.0, 10.0)
    source = regular([0.0, 10.0], lon)
    field = np.broadcast_to(lon, (2, 36)).copy()
    out = interpolation(source, regular([5.0], [-5.0, 355.0])).apply(field)
    # Half way between the columns 350 and 0.
    np.testing.assert_allclose(out, [[175.0, 175.0]], rtol=1e-6)


def test_missing_corners_are_left_out():
    source = regular([0.0, 1.0], [0.0, 1.0])
    target = regular([0.5], [0.25])
    weights = interpolation(source, target)
    assert weights.apply(np.array([[4.0, np.nan], [2.0, np.nan]]))[0, 0] == 3.0
    assert np.isnan(weights.apply(np.full((2, 2), np.nan))[0, 0])
    stacked = weights.apply(
        np.array([[[np.nan, 8.0], [np.nan, 8.0]], [[1, 1], [1, 1]]])
    )
    np.testing.assert_allclose(stacked[:, 0, 0], [8.0, 1.0], rtol=1e-6)


def test_a_missing_corner_without_weight_changes_nothing():
    source, target = regular([0.0, 1.0], [0.0, 1.0]), regular([0.0], [0.0])
    out = interpolation(source, target).apply(
        np.array([[5.0, np.nan], [np.nan, np.nan]])
    )
    assert out[0, 0] == 5.0


def test_rows_sum_to_one_and_dtype_is_kept():
    weights = interpolation(turned(), regular([44.7, 45.0], [4.5, 5.0, 5.5]))
    assert weights.index.shape == (6, 4)
    np.testing.assert_allclose(weights.weight.sum(axis=1), 1.0, rtol=1e-6)
    field = np.ones((2, 3, 6, 7), np.float32)
    out = weights.apply(field)
    assert out.shape == (2, 3, 2, 3)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, 1.0, rtol=1e-6)


def test_curvilinear_source_gives_its_own_values_on_its_centres():
    grid = turned()
    field = np.random.default_rng(0).normal(size=grid.shape)
    np.testing.assert_allclose(interpolation(grid, grid).apply(field), field, atol=1e-4)


def test_single_row_and_column():
    source, target = regular([45.0], [5.0]), regular([44.0, 46.0], [4.0, 6.0])
    np.testing.assert_array_equal(
        interpolation(source, target).apply(np.array([[7.0]])), np.full((2, 2), 7.0)
    )


def test_d37_nearest_is_by_distance_on_the_sphere():
    """At ratio 4 each coarse cell gets its own 4 fine rows, none shifted by half."""
    fine = np.arange(16) * 0.25
    coarse = fine.reshape(4, 4).mean(axis=1)
    index = nearest_index(regular(coarse, coarse), regular(fine, fine))
    expected = (np.arange(16) // 4)[:, None] * 4 + np.arange(16) // 4
    np.testing.assert_array_equal(index.reshape(16, 16), expected)


@pytest.mark.parametrize("longitude_turn", [0.0, 360.0])
def test_d37_nearest_agrees_with_the_great_circle(longitude_turn):
    source, target = turned(), regular([43.9, 45.1, 46.3], [3.2, 5.1, 6.9, 8.0])
    target = regular(target.lat, target.lon + longitude_turn)
    distance = great_circle(
        target.lat2d.reshape(-1, 1),
        target.lon2d.reshape(-1, 1),
        source.lat.reshape(1, -1),
        source.lon.reshape(1, -1),
    )
    np.testing.assert_array_equal(
        nearest_index(source, target), distance.argmin(axis=1)
    )


# -- Regions ---------------------------------------------------------------------------


@pytest.mark.parametrize("descending", [False, True])
def test_d25_region_on_any_latitude_order(descending):
    ds = predictors()
    ds = ds.isel(lat=slice(None, None, -1)) if descending else ds
    cut = cut_region(ds, lat_range=(41.0, 46.0))
    np.testing.assert_array_equal(np.sort(cut.lat), [42.5, 45.0])


@pytest.mark.parametrize("lon_range", [(-10.0, 10.0), (350.0, 10.0), (350.0, 370.0)])
def test_d25_region_across_greenwich_comes_in_one_piece(lon_range):
    lon = np.arange(0.0, 360.0, 5.0)
    ds = xr.Dataset(
        {"pr": (("lat", "lon"), np.zeros((2, 72)))},
        coords={"lat": [0.0, 1.0], "lon": lon},
    )
    cut = cut_region(ds, lon_range=lon_range)
    np.testing.assert_allclose(read_grid(cut).lon, [-10.0, -5.0, 0.0, 5.0, 10.0])


def test_d25_whole_circle_and_empty_region():
    lon = np.arange(0.0, 360.0, 5.0)
    ds = xr.Dataset(coords={"lat": [0.0, 1.0], "lon": lon})
    assert cut_region(ds, lon_range=(-180.0, 180.0)).sizes["lon"] == 72
    with pytest.raises(InputError, match="no cell"):
        cut_region(ds, lat_range=(50.0, 60.0))


def test_region_of_a_curvilinear_grid_is_a_block():
    grid = turned(angle=0.0)
    ds = xr.Dataset(
        coords={"lat": (("y", "x"), grid.lat), "lon": (("y", "x"), grid.lon)}
    )
    cut = cut_region(ds, lat_range=(44.5, 45.5), lon_range=(4.9, 6.1))
    assert dict(cut.sizes) == {"y": 2, "x": 3}
