from __future__ import annotations

import numpy as np
import pytest
from climate_files import dataset, field, on_levels, predictors, times, write

from st_cdgm.data.read.readers import read_channels, read_static, read_targets
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.windows import window_index
from st_cdgm.errors import GridMismatchError, InputError, MissingVariableError


def test_channels_of_a_file(tmp_path):
    ds = predictors(5)
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    assert cube.names == ("t_850", "t_500", "pr")
    assert [c.group for c in cube.channels] == ["GP850", "GP500", "SURF"]
    assert [c.units for c in cube.channels] == ["K", "K", "mm day-1"]
    assert cube.values.dims == ("time", "channel", "y", "x")
    assert cube.values.shape == (5, 3, 3, 4)
    assert cube.values.dtype == np.float32
    assert cube.values.chunks is not None
    assert cube.days.period() == "2001-01-01..2001-01-05"
    np.testing.assert_allclose(cube.load()[:, 2], ds.pr * 86400, rtol=1e-6)
    np.testing.assert_allclose(cube.load(np.array([3]))[0, 0], ds.t_850[3], rtol=1e-6)


def test_dimension_order_of_the_file_does_not_matter(tmp_path):
    ds = predictors(5)
    path = write(ds.transpose("lon", "time", "lat"), tmp_path / "a.nc")
    cube = read_channels(path, variables=["t_500"])
    assert cube.values.shape == (5, 1, 3, 4)
    np.testing.assert_array_equal(cube.load()[:, 0], ds.t_500)


def test_d10_levels_become_channels_in_canonical_units(tmp_path):
    path = write(on_levels([85000.0, 50000.0], "Pa"), tmp_path / "a.nc")
    cube = read_channels(path, variables=["hus", "psl"])
    assert cube.names == ("hus_850", "hus_500", "psl")
    assert cube.channels[0].units == "kg kg-1"
    np.testing.assert_allclose(cube.load()[:, 1], 1e-3, rtol=1e-6)


def test_targets_are_in_degrees_celsius_with_their_attributes(tmp_path):
    tasmax = field(
        280.0, 300.0, units="K", cell_methods="time: maximum", long_name="Tx"
    )
    pr = field(0.0, 1e-3, units="kg m-2 s-1", standard_name="precipitation_flux")
    cube = read_targets(write(dataset({"tasmax": tasmax, "pr": pr}), tmp_path / "a.nc"))
    first, second = cube.targets
    assert (first.name, first.units, first.long_name) == ("tasmax", "degC", "Tx")
    assert first.cell_methods == "time: maximum"
    assert (second.units, second.standard_name) == (
        "mm day-1",
        "lwe_precipitation_rate",
    )
    assert cube.values.dims == ("time", "variable", "y", "x")
    np.testing.assert_allclose(cube.load()[:, 0], tasmax - 273.15, atol=3e-5)


def test_missing_cells_stay_missing(tmp_path):
    ds = predictors()
    ds["pr"] = ds.pr.where(ds.lon < 0).assign_attrs(ds.pr.attrs)
    loaded = read_targets(write(ds, tmp_path / "a.nc"), variables=["pr"]).load()
    assert np.isnan(loaded[..., 2:]).all()
    assert np.isfinite(loaded[..., :2]).all()


def test_unknown_variable(tmp_path):
    path = write(predictors(), tmp_path / "a.nc")
    with pytest.raises(MissingVariableError) as caught:
        read_channels(path, variables=["q_850"])
    facts = caught.value.facts
    assert facts["file"] == str(path)
    assert facts["variable"] == "q_850"
    assert facts["found"] == "t_850, t_500, pr"


@pytest.mark.parametrize("reader", [read_channels, read_targets])
def test_variable_without_any_value(tmp_path, reader):
    ds = predictors()
    ds["t_500"] = ds.t_500 * np.nan
    ds["t_500"].attrs["units"] = "K"
    path = write(ds, tmp_path / "a.nc")
    with pytest.raises(InputError, match="has no values") as caught:
        reader(path)
    assert caught.value.facts["variable"] == "t_500"
    assert reader(path, variables=["t_850"]).names == ("t_850",)


def test_values_outside_the_probed_days_are_found(tmp_path):
    ds = predictors(9)
    ds["t_850"] = ds.t_850.where(ds.time.dt.day == 3).assign_attrs(units="K")
    cube = read_channels(write(ds, tmp_path / "a.nc"), variables=["t_850"])
    assert np.isfinite(cube.load()).any(axis=(1, 2, 3)).tolist() == [
        False, False, True, False, False, False, False, False, False
    ]  # fmt: skip
    with pytest.raises(InputError, match="has no values"):
        cube.load(slice(4, 9))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda ds: ds.isel(time=slice(0, 0)), "time axis is empty"),
        (lambda ds: ds.isel(time=[0, 0, 1]), "several time stamps"),
        (lambda ds: ds.isel(time=[1, 0]), "not in order"),
        (lambda ds: ds.drop_vars(["lat", "lon"]), "no latitude and longitude"),
        (lambda ds: ds.isel(time=0, drop=True), "no time coordinate"),
        (lambda ds: ds.drop_vars(list(ds.data_vars)), "no field with a time axis"),
        (lambda ds: ds.expand_dims(member=2), "further dimension"),
        (
            lambda ds: ds.assign(pr=ds.pr.drop_attrs() * 100.0),
            "units are missing",
        ),
    ],
)
def test_unusable_files(tmp_path, change, problem):
    path = write(change(predictors()), tmp_path / "a.nc")
    with pytest.raises(InputError, match=problem) as caught:
        read_channels(path)
    facts = caught.value.facts
    assert facts["file"] == str(path)
    assert facts["found"]
    assert facts["expected"]


def test_wrong_units_label(tmp_path):
    ds = predictors()
    ds["t_850"].attrs["units"] = "degC"  # the values are kelvin
    with pytest.raises(InputError, match="contradict their units") as caught:
        read_channels(write(ds, tmp_path / "a.nc"))
    assert caught.value.facts["variable"] == "t_850"


def test_a_single_member_axis_is_dropped(tmp_path):
    path = write(predictors().expand_dims(member=1), tmp_path / "a.nc")
    assert read_channels(path).values.shape == (4, 3, 3, 4)


def test_variables_on_two_grids(tmp_path):
    ds = predictors()
    ds["u_850"] = (
        ("time", "lat_u", "lon"),
        np.ones((4, 2, 4), np.float32),
        {"units": "m s-1"},
    )
    ds = ds.assign_coords(
        lat_u=("lat_u", [41.0, 43.0], {"standard_name": "latitude"}),
    )
    path = write(ds, tmp_path / "a.nc")
    with pytest.raises(InputError, match="different grids") as caught:
        read_channels(path)
    assert caught.value.facts["variable"] == "u_850"
    assert read_channels(path, variables=["u_850"]).grid.shape == (2, 4)


def test_damage_behind_the_header_is_reported_with_the_variable(tmp_path):
    ds = predictors(400)
    coding = {n: {"zlib": True, "chunksizes": (50, 3, 4)} for n in ds.data_vars}
    path = tmp_path / "a.nc"
    ds.to_netcdf(path, encoding=coding)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_channels(path).load()
    assert caught.value.facts["file"] == path or caught.value.facts["file"] == str(path)


def test_an_anomaly_in_kelvin_is_no_temperature(tmp_path):
    anomaly = field(-3.0, 3.0, units="K", standard_name="air_temperature_anomaly")
    cube = read_targets(write(dataset({"tas": anomaly}), tmp_path / "a.nc"))
    assert cube.targets[0].units == "K"
    np.testing.assert_allclose(cube.load()[:, 0], anomaly, rtol=1e-6)


# -- Static fields ---------------------------------------------------------------------


@pytest.fixture
def grid() -> Grid:
    return read_grid(predictors())


def static(**extra):
    ds = predictors().isel(time=0, drop=True)[["pr"]].drop_vars("pr")
    ds["orog"] = (("lat", "lon"), np.arange(12.0).reshape(3, 4), {"units": "m"})
    ds["sftlf"] = (
        ("lat", "lon"),
        np.linspace(0, 100, 12).reshape(3, 4),
        {"units": "%"},
    )
    return ds.assign(extra)


def test_static_fields(tmp_path, grid):
    path = write(static(), tmp_path / "s.nc")
    names, values = read_static(path, grid=grid)
    assert names == ("orog", "sftlf")
    assert values.shape == (2, 3, 4)
    assert values.dtype == np.float32
    assert values[1].max() == 1.0
    names, values = read_static(path, variables=("sftlf", "orog"), grid=grid)
    assert names == ("sftlf", "orog")


def test_d39_an_empty_list_takes_no_static_field(tmp_path, grid):
    names, values = read_static(
        write(static(), tmp_path / "s.nc"), variables=[], grid=grid
    )
    assert names == ()
    assert values.shape == (0, 3, 4)


def test_d39_a_further_axis_gives_one_field_per_entry(tmp_path, grid):
    shares = np.arange(36.0).reshape(3, 4, 3)
    ds = static(frac=(("lat", "lon", "type"), shares, {"units": "1"}))
    ds = ds.assign_coords(type=[1, 2, 7])
    names, values = read_static(
        write(ds, tmp_path / "s.nc"), variables=["frac"], grid=grid
    )
    assert names == ("frac_1", "frac_2", "frac_7")
    np.testing.assert_array_equal(values[1], shares[:, :, 1])


def test_a_constant_time_axis_is_dropped_and_a_changing_field_refused(tmp_path, grid):
    still = static()[["orog"]].expand_dims(time=times(3))
    names, values = read_static(write(still, tmp_path / "s.nc"), grid=grid)
    assert names == ("orog",)
    assert values.shape == (1, 3, 4)
    moving = still + still.time.dt.day
    moving["orog"].attrs["units"] = "m"
    moving = moving.transpose("lat", "time", "lon")
    with pytest.raises(InputError, match="changes with time") as caught:
        read_static(write(moving, tmp_path / "m.nc"), grid=grid)
    assert "3 time steps" in caught.value.facts["found"]


def test_static_on_another_grid(tmp_path, grid):
    ds = static()
    upside = write(ds.isel(lat=slice(None, None, -1)), tmp_path / "u.nc")
    with pytest.raises(GridMismatchError, match="opposite latitude order"):
        read_static(upside, grid=grid)
    with pytest.raises(GridMismatchError, match="another shape"):
        read_static(write(ds.isel(lon=slice(0, 3)), tmp_path / "c.nc"), grid=grid)


def test_static_missing_or_empty(tmp_path, grid):
    path = write(static(), tmp_path / "s.nc")
    with pytest.raises(MissingVariableError) as caught:
        read_static(path, variables=["slope"], grid=grid)
    assert caught.value.facts["found"] == "orog, sftlf"
    void = write(
        static(void=(("lat", "lon"), np.full((3, 4), np.nan))), tmp_path / "v.nc"
    )
    with pytest.raises(InputError, match="has no values"):
        read_static(void, grid=grid)


# -- Real files ------------------------------------------------------------------------


def test_real_predictors_and_targets(real_data):
    lr = read_channels(real_data / "iberia" / "predictors_ncep_r1.nc")
    hr = read_targets(real_data / "iberia" / "targets_eobs_050.nc")
    assert len(lr.channels) == 12
    assert {c.group for c in lr.channels} == {"GP1000", "GP850", "GP500", "SURF"}
    assert lr.grid.contains(hr.grid)
    np.testing.assert_array_equal(lr.days.day, hr.days.day)
    assert lr.days.gaps() == [("1999-12-31", "2001-01-01")]
    land = np.isfinite(hr.load(slice(0, 50))).all(axis=(0, 1))
    assert land.sum() == 289
    names, values = read_static(real_data / "iberia" / "static_050.nc", grid=hr.grid)
    assert names == ("orog", "orog_std", "sftlf")
    assert np.isfinite(values).all()


def test_real_rotated_pole(real_data):
    cube = read_targets(real_data / "cordex_iberia" / "racmo22e_winter.nc")
    assert cube.grid.kind == "rotated_latitude_longitude"
    assert cube.grid.lat.shape == (28, 30)
    assert [t.units for t in cube.targets] == ["mm day-1", "degC"]
    assert np.isfinite(cube.load(slice(0, 20))).all()


def test_real_gcm_has_the_units_of_the_reanalysis(real_data):
    """kg m-2 s-1 of a GCM and mm/day of the reanalysis end in one unit."""
    wanted = ["q_850", "t_850", "psl", "tas", "pr"]
    gcm = read_channels(
        real_data / "cmip5_iberia" / "cnrm_cm5_winter.nc", variables=wanted
    )
    path = real_data / "iberia_winter_025" / "predictors_ncep_r1.nc"
    ncep = read_channels(path, variables=wanted)
    assert [c.units for c in gcm.channels] == [c.units for c in ncep.channels]
    ratio = gcm.load().mean(axis=(0, 2, 3)) / ncep.load().mean(axis=(0, 2, 3))
    assert ((ratio > 0.6) & (ratio < 1.6)).all()


def test_real_tiny_negative_precipitation_is_kept(real_data):
    cube = read_channels(real_data / "edge_cases" / "pr_day_EC-Earth3*.nc")
    assert -1e-15 < cube.load().min() < 0.0


def test_real_tasks_load(real_data):
    """Files of the daily tasks, and the winters with their gaps."""
    cubes = {
        "b": read_targets(real_data / "iberia_winter_025" / "targets_eobs_025.nc"),
        "c": read_targets(real_data / "cordex_iberia" / "racmo22e_winter.nc"),
        "gcm": read_channels(real_data / "cmip5_iberia" / "cnrm_cm5_winter.nc"),
    }
    for cube in cubes.values():
        gaps = cube.days.gaps()
        assert gaps
        assert all(b.endswith("-12-01") for _, b in gaps)
        ordinal = cube.days.ordinal
        for window in window_index(ordinal, 6):
            assert ordinal[window[-1]] - ordinal[window[0]] == 5


def test_coordinates_are_found_once_per_file(tmp_path, monkeypatch):
    from st_cdgm.data.files import layouts
    from st_cdgm.data.files import open as opening
    from st_cdgm.data.space import coordinates

    path, calls = write(predictors(5), tmp_path / "a.nc"), []

    def counted(ds):
        calls.append(ds)
        return found(ds)

    found = coordinates.locate
    for module in (coordinates, layouts, opening):
        monkeypatch.setattr(module, "locate", counted)
    read_channels(path)
    assert len(calls) == 1
    later = predictors(3).assign_coords(time=times(3, start="2001-01-06"))
    read_channels([path, write(later, tmp_path / "b.nc")])
    assert len(calls) == 4  # what is in the joined data set is found again


def test_channels_carry_what_all_attributes_of_the_file_tell(tmp_path, caplog):
    tas = field(280.0, 300.0, units="K", standard_name="air_temperature")
    spread = field(0.0, 9.0, units="K", standard_name="air_temperature")
    spread.attrs["cell_methods"] = "time: range"
    path = write(dataset({"tas": tas, "dtr": spread}), tmp_path / "a.nc")
    for cube in (read_channels(path), read_targets(path)):
        known, unknown = (variable.quantity for variable in cube.variables)
        assert known is not None
        assert (known.key, unknown) == ("temperature", None)
        cube.load()
    assert "outside" not in caplog.text  # a range of 0 K is no temperature
