from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from climate_files import times
from hypothesis import given, settings
from hypothesis import strategies as st

from st_cdgm.data.files.open import open_dataset, time_bounds
from st_cdgm.data.time.axis import canonical_calendar, day_keys
from st_cdgm.data.time.calendar import duration, key_date, key_text
from st_cdgm.errors import ConfigError, InputError

CALENDARS = [
    "standard",
    "proleptic_gregorian",
    "noleap",
    "all_leap",
    "360_day",
    "julian",
]


def axis(stamps) -> xr.DataArray:
    return xr.DataArray(np.asarray(stamps), dims="time", name="time")


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        ("standard", [20000228, 20000229, 20000301]),
        ("noleap", [20010228, 20010301, 20010302]),
        ("360_day", [20000228, 20000229, 20000230]),
    ],
)
def test_d12_days_at_the_end_of_february(calendar, expected):
    """The 30 February of a 360-day year is a day like any other."""
    year = str(expected[0])[:4]
    days = day_keys(axis(times(3, calendar=calendar, start=f"{year}-02-28")))
    assert days.day.tolist() == expected
    assert days.day.dtype == np.int64
    assert np.diff(days.ordinal).tolist() == [1, 1]
    assert days.calendar == calendar


@settings(max_examples=60, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    start=st.integers(0, 150_000),
    count=st.integers(2, 800),
)
def test_consecutive_days_differ_by_one_in_every_calendar(calendar, start, count):
    origin = "days since 1700-01-01"
    stamps = cftime.num2date(start + np.arange(count), origin, calendar=calendar)
    days = day_keys(axis(stamps))
    assert (np.diff(days.ordinal) == 1).all()
    assert (np.diff(days.day) > 0).all()
    assert days.season.min() >= 0.0
    assert days.season.max() < 1.0
    new_year = days.day % 10000 == 101
    assert (days.season[new_year] == 0.0).all()
    assert days.gaps() == []


def test_d12_the_hour_does_not_matter():
    midnight, noon = times(3), times(3, start="2001-01-01T12:00:00")
    a, b = day_keys(axis(midnight)), day_keys(axis(noon))
    assert a.day.tolist() == b.day.tolist() == [20010101, 20010102, 20010103]
    assert a.ordinal.tolist() == b.ordinal.tolist()


def test_season_is_the_share_of_the_own_year():
    days = day_keys(axis(times(366, start="2000-01-01")))
    np.testing.assert_allclose(days.season, np.arange(366) / 366, rtol=1e-6)
    thirty = day_keys(axis(times(360, calendar="360_day", start="2001-01-01")))
    np.testing.assert_allclose(thirty.season, np.arange(360) / 360, rtol=1e-6)


def test_datetime64_is_read_like_cftime():
    stamps = xr.date_range("2001-01-01", periods=3, use_cftime=False)
    days = day_keys(axis(stamps.to_numpy()))
    assert days.calendar == "standard"
    assert days.ordinal.tolist() == day_keys(axis(times(3))).ordinal.tolist()


def test_gregorian_calendars_are_one_from_1582():
    assert (
        day_keys(axis(times(2, calendar="proleptic_gregorian"))).calendar == "standard"
    )
    early = times(2, calendar="proleptic_gregorian", start="1500-01-01")
    assert day_keys(axis(early)).calendar == "proleptic_gregorian"
    assert canonical_calendar("gregorian") == "standard"
    assert canonical_calendar("365_day") == "noleap"


def test_gaps_and_period():
    stamps = times(10)[[0, 1, 4, 5, 9]]
    days = day_keys(axis(stamps))
    assert days.gaps() == [("2001-01-02", "2001-01-05"), ("2001-01-06", "2001-01-10")]
    assert days.period() == "2001-01-01..2001-01-10"
    assert days.select(slice(1, 3)).period() == "2001-01-02..2001-01-05"
    assert len(days.select(np.array([0, 4]))) == 2


@pytest.mark.parametrize(
    ("stamps", "problem", "found"),
    [
        (times(3)[[0, 1, 1]], "several time stamps fall on one day", "2001-01-02"),
        (times(3)[[1, 0, 2]], "not in order", "2001-01-02 00:00:00 followed by"),
        (times(3)[[0, 1, 0]], "several time stamps", "2001-01-01"),
        (times(0), "empty", "0 time stamps"),
        (np.arange(3), "cannot be read as dates", "units 'none'"),
    ],
)
def test_d12_unusable_axes(stamps, problem, found):
    with pytest.raises(InputError, match=problem) as caught:
        day_keys(axis(stamps), file="a.nc")
    facts = caught.value.facts
    assert facts["file"] == "a.nc"
    assert facts["variable"] == "time"
    assert found in facts["found"]
    assert facts["expected"]
    assert facts["remedy"]


def test_twelve_hourly_stamps_are_several_per_day():
    stamps = xr.date_range("2001-01-01", periods=4, freq="12h", use_cftime=True)
    with pytest.raises(InputError, match="several time stamps") as caught:
        day_keys(axis(stamps))
    assert "daymean" in caught.value.facts["remedy"]


def test_a_day_stamped_at_its_end_is_the_day_that_began():
    stamps = times(4)
    bounds = xr.DataArray(np.stack([stamps[:-1], stamps[1:]], axis=1))
    ends = axis(stamps[1:])
    assert day_keys(ends).day[0] == 20010102
    assert day_keys(ends, bounds=bounds).day.tolist() == [20010101, 20010102, 20010103]
    # A stamp at the beginning, or a longer step, is left alone.
    assert day_keys(axis(stamps[:-1]), bounds=bounds).day[0] == 20010101
    wide = xr.DataArray(np.stack([stamps[[0, 0]], stamps[[2, 3]]], axis=1))
    assert day_keys(axis(stamps[2:]), bounds=wide).day[0] == 20010103


def test_bounds_of_another_calendar_are_left_alone(caplog):
    """A converted file may keep the bounds of its old calendar."""
    stamps = times(4, calendar="360_day")
    old = times(4)
    bounds = xr.DataArray(np.stack([old[:-1], old[1:]], axis=1))
    days = day_keys(axis(stamps[1:]), bounds=bounds, file="a.nc")
    assert days.day.tolist() == [20010102, 20010103, 20010104]
    assert "their calendar is standard, not 360_day" in caplog.text


def test_gregorian_bounds_fit_all_gregorian_stamps(caplog):
    stamps = times(3, calendar="proleptic_gregorian")
    old = times(3)
    bounds = xr.DataArray(np.stack([old[:-1], old[1:]], axis=1))
    assert day_keys(axis(stamps[1:]), bounds=bounds).day.tolist() == [
        20010101,
        20010102,
    ]
    assert "not used" not in caplog.text


@settings(max_examples=25, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    start=st.integers(0, 150_000),
    minutes=st.sampled_from([1, 5, 60, 180, 360, 420, 720]),
    count=st.integers(150, 300),
    data=st.data(),
)
def test_steps_are_counted_exactly_in_every_calendar(
    calendar, start, minutes, count, data
):
    """Whole numbers: no step is lost or doubled by rounding, and gaps are counted."""
    first = data.draw(st.integers(2, count - 2))
    gap = data.draw(st.integers(1, 500))
    number = np.r_[0:first, first + gap : count + gap]
    origin = (
        f"minutes since {cftime.num2date(start, 'days since 1700-01-01', calendar)}"
    )
    stamps = cftime.num2date(number * minutes, origin, calendar)
    days = day_keys(axis(stamps), time_step="native")
    if days.second is None:  # all on different days
        return
    assert days.step_seconds == minutes * 60
    assert np.array_equal(days.ordinal - days.ordinal[0], number)
    assert (np.diff(days.key) > 0).all()
    assert days.iso() == [stamp.isoformat() for stamp in stamps]
    assert days.dates() == list(stamps)
    assert 0.0 <= days.season.min() <= days.season.max() < 1.0
    assert len(days.gaps()) == 1
    cut = days.select(slice(first, None))
    assert cut.iso() == days.iso()[first:]
    assert cut.key.tolist() == days.key[first:].tolist()


@settings(max_examples=40, deadline=None)
@given(calendar=st.sampled_from(CALENDARS), start=st.integers(0, 200_000))
def test_ordinals_are_those_of_cftime(calendar, start):
    stamps = cftime.num2date(start, "days since 1600-01-01", calendar=calendar)
    days = day_keys(axis([stamps]))
    expected = cftime.date2num(stamps, "days since 1850-01-01", calendar=calendar)
    assert days.ordinal[0] == expected


def test_d24_keys_and_texts_keep_the_hour():
    assert key_text(20030131) == "2003-01-31"
    assert key_text(20100826000500) == "2010-08-26T00:05:00"
    day = key_date(20010230, "360_day")
    assert day == cftime.datetime(2001, 2, 30, calendar="360_day")
    step = key_date(20010230134501, "360_day")
    assert step == cftime.datetime(2001, 2, 30, 13, 45, 1, calendar="360_day")
    daily = day_keys(axis(times(2)))
    assert daily.key.tolist() == daily.day.tolist()
    assert daily.iso() == ["2001-01-01", "2001-01-02"]
    assert daily.step_seconds == 86400


@pytest.mark.parametrize("step", ["daily", "native"])
def test_d12_repeated_stamps_are_refused_in_both_modes(step):
    hourly = xr.date_range("2001-01-01", periods=6, freq="1h", use_cftime=True)
    stamps = hourly.values[[0, 1, 2, 2, 3, 3]]
    with pytest.raises(InputError, match="several time stamps") as caught:
        day_keys(axis(stamps), time_step=step)
    first = {"daily": "the first 2001-01-01", "native": "the first 2001-01-01 02:00:00"}
    assert caught.value.facts["found"].endswith(first[step])


def test_a_native_step_with_bounds_begins_where_they_say():
    end = xr.date_range("2001-01-01T06:00", periods=4, freq="6h", use_cftime=True)
    begin = xr.date_range("2001-01-01", periods=4, freq="6h", use_cftime=True)
    bounds = xr.DataArray(np.stack([begin, end], axis=1))
    days = day_keys(axis(end), bounds=bounds, time_step="native")
    assert days.key.tolist() == [20010101 * 10**6 + h * 10**4 for h in (0, 6, 12, 18)]


def test_season_of_a_step_counts_its_hour():
    stamps = xr.date_range("2001-01-01", periods=4, freq="6h", use_cftime=True)
    days = day_keys(axis(stamps), time_step="native")
    np.testing.assert_allclose(days.season, np.arange(4) / 4 / 365, rtol=1e-6)


def test_one_stamp_is_a_day_in_both_modes():
    noon = axis(times(1, start="2001-01-01T12:00:00"))
    for step in ("daily", "native"):
        days = day_keys(noon, time_step=step)
        assert (days.iso(), days.step_seconds) == (["2001-01-01"], 86400)


def test_lengths_of_time_are_shown_in_whole_units():
    assert [duration(s) for s in (172800, 10800, 300, 90)] == [
        "2 d",
        "3 h",
        "5 min",
        "90 s",
    ]


def test_unknown_time_step():
    with pytest.raises(ConfigError, match="unknown value of time_step"):
        day_keys(axis(times(3)), time_step="hourly")


@pytest.mark.parametrize(
    ("name", "calendar", "period"),
    [
        ("tasmin_day_HadGEM3*.nc", "360_day", "1960-11-01..1960-12-30"),
        ("pr_NAM-22*.nc", "noleap", "2051-01-01..2055-12-31"),
        ("pr_day_EC-Earth3*.nc", "standard", "1961-11-01..1961-12-31"),
    ],
)
def test_real_calendars(real_data, name, calendar, period):
    ds = open_dataset(real_data / "edge_cases" / name, role="lr")
    days = day_keys(ds.time, bounds=time_bounds(ds, "time"))
    assert (days.calendar, days.period(), days.gaps()) == (calendar, period, [])


def test_winters_have_their_gaps(real_data):
    path = real_data / "iberia_winter_025" / "targets_eobs_025.nc"
    days = day_keys(open_dataset(path, role="hr").time)
    assert len(days.gaps()) == 9
    assert days.gaps()[1] == ("1992-02-29", "1992-12-01")
