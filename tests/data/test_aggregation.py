"""Steps shorter than a day: daily values, incomplete days, native steps."""

from __future__ import annotations

import shutil
import subprocess

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from climate_files import LAT, LON, write
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.read.readers import read_channels, read_targets
from st_cdgm.data.time.calendar import CalendarDays, shared_steps
from st_cdgm.data.time.daily import daily_method
from st_cdgm.data.time.steps import time_steps
from st_cdgm.errors import ConfigError, InputError

CALENDARS = ["standard", "noleap", "360_day", "julian"]
NAMES = {
    "tas": {"units": "K", "cell_methods": "time: point"},
    "tasmax": {"units": "K", "cell_methods": "time: maximum"},
    "tasmin": {"units": "K"},
    "psl": {"units": "Pa"},
    "pr": {"units": "mm", "cell_methods": "time: sum"},
}


def stamps(count, *, hours=6, start="2001-02-26", calendar="standard", first=0):
    origin = f"hours since {start}"
    return cftime.num2date((first + np.arange(count)) * hours, origin, calendar)


def subdaily(time, names=NAMES, seed=0) -> xr.Dataset:
    """Random fields of float64 with plausible values."""
    rng = np.random.default_rng(seed)
    shape = (len(time), len(LAT), len(LON))
    scale = {"psl": (1.0e5, 500.0), "pr": (1.0, 0.2)}
    fields = {}
    for name, attrs in names.items():
        mean, spread = scale.get(name, (280.0, 5.0))
        values = mean + spread * rng.standard_normal(shape)
        fields[name] = (("time", "lat", "lon"), values, attrs)
    coords = {
        "time": list(time),
        "lat": ("lat", LAT, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", LON, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.Dataset(fields, coords=coords)


def with_bounds(ds: xr.Dataset, hours: float, *, before: float) -> xr.Dataset:
    """Add steps of ``hours`` that begin ``before`` hours before their stamp."""
    begin = ds.time.values - pd.Timedelta(hours=before).to_pytimedelta()
    end = begin + pd.Timedelta(hours=hours).to_pytimedelta()
    ds = ds.assign_coords(time_bnds=(("time", "nv"), np.stack([begin, end], axis=1)))
    ds.time.attrs["bounds"] = "time_bnds"
    ds.time.encoding["units"] = "minutes since 2001-01-01"
    return ds


def axis(time) -> xr.DataArray:
    return xr.DataArray(np.asarray(time), dims="time", name="time")


# -- Against xarray, pandas and cdo ----------------------------------------------------


@pytest.mark.parametrize("calendar", CALENDARS)
@pytest.mark.parametrize("hours", [1, 3, 6])
def test_days_equal_those_of_xarray(tmp_path, calendar, hours):
    """The end of February of every calendar; one file."""
    ds = subdaily(stamps(6 * 24 // hours, hours=hours, calendar=calendar))
    cube = read_channels(write(ds, tmp_path / "a.nc"), variables=list(NAMES))
    days = ds.resample(time="1D")
    expected = {
        "tas": days.mean().tas,
        "tasmax": days.max().tasmax,
        "tasmin": days.min().tasmin,
        "psl": days.mean().psl,
        "pr": days.sum().pr,
    }
    wanted = np.stack([expected[name] for name in cube.names], axis=1)
    np.testing.assert_allclose(cube.load(), wanted, rtol=2e-7)
    assert [c.units for c in cube.channels] == ["K", "K", "K", "Pa", "mm day-1"]
    assert cube.days.iso() == [str(t)[:10] for t in expected["tas"].time.values]
    assert (np.diff(cube.days.ordinal) == 1).all()
    assert cube.days.step_seconds == 86400


def test_days_equal_those_of_pandas(tmp_path):
    ds = subdaily(stamps(5 * 8, hours=3))
    cube = read_targets(write(ds, tmp_path / "a.nc"), variables=["tasmax", "pr"])
    index = pd.date_range("2001-02-26", periods=40, freq="3h")
    flat = {n: pd.DataFrame(ds[n].values.reshape(40, -1), index) for n in cube.names}
    highest = flat["tasmax"].resample("D").max().to_numpy() - 273.15
    loaded = cube.load().reshape(5, 2, -1)
    np.testing.assert_allclose(loaded[:, 0], highest, atol=2e-6)
    np.testing.assert_allclose(
        loaded[:, 1], flat["pr"].resample("D").sum().to_numpy(), rtol=2e-7
    )
    assert cube.targets[0].cell_methods == "time: maximum"
    assert cube.targets[1].cell_methods == "time: sum"


@pytest.mark.skipif(shutil.which("cdo") is None, reason="cdo is not installed")
@pytest.mark.parametrize("calendar", ["standard", "noleap", "360_day"])
def test_days_equal_those_of_cdo(tmp_path, calendar):
    """Several files, read as one record."""
    time = stamps(8 * 8, hours=3, calendar=calendar)
    ds = subdaily(time)
    parts = [slice(0, 20), slice(20, 48), slice(48, 64)]  # borders within a day
    for number, part in enumerate(parts):
        write(ds.isel(time=part), tmp_path / f"part{number}.nc")
    whole = write(ds, tmp_path / "whole.nc")
    cube = read_channels(tmp_path / "part*.nc", variables=list(NAMES))
    loaded = dict(zip(cube.names, cube.load().swapaxes(0, 1), strict=True))
    operators = {"tas": "mean", "tasmax": "max", "tasmin": "min", "pr": "sum"}
    for name, operator in operators.items():
        out = tmp_path / f"{name}.nc"
        command = ["cdo", "-s", "-b", "F64", f"day{operator}", f"-selname,{name}"]
        subprocess.run([*command, str(whole), str(out)], check=True)
        with xr.open_dataset(out, decode_times=False) as made:
            np.testing.assert_allclose(loaded[name], made[name].values, rtol=2e-7)
    assert len(cube.days) == 8


@settings(max_examples=25, deadline=None)
@given(
    hours=st.sampled_from([1, 2, 3, 4, 6, 8, 12]),
    calendar=st.sampled_from(CALENDARS),
    start=st.integers(0, 60_000),
    first=st.integers(0, 30),
    count=st.integers(50, 200),
)
def test_complete_days_and_only_these_are_kept(hours, calendar, start, first, count):
    """Every kept day has all its steps, in order; every left out day misses one."""
    day = cftime.num2date(start, "days since 1900-01-01", calendar)
    time = stamps(count, hours=hours, start=f"{day:%Y-%m-%d}", calendar=calendar)[
        first:
    ]
    if len(time) * hours < 49 or time[0].hour == hours:
        return
    steps = time_steps(axis(time))
    index = np.arange(len(time)) if steps.index is None else steps.index
    dates = [f"{t:%Y-%m-%d}" for t in time]
    kept = [dates[i] for i in index]
    assert kept == [d for d in steps.days.iso() for _ in range(24 // hours)]
    for date in set(dates):
        assert (dates.count(date) == 24 // hours) == (date in kept)


# -- Which step belongs to which day ---------------------------------------------------


def test_with_bounds_a_step_belongs_to_the_day_on_which_it_begins(tmp_path):
    """Amounts stamped at the end of the step: 00:00 closes the day before."""
    ds = subdaily(stamps(16, hours=3, first=1), {"pr": NAMES["pr"]})
    cube = read_channels(write(with_bounds(ds, 3, before=3), tmp_path / "a.nc"))
    assert cube.days.iso() == ["2001-02-26", "2001-02-27"]
    wanted = ds.pr.values.reshape(2, 8, *ds.pr.shape[1:]).sum(axis=1)
    np.testing.assert_allclose(cube.load()[:, 0], wanted, rtol=2e-7)


def test_bounds_of_twelve_hours_stamped_at_their_end(tmp_path):
    ds = subdaily(stamps(4, hours=12, first=1), {"pr": NAMES["pr"]})
    cube = read_channels(write(with_bounds(ds, 12, before=12), tmp_path / "a.nc"))
    assert cube.days.iso() == ["2001-02-26", "2001-02-27"]


def test_stamps_from_one_step_after_midnight_to_midnight_end_their_steps(caplog):
    steps = time_steps(axis(stamps(16, hours=3, first=1)), file="a.nc")
    assert steps.days.iso() == ["2001-02-26", "2001-02-27"]
    assert steps.index is None
    assert "the end of its step" in caplog.text


def test_other_stamps_without_bounds_count_on_their_own_day(caplog):
    steps = time_steps(axis(stamps(17, hours=3)), file="a.nc")
    assert steps.days.iso() == ["2001-02-26", "2001-02-27"]
    assert "2001-02-28 (1 of 8)" in caplog.text


def test_amounts_over_overlapping_steps_are_refused(tmp_path):
    """Totals since the start of a forecast must not be added up."""
    names = {"pr": NAMES["pr"], "tas": NAMES["tas"]}
    ds = with_bounds(subdaily(stamps(16, hours=3), names), 6, before=6)
    path = write(ds, tmp_path / "a.nc")
    for step in ("daily", "native"):
        with pytest.raises(InputError, match="overlap") as caught:
            read_channels(path, time_step=step)
        assert caught.value.facts["variable"] == "pr"
    assert len(read_channels(path, variables=["tas"]).days) == 2


def test_an_hour_that_is_no_exact_share_of_a_day(tmp_path):
    """Stamps that are off by milliseconds still fall on their hours."""
    ds = subdaily(stamps(48, hours=1), {"tas": NAMES["tas"]})
    ds["time"] = (
        "time",
        np.arange(48) / 24.0 + 1e-7,
        {"units": "days since 2001-02-26", "calendar": "noleap"},
    )
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    assert cube.days.iso() == ["2001-02-26", "2001-02-27"]


# -- Days that miss steps --------------------------------------------------------------


def test_an_incomplete_day_is_dropped_at_the_ends_and_a_gap_inside(tmp_path, caplog):
    time = stamps(4 * 6)
    keep = np.r_[2:9, 10:22]  # 1st, 3rd and 6th day miss steps
    ds = subdaily(time).isel(time=keep)
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    assert cube.days.iso() == ["2001-02-27", "2001-03-01", "2001-03-02"]
    assert cube.days.gaps() == [("2001-02-27", "2001-03-01")]
    assert (
        "2001-02-26 (2 of 4), 2001-02-28 (3 of 4), 2001-03-03 (2 of 4)" in caplog.text
    )
    assert "1 of 3 inside" in caplog.text
    whole = subdaily(time).tas.values
    wanted = [whole[4 * d : 4 * d + 4].mean(axis=0) for d in (1, 3, 4)]
    tas = cube.load()[:, cube.names.index("tas")]
    np.testing.assert_allclose(tas, wanted, rtol=2e-7)


@pytest.mark.parametrize("name", list(NAMES))
def test_a_missing_step_makes_the_day_missing_at_that_cell(tmp_path, name):
    """No silent sum, mean or extreme of the other steps."""
    ds = subdaily(stamps(8), {name: NAMES[name]})
    ds[name][5, 1, 2] = np.nan
    loaded = read_channels(write(ds, tmp_path / "a.nc")).load()
    assert np.argwhere(np.isnan(loaded)).tolist() == [[1, 0, 1, 2]]


@pytest.mark.parametrize(
    ("time", "problem", "found"),
    [
        (stamps(3), "incomplete day", "3 of 4 steps on 2001-02-26"),
        (stamps(8)[[0, 1, 1, 2, 3]], "several time stamps are the same", "06:00"),
        (stamps(8)[[0, 2, 1, 3]], "not in order", "12:00:00 followed by"),
        (stamps(9, hours=1)[[0, 1, 2, 3]], "incomplete day", "4 of 24"),
        (stamps(9, hours=7), "does not divide a day", "7 h"),
        (
            np.r_[stamps(8), stamps(3, hours=5, start="2001-03-01")],
            "irregular",
            "mostly 6 h, but 5 h from 2001-03-01 00:00:00 to 2001-03-01 05:00:00",
        ),
    ],
)
def test_unusable_steps(time, problem, found):
    with pytest.raises(InputError, match=problem) as caught:
        time_steps(axis(time), file="a.nc")
    assert found in str(caught.value.facts["found"])
    assert caught.value.facts["remedy"]


def test_a_second_stamp_on_one_day_of_a_daily_record_makes_no_half_days():
    time = np.sort(np.r_[stamps(9, hours=24), stamps(1, start="2001-02-28", first=2)])
    with pytest.raises(InputError, match="several time stamps fall on one day"):
        time_steps(axis(np.r_[time[:3], time[3:4].repeat(1), time[3:]]))
    odd = np.r_[stamps(9, hours=24)[:3], stamps(1, start="2001-02-28", first=2)]
    odd = np.r_[odd, stamps(9, hours=24)[3:]]
    with pytest.raises(InputError, match="fall on one day"):
        time_steps(axis(odd))
    with pytest.raises(InputError, match="irregular"):
        time_steps(axis(odd), time_step="native")


# -- Which method ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attrs", "method"),
    [
        ("tas", {"cell_methods": "time: mean"}, "mean"),
        ("tas", {"cell_methods": "area: mean time: max (interval: 5 min)"}, "maximum"),
        ("tas", {"cell_methods": "time: lat: lon: min"}, "minimum"),
        ("tasmax", {"cell_methods": "area: mean"}, "maximum"),
        ("tasmax", {"cell_methods": "time: mean"}, "mean"),
        ("tn", {}, "minimum"),
        ("t_850", {"cell_methods": "time: point"}, "mean"),
        ("pr", {"units": "mm"}, "sum"),
        ("tp", {"units": "m"}, "sum"),
        ("pr", {"units": "kg m-2 s-1"}, "mean"),
        ("rsds", {"units": "W m-2"}, "mean"),
        ("ssrd", {"units": "J m-2"}, "sum"),
        ("x", {"standard_name": "runoff_amount", "units": "kg m-2"}, "sum"),
        ("snw", {"standard_name": "surface_snow_amount", "units": "kg m-2"}, "mean"),
        ("sund", {"standard_name": "duration_of_sunshine", "units": "s"}, "sum"),
    ],
)  # fmt: skip
def test_method_of_a_variable(name, attrs, method):
    assert daily_method(name, attrs) == method


@pytest.mark.parametrize(
    "attrs",
    [
        {"cell_methods": "time: range"},
        {"cell_methods": "time: standard_deviation"},
        {"standard_name": "wind_from_direction"},
    ],
)
def test_what_has_no_daily_value_is_refused(attrs):
    with pytest.raises(InputError, match="no daily value") as caught:
        daily_method("x", attrs, file="a.nc")
    assert caught.value.facts["variable"] == "x"


@pytest.mark.parametrize(
    ("units", "methods", "factor"),
    [
        ("mm", "time: sum", 4.0),
        ("kg m-2", None, 4.0),
        ("m", None, 4000.0),
        ("kg m-2", "time: mean", 4.0),
        ("kg m-2 s-1", "time: mean", 86400.0),
        ("mm day-1", "time: sum", 1.0),
        ("mm h-1", None, 24.0),
    ],
)
def test_precipitation_per_day_from_any_units(tmp_path, units, methods, factor):
    """Constant precipitation: the day's sum is known in closed form."""
    attrs = {"units": units} | ({"cell_methods": methods} if methods else {})
    ds = subdaily(stamps(8), {"pr": attrs})
    ds["pr"] = xr.full_like(ds.pr, 2.0 / factor)
    path = write(ds, tmp_path / "a.nc")
    for step in ("daily", "native"):
        cube = read_channels(path, time_step=step)
        assert cube.channels[0].units == "mm day-1"
        np.testing.assert_allclose(cube.load(), 2.0, rtol=1e-6)


def test_energy_is_summed_per_day_and_kept_per_step(tmp_path):
    ds = with_bounds(subdaily(stamps(8), {"ssrd": {"units": "J m-2"}}), 6, before=0)
    path = write(ds, tmp_path / "a.nc")
    daily, native = (read_channels(path, time_step=s) for s in ("daily", "native"))
    wanted = ds.ssrd.values.reshape(2, 4, *ds.ssrd.shape[1:]).sum(axis=1)
    np.testing.assert_allclose(daily.load()[:, 0], wanted, rtol=2e-7)
    np.testing.assert_allclose(native.load()[:, 0], ds.ssrd, rtol=1e-7)
    running = with_bounds(ds.drop_vars("time_bnds"), 12, before=12)
    with pytest.raises(InputError, match="overlap"):
        read_channels(write(running, tmp_path / "b.nc"))


def test_precipitation_without_units_could_be_a_rate_or_an_amount(tmp_path):
    ds = subdaily(stamps(8), {"pr": {}})
    with pytest.raises(InputError, match="units of precipitation") as caught:
        read_channels(write(ds, tmp_path / "a.nc"))
    assert "ncatted" in caught.value.facts["remedy"]


def test_a_daily_method_replaces_that_of_an_instant(tmp_path):
    ds = subdaily(stamps(8), {"tas": NAMES["tas"], "tx": {"units": "degC"}})
    ds["tx"] = ds.tx - 260.0
    targets = read_targets(write(ds, tmp_path / "a.nc")).targets
    assert [t.cell_methods for t in targets] == ["time: mean", "time: maximum"]


# -- Lazy, and the same in any piece ---------------------------------------------------


def test_a_day_is_the_same_in_whatever_piece_of_the_record_it_is_read(tmp_path):
    ds = subdaily(stamps(24 * 12, hours=1))
    coding = {name: {"chunksizes": (10, 3, 4)} for name in ds.data_vars}
    ds.to_netcdf(tmp_path / "a.nc", encoding=coding)
    cube = read_channels(tmp_path / "a.nc")
    assert cube.values.chunks is not None
    assert cube.values.dtype == np.float32
    whole = cube.load()
    pieces = [cube.load(slice(i, i + 1)) for i in range(12)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert np.array_equal(cube.load(np.array([1, 7])), whole[[1, 7]])


# -- Native steps ----------------------------------------------------------------------


def test_d24_native_steps_are_kept_apart(tmp_path):
    """The hour belongs to the key and the text of a step: no duplicates."""
    ds = subdaily(stamps(16, hours=3)).isel(time=np.r_[0:5, 7:16])
    cube = read_channels(write(ds, tmp_path / "a.nc"), time_step="native")
    assert len(cube.days) == 14
    assert cube.days.step_seconds == 3 * 3600
    assert cube.days.iso()[4:6] == ["2001-02-26T12:00:00", "2001-02-26T21:00:00"]
    assert cube.days.key[4] == 20010226120000
    assert len(np.unique(cube.days.key)) == len(set(cube.days.iso())) == 14
    assert cube.days.gaps() == [("2001-02-26T12:00:00", "2001-02-26T21:00:00")]
    assert np.diff(cube.days.ordinal).tolist() == [1] * 4 + [3] + [1] * 8
    loaded = dict(zip(cube.names, cube.load().swapaxes(0, 1), strict=True))
    np.testing.assert_allclose(loaded["tas"], ds.tas, rtol=1e-7)
    np.testing.assert_allclose(loaded["pr"], ds.pr * 8, rtol=2e-7)  # mm per 3 h


def test_native_is_daily_for_a_daily_record(tmp_path):
    ds = subdaily(stamps(5, hours=24), {"tas": NAMES["tas"], "pr": NAMES["pr"]})
    path = write(ds, tmp_path / "a.nc")
    daily, native = read_channels(path), read_channels(path, time_step="native")
    assert (
        native.days.key.tolist() == daily.days.key.tolist() == daily.days.day.tolist()
    )
    assert native.days.step_seconds == 86400
    assert native.load().tobytes() == daily.load().tobytes()


def test_unknown_time_step(tmp_path):
    with pytest.raises(ConfigError, match="unknown value of time_step"):
        read_channels(write(subdaily(stamps(8)), tmp_path / "a.nc"), time_step="hourly")


def test_shared_steps_count_in_the_longer_step():
    """Hourly predictors and three-hourly targets share the targets' steps."""
    hourly = time_steps(axis(stamps(24, hours=1)), time_step="native").days
    slow = time_steps(axis(stamps(7, hours=3, first=1)), time_step="native").days
    for pair in ((hourly, slow), (slow, hourly)):
        of_first, of_second, steps = shared_steps(*pair)
        assert np.array_equal(pair[0].key[of_first], pair[1].key[of_second])
        assert steps.step_seconds == 3 * 3600
        assert np.diff(steps.ordinal).tolist() == [1] * 6
    daily: CalendarDays = time_steps(axis(stamps(24, hours=1))).days
    with pytest.raises(InputError, match="days and shorter steps") as caught:
        shared_steps(daily, slow)
    assert "1 d and 3 h" in caught.value.facts["found"]


# -- The radar event -------------------------------------------------------------------


def radar(folder, real_data, side=48):
    """The file has a projection only; the reader needs latitude and longitude."""
    path = real_data / "radar_nl_20100826" / "pr_5min_1km.nc"
    with xr.open_dataset(path, decode_times=False) as file:
        ds = file.isel(y=slice(0, side), x=slice(0, side)).load()
    y, x = np.meshgrid(ds.y.values, ds.x.values, indexing="ij")  # km
    scale = 6371.0 * (1 + np.sin(np.deg2rad(60.0)))  # polar stereographic, lat_ts 60
    lat = 90.0 - 2.0 * np.rad2deg(np.arctan(np.hypot(x, y) / scale))
    lon = np.rad2deg(np.arctan2(x, -y))
    north, east = {"units": "degrees_north"}, {"units": "degrees_east"}
    ds = ds.assign_coords(
        lat=(("y", "x"), lat, {"standard_name": "latitude", **north}),
        lon=(("y", "x"), lon, {"standard_name": "longitude", **east}),
    )
    return write(ds, folder / "radar.nc")


def test_real_radar_has_no_complete_day(real_data):
    with pytest.raises(InputError, match="incomplete day") as caught:
        read_targets(real_data / "radar_nl_20100826" / "pr_5min_1km.nc")
    facts = caught.value.facts
    assert facts["found"] == "92 of 288 steps on 2010-08-26"
    assert "data.time_step to native" in facts["remedy"]


def test_real_radar_in_its_own_steps(real_data, tmp_path):
    cube = read_targets(radar(tmp_path, real_data), time_step="native")
    assert len(cube.days) == 92
    assert cube.days.step_seconds == 300
    assert cube.days.gaps() == []
    assert cube.days.period() == "2010-08-26T00:00:00..2010-08-26T07:35:00"
    assert cube.targets[0].units == "mm day-1"
    raw = real_data / "radar_nl_20100826" / "pr_5min_1km.nc"
    with xr.open_dataset(raw) as ds:
        amount = ds.pr.values[:, :48, :48]
    assert np.nanmax(amount) > 0.1
    np.testing.assert_allclose(cube.load()[:, 0], amount * 288, rtol=1e-6)
