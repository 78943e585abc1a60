"""The grammar of edits, where they act, and what is wrong with those that cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import Channel
from st_cdgm.errors import ConfigError, GridMismatchError, InputError, MissingFileError
from st_cdgm.explanation.edits import Edit, box_pattern, file_pattern

CHANNELS = (
    Channel(name="q_850", variable="q", level=850, units="kg kg-1"),
    Channel(name="ta_500", variable="ta", level=500, units="K"),
    Channel(name="ws_850", variable="ws", level=850, units="m s-1", derived=True),
    Channel(name="psl", variable="psl", level=None, units="Pa"),
)
GRID = Grid(
    lat=np.array([40.0, 42.0, 44.0]),
    lon=np.array([-2.0, 0.0, 2.0, 4.0]),
    y_name="lat",
    x_name="lon",
)


@pytest.mark.parametrize(
    ("text", "channel", "replaces", "value", "physical"),
    [
        ("GP850.q += 1 sd", 0, False, 1.0, False),
        ("GP850.q_850+=-.5e0sd", 0, False, -0.5, False),
        ("  GP850.q   = 8 g kg-1 ", 0, True, 0.008, True),
        ("GP500.ta = 0 degC", 1, True, 273.15, True),
        ("GP500.ta += 2 K", 1, False, 2.0, True),
        ("SURF.psl += 3 hPa", 3, False, 300.0, True),
    ],
)
def test_edits_are_read(text, channel, replaces, value, physical):
    edit = Edit.parse(text, CHANNELS)
    assert (edit.channel, edit.replaces, edit.physical) == (channel, replaces, physical)
    assert edit.value == pytest.approx(value)
    assert edit.node == CHANNELS[channel].group


@pytest.mark.parametrize(
    "text", ["", "GP850.q", "GP850.q + 1 sd", "GP850 += 1 sd", "GP850.q += sd", "a.b=1"]
)
def test_another_grammar_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"GP850\.q \+= 1 sd"):
        Edit.parse(text, CHANNELS)


@pytest.mark.parametrize("text", ["GP700.q += 1 sd", "GP850.t += 1 sd", "SURF.q=1 sd"])
def test_an_unknown_node_or_channel_is_refused_with_the_list(text):
    with pytest.raises(ConfigError, match=r"expected: GP850\.q, GP500\.ta, SURF\.psl"):
        Edit.parse(text, CHANNELS)


def test_a_derived_predictor_follows_and_is_not_edited():
    with pytest.raises(ConfigError, match=r"edit what GP850\.ws are computed from"):
        Edit.parse("GP850.ws += 1 sd", CHANNELS)


def test_units_of_another_dimension_are_refused():
    with pytest.raises(ConfigError, match="what converts to kg kg-1"):
        Edit.parse("GP850.q += 1 K", CHANNELS)


def test_a_box_bounds_a_shift_and_a_setting():
    box = box_pattern("41,45,-1,3", GRID)
    inside = np.zeros((3, 4), bool)
    inside[1:, 1:3] = True
    np.testing.assert_array_equal(np.isfinite(box), inside)
    np.testing.assert_array_equal(box_pattern("41,45,359,363", GRID), box)

    field = np.arange(12.0).reshape(3, 4)
    shifted = Edit.parse("GP850.q += 2 sd", CHANNELS).applied(field, box)
    np.testing.assert_array_equal(shifted, field + 2.0 * inside)
    replaced = Edit.parse("GP850.q = 2 sd", CHANNELS).applied(field, box)
    np.testing.assert_array_equal(replaced, np.where(inside, 2.0, field))


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "10,20,0,5"])
def test_boxes_that_cannot_be_used_are_refused(text):
    with pytest.raises(ConfigError, match="box"):
        box_pattern(text, GRID)


def test_a_pattern_is_read_from_a_file(tmp_path: Path):
    field = xr.DataArray(
        np.arange(12.0).reshape(1, 3, 4),
        dims=("time", "lat", "lon"),
        coords={"lat": GRID.lat, "lon": GRID.lon},
        name="bump",
    )
    field.to_netcdf(tmp_path / "bump.nc")
    found = file_pattern(tmp_path / "bump.nc", GRID)
    np.testing.assert_array_equal(found, field.values[0])

    moved = field.assign_coords(lon=GRID.lon + 1)
    moved.to_netcdf(tmp_path / "moved.nc")
    with pytest.raises(GridMismatchError, match="coarse grid"):
        file_pattern(tmp_path / "moved.nc", GRID)
    xr.Dataset({"a": field[0], "b": field[0]}).to_netcdf(tmp_path / "two.nc")
    with pytest.raises(InputError, match="one pattern"):
        file_pattern(tmp_path / "two.nc", GRID)
    with pytest.raises(MissingFileError):
        file_pattern(tmp_path / "none.nc", GRID)
