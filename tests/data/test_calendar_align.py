"""Records with and without leap days are paired by a stated rule, else refused."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from small_task import config, predictors, stamps, targets, write

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.time.alignment import ALIGNMENTS, aligned_steps
from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.errors import ConfigError, InputError

CALENDARS = [("standard", "noleap"), ("noleap", "standard")]


def record(calendar, days=3 * 366, start="2003-11-02"):
    """Daily stamps over the leap year 2004."""
    time = xr.DataArray(list(stamps(days, calendar, start)), dims="time", name="time")
    return day_keys(time)


def paired(lr, hr, how):
    of_lr, of_hr, days = aligned_steps(lr, hr, how, file="lr.nc, hr.nc")
    np.testing.assert_array_equal(days.day, lr.day[of_lr])
    assert days.calendar == lr.calendar
    return lr.day[of_lr], hr.day[of_hr]


@pytest.mark.parametrize(("first", "second"), CALENDARS)
def test_dates_are_paired_without_the_leap_day(first, second):
    lr, hr = paired(record(first), record(second), "drop_leap_day")
    np.testing.assert_array_equal(lr, hr)
    assert {20040228, 20040301, 20041231} <= set(lr.tolist())
    assert 20040229 not in lr


@pytest.mark.parametrize(("first", "second"), CALENDARS)
def test_days_of_the_year_are_paired_by_their_number(first, second):
    lr, hr = paired(record(first), record(second), "day_of_year")
    for of_lr, of_hr in zip(lr, hr, strict=True):
        dates = [
            cftime.datetime(d // 10000, d // 100 % 100, d % 100, calendar=calendar)
            for d, calendar in ((int(of_lr), first), (int(of_hr), second))
        ]
        assert dates[0].year == dates[1].year
        assert dates[0].dayofyr == dates[1].dayofyr
    # The last day of the leap year alone has no partner.
    leap, other = (lr, hr) if first == "standard" else (hr, lr)
    assert 20041231 not in leap
    assert {20040229, 20041230, 20051231} <= set(leap.tolist())
    assert {20040301, 20041231} <= set(other.tolist())


@pytest.mark.parametrize("how", [None, *ALIGNMENTS])
def test_one_calendar_needs_no_rule(how):
    lr, hr = paired(record("noleap"), record("noleap"), how)
    assert len(lr) == 3 * 366
    np.testing.assert_array_equal(lr, hr)


def test_other_calendars_are_refused_with_the_remedy():
    lr, hr = record("standard"), record("noleap")
    with pytest.raises(InputError, match=r"(?s)standard and noleap.*calendar_align"):
        aligned_steps(lr, hr, None, file="lr.nc, hr.nc")
    months = record("360_day", start="2003-11-02")
    with pytest.raises(InputError, match=r"(?s)360_day.*convert_calendar") as caught:
        aligned_steps(lr, months, "day_of_year", file="lr.nc, hr.nc")
    assert "calendar_align" not in str(caught.value)


def test_a_pipeline_pairs_two_calendars(tmp_path):
    days, start = 400, "2003-11-02"
    write(
        tmp_path,
        lr=predictors(stamps(days, "standard", start)),
        hr=targets(stamps(days, "noleap", start)),
    )
    splits = SplitConfig(train=["2003-11-02", "2004-06-30"])
    with pytest.raises(InputError, match="data.calendar_align: drop_leap_day"):
        NetCDFDataPipeline.from_config(config(tmp_path, splits=splits))
    made = NetCDFDataPipeline.from_config(
        config(tmp_path, splits=splits, calendar_align="drop_leap_day")
    )
    assert made.days.calendar == made.preprocessor.calendar == "standard"
    assert made.days.gaps() == [("2004-02-28", "2004-03-01")]

    # The values are those of the dates.
    with xr.open_dataset(tmp_path / "hr.nc") as fine:
        noon = fine.time.values[119]
        assert (noon.month, noon.day) == (3, 1)
        expected = fine.pr.values[119]
    at = made.days.day.tolist().index(20040301)
    found = made.hr_dataset_raw["pr"].values[at]
    np.testing.assert_allclose(found, expected, rtol=1e-5)

    with pytest.raises(ConfigError, match="calendar_align"):
        NetCDFDataPipeline.from_config(config(tmp_path, calendar_align="guess"))


@pytest.mark.parametrize("normalize", [True, False])
def test_given_statistics_standardise_only_if_asked_to(tmp_path, normalize):
    write(tmp_path)
    for name, value in (("mean", 280.0), ("std", 4.0)):
        ds = xr.Dataset({"q_850": value, "tas": value, "pr": value})
        ds.to_netcdf(tmp_path / f"{name}.nc")
    made = NetCDFDataPipeline(
        tmp_path / "lr.nc",
        tmp_path / "hr.nc",
        normalize=normalize,
        lr_precipitation_root=False,
        splits=SplitConfig(train=["2001-01-01", "2001-08-20"]),
        means_path=tmp_path / "mean.nc",
        stds_path=tmp_path / "std.nc",
    )
    raw = made.lr_dataset_raw["tas"].values
    expected = (raw - 280) / 4 if normalize else raw
    found = made.get_lr_dataset()["tas"].values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
