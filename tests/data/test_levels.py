from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from climate_files import field, on_levels, predictors

from st_cdgm.data.files.open import open_dataset
from st_cdgm.data.read.channels import select_channels
from st_cdgm.data.variables.levels import (
    channel_name,
    level_of,
    level_values,
    split_levels,
    vertical_name,
)
from st_cdgm.errors import InputError, MissingVariableError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("q_850", ("q", 850.0)),
        ("q850", ("q", 850.0)),
        ("ta850", ("ta", 850.0)),
        ("zg500", ("zg", 500.0)),
        ("t_500hPa", ("t", 500.0)),
        ("wap_50", ("wap", 50.0)),
        ("geo_height_700", ("geo_height", 700.0)),
        ("psl", ("psl", None)),
        ("u10", ("u10", None)),  # 10 m wind
        ("v100", ("v100", None)),  # 100 m wind
        ("t2m", ("t2m", None)),
        ("ua12", ("ua12", None)),  # not a standard level
        ("q_2000", ("q_2000", None)),  # not a pressure in the atmosphere
        ("tas_850", ("tas_850", None)),  # a surface field has no level
        ("lc", ("lc", None)),
    ],
)
def test_level_in_the_name(name, expected):
    assert level_of(name, field(0.0, 1.0)) == expected


def test_level_from_attribute_and_scalar_coordinate():
    assert level_of("q_850", field(0.0, 1.0, pressure_level_hPa=850)) == ("q", 850.0)
    assert level_of("hum", field(0.0, 1.0, pressure_level_hPa=700)) == ("hum", 700.0)
    for value, units in ((85000.0, "Pa"), (850.0, "hPa"), (850, "millibars")):
        da = field(0.0, 1.0).assign_coords(plev=((), value, {"units": units}))
        assert level_of("hus", da) == ("hus", 850.0)
    height = ((), 2.0, {"units": "m", "axis": "Z"})
    assert level_of("tas", field(0.0, 1.0).assign_coords(height=height)) == (
        "tas",
        None,
    )


@pytest.mark.parametrize(
    ("values", "units"),
    [
        ([85000.0, 50000.0], "Pa"),
        ([850, 500], "hPa"),
        ([850, 500], "millibars"),
        ([850.0, 500.0], None),
        ([85000.0, 50000.0], None),
    ],
)
def test_d10_one_channel_per_variable_and_level(values, units):
    """No averaging over levels: each channel holds its own level's values."""
    ds = on_levels(values, units)
    split = split_levels(ds, ["hus", "psl"])
    assert [channel.name for channel, _ in split] == ["hus_850", "hus_500", "psl"]
    assert [channel.group for channel, _ in split] == ["GP850", "GP500", "SURF"]
    assert split[0][0].standard_name == "specific_humidity"
    for number, (_, da) in enumerate(split[:2]):
        assert da.dims == ("time", "lat", "lon")
        np.testing.assert_allclose(da, number * 1e-3, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "units"),
    [
        ([1.0, 2.0, 3.0], "1"),  # model levels
        ([0.99, 0.5], "sigma"),
        ([10.0, 100.0], "m"),
        ([850.0, 850.0], "hPa"),
        ([85000.0, 50000.0], "hPa"),
        ([850.0, 500.0], "Pa"),  # 8.5 hPa is possible, 5 too: kept apart below
        ([3.0, 4.0], None),
    ],
)
def test_levels_that_are_no_pressures(values, units):
    ds = on_levels(values, units)
    if units == "Pa":
        assert level_values(ds.plev).tolist() == [8.5, 5.0]
        return
    with pytest.raises(InputError, match="pressure levels") as caught:
        split_levels(ds, ["hus"])
    assert caught.value.facts["variable"] == "plev"
    assert caught.value.facts["remedy"]


def test_a_single_height_is_a_single_level_field():
    da = field(0.0, 1.0).expand_dims(height=[2.0])
    ds = predictors()
    ds["tas"] = da
    ds["height"].attrs = {"units": "m", "axis": "Z", "positive": "up"}
    ((channel, plane),) = split_levels(ds, ["tas"])
    assert (channel.name, channel.level) == ("tas", None)
    assert plane.dims == ("time", "lat", "lon")


def test_vertical_dimension_without_coordinate():
    ds = on_levels([850, 500], "hPa").drop_vars("plev")
    with pytest.raises(InputError, match="no coordinate") as caught:
        split_levels(ds, ["hus"])
    assert "plev" in caught.value.facts["found"]


def test_two_sources_of_one_channel():
    ds = on_levels([850, 500], "hPa")
    ds["hus_850"] = ds.hus.isel(plev=0, drop=True)
    with pytest.raises(InputError, match="same channel") as caught:
        split_levels(ds, ["hus", "hus_850"])
    assert caught.value.facts["variable"] == "hus_850"


def names(fields):
    return [channel.name for channel, _ in fields]


def test_selection_by_channel_and_by_variable():
    ds = on_levels([850, 500], "hPa")
    available = ["psl", "hus"]
    assert names(select_channels(ds, available, None)) == ["psl", "hus_850", "hus_500"]
    assert names(select_channels(ds, available, ["hus_500", "psl"])) == [
        "hus_500",
        "psl",
    ]
    assert names(select_channels(ds, available, ("hus",))) == ["hus_850", "hus_500"]
    assert names(select_channels(ds, available, "psl")) == ["psl"]
    single = predictors()
    every = ["t_850", "t_500", "pr"]
    assert names(select_channels(single, every, ["t"])) == ["t_850", "t_500"]
    assert names(select_channels(single, every, ["t_500"])) == ["t_500"]


def test_d13_configuration_lists_are_lists():
    omegaconf = pytest.importorskip("omegaconf")
    chosen = omegaconf.OmegaConf.create(["pr", "t_850"])
    found = select_channels(predictors(), ["t_850", "t_500", "pr"], chosen)
    assert names(found) == ["pr", "t_850"]


def test_missing_level_lists_what_is_there():
    ds = on_levels([850, 500], "hPa")
    with pytest.raises(MissingVariableError, match="variable or level") as caught:
        select_channels(ds, ["psl", "hus"], ["hus_700"])
    assert caught.value.facts["variable"] == "hus_700"
    assert caught.value.facts["found"] == "psl, hus_850, hus_500"


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [([], "empty list"), (["t", "t_850"], "asked for twice"), (["pr", "pr"], "twice")],
)
def test_unusable_selections(wanted, problem):
    with pytest.raises(InputError, match=problem):
        select_channels(predictors(), ["t_850", "t_500", "pr"], wanted)


def test_synonyms_keep_the_name_asked_for(caplog):
    """A model trained on ``q_850`` finds CMIP's ``hus`` at 85 000 Pa."""
    ds = on_levels([85000.0, 50000.0], "Pa")
    ((channel, da),) = select_channels(ds, ["psl", "hus"], ["q_850"])
    assert (channel.name, channel.variable, channel.level) == ("q_850", "q", 850.0)
    np.testing.assert_allclose(da, 0.0)
    assert "q_850 is taken from hus" in caplog.text
    assert names(select_channels(ds, ["psl", "hus"], ["q", "msl"])) == [
        "q_850",
        "q_500",
        "msl",
    ]


def test_an_ambiguous_synonym_is_not_used():
    ds = on_levels([850, 500], "hPa")
    ds["shum"] = ds.hus
    with pytest.raises(MissingVariableError):
        select_channels(ds, ["psl", "hus", "shum"], ["q_850"])


def test_unsound_levels_of_other_variables_do_not_matter():
    ds = on_levels([1.0, 2.0], "1")
    with pytest.raises(MissingVariableError):
        select_channels(ds, ["psl", "hus"], ["t_850"])
    assert names(select_channels(ds, ["psl", "hus"], ["psl"])) == ["psl"]


def test_channel_name():
    assert channel_name("q", 850.0) == "q_850"
    assert channel_name("q", 7.5) == "q_7.5"
    assert channel_name("psl", None) == "psl"


def test_real_millibars_in_a_packed_file(real_data):
    """Levels in millibars, decreasing latitude, int16 with a negative scale factor."""
    ds = open_dataset(real_data / "edge_cases" / "eraint_uvz.nc", role="lr")
    assert vertical_name(ds.z) == "level"
    split = split_levels(ds, ["z", "u"])
    assert names(split) == ["z_200", "z_500", "z_850", "u_200", "u_500", "u_850"]
    heights = {
        c.name: float(da.mean()) / 9.80665 for c, da in split if c.variable == "z"
    }
    assert heights["z_500"] == pytest.approx(5500, abs=300)
    assert heights["z_850"] < heights["z_500"] < heights["z_200"]


def test_real_fourteen_levels(real_data):
    ds = xr.open_dataset(real_data / "edge_cases" / "uvt.nc", decode_times=False)
    split = split_levels(ds, ["T"])
    assert len(split) == 14
    warm = {c.level: float(da.mean()) for c, da in split}
    assert warm[1000.0] > warm[500.0] > warm[200.0]
