"""What archives and models do in their own way: ECMWF, WRF, CHIRPS, CESM and others."""

from __future__ import annotations

import logging

import netCDF4
import numpy as np
import pytest
import xarray as xr
from climate_files import LAT, LON, dataset, field, predictors, write

from st_cdgm.data.files.open import open_dataset
from st_cdgm.data.read.readers import read_channels, read_targets
from st_cdgm.data.variables.table import VARIABLES, quantity_of
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import InputError

RNG = np.random.default_rng(7)
WARM = {"units": "K", "standard_name": "unknown"}


def hourly(values, *, first: int = 0, name: str = "tp", **attrs) -> xr.Dataset:
    """Hours from 2001-01-01 on, as the ECMWF archive has them since 2024."""
    count = len(values)
    stamps = {"units": "hours since 2001-01-01", "standard_name": "time"}
    ds = xr.Dataset({name: (("valid_time", "latitude", "longitude"), values, attrs)})
    return ds.assign_coords(
        valid_time=("valid_time", np.arange(count) + first, stamps),
        number=((), 0, {"standard_name": "realization"}),
        expver=("valid_time", np.array(["0001"] * count, dtype=object)),
        latitude=("latitude", LAT[::-1], {"units": "degrees_north"}),
        longitude=("longitude", LON, {"units": "degrees_east"}),
    )


def showers(hours: int) -> np.ndarray:
    wet = RNG.random((hours, 3, 4)) < 0.4
    return (wet * 2e-3 * RNG.random((hours, 3, 4))).astype(np.float32)


# -- Names -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["unknown", "convective precipitation rate", "2-m t"])
def test_a_standard_name_that_is_none_does_not_hide_the_quantity(tmp_path, text):
    ds = predictors()[["pr"]].rename(pr="precip")
    ds.precip.attrs["standard_name"] = text
    cube = read_targets(write(ds, tmp_path / "a.nc"))
    assert [(t.units, t.standard_name) for t in cube.targets] == [("mm day-1", None)]


def test_a_real_standard_name_stays_with_and_without_a_modifier(tmp_path):
    ds = predictors()
    ds.pr.attrs["standard_name"] = "precipitation_flux"
    ds.t_850.attrs["standard_name"] = "air_temperature standard_error"
    opened = open_dataset(write(ds, tmp_path / "a.nc"), role="lr")
    assert opened.pr.attrs["standard_name"] == "precipitation_flux"
    assert opened.t_850.attrs["standard_name"] == "air_temperature standard_error"


def test_temperature_of_unknown_name_is_a_temperature(tmp_path):
    values = RNG.uniform(270, 290, (48, 3, 4)).astype(np.float32)
    cube = read_targets(write(hourly(values, name="t2m", **WARM), tmp_path / "a.nc"))
    assert cube.targets[0].units == "degC"
    wanted = values.reshape(2, 24, 3, 4).mean(axis=1, dtype=np.float64) - 273.15
    np.testing.assert_allclose(cube.load()[:, 0], wanted, atol=1e-4)


def test_every_synonym_is_a_quantity():
    unknown = {"wap", "omega"}
    names = {name for row in VARIABLES for name in row.names} - unknown
    assert {name for name in names if quantity_of(name, {}) is None} == set()


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        *(("mm/6h", 4.0), ("mm (6h)-1", 4.0), ("mm / 3 hours", 8.0), ("mm/24h", 1.0)),
        *(("mm per 12 h", 2.0), ("mm/h", 24.0)),
    ],
)
def test_rates_per_several_hours(given, factor):
    assert units_factor(given, "mm day-1") == pytest.approx((factor, 0.0))


@pytest.mark.parametrize("given", ["mm 6h", "mm6h", "mm/6h2"])
def test_what_only_looks_like_a_rate(given):
    assert units_factor(given, "mm day-1") is None


# -- ECMWF -----------------------------------------------------------------------------


def test_two_releases_become_one_record(tmp_path, caplog):
    values = RNG.uniform(270, 290, (4, 3, 4)).astype(np.float32)
    both = np.full((4, 2, 3, 4), np.nan, np.float32)
    both[:3, 0], both[3:, 1] = values[:3], values[3:]
    both[2, 1] = 300.0  # the final release has the say
    ds = dataset({"t2m": field(0, 1)}).drop_vars("t2m")
    ds["t2m"] = (("time", "expver", "lat", "lon"), both, {"units": "K"})
    for order in ([1, 5], [5, 1]):
        path = tmp_path / f"{order[0]}.nc"
        write(ds.assign_coords(expver=[1, 5]).sel(expver=order), path)
        with caplog.at_level(logging.WARNING):
            cube = read_channels(path)
        np.testing.assert_array_equal(cube.load()[:, 0], values)
        assert "expver 1, 5 are made one record" in caplog.text


def test_accumulations_end_at_their_stamps(tmp_path):
    """The hour stamped 00 belongs to the day before; so the archive says."""
    rain = showers(72)
    ds = hourly(rain, units="m", standard_name="unknown", GRIB_stepType="accum")
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    assert list(cube.days.day) == [20010101, 20010102]
    wanted = rain[1:49].reshape(2, 24, 3, 4).sum(axis=1, dtype=np.float64) * 1e3
    np.testing.assert_allclose(cube.load()[:, 0], wanted, rtol=1e-5)


def test_amounts_without_bounds_are_warned_about(tmp_path, caplog):
    rain = showers(48)
    with caplog.at_level(logging.WARNING):
        cube = read_channels(write(hourly(rain, units="m"), tmp_path / "a.nc"))
    wanted = rain.reshape(2, 24, 3, 4).sum(axis=1, dtype=np.float64) * 1e3
    np.testing.assert_allclose(cube.load()[:, 0], wanted, rtol=1e-5)
    assert "by the day of their stamps" in caplog.text


@pytest.mark.parametrize(("first", "offset"), [(1, 0), (0, 23)])
def test_running_totals_are_refused(tmp_path, first, offset):
    """ERA5-Land counts up from midnight; its hours must not be added up."""
    totals = showers(96).reshape(4, 24, 3, 4).cumsum(axis=1).reshape(96, 3, 4)
    ds = hourly(totals[offset : offset + 72], first=first, units="m")
    packing = {"dtype": "i2", "scale_factor": 1e-6, "_FillValue": -32767}
    ds.to_netcdf(tmp_path / "a.nc", encoding={"tp": packing})
    with pytest.raises(InputError, match="running totals") as caught:
        read_channels(tmp_path / "a.nc")
    assert caught.value.facts["variable"] == "tp"


def test_a_few_hours_of_rain_at_the_end_of_the_day_are_amounts(tmp_path):
    rain = np.zeros((72, 3, 4), np.float32)
    rain[21:23], rain[70:] = showers(2) + 1e-4, np.sort(showers(2), axis=0) + 1e-4
    cube = read_channels(write(hourly(rain, units="m"), tmp_path / "a.nc"))
    np.testing.assert_allclose(cube.load().sum(), rain.sum() * 1e3, rtol=1e-5)


# -- Models ----------------------------------------------------------------------------


def test_dates_that_wrf_writes_as_text(tmp_path):
    ds = predictors().drop_vars("time").rename(time="Time")
    dates = [f"2001-02-{day}_00:00:00" for day in (26, 27, 28)] + [
        "2001-03-01_00:00:00"
    ]
    ds["Times"] = ("Time", np.array(dates, dtype="S19"))
    cube = read_channels(write(ds, tmp_path / "a.nc"))
    assert list(cube.days.day) == [20010226, 20010227, 20010228, 20010301]
    ds["Times"] = ("Time", np.array(["2001-02-30_00:00:00"] * 4, dtype="S19"))
    with pytest.raises(InputError, match="no time coordinate"):
        read_channels(write(ds, tmp_path / "b.nc"))


@pytest.mark.parametrize(
    ("lon", "first", "wanted"),
    [
        ([0.0, 2.5, 355.0, 357.5], 2, [-5.0, -2.5, 0.0, 2.5]),
        ([-180.0, -177.5, 175.0, 177.5], 2, [175.0, 177.5, 180.0, 182.5]),
        ([0.0, 352.5, 355.0, 357.5], 1, [-7.5, -5.0, -2.5, 0.0]),
        ([357.5, 355.0, 2.5, 0.0], 2, [2.5, 0.0, -2.5, -5.0]),
    ],
)
def test_a_region_in_two_pieces_becomes_one(tmp_path, lon, first, wanted):
    ds = predictors(lon=np.array(lon))
    cube = read_channels(write(ds, tmp_path / "a.nc"), variables=["t_850"])
    np.testing.assert_allclose(cube.grid.lon, wanted)
    values = np.roll(ds.t_850.values, -first, axis=2)
    np.testing.assert_array_equal(cube.load()[:, 0], values)


# -- Values that are declared invalid --------------------------------------------------


def written(path, values, dtype="f4", fill=None, **attrs):
    write(predictors()[["time", "lat", "lon"]], path)
    with netCDF4.Dataset(path, "a") as file:
        new = file.createVariable(
            "hurs", dtype, ("time", "lat", "lon"), fill_value=fill
        )
        new.set_auto_maskandscale(False)
        new.setncatts({"units": "%", **attrs})
        new[:] = values
    with netCDF4.Dataset(path) as file:
        known = np.ma.filled(file["hurs"][:].astype("f8"), np.nan)
    return read_channels(path).load()[:, 0], known


PACKED = RNG.integers(-2000, 2000, (4, 3, 4)).astype("i2")
PACKED[0, 0, :2], PACKED[1, 0, :2] = (3001, -3001), (3000, -3000)
LOOSE = RNG.uniform(0, 100, (4, 3, 4)).astype("f4")
LOOSE[0, 0, :2] = (-5.0, 700.0)
SCALE = {"scale_factor": 0.01, "add_offset": 50.0}


@pytest.mark.parametrize(
    ("values", "missing", "options"),
    [
        (PACKED, 2, SCALE | {"valid_range": np.array([-3000, 3000], "i2")}),
        (PACKED, 1, SCALE | {"valid_max": np.int16(3000)}),
        (PACKED, 1, SCALE | {"valid_range": np.array([20.0, 80.1], "f4")}),
        (PACKED, 0, SCALE | {"valid_range": np.array([20, 70], "i4")}),
        (PACKED, 2, SCALE | {"valid_range": np.array([20.0, 80.0])}),
        (LOOSE, 2, {"valid_range": np.array([0, 110], "f4")}),
        (LOOSE, 1, {"valid_min": np.float32(0)}),
        (LOOSE, 0, {"valid_min": "0", "valid_range": np.zeros(3)}),
    ],
)
def test_valid_range(tmp_path, values, missing, options):
    fill = -32767 if values is PACKED else np.float32(1e20)
    own, _ = written(tmp_path / "a.nc", values, values.dtype, fill, **options)
    plain = values * 0.01 + 50.0 if values is PACKED else values
    assert np.isnan(own).sum() == missing
    kept = np.isfinite(own)
    np.testing.assert_allclose(own[kept], plain[kept], rtol=1e-5)


def test_valid_range_is_that_of_the_netcdf_library(tmp_path):
    limits = {"valid_range": np.array([-3000, 3000], "i2")}
    own, known = written(tmp_path / "a.nc", PACKED, "i2", -32767, **SCALE, **limits)
    np.testing.assert_allclose(own, known, rtol=1e-6)


def test_what_was_never_written_is_missing(tmp_path):
    values = LOOSE.copy()
    values[1, 1, 1] = netCDF4.default_fillvals["f4"]
    own, known = written(tmp_path / "a.nc", values)
    assert np.isnan(own).sum() == 1
    np.testing.assert_array_equal(own, known)


# -- Time ------------------------------------------------------------------------------


def test_a_missing_stamp_is_said_to_be_missing(tmp_path):
    ds = predictors().assign_coords(
        time=("time", [0.0, 1.0, np.nan, 3.0], {"units": "days since 2001-01-01"})
    )
    with pytest.raises(InputError, match="cannot be decoded") as caught:
        read_channels(write(ds, tmp_path / "a.nc"))
    assert "stamps missing" in caught.value.facts["found"]


def test_pentads_are_warned_about(tmp_path, caplog):
    ds = predictors().assign_coords(
        time=("time", np.arange(4) * 5.0, {"units": "days since 2001-01-01"})
    )
    with caplog.at_level(logging.WARNING):
        assert len(read_channels(write(ds, tmp_path / "a.nc")).days) == 4
    assert "5 days apart" in caplog.text


def test_a_folder_of_nc4_files(tmp_path):
    write(predictors(2), tmp_path / "a.nc4")
    assert len(read_channels(tmp_path).days) == 2
