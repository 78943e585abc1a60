"""Splits: disjoint periods, embargo, any calendar (D21)."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.time.periods import (
    check_period,
    described_periods,
    period_days,
)
from st_cdgm.data.time.splits import SPLITS, SplitConfig, season_years, split_days
from st_cdgm.data.time.windows import window_index
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
        ({"embargo_days": -1}, "embargo_days is too small"),
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


# -- Years and folds -------------------------------------------------------------------

CALENDARS = ["standard", "noleap", "360_day", "julian"]


def _winters(years, calendar="standard"):
    """Every day from December to February, named after the year of the February."""
    stamps = []
    for year in years:
        first = cftime.datetime(year - 1, 12, 1, calendar=calendar)
        last = cftime.datetime(year, 3, 1, calendar=calendar)
        count = (last - first).days
        stamps += list(
            cftime.num2date(
                np.arange(count), f"days since {year - 1}-12-01", calendar=calendar
            )
        )
    return day_keys(xr.DataArray(stamps, dims="time", name="time"))


def test_year_lists_in_any_order():
    days = _days(365 * 6, calendar="noleap")
    config = SplitConfig(
        train_years=[2006, 2001, 2003], validation_years=[2002], test_years=[2005]
    )
    index = split_days(days, config)
    for name in SPLITS:
        years = days.day[index[name]] // 10000
        assert sorted(set(years.tolist())) == sorted(getattr(config, f"{name}_years"))
        assert len(index[name]) == 365 * len(getattr(config, f"{name}_years"))
    assert config.periods() == {
        "train": ["2001-01", "2001-12", "2003-01", "2003-12", "2006-01", "2006-12"],
        "validation": ["2002-01", "2002-12"],
        "test": ["2005-01", "2005-12"],
    }
    pieces = described_periods(days, index)["train"]
    assert pieces[:2] == ["2001-01-01", "2001-12-31"]
    assert pieces[2:] == ["2003-01-01", "2003-12-31", "2006-01-01", "2006-12-31"]


def test_a_season_year_keeps_a_winter_together():
    days = _winters(range(1991, 1997))
    label = season_years(days.day, 12)
    for first, last in zip(
        np.r_[0, np.flatnonzero(np.diff(days.ordinal) > 1) + 1],
        np.r_[np.flatnonzero(np.diff(days.ordinal) > 1), len(days) - 1],
        strict=True,
    ):
        assert len(set(label[first : last + 1])) == 1
        assert label[last] == days.day[last] // 10000
    config = SplitConfig(
        train_years=[1991, 1992, 1993, 1994], test_years=[1996], season_start_month=12
    )
    index = split_days(days, config)
    described = described_periods(days, index)
    assert described == {
        "train": ["1990-12-01", "1994-02-28"],
        "test": ["1995-12-01", "1996-02-29"],
    }
    assert config.periods() == {
        "train": ["1990-12", "1994-11"],
        "test": ["1995-12", "1996-11"],
    }
    assert season_years(np.array([19911130, 19911201]), 12).tolist() == [1991, 1992]
    assert season_years(np.array([19911231, 19920101])).tolist() == [1991, 1992]
    assert season_years(np.array([19910630, 19910701]), 7).tolist() == [1991, 1992]


@pytest.mark.parametrize("start_month", [1, 7, 12])
@pytest.mark.parametrize("calendar", CALENDARS)
def test_periods_of_year_lists_hold_exactly_their_days(calendar, start_month):
    days = _days(365 * 7, calendar=calendar)
    config = SplitConfig(
        train_years=[2002, 2003, 2006],
        test_years=[2004],
        season_start_month=start_month,
    )
    index = split_days(days, config)
    for named in (config.periods(), described_periods(days, index)):
        for name, periods in named.items():
            pairs = zip(periods[::2], periods[1::2], strict=True)
            parts = [period_days(days.day, start, end) for start, end in pairs]
            assert np.array_equal(np.concatenate(parts), index[name])


def test_folds_of_a_record_with_a_missing_year():
    days = _days(365 * 8, start="1998-01-01", calendar="noleap")
    days = days.select(np.flatnonzero(days.day // 10000 != 2000))
    seen = []
    for fold in range(3):
        index = split_days(days, SplitConfig(folds=3, fold=fold))
        years = {n: sorted(set(days.day[index[n]] // 10000)) for n in SPLITS}
        seen.append((years["test"], years["validation"], years["train"]))
    blocks = [[1998, 1999, 2001], [2002, 2003], [2004, 2005]]
    assert seen == [
        (blocks[0], blocks[1], blocks[2]),
        (blocks[1], blocks[2], blocks[0]),
        (blocks[2], blocks[0], blocks[1]),
    ]


@settings(max_examples=25, deadline=None)
@given(
    calendar=st.sampled_from(CALENDARS),
    years=st.integers(3, 6),
    folds=st.integers(3, 6),
    start_month=st.integers(1, 12),
    embargo=st.integers(0, 40),
    winters=st.booleans(),
)
def test_every_year_is_tested_once_and_splits_keep_apart(
    calendar, years, folds, start_month, embargo, winters
):
    """Splits are disjoint, apart by the embargo, and lose only embargoed days."""
    if winters:
        days, start_month = _winters(range(1991, 1991 + years), calendar), 12
    else:
        start = f"2001-{start_month:02d}-01"
        days = _days(360 * years, start=start, calendar=calendar)
    label = season_years(days.day, start_month)
    if len(np.unique(label)) < folds:
        return
    tested = []
    for fold in range(folds):
        plain, kept = (
            split_days(
                days,
                SplitConfig(
                    folds=folds,
                    fold=fold,
                    season_start_month=start_month,
                    embargo_days=e,
                ),
            )
            for e in (0, embargo)
        )
        _check_splits(days, plain, kept, embargo)
        tested += np.unique(label[kept["test"]]).tolist()
        assert len(plain["test"]) == np.isin(label, label[kept["test"]]).sum()
    assert tested == np.unique(label).tolist()


def _within(ordinal, index, distance):
    """Whether each day is at most ``distance`` days from one of ``index``."""
    first = ordinal[0] - distance
    near = np.zeros(ordinal[-1] - first + distance + 1, dtype=bool)
    for day in ordinal[index] - first:
        near[day - distance : day + distance + 1] = True
    return near[ordinal - first]


def _check_splits(days, plain, kept, embargo):
    everything = np.concatenate([plain[name] for name in SPLITS])
    assert np.array_equal(np.sort(everything), np.arange(len(days)))
    for i, name in enumerate(SPLITS):
        later = np.concatenate([[], *(plain[n] for n in SPLITS[i + 1 :])]).astype(int)
        near = _within(days.ordinal, later, embargo)
        assert kept[name].tolist() == [d for d in plain[name] if not near[d]]
    assert np.array_equal(kept["test"], plain["test"])


@pytest.mark.parametrize("seq_len", [2, 10])
def test_windows_never_cross_a_split_that_was_cut_out(seq_len):
    """Training days on both sides of validation and test are two runs."""
    days = _days(365 * 5, calendar="noleap")
    index = split_days(days, SplitConfig(folds=5, fold=1))
    train = days.select(index["train"])
    windows = train.day[window_index(train.ordinal, seq_len)]
    assert len(windows) == len(train) - 2 * (seq_len - 1)
    before, after = windows[:, 0] < 20020101, windows[:, -1] >= 20040101
    assert (before == (windows[:, -1] <= 20011231)).all()
    assert (before ^ after).all()
    winters = _winters(range(1991, 1997))
    for fold in range(3):
        config = SplitConfig(folds=3, fold=fold, season_start_month=12)
        for chosen in split_days(winters, config).values():
            part = winters.select(chosen)
            ends = part.ordinal[window_index(part.ordinal, seq_len)]
            assert (ends[:, -1] - ends[:, 0] == seq_len - 1).all()
            assert len(ends)


def test_d21_years_without_days_are_named(caplog):
    days = _days(365 * 3, calendar="noleap")
    config = SplitConfig(train_years=[2001, 2009], test_years=[2003])
    assert len(split_days(days, config, file="hr.nc")["train"]) == 365
    assert "hr.nc: no day in the train years [2009]" in caplog.text
    with pytest.raises(InputError, match="no day lies in the test years") as error:
        split_days(days, SplitConfig(train_years=[2001], test_years=[1999]))
    assert error.value.facts["found"] == "the years 2001, 2002, 2003"
    with pytest.raises(InputError, match="fewer years than folds"):
        split_days(days, SplitConfig(folds=4))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test_years": [2001]}, "training years are missing"),
        ({"train_years": [2001], "test_years": [2001]}, "listed twice"),
        ({"train_years": [2001, 2001]}, "listed twice"),
        ({"folds": 2}, "folds is too small"),
        ({"folds": -1}, "folds is too small"),
        ({"folds": 4, "fold": 4}, "fold is out of range"),
        ({"folds": 4, "fold": -1}, "fold is out of range"),
        ({"folds": 4, "season_start_month": 13}, "month is out of range"),
        ({"folds": 4, "embargo_days": -2}, "embargo_days is too small"),
        ({"folds": 4, "train_years": [2001]}, "more than one way"),
        ({"train": ["2001", "2002"], "train_years": [2001]}, "more than one way"),
        ({"train": ["2001", "2002"], "folds": 3}, "more than one way"),
    ],
)
def test_wrong_years_and_folds_are_configuration_errors(options, words):
    with pytest.raises(ConfigError, match=words) as error:
        SplitConfig(**options).check()
    assert error.value.facts["variable"].startswith("data.splits")


def test_what_is_given():
    assert not SplitConfig().given()
    assert SplitConfig().names() == ()
    periods = _config()
    assert (periods.kind(), periods.names()) == ("periods", SPLITS)
    assert periods.describe() == periods.periods()
    years = SplitConfig(train_years=[2001], test_years=[2003], season_start_month=12)
    assert (years.kind(), years.names()) == ("years", ("train", "test"))
    assert years.describe() == {
        "train_years": [2001],
        "test_years": [2003],
        "season_start_month": 12,
    }
    folds = SplitConfig(folds=5, fold=2)
    assert folds.given()
    assert (folds.names(), folds.periods()) == (SPLITS, {})
    assert folds.describe() == {"folds": 5, "fold": 2}


def test_years_and_folds_work_as_a_structured_config():
    given = OmegaConf.structured(SplitConfig)
    given.train_years, given.test_years = [1991, 1992], [1993]
    config = OmegaConf.to_object(given)
    assert config.names() == ("train", "test")
    config.check()
    merged = OmegaConf.merge(
        OmegaConf.structured(SplitConfig), OmegaConf.from_dotlist(["folds=4", "fold=3"])
    )
    assert OmegaConf.to_object(merged).describe() == {"folds": 4, "fold": 3}


# -- Steps shorter than a day ----------------------------------------------------------


def _steps(count=96, minutes=5, start="2010-08-26"):
    stamps = cftime.num2date(
        np.arange(count) * minutes, f"minutes since {start}", calendar="standard"
    )
    time = xr.DataArray(stamps, dims="time", name="time")
    return day_keys(time, time_step="native")


def test_periods_with_hours_split_an_event():
    config = SplitConfig(
        train=["2010-08-26", "2010-08-26T05:55"],
        validation=["2010-08-26 06:30", "2010-08-26T07"],
    )
    days = _steps()
    index = split_days(days, config)
    assert described_periods(days, index) == {
        "train": ["2010-08-26T00:00:00", "2010-08-26T05:55:00"],
        "validation": ["2010-08-26T06:30:00", "2010-08-26T07:55:00"],
    }
    with pytest.raises(ConfigError, match="share days"):
        split_days(_days(3, start="2010-08-25"), config)
    overlapping = SplitConfig(train=config.train, test=["2010-08-26T05:50", "2010-09"])
    with pytest.raises(ConfigError, match="share days"):
        overlapping.check()


def test_the_embargo_is_in_days_whatever_the_step():
    days = _steps(8 * 10, minutes=180)
    config = SplitConfig(
        train=["2010-08-26", "2010-08-29"],
        test=["2010-08-30", "2010-08-31"],
        embargo_days=1,
    )
    index = split_days(days, config)
    assert days.select(index["train"]).iso()[-1] == "2010-08-28T21:00:00"
    assert len(index["test"]) == 16


def test_described_periods_leave_out_what_is_empty():
    index = {"train": np.array([0, 1, 2, 5]), "test": np.empty(0, np.int64)}
    assert described_periods(_days(), index) == {
        "train": ["2001-01-01", "2001-01-03", "2001-01-06", "2001-01-06"]
    }


@pytest.mark.parametrize("text", ["2010-08-26T24:00", "2010-08-26T05:60", "2010-08-32"])
def test_hours_that_are_none(text):
    with pytest.raises(ConfigError, match="not a date"):
        period_days(_steps().key, text, None)


def test_real_winters_in_folds(real_data):
    from st_cdgm.data.read.readers import read_targets

    path = real_data / "cordex_iberia" / "racmo22e_winter.nc"
    days = read_targets(path).days
    config = SplitConfig(folds=5, fold=4, season_start_month=12, embargo_days=10)
    index = split_days(days, config)
    described = described_periods(days, index)
    assert sum(len(part) for part in index.values()) == len(days)  # summers are between
    assert described["test"] == ["1998-12-01", "2002-02-28"]
    assert described["validation"] == ["1982-12-01", "1986-02-28"]
