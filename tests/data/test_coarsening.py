"""Coarser fields: hand numbers, conservation, two other programs as oracles."""

from __future__ import annotations

import os
import shutil
import subprocess

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.readers import read_channels, read_targets
from st_cdgm.data.read.regrid import coarsen_cube
from st_cdgm.data.space.blocks import (
    ConservativeRegridder,
    block_mean,
    coarse_grid,
)
from st_cdgm.data.space.cells import cell_areas, cell_edges, rotation
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.sphere import unit_vectors
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import Channel
from st_cdgm.errors import ConfigError, GridMismatchError

NAN = np.nan


def january(length):
    """Return the first days of January 2001."""
    number = np.arange(length)
    season = (number / 365).astype(np.float32)
    return CalendarDays(
        day=20010101 + number, ordinal=number, season=season, calendar="standard"
    )


def _grid(lat, lon):
    return Grid(
        lat=np.asarray(lat, float),
        lon=np.asarray(lon, float),
        y_name="lat",
        x_name="lon",
    )


def _centres(low, high, count, *, descending=False):
    edges = np.linspace(low, high, count + 1)
    centres = 0.5 * (edges[:-1] + edges[1:])
    return centres[::-1] if descending else centres


def _globe(rows, columns, *, first=0.0, descending=False):
    lat = _centres(-90, 90, rows, descending=descending)
    return _grid(lat, _centres(first, first + 360, columns))


def _integral(grid, field):
    """Integral over the sphere, steradians, from the bounds of the cells."""
    y, x = cell_edges(grid)
    area = np.outer(
        np.abs(np.diff(np.sin(np.deg2rad(y)))), np.abs(np.diff(np.deg2rad(x)))
    )
    return float(np.nansum(field * area))


# -- Block means -----------------------------------------------------------------------


def test_block_means_by_hand_with_partial_blocks_and_holes():
    field = np.array(
        [[1, 2, 3, 4, 5], [5, 6, NAN, NAN, NAN], [9, 10, 11, NAN, NAN]], np.float32
    )
    found = block_mean(field, 2)
    assert found.dtype == np.float32
    # (1 + 2 + 5 + 6) / 4, (3 + 4) / 2, 5; (9 + 10) / 2, 11, nothing.
    expected = [[3.5, 3.5, 5], [9.5, 11, NAN]]
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)


def test_block_means_weight_by_area():
    field = np.array([[1.0, 1.0], [4.0, 4.0]])
    weights = np.array([[3.0, 3.0], [1.0, 1.0]])
    assert block_mean(field, 2, weights=weights).item() == pytest.approx(1.75)
    field[0, 0] = NAN
    assert block_mean(field, 2, weights=weights).item() == pytest.approx(11 / 5)


def test_a_block_has_a_value_where_a_cell_has():
    field = np.array([[1.0, NAN], [NAN, NAN]])
    assert block_mean(field, 2).item() == 1
    assert np.isnan(block_mean(field[1:], 2)).all()
    # So has a block at the border, of the cells that there are (D3).
    assert block_mean(np.ones((1, 3)), 2).tolist() == [[1, 1]]


@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    factor=st.integers(1, 5),
    seed=st.integers(0, 999),
)
@settings(max_examples=50, deadline=None)
def test_block_means_keep_constants_and_the_integral(shape, factor, seed):
    rng = np.random.default_rng(seed)
    area, field = rng.random(shape) + 0.1, rng.normal(280, 9, shape)
    assert block_mean(np.full(shape, 7.5), factor, weights=area) == pytest.approx(7.5)
    coarse = block_mean(field, factor, weights=area)
    assert coarse.shape == (-(-shape[0] // factor), -(-shape[1] // factor))
    blocks = block_mean(np.ones((2, *shape)) * area, factor)[0]
    count = block_mean(np.ones(shape), 1)
    cells = np.add.reduceat(
        np.add.reduceat(count, np.arange(0, shape[0], factor), 0),
        np.arange(0, shape[1], factor),
        1,
    )
    assert (coarse * blocks * cells).sum() == pytest.approx((field * area).sum())


def test_block_means_of_one_cell_are_the_field():
    field = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    assert np.array_equal(block_mean(field, 1), field)


@pytest.mark.parametrize("factor", [0, 1.5])
def test_a_factor_out_of_range_is_refused(factor):
    with pytest.raises(ConfigError):
        block_mean(np.ones((4, 4)), factor)


# -- Coarse grids and cubes ------------------------------------------------------------


def test_a_coarse_grid_has_its_cells_in_the_middle_of_the_blocks():
    grid = _grid([44.0, 43.0, 42.0], [0.0, 2.0, 4.0, 6.0, 8.0])
    coarse = coarse_grid(grid, 2)
    assert coarse.lat.tolist() == [43.5, 42.0]
    assert coarse.lon.tolist() == [1.0, 5.0, 8.0]


def test_cells_at_the_poles_end_there():
    y, x = cell_edges(_grid([90.0, 0.0, -90.0], [5.0]))
    assert y.tolist() == [90, 45, -45, -90]
    assert x.tolist() == [4.5, 5.5]


def test_block_means_of_a_cube_stay_lazy_and_weight_by_area():
    rng = np.random.default_rng(1)
    grid = _grid(np.arange(30.0, 60.0, 3.0), np.arange(0.0, 14.0, 2.0))
    fields = rng.random((6, 2, *grid.shape)).astype(np.float32)
    fields[0, 0, :2, :2] = NAN
    names = ("q_850", "psl")
    cube = ChannelCube(
        channels=tuple(
            Channel(name=n, variable=n, level=None, units="1") for n in names
        ),
        grid=grid,
        days=january(6),
        values=xr.DataArray(
            dask.array.from_array(fields, chunks=(2, 1, 4, 3)),
            dims=("time", "channel", "y", "x"),
            coords={"channel": list(names)},
        ),
        file="lr.nc",
    )
    made = coarsen_cube(cube, 3)
    assert type(made) is ChannelCube
    assert isinstance(made.values.data, dask.array.Array)
    assert made.values.data.chunks[0] == (2, 2, 2)
    assert made.values.dims == cube.values.dims
    assert made.values.coords["channel"].values.tolist() == list(names)
    assert (made.grid.shape, made.channels) == ((4, 3), cube.channels)
    expected = block_mean(fields, 3, weights=cell_areas(grid))
    assert np.allclose(made.load(), expected, rtol=1e-6)
    assert coarsen_cube(cube, 1) is cube


def test_a_perfect_model_task_of_a_real_regional_model(real_data):
    # 28 x 30 cells by 4: the last block of a row has two columns.
    path = real_data / "cordex_iberia" / "racmo22e_winter.nc"
    fine, cube = read_targets(path), read_channels(path)
    coarse = coarsen_cube(cube, 4)
    assert coarse.grid.shape == (7, 8)
    assert coarse.grid.kind == "rotated_latitude_longitude"
    assert np.diff(coarse.grid.x)[-1] == pytest.approx(0.75 * np.diff(coarse.grid.x)[0])
    # A coarse cell lies on the rotated parallel and meridian that it says.
    turn = rotation(fine.grid)
    where = unit_vectors(coarse.grid.lat, coarse.grid.lon) @ turn
    assert np.rad2deg(np.arcsin(where[..., 2])) == pytest.approx(
        np.broadcast_to(coarse.grid.y[:, None], (7, 8)), abs=1e-6
    )
    assert fine.grid.contains(coarse.grid)
    assert rotation(coarse.grid) == pytest.approx(turn, abs=1e-6)
    fields, means = cube.load(slice(0, 30)), coarse.load(slice(0, 30))
    areas = cell_areas(fine.grid)
    blocks = block_mean(areas, 4) * np.outer([16] * 7, [1] * 7 + [0.5])
    before = (fields.astype(np.float64) * areas).sum(axis=(2, 3))
    after = (means.astype(np.float64) * blocks).sum(axis=(2, 3))
    assert after == pytest.approx(before, rel=1e-6)
    assert isinstance(coarsen_cube(fine, 4), type(fine))


def test_a_curvilinear_grid_is_coarsened_to_the_middle_of_its_cells():
    j, i = np.meshgrid(np.arange(6.0), np.arange(8.0), indexing="ij")
    bent = Grid(lat=40 + j + 0.1 * i, lon=178 + i + 0.2 * j, y_name="j", x_name="i")
    assert rotation(bent) is None
    coarse = coarse_grid(bent, 2)
    assert coarse.lat == pytest.approx(block_mean(bent.lat, 2), abs=0.02)
    assert coarse.lon == pytest.approx(block_mean(bent.lon, 2), abs=0.02)
    assert coarse.y is None


def test_axes_in_metres_are_no_rotation():
    y, x = np.arange(4) * 1e4, np.arange(5) * 1e4
    lat, lon = np.meshgrid(40 + y / 1.1e5, x / 8e4, indexing="ij")
    grid = Grid(lat=lat, lon=lon, y_name="y", x_name="x", y=y, x=x)
    assert rotation(grid) is None
    assert coarse_grid(grid, 2).y.tolist() == [5e3, 2.5e4]


# -- Conservative remapping ------------------------------------------------------------

PAIRS = {
    "finer": (_globe(12, 24), _globe(31, 50, first=-180.0)),
    "coarser": (_globe(37, 72, descending=True), _globe(10, 13, first=7.0)),
    "region of a globe": (
        _globe(36, 72),
        _grid(_centres(33, 48, 7), _centres(-11, 6, 5)),
    ),
}


@given(seed=st.integers(0, 999), pair=st.sampled_from(["finer", "coarser"]))
@settings(max_examples=20, deadline=None)
def test_integrals_over_the_globe_are_conserved(seed, pair):
    source, target = PAIRS[pair]
    field = np.random.default_rng(seed).normal(5, 20, source.shape)
    made = ConservativeRegridder(source, target).apply(field)
    before, after = _integral(source, field), _integral(target, made)
    assert after == pytest.approx(before, rel=1e-12, abs=1e-12)


def test_integrals_of_what_is_there_are_conserved_by_means_and_their_share():
    source, target = PAIRS["coarser"]
    rng = np.random.default_rng(3)
    field = rng.normal(5, 20, source.shape)
    field[rng.random(source.shape) < 0.3] = NAN
    remap = ConservativeRegridder(source, target)
    share = remap.apply(np.isfinite(field).astype(float))
    made = remap.apply(field) * share
    assert _integral(target, made) == pytest.approx(_integral(source, field), rel=1e-12)


@pytest.mark.parametrize("pair", list(PAIRS))
def test_constants_are_exact_also_beside_holes(pair):
    source, target = PAIRS[pair]
    field = np.full((2, 3, *source.shape), 273.15)
    field[..., :3, :7] = NAN
    made = ConservativeRegridder(source, target).apply(field)
    assert made.shape == (2, 3, *target.shape)
    assert made[np.isfinite(made)] == pytest.approx(273.15, rel=1e-14)


def test_a_target_cell_has_a_value_where_the_source_has():
    source, target = _grid([40.0], _centres(0, 4, 4)), _grid([40.0], _centres(0, 4, 2))
    field = np.array([[1.0, NAN, NAN, NAN]])
    remap = ConservativeRegridder(source, target)
    assert np.array_equal(remap.apply(field), [[1, NAN]], equal_nan=True)
    beyond = _grid([40.0], _centres(2, 10, 2))
    half = ConservativeRegridder(source, beyond).apply(np.ones((1, 4)))
    assert np.array_equal(half, [[1, NAN]], equal_nan=True)


def test_longitudes_in_another_turn_are_the_same_place():
    source = _globe(6, 12)
    field = np.random.default_rng(4).random(source.shape)
    lat, lon = _centres(0, 60, 3), _centres(-30, 30, 4)
    near, far = (
        ConservativeRegridder(source, _grid(lat, lon + turn)).apply(field)
        for turn in (0, 720)
    )
    assert near == pytest.approx(far, rel=1e-12)
    assert np.isfinite(near).all()


def test_block_means_are_conservative_remapping_to_the_blocks():
    grid = _grid(_centres(35, 47, 6), _centres(-10, 6, 8))
    field = np.random.default_rng(5).random((3, *grid.shape))
    remap = ConservativeRegridder(grid, coarse_grid(grid, 2))
    means = block_mean(field, 2, weights=cell_areas(grid))
    assert remap.apply(field) == pytest.approx(means, rel=1e-12)


def _rotated(rlat, rlon, turn):
    xyz = unit_vectors(*np.meshgrid(rlat, rlon, indexing="ij")) @ turn.T
    return Grid(
        lat=np.rad2deg(np.arcsin(xyz[..., 2])),
        lon=np.rad2deg(np.arctan2(xyz[..., 1], xyz[..., 0])),
        y_name="rlat",
        x_name="rlon",
        y=rlat,
        x=rlon,
    )


def _tilt(degrees):
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])


def test_rotated_grids_of_one_pole_are_remapped_in_their_own_coordinates():
    fine = _rotated(_centres(-14, -2, 12), _centres(-20, -5, 15), _tilt(50.0))
    coarse = _rotated(_centres(-14, -2, 4), _centres(-20, -5, 5), _tilt(50.0))
    assert rotation(fine) == pytest.approx(_tilt(50.0), abs=1e-9)
    field = np.random.default_rng(6).random(fine.shape)
    plain = [
        _grid(_centres(-14, -2, rows), _centres(-20, -5, columns))
        for rows, columns in ((12, 15), (4, 5))
    ]
    made = ConservativeRegridder(fine, coarse).apply(field)
    assert made == pytest.approx(ConservativeRegridder(*plain).apply(field), rel=1e-12)


def test_grids_whose_cells_have_no_common_bounds_are_refused_with_the_reason():
    regular = _grid(_centres(35, 45, 5), _centres(-5, 5, 5))
    a, b = (
        _rotated(_centres(-5, 5, 5), _centres(-5, 5, 6), _tilt(t)) for t in (50, 52)
    )
    bent = Grid(lat=a.lat + 0.3 * np.sin(a.lon), lon=a.lon, y_name="j", x_name="i")
    for pair, reason in (
        ((regular, a), "one is regular"),
        ((a, b), "poles differ by 2 degrees"),
        ((a, bent), "curvilinear or projected"),
    ):
        with pytest.raises(GridMismatchError, match=reason):
            ConservativeRegridder(*pair)
    with pytest.raises(GridMismatchError, match="not on the source grid"):
        ConservativeRegridder(regular, regular).apply(np.ones((3, 3)))


# -- Oracles ---------------------------------------------------------------------------


def _dataset(grid, field):
    return xr.Dataset(
        {"x": (("lat", "lon"), field, {"units": "1"})},
        coords={
            "lat": ("lat", grid.lat, {"units": "degrees_north"}),
            "lon": ("lon", grid.lon, {"units": "degrees_east"}),
        },
    )


def _patchy(grid):
    """A smooth field with noise and a hole."""
    rng = np.random.default_rng(7)
    field = np.sin(np.deg2rad(3 * grid.lat2d)) * 20 + rng.normal(0, 3, grid.shape)
    field[4:9, 5:12] = NAN
    return field


@pytest.mark.parametrize("pair", list(PAIRS))
def test_remapping_agrees_with_cdo(pair, tmp_path):
    cdo = shutil.which("cdo")
    if cdo is None:
        pytest.skip("cdo is not installed")
    source, target = PAIRS[pair]
    field = _patchy(source)
    given, grid, made = (tmp_path / name for name in ("in.nc", "grid.nc", "out.nc"))
    _dataset(source, field).to_netcdf(given, encoding={"x": {"_FillValue": -999.0}})
    _dataset(target, np.zeros(target.shape)).to_netcdf(grid)
    subprocess.run(
        [cdo, "-s", f"remapcon,{grid}", given, made],
        check=True,
        env=dict(os.environ, CDO_REMAP_NORM="fracarea"),
        capture_output=True,
    )
    with xr.open_dataset(made) as ds:
        expected = ds.x.sel(lat=target.lat, method="nearest").values
    found = ConservativeRegridder(source, target).apply(field)
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    assert np.nanmax(np.abs(found - expected)) < 1e-10


def test_remapping_agrees_with_xarray_regrid():
    pytest.importorskip("xarray_regrid")
    source = _globe(90, 180)
    field = 20 * np.sin(np.deg2rad(3 * source.lat2d)) * np.cos(np.deg2rad(source.lon2d))
    # Over longitudes alone the two are the same; over latitudes the other takes the
    # cosine at cell centres for the area: with rows of 2 degrees, 0.1 % of the field.
    columns, cells = _grid(source.lat, _centres(0, 360, 25)), _globe(17, 25)
    for target, tolerance in ((columns, 1e-12), (cells, 0.03)):
        wanted = _dataset(target, np.zeros(target.shape))
        other = _dataset(source, field).regrid.conservative(
            wanted, latitude_coord="lat"
        )
        found = ConservativeRegridder(source, target).apply(field)
        assert np.abs(found - other.x.values).max() < tolerance
