"""What the report draws: chosen days, spectra, ranks."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.evaluation.diagnostics import choose_cases
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.evaluation.scorecard import evaluate_ensembles

TASMIN = TargetVariable(name="tasmin", units="degC", standard_name="air_temperature")
PR = TargetVariable(name="pr", units="mm day-1")
HUSS = TargetVariable(name="huss", units="kg kg-1")


def test_days_are_chosen_from_the_truth_by_rule():
    means = {
        "tasmin": np.array([5.0, -9.0, 30.0, 8.0, np.nan]),
        "pr": np.array([1.0, 0.0, 0.0, 44.0, 99.0]),
    }
    means["pr"][4] = np.nan
    cases = choose_cases(means, [TASMIN, PR])
    assert [(c.label, c.index) for c in cases] == [
        ("wettest", 3),
        ("coldest", 1),
        ("warmest", 2),
        ("median", 0),
    ]
    assert cases[0].why == "largest area mean of pr: 44 mm day-1"


def test_a_day_chosen_twice_is_shown_once_with_both_reasons():
    means = {"tasmin": np.array([1.0, 2.0, 3.0]), "pr": np.array([9.0, 0.0, 0.0])}
    cases = choose_cases(means, [TASMIN, PR])
    assert [c.index for c in cases] == [0, 2, 1]
    assert cases[0].label == "wettest, coldest"
    assert "pr" in cases[0].why
    assert "tasmin" in cases[0].why


def test_other_variables_and_no_truth():
    cases = choose_cases({"huss": np.array([3.0, 1.0, 2.0])}, [HUSS])
    assert [(c.label, c.index) for c in cases] == [
        ("lowest", 1),
        ("highest", 0),
        ("median", 2),
    ]
    assert choose_cases({"huss": np.full(3, np.nan)}, [HUSS]) == []


def dataset(fields, dims, days=None):
    T = len(fields)
    time = xr.date_range("2001-07-01", periods=T, calendar="noleap", use_cftime=True)
    attrs = {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}
    return xr.Dataset(
        {"pr": (dims, fields.astype(np.float32), attrs)},
        coords={
            "time": time,
            "lat": ("lat", np.arange(40.0, 44.0), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(5.0), {"units": "degrees_east"}),
        },
    ).isel(time=slice(None) if days is None else days)


@pytest.fixture
def written(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.gamma(1.0, 3.0, size=(9, 4, 5))
    truth[4] += 50
    truth[:, 0, 0] = np.nan
    ensemble = rng.gamma(1.0, 3.0, size=(9, 5, 4, 5))
    single = rng.gamma(1.0, 3.0, size=(9, 4, 5))
    baseline = rng.gamma(1.0, 3.0, size=(9, 4, 5))
    plane = ("time", "lat", "lon")
    evaluate_ensembles(
        {
            "model": dataset(ensemble, ("time", "realization", "lat", "lon")),
            "interp": dataset(single, plane),
        },
        dataset(truth, plane),
        protocol={},
        output=tmp_path,
        baseline=dataset(baseline, plane, days=slice(2, 9)),
    )
    with xr.open_dataset(tmp_path / "diagnostics.nc") as opened:
        return opened.load(), truth, ensemble, baseline


def test_fields_of_the_chosen_days(written):
    stored, truth, ensemble, baseline = written
    wettest = stored.isel(case=0, variable=0)
    assert wettest["case"] == "wettest"
    assert wettest["day"] == 20010705
    assert str(wettest["why"].item()).startswith("largest area mean of pr")
    np.testing.assert_allclose(wettest["truth"], truth[4], rtol=1e-6)
    np.testing.assert_allclose(wettest["baseline"], baseline[4], rtol=1e-6)
    model = wettest.sel(source="model")
    np.testing.assert_allclose(model["mean"], ensemble[4].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model["spread"], ensemble[4].std(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(model["members"], ensemble[4, :3], rtol=1e-6)


def test_a_deterministic_source_leaves_spread_and_members_open(written):
    stored, *_ = written
    interp = stored.sel(source="interp")
    assert interp["ensemble_size"] == 1
    assert np.isnan(interp["spread"]).all()
    assert np.isfinite(interp["members"].isel(member=0)).all()
    assert np.isnan(interp["members"].isel(member=slice(1, None))).all()


def test_daily_crps_of_every_source(written):
    stored, truth, ensemble, _ = written
    daily = stored["crps_daily"].isel(variable=0)
    assert daily.dims == ("source", "time")
    assert list(stored["scored_day"].values) == list(range(20010701, 20010710))
    assert str(stored["time"].values[4])[:10] == "2001-07-05"
    weights = np.repeat(np.cos(np.deg2rad(np.arange(40.0, 44.0)))[:, None], 5, axis=1)
    for t in (0, 4):
        expected = crps(
            ensemble[t].astype(np.float32),
            truth[t].astype(np.float32),
            weights=weights,
        )
        found = daily.sel(source="model").values[t]
        assert found == pytest.approx(expected, rel=1e-5)


def test_summaries_and_coordinates(written):
    stored, *_ = written
    assert list(stored["source"].values) == ["model", "interp"]
    assert list(stored["units"].values) == ["mm day-1"]
    assert stored["spectra"].dims == ("source", "variable", "wavenumber")
    # One cell has no truth: a variogram stands in for the spectrum.
    assert stored["spectra"].isnull().all()
    assert stored["truth_spectrum"].isnull().all()
    assert stored["variograms"].dims == ("source", "variable", "lag")
    assert (stored["variograms"] > 0).all()
    assert (stored["truth_variogram"] > 0).all()
    assert stored["quantiles"].dims == ("source", "variable", "level")
    assert (stored["quantiles"].diff("level") >= 0).all()
    ranks = stored["rank_histogram"].isel(variable=0)
    np.testing.assert_allclose(ranks.sum("rank"), 1)
    assert int(ranks.sel(source="model").notnull().sum()) == 6
    assert int(ranks.sel(source="interp").notnull().sum()) == 2
    scales = stored["rank_histogram_scale"].isel(variable=0)
    assert scales.dims == ("source", "block", "window", "rank")
    assert list(scales["block"].values) == [1, 4, 16, 0]
    assert list(scales["window"].values) == [1, 7, 30]
    np.testing.assert_array_equal(scales.isel(block=0, window=0), ranks)
    np.testing.assert_allclose(scales.sel(window=[1, 7]).sum("rank"), 1)
    assert scales.sel(window=30).isnull().all()  # of nine days
    assert stored["truth"].dims == ("case", "variable", "lat", "lon")
    assert stored.attrs["calendar"] == "noleap"
