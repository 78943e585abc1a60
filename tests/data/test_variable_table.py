"""Every name of the table is the same variable everywhere it is asked about."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import small_task
import torch
import xarray as xr

from st_cdgm.data.fit.baseline.combined import counterparts
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.read.channels import select_channels
from st_cdgm.data.time.daily import daily_method
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.levels import level_in_name
from st_cdgm.data.variables.limits import physical_limits
from st_cdgm.data.variables.table import (
    PRECIPITATION,
    TEMPERATURE,
    VARIABLES,
    is_precipitation,
    quantity_of,
    synonyms,
    temperature_rank,
    variable_of,
)
from st_cdgm.data.variables.units import canonical_units, to_canonical
from st_cdgm.evaluation.diagnostics import choose_cases
from st_cdgm.evaluation.report.maps import kind_of
from st_cdgm.physics.wind import wind_pairs

EVERY = [(row, name) for row in VARIABLES for name in row.names]
KNOWN = [(row, name) for row, name in EVERY if row.quantity is not None]
STANDARD = {
    "precipitation": "precipitation_flux",
    "temperature": "air_temperature",
    "pressure": "air_pressure",
    "geopotential": "geopotential",
    "geopotential_height": "geopotential_height",
    "humidity": "specific_humidity",
    "relative_humidity": "relative_humidity",
}
# What the table must hold, whatever its rows become.
RAIN = [
    *("pr", "prcp", "precip", "precipitation", "ppt", "pcp", "rainfall", "rain", "tp"),
    *("prect", "PRECT", "RAINNC", "RR", "Precip", "RAIN", "total_precipitation"),
]
RANKS = {
    0: ["tasmin", "tmin", "tn", "TN", "mn2t", "tmmn", "Tmin"],
    1: ["tas", "tg", "TG", "t2m", "tmean"],
    2: ["tasmax", "tmax", "tx", "TX", "mx2t", "tmmx", "Tmax"],
}


def _standard_names(row):
    """No standard name, that of the quantity, and one that only says the words."""
    own = STANDARD.get(row.quantity.key)
    return [None, *([own] if own else []), "my_own_words"]


def _target(name, standard_name=None, units=None, **more):
    attrs = {"standard_name": standard_name or ""}
    units = units or canonical_units(name, attrs, "hr")
    return TargetVariable(name=name, units=units, standard_name=standard_name, **more)


def test_no_name_is_in_two_rows():
    names = [name for _, name in EVERY]
    assert sorted(names) == sorted(set(names))
    assert all(name == name.lower() for name in names)
    given = [cf for row in VARIABLES for cf in row.standard_names]
    assert sorted(given) == sorted(set(given))


@pytest.mark.parametrize(("row", "name"), KNOWN, ids=[name for _, name in KNOWN])
def test_a_name_is_the_same_variable_everywhere(row, name, caplog):
    for spelled in (name, name.upper()):
        for standard_name in _standard_names(row):
            if standard_name == "my_own_words" and len(name) == 1:
                continue  # a single letter stands for too much
            with caplog.at_level(logging.WARNING):
                _is_itself(row, spelled, standard_name)
    assert "is no variable that is known" not in caplog.text


def _is_itself(row, name, standard_name):
    attrs = {} if standard_name is None else {"standard_name": standard_name}
    target = _target(name, standard_name)
    assert quantity_of(name, attrs) is row.quantity

    warm = row.quantity is TEMPERATURE
    assert target.units == ("degC" if warm else row.quantity.units)
    assert canonical_units(name, attrs) == row.quantity.units
    field = xr.DataArray(
        np.full((2, 2), 1.0), name=name, attrs={**attrs, "units": row.quantity.units}
    )
    assert to_canonical(field).attrs["units"] == row.quantity.units
    if not (standard_name and row.quantity.key == "pressure"):
        low, high = physical_limits(field, 24.0)
        assert low < high
        known = row.own_limits or row.quantity.limits
        assert known is None or (low, high) == pytest.approx(known, abs=1e-6)

    assert temperature_rank(target) == row.rank
    assert daily_method(name, attrs) == row.daily
    assert kind_of(name, target.units) == row.quantity.colours
    assert synonyms(name) >= set(row.names)
    if row.surface:
        assert level_in_name(name) == (name, None)

    wet = row.quantity is PRECIPITATION
    assert is_precipitation(name, standard_name) == wet
    codec = build_codec([target])
    decoded = codec.decode(torch.full((1, 2, 2), -5.0))
    assert (decoded == 0).all() if wet else (decoded == -5).all()
    assert codec.chosen == {name: "sqrt" if wet else "identity"}


@pytest.mark.parametrize("name", RAIN)
@pytest.mark.parametrize("standard_name", [None, "precipitation_flux", "precipitation"])
@pytest.mark.parametrize("transform", ["sqrt", "log1p", "identity"])
def test_rain_is_never_negative_whatever_it_is_called(name, standard_name, transform):
    codec = build_codec([_target(name, standard_name)], precipitation=transform)
    decoded = codec.decode(torch.linspace(-5.0, 0.0, 9).reshape(1, 3, 3))
    assert (decoded == 0).all()
    assert codec.guarantees() == [f"{name} >= 0, exactly 0 below 0.1 mm day-1"]


@pytest.mark.parametrize("low", RANKS[0])
@pytest.mark.parametrize("high", RANKS[2])
@pytest.mark.parametrize("standard_name", [None, "air_temperature"])
def test_minimum_and_maximum_are_ordered_whatever_they_are_called(
    low, high, standard_name
):
    targets = [_target(high, standard_name), _target(low, standard_name)]
    codec = build_codec(targets)
    assert codec.ordered == (1, 0)
    warm, cold = codec.decode(torch.tensor([-9.0, 4.0]).reshape(2, 1, 1))
    assert warm >= cold


@pytest.mark.parametrize("name", RANKS[1])
def test_a_mean_lies_between(name):
    targets = [_target(n) for n in ("tx", name, "tn")]
    assert build_codec(targets).ordered == (2, 1, 0)


def test_an_unknown_target_passes_unchanged_and_a_message_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        codec = build_codec([_target("chill", units="W m-2")])
    assert codec.decode(torch.full((1, 1, 1), -5.0)).item() == -5.0
    (said,) = [r.getMessage() for r in caplog.records]
    for word in ("chill", "identity", "data.codecs", "sqrt"):
        assert word in said


@pytest.mark.parametrize(
    "attrs",
    [
        {"standard_name": "precipitation_anomaly"},
        {"standard_name": "tendency_of_precipitation"},
        {"cell_methods": "time: range within days"},
    ],
)
def test_a_change_is_no_amount(attrs):
    assert variable_of("pr", attrs) is None


@pytest.mark.parametrize(
    ("target", "channel"), [("PRECT", "prcp"), ("tmmx", "tx"), ("tn", "mn2t")]
)
def test_a_counterpart_may_have_another_name(target, channel):
    row = variable_of(channel, {})
    channels = [
        Channel(name=n, variable=n, level=None, units=row.quantity.units)
        for n in ("psl", "tas", channel)
    ]
    assert counterparts([_target(target)], channels) == {target: 2}


@pytest.mark.parametrize(
    ("asked", "there"), [("pr", "RAINNC"), ("tmmx", "TX"), ("z", "zg"), ("uas", "u10")]
)
def test_a_variable_is_found_under_another_name(asked, there):
    field = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), attrs={"units": "1"})
    ds = xr.Dataset({there: field, "psl": field})
    ((channel, _),) = select_channels(ds, [there, "psl"], [asked])
    assert channel.variable == asked


def test_cases_and_winds_ask_the_table():
    means = {n: np.arange(3.0) for n in ("RAIN", "tmmx")}
    cases = choose_cases(means, [_target("RAIN"), _target("tmmx")])
    assert {"wettest", "warmest"} <= {
        label for case in cases for label in case.label.split(", ")
    }
    assert wind_pairs(["ugrd", "vgrd", "10u", "10v"]) == [(0, 1), (2, 3)]


@pytest.mark.parametrize("described", [False, True])
def test_a_file_with_other_names_goes_through_the_chain(tmp_path, described):
    """CESM rain and gridMET temperatures, the attributes left out or not."""
    names = {"pr": "PRECT", "tasmin": "tmmn", "tasmax": "tmmx"}
    hr = small_task.targets(small_task.stamps()).rename(names)
    hr["PRECT"] = (hr["PRECT"] / 86400.0 / 1000.0).assign_attrs(units="m/s")
    for name in ("tmmn", "tmmx"):
        hr[name] = (hr[name] + 273.15).assign_attrs(units="K")
    if described:
        hr["PRECT"].attrs["standard_name"] = "lwe_precipitation_rate"
        hr["tmmn"].attrs["standard_name"] = "air_temperature"
        hr["tmmx"].attrs["standard_name"] = "air_temperature"
    small_task.write(tmp_path, hr=hr)
    pipeline = NetCDFDataPipeline.from_config(
        small_task.config(tmp_path, baseline_map={"tmmn": "tas", "tmmx": "tas"})
    )

    prep = pipeline.preprocessor
    assert [t.units for t in prep.targets] == ["mm day-1", "degC", "degC"]
    assert prep.codec.guarantees() == [
        "tmmn <= tmmx",
        "PRECT >= 0, exactly 0 below 0.1 mm day-1",
    ]
    # The rain of the coarse file is called pr.
    assert prep.baseline.strategy == "lr_interp"
    truth = pipeline.arrays("train").hr
    decoded = prep.codec.decode(prep.codec.encode(torch.from_numpy(truth))).numpy()
    np.testing.assert_allclose(decoded, truth, rtol=1e-4, atol=1e-3)
    wild = prep.decode(torch.randn(5, *truth.shape[1:]) * 9, torch.zeros(()))
    assert (wild[:, 0] >= 0).all()
    assert (wild[:, 1] <= wild[:, 2]).all()
