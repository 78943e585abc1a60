"""Splits: disjoint periods, embargo, any calendar (D21)."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf

from st_cdgm.data.calendars import day_keys
from st_cdgm.data.splits import (
    SplitConfig,
    check_period,
    period_days,
    split_days,
)
from st_cdgm.errors import ConfigError, InputError


def _days(count=60, start="2001-01-01", calendar="standard"):
    stamps = cftime.num2date(np.arange(count), f"days since {start}", calendar=calendar)
    return day_keys(xr.DataArray(stamps, dims="time", name="time"))


def _config(**options):
    periods = {
        "train": ["2001-01-01", "2001-01-20"],
        "validation": ["2001-01-21", "2001-01-30"],
        "test": ["2001-02-01", "2001-02-10"],
    }
    return SplitConfig(**{**periods, **options})


def test_periods_include_both_ends():
    index = split_days(_days(), _config())
    assert index["train"].tolist() == list(range(20))
    assert index["validation"].tolist() == list(range(20, 30))
    assert index["test"].tolist() == list(range(31, 41))


def test_embargo_shortens_training_and_validation_but_never_the_test_period():
    index = split_days(_days(), _config(embargo_days=5))
    assert index["train"].tolist() == list(range(15))
    assert index["validation"].tolist() == list(range(20, 26))
    assert index["test"].tolist() == list(range(31, 41))


def test_embargo_acts_on_both_sides_of_a_period_inside_the_training_record():
    index = split_days(
        _days(),
        SplitConfig(
            train=["2001-02-01", "2001-02-28"],
            test=["2001-01-25", "2001-01-31"],
            embargo_days=3,
        ),
    )
    assert index["train"][0] == 31 + 3
    assert len(index["validation"]) == 0


def test_thirtieth_of_february_is_a_day_in_its_calendar_and_a_bound_in_any():
    days = _days(90, calendar="360_day")
    assert days.day[period_days(days.day, "2001-02-30", "2001-02-30")] == 20010230
    days = _days(90)
    assert days.day[period_days(days.day, None, "2001-02-30")[-1]] == 20010228


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [
        ("2001", "2001", 20010101, 20010301),
        ("2001-02", "2001-02", 20010201, 20010228),
        (None, "2001-01-03", 20010101, 20010103),
        ("2001-02-27T12:00", None, 20010227, 20010301),
    ],
)
def test_short_and_open_bounds(start, end, first, last):
    day = _days().day
    index = period_days(day, start, end)
    assert (day[index[0]], day[index[-1]]) == (first, last)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": []}, "training period is missing"),
        ({"validation": ["2001-01-20", "2001-01-30"]}, "share days"),
        ({"test": ["2001-01-05", "2001-01-06"]}, "share days"),
        ({"test": ["2001-02-10", "2001-02-01"]}, "ends before it starts"),
        ({"test": ["2001-02-01"]}, "a start and an end"),
        ({"test": ["first of May", "2001-05-02"]}, "not a date"),
        ({"test": ["2001-13-01", "2001-13-02"]}, "not a date"),
        ({"embargo_days": -1}, "negative embargo"),
    ],
)
def test_wrong_periods_are_configuration_errors(options, words):
    with pytest.raises(ConfigError, match=words):
        _config(**options).check()


def test_a_period_outside_the_record_names_the_record():
    with pytest.raises(InputError, match="2001-01-01 to 2001-03-01") as error:
        split_days(_days(), _config(test=["2003-01-01", "2003-02-01"]), file="hr.nc")
    assert "hr.nc" in str(error.value)


def test_a_period_in_a_gap_names_the_days_around_it():
    day = np.array([19991231, 20010101, 20010102])
    with pytest.raises(InputError, match="no day lies") as error:
        period_days(day, "2000-02-01", "2000-02-03")
    assert error.value.facts["found"] == (
        "days from 1999-12-31 to 2001-01-02, but none between 1999-12-31 and 2001-01-01"
    )


@pytest.mark.parametrize(
    ("start", "end", "variable"),
    [("2001-02-02", "2001-02-01", "start, end"), ("soon", None, "start")],
)
def test_a_period_that_is_none(start, end, variable):
    with pytest.raises(ConfigError) as error:
        check_period(start, end)
    assert error.value.facts["variable"] == variable


def test_an_embargo_that_leaves_nothing_is_an_error():
    with pytest.raises(InputError, match="embargo leaves no day in validation"):
        split_days(_days(), _config(embargo_days=12))


def test_configuration_works_as_a_structured_config():
    given = OmegaConf.structured(SplitConfig)
    given.train = ["2001-01-01", "2001-01-20"]
    config = OmegaConf.to_object(given)
    assert config.periods() == {"train": ["2001-01-01", "2001-01-20"]}
