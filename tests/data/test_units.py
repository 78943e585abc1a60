from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr
from climate_files import field, times

from st_cdgm.data.variables.table import QUANTITIES, quantity_of
from st_cdgm.data.variables.units import (
    canonical_units,
    check_plausible,
    conversion,
    to_canonical,
    units_factor,
)
from st_cdgm.errors import InputError


@pytest.mark.parametrize(
    ("name", "units", "role", "value", "expected", "canonical"),
    [
        ("t_850", "K", "lr", 280.0, 280.0, "K"),
        ("t_850", "degC", "lr", 7.0, 280.15, "K"),
        ("tas", "Celsius", "lr", 7.0, 280.15, "K"),
        ("tas", "C", "lr", 7.0, 280.15, "K"),
        ("tas", "degF", "lr", 32.0, 273.15, "K"),
        ("tasmax", "K", "hr", 300.15, 27.0, "degC"),
        ("tasmin", "degree_Celsius", "hr", -3.0, -3.0, "degC"),
        ("pr", "kg m-2 s-1", "lr", 1.0 / 86400, 1.0, "mm day-1"),
        ("pr", "m s-1", "lr", 1e-3 / 86400, 1.0, "mm day-1"),
        ("pr", "m day-1", "lr", 0.001, 1.0, "mm day-1"),
        ("pr", "mm/day", "hr", 1.0, 1.0, "mm day-1"),
        ("pr", "mm h-1", "hr", 1.0, 24.0, "mm day-1"),
        ("pr", "kg m**-2 s**-1", "hr", 2.0 / 86400, 2.0, "mm day-1"),
        ("tp", "m", "hr", 0.003, 3.0, "mm day-1"),
        ("pr", "kg m-2", "hr", 3.0, 3.0, "mm day-1"),
        ("rr", "mm", "hr", 3.0, 3.0, "mm day-1"),
        ("psl", "hPa", "lr", 1013.0, 101300.0, "Pa"),
        ("psl", "mb", "lr", 1013.0, 101300.0, "Pa"),
        ("msl", "millibars", "lr", 1013.0, 101300.0, "Pa"),
        ("z_500", "m**2 s**-2", "lr", 5e4, 5e4, "m2 s-2"),
        ("z_500", "m", "lr", 5000.0, 49033.25, "m2 s-2"),
        ("z_500", "gpm", "lr", 5000.0, 49033.25, "m2 s-2"),
        ("zg500", "m2 s-2", "lr", 49033.25, 5000.0, "m"),
        ("u_850", "knots", "lr", 1.0, 0.514444, "m s-1"),
        ("v_850", "m s**-1", "lr", -4.0, -4.0, "m s-1"),
        ("q_850", "g/kg", "lr", 8.0, 0.008, "kg kg-1"),
        ("hus", "1", "lr", 0.008, 0.008, "kg kg-1"),
        ("hurs", "1", "lr", 0.5, 50.0, "%"),
        ("orog", "km", "static", 1.2, 1200.0, "m"),
        ("sftlf", "%", "static", 40.0, 0.4, "1"),
    ],
)
def test_conversion_by_hand(name, units, role, value, expected, canonical):
    da = field(value, value, units=units)
    out = to_canonical(da, role=role, name=name)
    assert out.attrs["units"] == canonical == canonical_units(name, da.attrs, role)
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert out.dtype == np.float32


def test_conversion_is_lazy_and_leaves_the_input_alone():
    da = field(1.0, 2.0, units="hPa").chunk()
    out = to_canonical(da, name="psl")
    assert out.chunks is not None
    assert da.attrs["units"] == "hPa"


def test_missing_values_stay_missing():
    da = field(0.0, 1.0, units="kg m-2 s-1").where(lambda a: a > 0.5)
    out = to_canonical(da, name="pr")
    np.testing.assert_array_equal(out.isnull(), da.isnull())


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("tas", "m"),
        ("tas", "Month"),
        ("pr", "K"),
        ("psl", "kg"),
        ("q_850", "Pa"),
        ("z_500", "s"),
        ("pr", "nonsense"),
    ],
)
def test_units_that_do_not_fit(name, units):
    da = field(1.0, 2.0, units=units)
    with pytest.raises(InputError, match="not understood or do not fit") as caught:
        to_canonical(da, file="a.nc", name=name)
    facts = caught.value.facts
    assert (facts["file"], facts["variable"], facts["found"]) == (
        "a.nc",
        name,
        repr(units),
    )
    assert canonical_units(name, {}) in facts["expected"]
    assert conversion(units, quantity_of(name, {})) is None


@pytest.mark.parametrize(
    ("name", "low", "high", "inferred"),
    [
        ("tas", 250.0, 310.0, "K"),
        ("tas", -20.0, 35.0, "degC"),
        ("pr", 0.0, 1e-3, "kg m-2 s-1"),
        ("pr", 0.0, 80.0, "mm day-1"),
        ("psl", 98000.0, 103000.0, "Pa"),
        ("psl", 980.0, 1030.0, "hPa"),
        ("z_500", 49000.0, 59000.0, "m2 s-2"),
        ("q_850", 1e-4, 0.012, "kg kg-1"),
        ("q_850", 0.1, 12.0, "g kg-1"),
        ("sftlf", 0.0, 1.0, "1"),
        ("sftlf", 0.0, 100.0, "%"),
    ],
)
def test_missing_units_are_inferred_with_a_warning(name, low, high, inferred, caplog):
    da = field(low, high)
    with caplog.at_level(logging.WARNING):
        out = to_canonical(da, file="a.nc", name=name)
    assert f"taken as {inferred}" in caplog.text
    expected = to_canonical(da.assign_attrs(units=inferred), name=name)
    xr.testing.assert_allclose(out, expected)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("tas", 10.0, 100.0),  # Fahrenheit, or anything
        ("tas", -40.0, 300.0),
        ("pr", 0.0, 0.05),  # m day-1, or a drizzle in mm
        ("z_500", 4900.0, 5900.0),  # metres, or low geopotentials
        ("psl", 1.0, 5.0),
        ("tas", np.nan, np.nan),
    ],
)
def test_missing_units_are_refused_where_ambiguous(name, low, high):
    with pytest.raises(InputError, match="units are missing") as caught:
        to_canonical(field(low, high), file="a.nc", name=name)
    assert "ncatted" in caught.value.facts["remedy"]


def test_no_two_ranges_of_a_quantity_accept_the_same_record():
    grid = np.concatenate([-np.logspace(5, -6, 25), [0.0], np.logspace(-6, 6, 61)])
    for quantity in QUANTITIES:
        for low in grid:
            for high in grid[grid >= low]:
                fitting = [u for u, fits in quantity.ranges.items() if fits(low, high)]
                assert len(fitting) <= 1, (quantity.key, low, high, fitting)


def test_differences_are_not_shifted():
    """5 K of daily range are 5 degC of daily range, not -268."""
    da = field(5.0, 5.0, units="K", cell_methods="time: range within days")
    out = to_canonical(da, role="hr", name="tas")
    assert float(out.max()) == 5.0
    assert out.attrs["units"] == "K"
    anomaly = field(1.0, 1.0, units="K", standard_name="air_temperature_anomaly")
    assert float(to_canonical(anomaly, role="hr", name="tas").max()) == 1.0


def test_unknown_quantities_keep_their_units(caplog):
    out = to_canonical(field(0.0, 5.0, units="W m-2"), name="rsds")
    assert out.attrs["units"] == "W m-2"
    with caplog.at_level(logging.WARNING):
        assert to_canonical(field(0.0, 5.0), name="index").attrs["units"] == "1"
    assert "no units" in caplog.text


def test_amounts_need_daily_steps():
    da = field(0.0, 5.0, days=3, units="mm")
    daily = da.assign_coords(time=times(3))
    assert float(to_canonical(daily, name="pr").max()) == 5.0
    hourly = da.assign_coords(
        time=xr.date_range("2001-01-01", periods=3, freq="6h", use_cftime=True)
    )
    with pytest.raises(InputError, match="not one day") as caught:
        to_canonical(hourly, name="pr")
    assert "0.25 days" in caught.value.facts["found"]
    rate = hourly.assign_attrs(units="mm day-1")
    assert to_canonical(rate, name="pr").attrs["units"] == "mm day-1"


def test_standard_names_follow_the_units():
    pr = field(0.0, 1e-4, units="kg m-2 s-1", standard_name="precipitation_flux")
    assert (
        to_canonical(pr, name="pr").attrs["standard_name"] == "lwe_precipitation_rate"
    )
    z = field(5000.0, 5600.0, units="m", standard_name="geopotential_height")
    assert to_canonical(z, name="z_500").attrs["standard_name"] == "geopotential"
    assert to_canonical(z, name="zg500").attrs["standard_name"] == "geopotential_height"


@pytest.mark.parametrize("name", ["t_flux", "z_index", "uplift", "prw", "q_star"])
def test_names_that_only_begin_like_a_quantity(name):
    assert quantity_of(name, {"units": "1"}) is None


def test_the_standard_name_counts_more_than_the_name():
    attrs = {"standard_name": "specific_humidity", "units": "g kg-1"}
    assert canonical_units("t", attrs) == "kg kg-1"


@pytest.mark.parametrize(
    ("name", "units", "value"),
    [
        ("tas", "K", 12.0),
        ("tas", "degC", 285.0),
        ("pr", "mm day-1", 400.0),
        ("psl", "Pa", 1013.0),
    ],
)
def test_values_that_contradict_their_units(name, units, value):
    with pytest.raises(InputError, match="contradict their units") as caught:
        check_plausible(np.full(5, value), name, {"units": units}, file="a.nc")
    assert units in caught.value.facts["found"]


def test_plausible_values_pass():
    check_plausible(np.array([np.nan, 12.0]), "tas", {"units": "degC"})
    check_plausible(np.full(3, np.nan), "tas", {"units": "K"})
    check_plausible(np.array([1e9]), "index", {"units": "1"})


def test_units_factor():
    assert units_factor("hPa", "Pa") == (100.0, 0.0)
    factor, offset = units_factor("degC", "K")
    assert factor == 1.0
    assert offset == pytest.approx(273.15)
    assert units_factor("K", "m") is None
    assert units_factor("no such unit", "m") is None
