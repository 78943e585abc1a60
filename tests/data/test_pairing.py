from __future__ import annotations

import datetime
import json

import numpy as np
import pytest
import xarray as xr
from paired_files import change, pair, write_pair

from st_cdgm.data.inspect.pairs import inspect_pair
from st_cdgm.data.inspect.similarity import (
    LAGS,
    anomalies,
    block_means,
    lag_correlations,
    layouts,
    pattern_correlation,
)
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.outputs import to_json

ZERO = LAGS.index(0)


@pytest.fixture(scope="module")
def sound():
    return pair()


def problems(report):
    return [finding.problem for finding in report.findings]


# -- The measures ----------------------------------------------------------------------


def test_block_means_by_hand():
    values = np.array([[1.0, 3.0, 10.0, np.nan, np.nan], [np.nan] * 5])
    cell = np.array([0, 0, 2, 2, 2])
    means = block_means(values, cell, 4, least=0.5)
    # Cell 1 and 3 hold no fine cell; of cell 2 only a third is known.
    np.testing.assert_array_equal(means[0], [2.0, np.nan, np.nan, np.nan])
    assert np.isnan(means[1]).all()
    assert block_means(values, cell, 4, least=0.3)[0, 2] == 10.0


def test_anomalies_lose_the_annual_cycle_of_long_records_only():
    day = np.arange(730)
    season = (day % 365 / 365.0).astype(np.float32)
    cycle = 10.0 * np.cos(2 * np.pi * season) + 5.0
    noise = np.random.default_rng(0).normal(size=730)
    values = np.stack([cycle + noise, np.full(730, np.nan)], axis=1)
    found = anomalies(values, season, day)
    assert np.isnan(found[:, 1]).all()
    assert np.corrcoef(found[:, 0], noise)[0, 1] > 0.99
    short = anomalies(values[:90], season[:90], day[:90])
    np.testing.assert_allclose(
        short[:, 0], values[:90, 0] - values[:90, 0].mean(), rtol=1e-6
    )


def test_lag_correlations_find_the_shift():
    series = np.random.default_rng(0).normal(size=100)
    day = np.arange(10, 90)
    steps = day[:, None] + np.array(LAGS)
    # The fine record shows on each day what the coarse one shows two days later.
    found = lag_correlations(series[day + 2], series, steps)
    assert found[LAGS.index(2)] == pytest.approx(1.0)
    assert np.abs(np.delete(found, LAGS.index(2))).max() < 0.4
    steps[:, ZERO] = -1
    assert np.isnan(lag_correlations(series[day], series, steps)[ZERO])


def test_pattern_correlation_by_hand():
    fine = np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 8.0]])
    assert pattern_correlation(fine, 2.0 * fine + 7.0) == pytest.approx(1.0)
    assert pattern_correlation(fine, -fine) == pytest.approx(-1.0)
    # Without means (-1, 0, 1) and (-1, -1, 2) against (1, 0, -1) and (-1, -1, 2).
    other = np.array([[3.0, 2.0, 1.0], [0.0, 0.0, 3.0]])
    assert pattern_correlation(fine, other) == pytest.approx((-2 + 6) / 8)
    assert np.isnan(pattern_correlation(fine, np.full((2, 3), np.nan)))
    assert np.isnan(pattern_correlation(fine, np.ones((2, 3))))


def test_layouts_begin_as_given_and_undo_each_mistake():
    rng = np.random.default_rng(0)
    true = rng.normal(size=(2, 4, 6))
    mistakes = [
        true[:, ::-1],
        true[:, :, ::-1],
        true[:, ::-1, ::-1],
        true.swapaxes(1, 2).reshape(2, 4, 6),
        true.reshape(2, 6, 4).swapaxes(1, 2),
        np.roll(true, 3, axis=2),
    ]
    for given in mistakes:
        found = dict(layouts(given))
        assert next(iter(found)) == "as given"
        assert any(np.array_equal(arranged, true) for arranged in found.values())
    moved = np.roll(true, (1, -2), axis=(1, 2))
    back = dict(layouts(moved))["moved by (-1, 2) cells"]
    np.testing.assert_array_equal(back[:, :3, 2:], true[:, :3, 2:])
    assert np.isnan(back[:, 3]).all()
    assert np.isnan(back[:, :, :2]).all()
    square = dict(layouts(rng.normal(size=(1, 5, 5))))
    assert "axes exchanged: values.swapaxes(-1, -2)" in square


# -- A sound pair ----------------------------------------------------------------------


def test_a_sound_pair(tmp_path, sound):
    report = inspect_pair(*write_pair(tmp_path, *sound))
    assert report.usable
    assert problems(report) == []
    assert report.notes == ()
    assert (report.shared_days, report.lr_only_days, report.hr_only_days) == (400, 0, 0)
    assert report.period == "2001-01-01..2002-02-04"
    assert report.calendars == ("noleap", "noleap")
    assert report.cell_ratio == pytest.approx(5.0)
    assert report.outside_share == 0.0
    assert set(report.short_deg.values()) == {0.0}
    assert (report.best_lag, report.days_compared) == (0, 400)
    tas, pr = report.counterparts
    assert (tas.target, tas.channel, tas.same_quantity) == ("tas", "tas", True)
    assert (tas.target_units, tas.channel_units) == ("degC", "K")
    assert tas.channel_mean == pytest.approx(tas.target_mean, abs=1e-3)
    assert (pr.channel, pr.channel_units) == ("pr", "mm day-1")
    assert pr.best_layout == tas.best_layout == "as given"
    for one in (tas, pr):
        assert one.correlation > 0.9
        assert one.pattern > 0.9
        assert np.argmax(one.lag_correlations) == ZERO


def test_report_is_strict_json(tmp_path, sound):
    report = inspect_pair(*write_pair(tmp_path, *sound))
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["usable"] is True
    assert json.loads(to_json(report.to_dict()))["counterparts"][0]["target"] == "tas"


def test_data_sets_in_memory_and_chosen_variables(sound):
    lr, hr = sound
    report = inspect_pair(lr, hr, lr_variables=["psl", "pr"], hr_variables=["pr"])
    assert [c.target for c in report.counterparts] == ["pr"]
    assert report.usable


def test_a_sea_and_gaps_do_no_harm(tmp_path, sound):
    lr, hr = sound
    sea = hr.lat < 47.0
    hr = hr.where(~sea | (hr.lon > 3.0))
    for name in hr:
        hr[name].attrs = sound[1][name].attrs
    keep = [t for t in range(400) if t % 90 > 10]
    report = inspect_pair(*write_pair(tmp_path, lr, hr.isel(time=keep)))
    assert report.usable
    assert report.lr_only_days == 400 - len(keep)
    assert report.best_lag == 0


def test_a_coarse_mask_does_no_harm(sound):
    lr, hr = sound
    lr = lr.assign(sst=lr.tas.where(lr.lon > 5.0).assign_attrs(units="K"))
    assert inspect_pair(lr, hr).usable


def test_long_records_are_sampled_in_blocks():
    lr, hr = pair(900)
    report = inspect_pair(lr, hr)
    assert report.usable
    assert report.shared_days == 900
    assert 600 <= report.days_compared <= 730


def test_a_curvilinear_fine_grid(sound):
    lr, hr = sound
    y, x = np.meshgrid(hr.lat.values, hr.lon.values, indexing="ij")
    hr = hr.rename(lat="y", lon="x").drop_vars(["y", "x"])
    hr = hr.assign_coords(
        lat=(("y", "x"), y, {"units": "degrees_north"}),
        lon=(("y", "x"), x, {"units": "degrees_east"}),
    )
    assert inspect_pair(lr, hr).usable


# -- Days ------------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-3, -1, 1, 4])
def test_a_shifted_record_is_found(sound, days):
    lr, hr = sound
    moved = lr.assign_coords(time=lr.time + datetime.timedelta(days=days))
    report = inspect_pair(moved, hr)
    assert not report.usable
    assert report.best_lag == days
    (finding,) = report.findings
    side = "later" if days > 0 else "earlier"
    assert f"{abs(days)} day" in finding.problem
    assert side in finding.problem
    assert f"shifttime,{-days}day" in finding.remedy


def test_one_target_is_enough_to_see_a_shift(sound):
    lr, hr = sound
    moved = lr.assign_coords(time=lr.time + datetime.timedelta(days=1))
    report = inspect_pair(moved, hr, hr_variables=["pr"])
    assert report.best_lag == 1


def test_an_unpaired_record_is_found(sound):
    lr, hr = sound
    other = change(lr, lambda v: v[np.random.default_rng(3).permutation(len(v))])
    report = inspect_pair(other, hr)
    assert report.best_lag is None
    (finding,) = report.findings
    assert "not paired" in finding.problem
    assert "free-running" in finding.remedy


def test_calendars_that_differ(sound):
    lr, _ = sound
    _, hr = pair(120, calendar="360_day")
    report = inspect_pair(lr, hr)
    assert report.calendars == ("noleap", "360_day")
    assert "calendars differ" in problems(report)[0]
    assert report.counterparts == ()


@pytest.mark.parametrize(
    ("part", "word", "shared"),
    [(slice(0, 200), "no day is in both", 0), (slice(0, 230), "only 30 days", 30)],
)
def test_too_few_shared_days(sound, part, word, shared):
    lr, hr = sound
    report = inspect_pair(lr.isel(time=part), hr.isel(time=slice(200, None)))
    assert report.shared_days == shared
    assert word in problems(report)[0]
    assert report.findings[0].remedy


# -- Places ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "layout"),
    [
        (lambda v: v[:, ::-1], "latitudes turned"),
        (lambda v: v[:, :, ::-1], "longitudes turned"),
        (lambda v: v[:, ::-1, ::-1], "both axes turned"),
        (lambda v: v.swapaxes(1, 2).reshape(v.shape), "axes exchanged"),
        (lambda v: v.reshape(-1, 9, 6).swapaxes(1, 2), "axes exchanged"),
        (lambda v: np.roll(v, 4, axis=2), "moved by half"),
        (lambda v: np.roll(v, 1, axis=1), "moved by (-1, 0) cells"),
    ],
)
def test_misplaced_values_are_found_with_the_way_back(sound, how, layout):
    lr, hr = sound
    report = inspect_pair(change(lr, how), hr)
    (finding,) = report.findings
    assert "not where the coordinates say" in finding.problem
    assert layout in finding.problem
    assert "tas, pr of the predictors" in finding.problem


def test_scrambled_values_are_found(sound):
    lr, hr = sound
    order = np.random.default_rng(0).permutation(54)
    mixed = change(lr, lambda v: v.reshape(-1, 54)[:, order].reshape(v.shape))
    report = inspect_pair(mixed, hr)
    (finding,) = report.findings
    assert "scrambled in space" in finding.problem


def test_another_region_is_refused(sound):
    lr, hr = sound
    report = inspect_pair(lr.assign_coords(lon=lr.lon + 60.0), hr)
    (problem,) = problems(report)
    assert "the regions differ: 100%" in problem
    assert report.short_deg == {
        "south": 0.0,
        "north": 0.0,
        "west": pytest.approx(59.75),
        "east": 0.0,
    }
    assert report.counterparts == ()


def test_a_coarse_grid_that_is_a_little_short_is_noted(sound):
    lr, hr = sound
    report = inspect_pair(lr.isel(lon=slice(1, None)), hr)
    assert report.usable
    assert report.outside_share == pytest.approx(1 / 9)
    assert report.short_deg["west"] == pytest.approx(2.25)  # to the last cell centre
    assert "11% of the fine cells" in report.notes[0]
    assert "2.25 degrees in the west" in report.notes[0]


@pytest.mark.parametrize("turn", [-360.0, 360.0])
def test_longitude_conventions_do_not_matter(sound, turn):
    lr, hr = sound
    report = inspect_pair(lr.assign_coords(lon=lr.lon + turn), hr)
    assert report.usable
    assert report.outside_share == 0.0


def test_exchanged_files_and_equal_grids(sound):
    lr, hr = sound
    report = inspect_pair(hr, lr)
    assert any("not coarser" in problem for problem in problems(report))
    assert "exchange the two files" in [f.remedy for f in report.findings]
    assert report.cell_ratio == pytest.approx(0.2)
    same = inspect_pair(hr, hr)
    assert "not coarser" in problems(same)[0]


# -- Quantities ------------------------------------------------------------------------


def test_without_a_counterpart_days_are_compared_and_places_are_not(sound):
    lr, hr = sound
    report = inspect_pair(lr, hr, lr_variables=["psl"], hr_variables=["pr"])
    assert report.best_lag == 0
    (pr,) = report.counterparts
    assert (pr.channel, pr.same_quantity) == ("psl", False)
    assert pr.correlation < -0.5
    assert "places were not compared" in report.notes[0]


def test_means_that_cannot_be_of_one_quantity_are_noted(sound):
    lr, hr = sound
    lr = lr.assign(pr=(lr.pr * 24.0).assign_attrs(lr.pr.attrs))
    report = inspect_pair(lr, hr)
    assert report.usable
    assert "check the units" in report.notes[0]


def test_a_day_that_begins_at_another_hour_is_noted(sound):
    lr, hr = sound
    before = hr.tas.shift(time=1).assign_attrs(hr.tas.attrs)
    mixed = hr.assign(tasmin=0.7 * before + 0.3 * hr.tas)
    mixed.tasmin.attrs = hr.tas.attrs
    report = inspect_pair(lr, mixed.isel(time=slice(1, None)))
    assert report.usable
    assert report.best_lag == 0
    assert any("tasmin resembles" in note and "-1 day" in note for note in report.notes)


def test_files_that_cannot_be_used_by_themselves(tmp_path, sound):
    lr, hr = sound
    with pytest.raises(MissingFileError):
        inspect_pair(tmp_path / "none.nc", tmp_path / "none.nc")
    with pytest.raises(InputError, match="no time coordinate"):
        inspect_pair(lr.isel(time=0, drop=True), hr)


# -- Real files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def iberia(real_data):
    folder = real_data / "iberia"
    return folder / "predictors_ncep_r1.nc", folder / "targets_eobs_050.nc"


def test_real_pair_of_iberia(iberia):
    report = inspect_pair(*iberia)
    assert report.usable
    assert report.best_lag == 0
    assert (report.shared_days, report.outside_share) == (5113, 0.0)
    assert report.cell_ratio == pytest.approx(5.0)
    pr, tasmin, tasmax = report.counterparts
    assert (pr.channel, tasmin.channel, tasmax.channel) == ("pr", "tas", "tas")
    assert pr.correlation > 0.8
    assert pr.pattern > 0.5


def test_real_winters(real_data):
    folder = real_data / "iberia_winter_025"
    report = inspect_pair(
        folder / "predictors_ncep_r1.nc", folder / "targets_eobs_025.nc"
    )
    assert report.usable
    assert (report.best_lag, report.hr_only_days) == (0, 31)


def test_real_pair_shifted_by_one_day(iberia):
    with xr.open_dataset(iberia[0]) as ds:
        moved = ds[["pr", "tas", "t_1000"]].isel(time=slice(0, 1200)).load()
    moved = moved.assign_coords(time=moved.time + np.timedelta64(1, "D"))
    assert inspect_pair(moved, iberia[1]).best_lag == 1


@pytest.mark.parametrize(
    ("how", "word"),
    [
        (lambda v: v[:, ::-1], "latitudes turned"),
        (lambda v: v.reshape(-1, 9, 6).swapaxes(1, 2), "axes exchanged"),
        (
            lambda v: v.reshape(len(v), 54)[
                :, np.random.default_rng(0).permutation(54)
            ].reshape(v.shape),
            "scrambled in space",
        ),
    ],
)
def test_real_predictors_in_another_order(iberia, how, word):
    with xr.open_dataset(iberia[0]) as ds:
        part = ds[["pr", "tas", "t_1000"]].isel(time=slice(0, 700)).load()
    report = inspect_pair(change(part, how), iberia[1])
    assert not report.usable
    assert word in problems(report)[0]


@pytest.mark.parametrize(
    "targets", ["iberia/targets_eobs_050.nc", "iberia_winter_025/targets_eobs_025.nc"]
)
def test_real_climate_model_is_not_paired(real_data, targets):
    """A free-running CMIP5 model shows other weather than was observed."""
    model = real_data / "cmip5_iberia" / "cnrm_cm5_winter.nc"
    report = inspect_pair(model, real_data / targets)
    assert report.best_lag is None
    assert "not paired" in problems(report)[0]
