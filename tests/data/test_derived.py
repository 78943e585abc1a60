"""Derived predictors: analytic flows, hand-computed humidity, real fields."""

from __future__ import annotations

import dask.array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.derived.appending import (
    add_derived,
    derivable,
    long_name,
    read_with_derived,
    required_inputs,
)
from st_cdgm.data.read.readers import read_channels
from st_cdgm.data.space.gradients import (
    EARTH_RADIUS,
    OMEGA,
    geostrophic_wind,
    horizontal_gradient,
    relative_humidity,
)
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import Channel
from st_cdgm.errors import InputError, MissingVariableError

G = 9.80665
LAT, LON = np.arange(36.0, 44.0, 2.0), np.arange(-10.0, 0.0, 2.0)


def january(length):
    """Return the first days of January 2001."""
    number = np.arange(length)
    season = (number / 365).astype(np.float32)
    return CalendarDays(
        day=20010101 + number, ordinal=number, season=season, calendar="standard"
    )


def _grid(lat=LAT, lon=LON):
    return Grid(
        lat=np.asarray(lat, float), lon=np.asarray(lon, float), y_name="y", x_name="x"
    )


def _rotated(rlat, rlon, pole_lat=39.25, pole_lon=-162.0):
    """A rotated-pole grid, from the definition of its pole."""
    b, a = np.deg2rad(np.meshgrid(rlat, rlon, indexing="ij"))
    xyz = np.stack([np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)], -1)
    tilt, turn = np.deg2rad(90 - pole_lat), np.deg2rad(pole_lon + 180)
    lower = np.array(
        [
            [np.cos(tilt), 0, -np.sin(tilt)],
            [0, 1, 0],
            [np.sin(tilt), 0, np.cos(tilt)],
        ]
    )
    spin = np.array(
        [
            [np.cos(turn), -np.sin(turn), 0],
            [np.sin(turn), np.cos(turn), 0],
            [0, 0, 1],
        ]
    )
    x, y, z = np.moveaxis(xyz @ (spin @ lower).T, -1, 0)
    return Grid(
        lat=np.rad2deg(np.arcsin(z)),
        lon=np.rad2deg(np.arctan2(y, x)),
        y_name="rlat",
        x_name="rlon",
        y=np.asarray(rlat, float),
        x=np.asarray(rlon, float),
    )


def _cube(fields, grid=None, units=None):
    """A cube of ``{name: (T, y, x)}`` whose levels are in the names."""
    grid = grid or _grid()
    channels = []
    for name in fields:
        variable, _, level = name.partition("_")
        channels.append(
            Channel(
                name=name,
                variable=variable,
                level=float(level) if level else None,
                units=(units or {}).get(name, "1"),
            )
        )
    stacked = np.stack([np.asarray(f, np.float32) for f in fields.values()], axis=1)
    values = xr.DataArray(
        dask.array.from_array(stacked, chunks=(1, 1, 2, 3)),
        dims=("time", "channel", "y", "x"),
    )
    return ChannelCube(
        channels=tuple(channels),
        grid=grid,
        days=january(len(stacked)),
        values=values,
        file="lr.nc",
    )


def _field(value=1.0, days=2):
    return np.full((days, len(LAT), len(LON)), value)


# -- Geostrophic wind ------------------------------------------------------------------


def _solid_rotation(lat2d, speed=20.0):
    """Geopotential whose geostrophic wind is ``speed * cos(lat)``, eastward."""
    return 5e4 - OMEGA * EARTH_RADIUS * speed * np.sin(np.deg2rad(lat2d)) ** 2


def _wave(lat2d, lon2d):
    """Geopotential of a wave, and its gradient in closed form."""
    phi, lam = np.deg2rad(lat2d), np.deg2rad(lon2d)
    field = 4e3 * np.cos(phi) ** 2 * np.sin(3 * lam + 2 * phi)
    east = 12e3 * np.cos(phi) * np.cos(3 * lam + 2 * phi) / EARTH_RADIUS
    north = -8e3 * np.cos(phi) * np.sin(phi) * np.sin(3 * lam + 2 * phi)
    north = north + 8e3 * np.cos(phi) ** 2 * np.cos(3 * lam + 2 * phi)
    return field, east, north / EARTH_RADIUS


@pytest.mark.parametrize("direction", [1, -1])
def test_solid_rotation_gives_its_wind_whatever_the_order_of_latitudes(direction):
    grid = _grid(lat=np.arange(30.0, 60.0, 0.5)[::direction])
    u, v = geostrophic_wind(grid)(_solid_rotation(grid.lat2d))
    expected = np.broadcast_to(20.0 * np.cos(np.deg2rad(grid.lat2d)), grid.shape)
    assert u == pytest.approx(expected, abs=5e-3)
    assert np.abs(v).max() < 1e-9


def _grids(n):
    """Grids of the same region with n cells a side: even, uneven, rotated, sheared."""
    unit = np.linspace(0, 1, n)
    uneven = unit + 0.2 * unit * (1 - unit)
    sheared = np.meshgrid(35 + 20 * unit, -10 + 20 * unit, indexing="ij")
    bent = Grid(
        lat=sheared[0] + 0.2 * (sheared[1] + 10),
        lon=sheared[1] + 0.3 * (sheared[0] - 35),
        y_name="j",
        x_name="i",
    )
    return {
        "even": _grid(35 + 20 * unit, -10 + 20 * unit),
        "uneven": _grid(35 + 20 * uneven[::-1], -10 + 20 * uneven),
        "rotated": _rotated(-15 + 20 * unit, -20 + 20 * unit),
        "curvilinear": bent,
    }


@pytest.mark.parametrize("kind", ["even", "uneven", "rotated", "curvilinear"])
def test_the_gradient_converges_at_second_order_also_at_the_borders(kind):
    errors = []
    for n in (21, 41, 81):
        grid = _grids(n)[kind]
        field, east, north = _wave(grid.lat2d, grid.lon2d)
        along_x, along_y = horizontal_gradient(grid)(field)
        errors.append(max(np.abs(along_x - east).max(), np.abs(along_y - north).max()))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 1.75).all()
    assert errors[-1] < 0.02 * np.abs(east).max()


def test_a_global_grid_is_periodic_and_missing_at_the_poles():
    grid = _grid(np.arange(-90.0, 91.0, 1.0), np.arange(0.0, 360.0, 1.0))
    field, east, _ = _wave(grid.lat2d, grid.lon2d)
    along_x, along_y = horizontal_gradient(grid)(field)
    assert np.abs(along_x - east)[1:-1].max() < 2e-3 * np.abs(east).max()
    assert np.isnan(along_x[[0, -1]]).all()
    assert np.isfinite(along_y).all()
    turned = _grid(grid.lat, grid.lon[::-1])
    again = horizontal_gradient(turned)(field[:, ::-1])[0]
    assert np.allclose(again[1:-1], along_x[1:-1, ::-1], rtol=1e-9, atol=1e-15)


def test_a_hole_spreads_to_itself_and_its_neighbours_only():
    grid = _grid(np.arange(30.0, 50.0), np.arange(0.0, 20.0))
    field, _, _ = _wave(grid.lat2d, grid.lon2d)
    field[10, 10] = np.nan
    along_x, along_y = horizontal_gradient(grid)(field)
    assert np.argwhere(np.isnan(along_x)).tolist() == [[10, 9], [10, 10], [10, 11]]
    assert np.argwhere(np.isnan(along_y)).tolist() == [[9, 10], [10, 10], [11, 10]]


def test_geostrophic_wind_is_missing_at_the_equator_with_a_warning(caplog):
    grid = _grid(np.arange(-8.0, 9.0, 2.0))
    shape = (1, *grid.shape)
    cube = _cube({"z_850": np.broadcast_to(_solid_rotation(grid.lat2d), shape)}, grid)
    made = add_derived(cube, ["ug_850"])
    assert "within 5 degrees of the equator (56 % of the grid)" in caplog.text
    u = made.values[0, 1].values
    near = np.abs(grid.lat) < 5
    assert np.isnan(u[near]).all()
    assert u[~near] == pytest.approx(
        20 * np.cos(np.deg2rad(grid.lat2d[~near])), rel=0.02
    )


def test_grids_without_geostrophic_wind_are_refused():
    equator = _grid(np.arange(-4.0, 5.0, 2.0))
    cube = _cube({"z_850": np.ones((1, *equator.shape))}, equator)
    with pytest.raises(InputError, match="no geostrophic wind at the equator"):
        add_derived(cube, ["vg_850"])
    row = _grid(lat=[40.0])
    with pytest.raises(InputError, match="single row"):
        horizontal_gradient(row)
    flat = Grid(
        lat=np.full((3, 3), 40.0),
        lon=np.broadcast_to(np.arange(3.0), (3, 3)).copy(),
        y_name="j",
        x_name="i",
    )
    with pytest.raises(InputError, match="without extent"):
        horizontal_gradient(flat)


def test_geopotential_height_gives_the_same_wind_as_geopotential():
    grid = _grid()
    phi = np.broadcast_to(_solid_rotation(grid.lat2d), (2, *grid.shape))
    high = _cube({"zg_850": phi / G}, grid, {"zg_850": "m"})
    low = _cube({"z_850": phi}, grid, {"z_850": "m2 s-2"})
    a, b = (add_derived(cube, ["ug_850"]).values[:, 1].values for cube in (high, low))
    # Heights of 5 km in float32 are known to 0.2 mm, their slope to 2e-9.
    assert a == pytest.approx(b, abs=1e-3)


# -- Thickness, speed, humidity --------------------------------------------------------


def test_thickness_of_the_standard_atmosphere_whatever_the_order():
    # ICAO: 110.9 m at 1000 hPa, 5574.4 m at 500 hPa.
    cube = _cube({"z_500": _field(5574.4 * G), "z_1000": _field(110.9 * G)})
    made = add_derived(cube, ["thickness_1000_500", "thickness_500_1000"])
    assert made.values[:, 2:].values == pytest.approx(5463.5, abs=0.01)
    channel = made.channels[2]
    assert (channel.units, channel.level, channel.derived) == ("m", None, True)
    assert long_name(channel) == "Thickness of the layer 1000 to 500 hPa"


def test_wind_speed_of_three_four_five():
    cube = _cube({"ua_850": _field(-3), "va_850": _field(4)})
    made = add_derived(cube, ["ws_850"])
    assert (made.values[:, 2].values == 5).all()
    assert made.channels[2].standard_name == "wind_speed"


def test_humidity_by_hand():
    # 20 degC: e_s = 6.112 exp(17.67 * 20 / 263.5) = 23.3694 hPa; 850 hPa, 8 g/kg:
    # e = 0.008 * 850 / (0.622 + 0.378 * 0.008) = 10.8796 hPa.
    found = relative_humidity(np.array([0.008]), np.array([293.15]), 850.0)
    assert found.item() == pytest.approx(46.555, abs=0.005)
    dry = relative_humidity(np.array([-1e-5]), np.array([293.15]), 850.0)
    assert dry.item() == 0


@given(
    t=st.floats(243.0, 308.0),
    p=st.floats(200.0, 1050.0),
    humidity=st.floats(0.0, 110.0),
)
@settings(max_examples=50, deadline=None)
def test_humidity_inverts_the_mixing_of_vapour(t, p, humidity):
    vapour = humidity / 100 * 6.112 * np.exp(17.67 * (t - 273.15) / (t - 29.65))
    q = 0.622 * vapour / (p - 0.378 * vapour)
    found = relative_humidity(np.array([q]), np.array([t]), p)
    assert found.item() == pytest.approx(humidity, rel=1e-9, abs=1e-9)


def test_humidity_takes_temperatures_in_degrees_celsius_too():
    fields = {"q_850": _field(0.008), "t_850": _field(20.0)}
    made = add_derived(_cube(fields, units={"t_850": "degC"}), ["hur_850"])
    assert made.values[:, 2].values == pytest.approx(46.555, abs=0.01)
    assert made.channels[2].units == "%"


# -- Names -----------------------------------------------------------------------------

EVERYTHING = {
    "z_850": _field(),
    "u_850": _field(),
    "v_850": _field(),
    "q_850": _field(),
    "t_850": _field(280.0),
    "z_500": _field(),
    "u_500": _field(),
    "psl": _field(),
}


def test_a_name_without_level_means_all_levels_that_have_the_inputs():
    made = add_derived(_cube(EVERYTHING), ["vg", "ws", "hur"])
    assert made.names[len(EVERYTHING) :] == ("vg_850", "vg_500", "ws_850", "hur_850")
    derived = made.channels[len(EVERYTHING) :]
    assert all(channel.derived for channel in derived)
    assert [channel.group for channel in derived] == ["GP850", "GP500"] + ["GP850"] * 2
    assert long_name(derived[0]) == "Northward geostrophic wind at 850 hPa"
    assert made.values.coords["channel"].values.tolist() == list(made.names)


def test_what_can_be_derived_is_listed():
    found = derivable(_cube(EVERYTHING).channels)
    assert found == [
        *("hur_850", "thickness_850_500"),
        *("ug_850", "ug_500", "vg_850", "vg_500", "ws_850"),
    ]


def test_nothing_asked_for_changes_nothing_and_nothing_is_read_before_its_time():
    cube = _cube(EVERYTHING)
    assert add_derived(cube, []) is cube
    made = add_derived(cube, ["ug_850"])
    assert isinstance(made.values.data, dask.array.Array)
    assert made.values.dtype == np.float32
    assert made.values.data.chunks[0] == (1, 1)


@pytest.mark.parametrize("name", ["ug_700", "ws_500", "hur_500", "thickness_850_700"])
def test_an_absent_input_is_a_key_error_that_lists_what_can_be_derived(name):
    with pytest.raises(KeyError, match="ug_850, ug_500") as error:
        add_derived(_cube(EVERYTHING), [name])
    assert name in str(error.value)
    assert "lr.nc" in str(error.value)


@pytest.mark.parametrize("name", ["pv_850", "ug850", "thickness_500_500", "thickness"])
def test_an_unknown_name_is_refused(name):
    with pytest.raises(MissingVariableError, match="thickness_850_500"):
        add_derived(_cube(EVERYTHING), [name])
    with pytest.raises(MissingVariableError):
        required_inputs([name])


def test_a_wild_card_without_any_level_is_refused():
    with pytest.raises(MissingVariableError, match="inputs of a derived predictor"):
        add_derived(_cube({"psl": _field()}), ["ug"])


def test_a_channel_is_not_derived_twice_nor_over_one_of_the_file():
    with pytest.raises(InputError, match="ug_850"):
        add_derived(_cube(EVERYTHING), ["ug_850", "ug"])
    taken = _cube({**EVERYTHING, "ws_850": _field()})
    with pytest.raises(InputError, match="ws_850"):
        add_derived(taken, ["ws_850"])


def test_required_inputs_are_the_least_that_is_needed():
    assert required_inputs(["ug_850", "vg_850", "hur_500", "thickness_1000_500"]) == [
        *("z_850", "q_500", "t_500", "z_1000", "z_500")
    ]
    assert required_inputs(["vg", "thickness_1000_500", "ws"]) == ["z", "u", "v"]


def test_inputs_need_not_be_predictors(tmp_path):
    rng = np.random.default_rng(0)
    days = xr.date_range("2001-01-01", periods=3, use_cftime=True, calendar="noleap")
    shape = (3, 2, len(LAT), len(LON))
    ds = xr.Dataset(
        {
            "zg": (
                ("time", "plev", "lat", "lon"),
                1000 + 100 * rng.random(shape),
                {"units": "m", "standard_name": "geopotential_height"},
            ),
            "psl": (
                ("time", "lat", "lon"),
                1e5 + rng.random((3, *shape[2:])),
                {"units": "Pa", "standard_name": "air_pressure_at_mean_sea_level"},
            ),
        },
        coords={
            "time": days,
            "plev": ("plev", [85000.0, 50000.0], {"units": "Pa"}),
            "lat": ("lat", LAT, {"units": "degrees_north"}),
            "lon": ("lon", LON, {"units": "degrees_east"}),
        },
    )
    path = tmp_path / "lr.nc"
    ds.to_netcdf(path)
    cube = read_with_derived(path, variables=["psl"], derived=["ug_850", "ug_500"])
    assert cube.names == ("psl", "ug_850", "ug_500")
    alone = read_with_derived(path, variables=[], derived=["ug_500"])
    assert alone.names == ("ug_500",)
    assert np.array_equal(alone.load()[:, 0], cube.load()[:, 2])
    everything = read_with_derived(path, derived=["ug_850"])
    assert everything.names == ("zg_850", "zg_500", "psl", "ug_850")
    assert read_with_derived(path, variables=["psl"]).names == ("psl",)
    height = ds.zg.values[:, 0]
    expected, _ = geostrophic_wind(_grid())(height.astype(np.float32) * G)
    assert cube.load()[:, 1] == pytest.approx(expected, rel=1e-3, abs=1e-2)


# -- Real fields -----------------------------------------------------------------------


def test_derived_fields_of_a_real_reanalysis_are_of_the_right_size(real_data):
    cube = read_channels(real_data / "iberia" / "predictors_ncep_r1.nc")
    names = ["ug_500", "vg_500", "thickness_1000_500", "hur_850", "hur_500"]
    values = add_derived(cube, names).load(np.arange(0, 1461, 4))[:, -len(names) :]
    u, v, thickness, *humidity = values.transpose(1, 0, 2, 3)
    assert 5 < u.mean() < 20  # westerlies
    assert abs(v.mean()) < 5
    assert 8 < np.hypot(u, v).mean() < 30
    assert 5400 < thickness.mean() < 5700
    assert 5000 < thickness.min() < thickness.max() < 5950
    for one in humidity:
        assert 25 < one.mean() < 75
        assert ((one >= 0) & (one < 110)).mean() > 0.99


def test_geostrophic_wind_follows_the_wind_of_a_real_reanalysis(real_data):
    with xr.open_dataset(
        real_data / "edge_cases" / "eraint_uvz.nc", decode_cf=False
    ) as ds:
        one = ds.sel(level=500).isel(month=0)
        grid = _grid(one.latitude.values, one.longitude.values)
        z, wind = one.z.values, (one.u.values, one.v.values)
    found = geostrophic_wind(grid)(z)
    middle = (np.abs(grid.lat) > 30) & (np.abs(grid.lat) < 80)
    for component, real in zip(found, wind, strict=True):
        correlation = np.corrcoef(component[middle].ravel(), real[middle].ravel())[0, 1]
        assert correlation > 0.97
