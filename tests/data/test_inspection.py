from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from climate_files import dataset, on_levels, predictors, times, write

from st_cdgm.data.inspect.files import inspect_file
from st_cdgm.data.variables.limits import physical_limits
from st_cdgm.errors import InputError, MissingFileError


def test_report_of_a_sound_file(tmp_path):
    path = write(predictors(5, time=times(6)[[0, 1, 2, 4, 5]]), tmp_path / "a.nc")
    report = inspect_file(path)
    assert report.problems == ()
    assert report.format == "NETCDF4"
    assert report.size_bytes == path.stat().st_size
    assert report.grid is not None
    assert (report.grid.kind, report.grid.shape) == ("regular", (3, 4))
    assert report.grid.lat == (40.0, 45.0)
    assert report.grid.latitude_order == "south to north"
    assert report.time is not None
    assert report.time.first.startswith("2001-01-01")
    assert report.time.gaps == [("2001-01-03", "2001-01-05")]
    assert (report.time.calendar, report.time.step_hours) == ("standard", 24.0)
    first = report.variables[0]
    assert (first.name, first.levels, first.units) == ("t_850", [850.0], "K")
    assert (first.minimum, first.maximum, first.nan_share) == (270.0, 290.0, 0.0)
    assert report.variables[2].canonical_units == "mm day-1"


def test_report_is_valid_json(tmp_path):
    ds = predictors()
    ds["t_500"] = ds.t_500 * np.nan
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    text = json.dumps(report.to_dict(), allow_nan=False)
    empty = json.loads(text)["variables"][1]
    assert (empty["minimum"], empty["maximum"], empty["nan_share"]) == (None, None, 1.0)
    assert any("no values (variable t_500" in p for p in report.problems)


def test_levels_and_missing_share(tmp_path):
    ds = on_levels([85000.0, 50000.0], "Pa")
    ds["psl"] = ds.psl.where(ds.lon < 0).assign_attrs(ds.psl.attrs)
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    by_name = {v.name: v for v in report.variables}
    assert by_name["hus"].levels == [850.0, 500.0]
    assert by_name["psl"].nan_share == 0.5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda ds: ds.drop_vars("lat"), "no latitude and longitude"),
        (lambda ds: ds.isel(time=[0, 0]), "several time stamps"),
        (lambda ds: ds.isel(time=slice(0, 0)), "time axis is empty"),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="K")), "units do not fit"),
        (lambda ds: ds.assign(pr=ds.pr.drop_attrs()), "no units (variable pr)"),
        (lambda ds: ds[[]], "no field on a horizontal grid"),
    ],
)
def test_problems_are_reported_and_do_not_stop(tmp_path, change, problem):
    report = inspect_file(write(change(predictors()), tmp_path / "a.nc"))
    assert any(problem in text for text in report.problems)


def test_static_file_needs_no_time(tmp_path):
    ds = predictors().isel(time=0, drop=True)
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    assert report.time is None
    assert report.problems == ()


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(MissingFileError):
        inspect_file(tmp_path / "a.nc")
    (tmp_path / "b.nc").write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        inspect_file(tmp_path / "b.nc")


def test_zarr(tmp_path):
    predictors().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    report = inspect_file(tmp_path / "a.zarr")
    assert report.format == "Zarr"
    assert report.size_bytes > 0
    assert len(report.variables) == 3


def test_shuffled_values_under_right_coordinates_are_noticed(real_data, tmp_path):
    with xr.open_dataset(real_data / "iberia" / "predictors_ncep_r1.nc") as ds:
        sound = ds[["z_500", "psl"]].isel(time=slice(0, 9)).load()
    assert inspect_file(write(sound, tmp_path / "a.nc")).problems == ()
    order = np.random.default_rng(0).permutation(54)
    shuffled = sound.copy()
    flat = sound.z_500.values.reshape(9, 54)[:, order].reshape(9, 6, 9)
    shuffled["z_500"] = sound.z_500.copy(data=flat)
    (problem,) = inspect_file(write(shuffled, tmp_path / "b.nc")).problems
    assert "rough as shuffled" in problem
    assert "z_500" in problem


@pytest.mark.parametrize(
    ("name", "kind", "problems"),
    [
        # Its T says C and holds kelvin.
        ("uvt.nc", "regular", ["units 'Month'", "the units must be wrong"]),
        ("eraint_uvz.nc", "regular", ["no time coordinate"]),
        ("small_rotPole_precipitation.nc", "rotated_latitude_longitude", []),
        ("tas_day_MIROC6_ssp119_r1i1p1f1_gn_20150101.nc", "regular", []),
    ],
)
def test_real_files(real_data, name, kind, problems):
    report = inspect_file(real_data / "edge_cases" / name)
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.grid is not None
    assert report.grid.kind == kind
    assert len(report.problems) == len(problems)
    for expected, found in zip(problems, report.problems, strict=True):
        assert expected in found
    assert [v.order for v in report.variables if v.order] == []


def test_real_radar(real_data):
    report = inspect_file(real_data / "radar_nl_20100826" / "pr_5min_1km.nc")
    assert report.time is not None
    assert report.time.step_hours == pytest.approx(1 / 12)
    assert report.time.gaps == []
    assert report.problems == ()
    assert "an incomplete day" in verdict(report, "lr").because


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("iberia/predictors_ncep_r1.nc", ["lr"]),
        ("iberia/targets_eobs_050.nc", ["lr", "hr"]),
        ("iberia/static_050.nc", ["static"]),
        ("cordex_iberia/racmo22e_winter.nc", ["lr", "hr"]),
        ("cmip5_iberia/cnrm_cm5_winter.nc", ["lr"]),
    ],
)
def test_real_files_raise_no_false_alarm(real_data, name, roles):
    report = inspect_file(real_data / name)
    assert report.problems == ()
    assert [v.role for v in report.verdicts if v.usable] == roles


# -- What a file can be used for -------------------------------------------------------


def verdict(report, role):
    (found,) = [v for v in report.verdicts if v.role == role]
    return found


LAT, LON = np.arange(40.0, 46.0, 0.5), np.arange(0.0, 7.0, 0.5)


def fine(days, **kwargs):
    """A target file: temperature that varies smoothly, precipitation."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    noise = rng.normal(size=(days, len(LAT), len(LON)))
    smooth = gaussian_filter(noise, (0, 2, 2)).astype(np.float32)
    dims = ("time", "lat", "lon")
    return dataset(
        {
            "tas": xr.DataArray(10 + 20 * smooth, dims=dims, attrs={"units": "degC"}),
            "pr": xr.DataArray(
                np.maximum(50 * smooth, 0), dims=dims, attrs={"units": "mm day-1"}
            ),
        },
        lat=LAT,
        lon=LON,
        **kwargs,
    )


def test_verdicts_on_predictors(tmp_path):
    report = inspect_file(write(predictors(70), tmp_path / "a.nc"))
    assert [v.usable for v in report.verdicts] == [True, False, False]
    lr = verdict(report, "lr")
    assert lr.because == (
        "70 days (2001-01-01..2001-03-11), 3 channels (t_850, t_500, pr), "
        "3 x 4 cells of 2.5 degrees"
    )
    assert "driving model" in verdict(report, "hr").because
    assert "weather" in verdict(report, "static").because


def test_verdicts_on_targets(tmp_path):
    report = inspect_file(write(fine(70), tmp_path / "a.nc"))
    assert verdict(report, "hr").usable
    assert "2 targets (tas, pr)" in verdict(report, "hr").because
    few = inspect_file(write(fine(59), tmp_path / "b.nc"))
    assert not verdict(few, "hr").usable
    assert "59 days: too few" in verdict(few, "hr").because
    assert "too few days to train on" in verdict(few, "lr").because
    small = inspect_file(write(fine(70).isel(lat=slice(0, 7)), tmp_path / "c.nc"))
    assert "7 x 14 cells is too small" in verdict(small, "hr").because
    assert verdict(small, "hr").remedy


def test_verdicts_on_static_fields(tmp_path):
    ds = fine(3).isel(time=0, drop=True).rename(pr="orog", tas="frac")
    ds.orog.attrs = {"units": "m"}
    ds.frac.attrs = {"units": "1"}
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    assert [v.usable for v in report.verdicts] == [False, False, True]
    assert "2 fields without change in time" in verdict(report, "static").because
    # A time axis does no harm, provided that nothing changes along it.
    timed = ds.expand_dims(time=times(3))
    constant = inspect_file(write(timed, tmp_path / "b.nc"))
    assert verdict(constant, "static").usable
    moving = timed * xr.DataArray([1.0, 2.0, 3.0], dims="time")
    moving.orog.attrs, moving.frac.attrs = ds.orog.attrs, ds.frac.attrs
    changing = inspect_file(write(moving, tmp_path / "c.nc"))
    assert not verdict(changing, "static").usable


def test_a_change_in_a_step_that_is_not_looked_at_first_is_found(tmp_path):
    orog = fine(9)[["pr"]].rename(pr="orog").isel(time=[0] * 9)
    orog = orog.assign_coords(time=times(9))
    orog.orog[3] += 1.0
    orog.orog.attrs = {"units": "m"}
    report = inspect_file(write(orog, tmp_path / "a.nc"))
    assert "changes with time" in verdict(report, "static").because


def test_steps_that_are_not_days(tmp_path):
    monthly = xr.date_range("2001-01-01", periods=70, freq="MS", use_cftime=True)
    report = inspect_file(write(fine(70, time=monthly), tmp_path / "a.nc"))
    assert not verdict(report, "lr").usable
    assert "longer than a day" in verdict(report, "lr").because
    hourly = xr.date_range("2001-01-01", periods=240, freq="6h", use_cftime=True)
    report = inspect_file(write(fine(240, time=hourly), tmp_path / "b.nc"))
    assert "60 days made of steps of 6 h" in verdict(report, "hr").because
    assert report.problems == ()


def test_gaps_of_shorter_steps(tmp_path):
    hourly = xr.date_range("2001-01-01", periods=12, freq="6h", use_cftime=True)
    ds = fine(12, time=hourly).isel(time=[0, 1, 2, 3, 6, 7, 8, 9, 10, 11])
    time = inspect_file(write(ds, tmp_path / "a.nc")).time
    assert time.gaps == [("2001-01-01T18:00:00", "2001-01-02T12:00:00")]
    assert time.missing_steps == 2


def test_the_length_of_a_single_step_comes_from_its_bounds(tmp_path):
    ds = fine(1)
    ds["time_bnds"] = (("time", "bnds"), times(31).values[[0, 30]].reshape(1, 2))
    ds.time.attrs["bounds"] = "time_bnds"
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    assert report.time.step_hours == 720.0
    assert "steps of 30 days" in verdict(report, "lr").because


def test_scrambled_fields_are_not_usable(tmp_path):
    ds = fine(70)
    order = np.random.default_rng(0).permutation(len(LAT))
    ds["tas"] = ds.tas.copy(data=ds.tas.values[:, order])
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    (problem,) = report.problems
    assert "variable tas" in problem
    by_name = {v.name: v for v in report.variables}
    assert by_name["tas"].order is not None
    assert by_name["pr"].order is None
    assert [v.usable for v in report.verdicts] == [False] * 3
    assert "not where the coordinates say" in verdict(report, "hr").because


@pytest.mark.parametrize("steps", [3, 70])
def test_soil_moisture_on_land_alone_is_warned_about_and_usable(tmp_path, steps):
    """Rows share few cells with values, and soil keeps its water for weeks."""
    from test_arrangement import soil

    lat, lon = np.arange(35.0, 45.0, 0.5), np.arange(-10.0, 5.0, 0.5)
    for seed in range(5):
        field = soil(np.random.default_rng(seed), steps, memory=5.0)
        da = xr.DataArray(
            field.astype(np.float32),
            dims=("time", "lat", "lon"),
            attrs={"units": "kg m-2", "standard_name": "moisture_content"},
        )
        ds = dataset({"mrsos": da}, lat=lat, lon=lon)
        report = inspect_file(write(ds, tmp_path / f"{seed}.nc"))
        assert report.problems == ()
        assert verdict(report, "lr").usable
        assert report.notes == (
            "62% missing, always in the same cells (variable mrsos)",
        )


def test_a_small_extract_of_very_wide_cells_is_not_condemned(tmp_path):
    lat, lon = np.arange(20.0, 70.0, 11.0), np.arange(-20.0, 30.0, 11.0)
    values = 1e5 + 500.0 * np.random.default_rng(0).normal(size=(70, 5, 5))
    da = xr.DataArray(
        values.astype(np.float32), dims=("time", "lat", "lon"), attrs={"units": "Pa"}
    )
    report = inspect_file(
        write(dataset({"psl": da}, lat=lat, lon=lon), tmp_path / "a.nc")
    )
    assert report.problems == ()
    assert verdict(report, "lr").usable
    (note,) = report.notes
    assert "cannot be judged (variable psl; 25 cells of 11 degrees" in note
    fine = dataset({"psl": da}, lat=lat / 11.0 + 40.0, lon=lon / 11.0)
    (problem,) = inspect_file(write(fine, tmp_path / "b.nc")).problems
    assert "as rough as shuffled values" in problem


def test_exchanged_axes_are_named_with_the_way_back(tmp_path):
    ds = fine(70)
    ds["tas"] = ds.tas.copy(data=ds.tas.values.transpose(0, 2, 1).reshape(ds.tas.shape))
    (problem,) = inspect_file(write(ds, tmp_path / "a.nc")).problems
    assert "latitude and longitude are exchanged in memory" in problem
    assert "values.reshape(14, 12).T" in problem


# -- Values that cannot be true --------------------------------------------------------


def test_values_outside_the_physical_range_have_place_and_date(tmp_path):
    ds = fine(70)
    ds["tas"] = ds.tas.copy()
    ds.tas[5, 3, 4] = -999.0
    ds.tas[6, 3, 4] = -500.0
    ds.tas[6, 2, 1] = 99.0
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    tas = report.variables[0]
    assert tas.outside is not None
    assert (tas.outside.count, tas.outside.steps) == (3, 2)
    assert tas.outside.share == 3 / ds.tas.size
    assert tas.outside.limits == pytest.approx((-103.15, 66.85))
    low, high = tas.outside.worst
    assert low == {
        "value": -999.0,
        "place": {"time": "2001-01-06", "lat": 41.5, "lon": 2.0},
    }
    assert high["place"] == {"time": "2001-01-07", "lat": 41.0, "lon": 0.5}
    (problem,) = report.problems
    assert "variable tas; 3 in 2 fields" in problem
    assert "-999 at time 2001-01-06, lat 41.5, lon 2" in problem
    assert "degC" in problem


def test_a_place_on_levels_names_the_level(tmp_path):
    ds = on_levels([85000.0, 50000.0], "Pa")
    ds["hus"] = ds.hus.copy()
    ds.hus[1, 1, 2, 3] = 0.5
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    (hus,) = [v for v in report.variables if v.name == "hus"]
    assert hus.outside.worst[0]["place"] == {
        "time": "2001-01-02",
        "plev": 50000.0,
        "lat": 45.0,
        "lon": 2.5,
    }


@pytest.mark.parametrize(
    ("units", "name", "value", "outside"),
    [
        ("K", "tas", 169.0, True),
        ("K", "tas", 171.0, False),
        ("degC", "tas", 66.0, False),
        ("degC", "tas", 68.0, True),
        ("K", "ta", 169.0, False),
        ("Pa", "psl", 8.2e4, True),
        ("hPa", "psl", 1050.0, False),
        ("hPa", "psl", 1120.0, True),
        ("Pa", "ps", 3e4, False),
        ("mm day-1", "pr", -1e-20, False),
        ("mm day-1", "pr", -1.0, True),
        ("mm day-1", "pr", 1900.0, False),
        ("kg m-2 s-1", "pr", 2100.0 / 86400.0, True),
        ("m", "pr", 1.9, False),
        ("%", "hurs", 150.0, False),
        ("%", "hurs", 250.0, True),
        ("kg kg-1", "huss", 0.07, True),
        ("g kg-1", "huss", 40.0, False),
        ("m", "orog", 8800.0, False),
        ("%", "sftlf", 101.0, True),
        ("m s-1", "uas", 151.0, True),
        ("1", "something", 1e30, False),
        ("furlong", "tas", 1e30, False),
    ],
)
def test_physical_limits(units, name, value, outside):
    da = xr.DataArray([0.0], dims="x", name=name, attrs={"units": units})
    limits = physical_limits(da, 24.0)
    beyond = limits is not None and not limits[0] <= value <= limits[1]
    assert beyond is outside


def test_limits_of_rain_depend_on_the_length_of_a_step():
    """The envelope of observed rain: 422 mm in one hour, 1900 mm in a day."""
    amount = xr.DataArray([0.0], dims="x", name="pr", attrs={"units": "mm"})
    rate = amount.assign_attrs(units="mm day-1")
    assert 422.0 < physical_limits(amount, 1.0)[1] < 480.0
    assert 1900.0 < physical_limits(amount, 24.0)[1] < 2100.0
    assert physical_limits(rate, 1.0)[1] == pytest.approx(
        24.0 * physical_limits(amount, 1.0)[1]
    )


@pytest.mark.parametrize(
    ("where", "missing", "share"),
    [
        (None, "nowhere", 0.0),
        ((slice(None), slice(0, 6)), "always in the same cells", 0.5),
        ((slice(0, 35), slice(0, 6)), "in changing cells", 0.25),
    ],
)
def test_where_values_are_missing(tmp_path, where, missing, share):
    ds = fine(70)
    ds["tas"] = ds.tas.copy()
    if where is not None:
        ds.tas[where] = np.nan
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    assert report.variables[0].missing == missing
    assert report.variables[0].nan_share == share
    assert report.problems == ()
