"""What is scored where forecasts and truth do not have the same values, and files in
other forms than our own."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.evaluation.scorecard import evaluate_ensembles, evaluate_files

LAT = np.array([36.0, 36.5, 37.0, 37.5])
LON = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
T, M = 6, 3


def dataset(values, dims, start="2001-01-01"):
    dates = xr.date_range(start, periods=len(values), use_cftime=True)
    attrs = {"units": "degC", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"tas": (dims, values.astype(np.float32), attrs)},
        coords={
            "time": dates,
            "lat": ("lat", LAT, {"standard_name": "latitude"}),
            "lon": ("lon", LON, {"standard_name": "longitude"}),
        },
    )


@pytest.fixture
def forecast():
    values = np.random.default_rng(0).normal(size=(T, M, 4, 5))
    return dataset(values, ("time", "realization", "lat", "lon"))


@pytest.fixture
def truth():
    values = np.random.default_rng(1).normal(size=(T, 4, 5))
    values[:, 0, 0] = np.nan
    return dataset(values, ("time", "lat", "lon"))


def score(card, source="model", metric="crps"):
    table = card.wide(metric)
    return float(table.loc[source, "tas"])


def by_hand(forecast, truth):
    weights = np.repeat(np.cos(np.deg2rad(LAT))[:, None], 5, axis=1)
    return crps(forecast.tas.values, truth.tas.values, weights=weights)


def evaluate(forecasts, truth, tmp_path, **options):
    if isinstance(forecasts, xr.Dataset):
        forecasts = {"model": forecasts}
    return evaluate_ensembles(forecasts, truth, protocol={}, output=tmp_path, **options)


# -- Rules -----------------------------------------------------------------------------


def test_common_scores_the_cells_that_all_have_and_says_what_is_left_out(
    forecast, truth, tmp_path, caplog
):
    lacking = forecast.copy(deep=True)
    lacking.tas[:, :, 3, 3:] = np.nan  # two cells on all days
    lacking.tas[2, 1, 1, 1] = np.nan  # one member of one value
    with caplog.at_level("INFO", logger="st_cdgm"):
        card = evaluate(lacking, truth, tmp_path)
    shared = truth.where(lacking.tas.notnull().all("realization"))
    assert score(card) == pytest.approx(by_hand(forecast, shared), rel=1e-6)
    assert score(card) != pytest.approx(by_hand(forecast, truth), rel=1e-3)

    mask = card.protocol["scored"]["mask"]
    assert mask["text"] == (
        "scored (mask common): 6 days | tas: 17 of 19 cells with truth; left out 2 "
        "within 37.5..37.5 N, 0.5..1 E; left out 1 single values of other cells, "
        "missing in model; 1 predicted cells have no truth"
    )
    assert mask["text"] in caplog.text
    stored = json.loads((tmp_path / "scorecard.json").read_text())
    assert stored["protocol"]["scored"]["mask"] == mask
    (left,) = mask["cells_left_out"]
    assert (left["cells_lost"], left["values_lost"]) == (2, 1)
    assert left["region"] == [37.5, 37.5, 0.5, 1.0]


def test_all_sources_are_scored_on_the_same_cells(forecast, truth, tmp_path):
    lacking = forecast.copy(deep=True)
    lacking.tas[:, :, 3] = np.nan
    card = evaluate({"model": forecast, "other": lacking}, truth, tmp_path)
    shared = truth.where(truth.lat < 37.4)
    for source in ("model", "other"):
        assert score(card, source) == pytest.approx(by_hand(forecast, shared), rel=1e-6)
    with xr.open_dataset(tmp_path / "diagnostics.nc") as shown:
        assert shown["truth"].isel(lat=3).isnull().all()


def test_days_that_one_lacks_are_named(forecast, truth, tmp_path):
    card = evaluate(forecast.isel(time=slice(2, 5)), truth, tmp_path)
    text = card.protocol["scored"]["mask"]["text"]
    assert "3 days, left out 3 of 6 days of truth (2001-01-01..2001-01-06)" in text
    assert score(card) == pytest.approx(
        by_hand(forecast.isel(time=slice(2, 5)), truth.isel(time=slice(2, 5))), rel=1e-6
    )


def test_truth_wants_every_cell_and_day_of_the_truth(forecast, truth, tmp_path):
    card = evaluate(forecast, truth, tmp_path, mask="truth")
    assert score(card) == pytest.approx(by_hand(forecast, truth), rel=1e-6)

    lacking = forecast.copy(deep=True)
    lacking.tas[4:, 0, 2, 3] = np.nan
    with pytest.raises(InputError, match="not finite") as caught:
        evaluate(lacking, truth, tmp_path, mask="truth")
    assert caught.value.facts["found"] == (
        "2 values missing (all members and days), the first on 2001-01-05 at 37 N, "
        "0.5 E"
    )
    with pytest.raises(InputError, match="A day of truth is not in model") as caught:
        evaluate(forecast.isel(time=slice(1, 6)), truth, tmp_path, mask="truth")
    assert "2001-01-01" in str(caught.value.facts["found"])


def test_strict_refuses_a_forecast_without_truth(forecast, truth, tmp_path):
    equal = forecast.where(truth.tas.notnull())
    assert evaluate(equal, truth, tmp_path, mask="strict").wide().size == 1
    with pytest.raises(InputError, match="where the truth has none") as caught:
        evaluate(forecast, truth, tmp_path, mask="strict")
    assert caught.value.facts["found"] == "the first on 2001-01-01 at 36 N, -1 E"
    with pytest.raises(InputError, match="A day of model is not in truth"):
        evaluate(equal, truth.isel(time=slice(0, 4)), tmp_path, mask="strict")


def test_nothing_in_common_and_unknown_rules(forecast, truth, tmp_path):
    nowhere = forecast.where(truth.tas.isnull())
    with pytest.raises(InputError, match="no value in common"):
        evaluate(nowhere, truth, tmp_path)
    with pytest.raises(ConfigError, match="unknown rule"):
        evaluate(forecast, truth, tmp_path, mask="all")
    with pytest.raises(InputError, match="truth is an ensemble"):
        evaluate(forecast, forecast, tmp_path)
    assert not list(tmp_path.iterdir())


# -- Other forms of the same values ----------------------------------------------------


def packed(ds):
    coding = {"dtype": "int16", "scale_factor": 0.001, "_FillValue": -32768}
    return ds, {"tas": coding}


def midday(ds):
    return ds.assign_coords(time=pd.date_range("2001-01-01T12:00", periods=T)), {}


def eastward(ds):
    """Longitudes from 0 to 360, as a file holds them: 0, 0.5, 1, 359, 359.5."""
    lon = ds.lon.copy(data=np.mod(LON, 360.0))
    return ds.assign_coords(lon=lon).sortby("lon"), {}


def named(ds):
    made = ds.rename(lat="y", lon="x")
    return made.assign_coords(
        y=made.y.assign_attrs(standard_name="latitude", units="degrees_north"),
        x=made.x.assign_attrs(standard_name="longitude", units="degrees_east"),
    ), {}


FORMS = {
    "packed integers": packed,
    "stamps at noon": midday,
    "longitudes of 0 to 360": eastward,
    "descending latitude": lambda ds: (ds.isel(lat=slice(None, None, -1)), {}),
    "descending longitude": lambda ds: (ds.isel(lon=slice(None, None, -1)), {}),
    "latitude and longitude": lambda ds: (
        ds.rename(lat="latitude", lon="longitude"),
        {},
    ),
    "y and x": named,
    "another order": lambda ds: (ds.transpose("lon", "lat", ..., "time"), {}),
    "a height of 2 m": lambda ds: (ds.expand_dims(height=[2.0]), {}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["forecast", "truth"])
def test_a_file_in_another_form_scores_the_same(form, side, forecast, truth, tmp_path):
    plain = evaluate(forecast, truth, None)
    given = {"forecast": forecast, "truth": truth}
    made, encoding = FORMS[form](given[side])
    made.to_netcdf(tmp_path / "other.nc", encoding=encoding)
    given[side] = tmp_path / "other.nc"
    card = evaluate_files(given["forecast"], given["truth"])
    tolerance = 2e-3 if form == "packed integers" else 1e-6
    values = (card.rows["value"].to_numpy(), plain.rows["value"].to_numpy())
    np.testing.assert_allclose(*values, rtol=tolerance, atol=tolerance)
    assert score(plain) == pytest.approx(by_hand(forecast, truth), rel=1e-6)


@pytest.mark.parametrize("name", ["member", "number", "ensemble", "realization", "k"])
def test_members_under_other_names(name, forecast, truth):
    made = forecast.rename(realization=name)
    if name == "k":
        made = made.assign_coords(k=("k", [1, 2, 3], {"standard_name": "realization"}))
    card = evaluate(made, truth, None)
    assert card.protocol["scored"]["members"] == {"model": M}
    assert score(card) == pytest.approx(by_hand(forecast, truth), rel=1e-6)
    other = forecast.rename(realization="height")
    with pytest.raises(InputError, match="further dimension"):
        evaluate(other, truth, None)


def test_deterministic_files_and_zarr_directories(forecast, truth, tmp_path):
    one = forecast.isel(realization=0)
    one.to_zarr(tmp_path / "single.zarr", zarr_format=3, consolidated=False)
    truth.to_zarr(tmp_path / "truth.zarr", zarr_format=3, consolidated=False)
    card = evaluate_files(
        tmp_path / "single.zarr",
        tmp_path / "truth.zarr",
        references={"all": forecast},
        output=tmp_path / "scores",
    )
    weights = np.repeat(np.cos(np.deg2rad(LAT))[:, None], 5, axis=1)
    error = np.abs(one.tas.values - truth.tas.values)
    known = np.isfinite(error)
    expected = np.average(
        error[known], weights=np.broadcast_to(weights, known.shape)[known]
    )
    assert score(card, "single", "mae") == pytest.approx(expected, rel=1e-6)
    assert score(card, "single") == pytest.approx(expected, rel=1e-6)
    assert score(card, "all") == pytest.approx(by_hand(forecast, truth), rel=1e-6)
    assert card.protocol["scored"]["members"] == {"single": 1, "all": M}


def test_a_scorecard_names_the_files(forecast, truth, tmp_path):
    forecast.to_netcdf(tmp_path / "my_winter.nc")
    card = evaluate_files(tmp_path / "my_winter.nc", truth, references={"b": forecast})
    assert list(card.wide().index) == ["my_winter", "b"]
    assert list(evaluate_files(forecast, truth).wide().index) == ["prediction"]
    with pytest.raises(InputError, match="name of the prediction"):
        evaluate_files(
            tmp_path / "my_winter.nc", truth, references={"my_winter": forecast}
        )
