"""Impossible values are reported with place and date when they are read."""

from __future__ import annotations

import logging

import cloudpickle
import numpy as np
import pytest
import xarray as xr

from st_cdgm.data.read.readers import read_channels, read_targets

LAT, LON = np.linspace(46, 40, 4), np.linspace(-8, 0, 5)


def write(path, name, values, units, **attrs):
    """Write a daily field from 2001-03-01 on."""
    time = xr.date_range("2001-03-01", periods=len(values), freq="D")
    axes = {
        "time": time,
        "lat": ("lat", LAT, {"units": "degrees_north"}),
        "lon": ("lon", LON, {"units": "degrees_east"}),
    }
    field = (("time", "lat", "lon"), values, {"units": units, **attrs})
    xr.Dataset({name: field}, axes).to_netcdf(path)
    return path


def field(value, days=40):
    noise = np.random.default_rng(0).standard_normal((days, 4, 5))
    return (value + noise).astype(np.float32)


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if "values outside" in r.message]


@pytest.mark.parametrize(
    ("name", "units", "usual", "impossible", "read"),
    [
        ("tas", "K", 285.0, 500.0, read_channels),
        ("psl", "hPa", 1013.0, 2000.0, read_channels),
        ("q_850", "kg kg-1", 0.004, 0.9, read_channels),
        ("tasmax", "degC", 12.0, 90.0, read_targets),
        ("pr", "mm day-1", 9.0, 5000.0, read_targets),
        ("pr", "kg m-2 s-1", 1e-4, -0.01, read_targets),
    ],
)
def test_place_and_date_of_an_impossible_value(
    tmp_path, caplog, name, units, usual, impossible, read
):
    values = field(usual) if usual > 1 else np.full((40, 4, 5), usual, np.float32)
    values[33, 1, 2] = impossible
    path = write(tmp_path / "a.nc", name, values, units)
    cube = read(path)
    caplog.set_level(logging.WARNING)
    cube.load(slice(0, 30))
    assert warnings_of(caplog) == []
    cube.load(slice(30, 40))
    cube.load(slice(30, 40))  # once is enough
    (message,) = warnings_of(caplog)
    assert message.startswith(f"{name} has values outside")
    assert "1 of the 200 read together" in message
    assert "on 2001-04-03 at 44.00 degrees north, -4.00 degrees east" in message
    assert str(path) in message


def test_what_can_be_true_is_not_reported(tmp_path, caplog):
    values = field(2.0)
    values[3, 0, 0] = 1800.0  # the wettest day on record
    values[4] = -0.001  # what interpolation leaves
    values[5, 1, 1] = np.nan
    cube = read_targets(
        write(tmp_path / "a.nc", "pr", np.maximum(values, -0.001), "mm")
    )
    caplog.set_level(logging.WARNING)
    cube.load()
    assert warnings_of(caplog) == []


def test_an_unknown_quantity_has_no_range(tmp_path, caplog):
    cube = read_channels(write(tmp_path / "a.nc", "index", 1e9 * field(1.0), "1"))
    caplog.set_level(logging.WARNING)
    cube.load()
    assert warnings_of(caplog) == []


def test_a_worker_does_not_repeat_what_was_said(tmp_path, caplog):
    values = field(285.0)
    values[0, 0, 0] = 500.0
    cube = read_channels(write(tmp_path / "a.nc", "tas", values, "K"))
    caplog.set_level(logging.WARNING)
    cube.load(slice(0, 5))
    assert len(warnings_of(caplog)) == 1
    cloudpickle.loads(cloudpickle.dumps(cube)).load(slice(0, 5))
    assert len(warnings_of(caplog)) == 1
