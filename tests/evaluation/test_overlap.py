"""What is scored where forecasts and truth have other extents and other variables."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import xarray as xr

import st_cdgm
from st_cdgm.errors import GridMismatchError, InputError, MissingVariableError
from st_cdgm.evaluation.metrics.probabilistic import crps

LAT, LON = np.arange(36.0, 40.0, 0.5), np.arange(-2.0, 2.5, 0.5)
T, M = 6, 3
ATTRS = {
    "tas": {"units": "degC", "standard_name": "air_temperature"},
    "pr": {"units": "mm day-1", "standard_name": "precipitation_flux"},
    "sfcWind": {"units": "m s-1", "standard_name": "wind_speed"},
}


def dataset(names, *, members=None, seed=0):
    rng = np.random.default_rng(seed)
    dims = ("time", *(["realization"] if members else []), "lat", "lon")
    shape = (T, *([members] if members else []), len(LAT), len(LON))
    return xr.Dataset(
        {n: (dims, rng.gamma(2.0, size=shape).astype("f4"), ATTRS[n]) for n in names},
        coords={
            "time": xr.date_range("2001-01-01", periods=T, use_cftime=True),
            "lat": ("lat", LAT, {"standard_name": "latitude"}),
            "lon": ("lon", LON, {"standard_name": "longitude"}),
        },
    )


@pytest.fixture
def forecast():
    return dataset(["tas", "pr"], members=M)


@pytest.fixture
def truth():
    return dataset(["tas", "pr"], seed=1)


def by_hand(forecast, truth, name="tas"):
    """Return the CRPS of two data sets with the same cells and days in order."""
    weights = np.cos(np.deg2rad(truth.lat)).broadcast_like(truth[name][0]).values
    return crps(forecast[name].values, truth[name].values, weights=weights)


def score(card, name="tas", source="prediction"):
    return float(card.wide().loc[source, name])


def said(card):
    return card.protocol["scored"]["mask"]["text"].split(" | ")


# -- Rows and columns ------------------------------------------------------------------


def test_a_truth_of_a_smaller_region(forecast, truth, tmp_path):
    inner = truth.isel(lat=slice(2, 7), lon=slice(1, None))
    inner.to_netcdf(tmp_path / "observed.nc")
    forecast.to_netcdf(tmp_path / "mine.nc")
    card = st_cdgm.evaluate(tmp_path / "mine.nc", tmp_path / "observed.nc")
    part = forecast.isel(lat=slice(2, 7), lon=slice(1, None))
    assert score(card, source="mine") == pytest.approx(by_hand(part, inner), rel=1e-6)
    assert said(card)[1] == (
        f"grid: left out 3 of 8 rows and 1 of 9 columns of {tmp_path / 'mine.nc'}, "
        "outside 37..39 N, -1.5..2 E"
    )
    assert "5 x 8 regular" in card.protocol["scored"]["grid"]

    # All that has a truth is predicted; but the forecast has more.
    again = st_cdgm.evaluate(forecast, inner, mask="truth")
    assert score(again) == pytest.approx(score(card, source="mine"), rel=1e-6)
    with pytest.raises(GridMismatchError, match="goes beyond") as caught:
        st_cdgm.evaluate(forecast, inner, mask="strict")
    assert "8 x 9" in str(caught.value.facts["found"])
    assert "5 x 8" in str(caught.value.facts["expected"])


def test_regions_that_overlap_in_other_orders(forecast, truth, tmp_path):
    north = forecast.isel(lat=slice(None, 2, -1))  # north to south
    east = truth.isel(lat=slice(0, 7), lon=slice(3, None))
    east = east.assign_coords(lon=(east.lon % 360.0).assign_attrs(east.lon.attrs))
    card = st_cdgm.evaluate(north, east.sortby("lon"), output=tmp_path)
    rows, columns = slice(3, 7), slice(3, None)
    expected = by_hand(*(one.isel(lat=rows, lon=columns) for one in (forecast, truth)))
    assert score(card) == pytest.approx(expected, rel=1e-6)
    assert "1 of 5 rows and 3 of 9 columns of prediction" in said(card)[1]
    assert "3 of 7 rows and 0 of 6 columns of truth" in said(card)[1]
    with xr.open_dataset(tmp_path / "diagnostics.nc") as shown:
        assert dict(shown.sizes)["lat"] == 4
        assert shown.lat.values.tolist() == [37.5, 38.0, 38.5, 39.0]
    for rule in ("truth", "strict"):
        with pytest.raises(GridMismatchError, match="does not cover"):
            st_cdgm.evaluate(north, east, mask=rule)


def test_all_sources_are_scored_on_the_cells_of_the_smallest(forecast, truth, caplog):
    small = forecast.isel(lat=slice(0, 4))
    card = st_cdgm.evaluate(forecast, truth, references={"small": small})
    expected = by_hand(small, truth.isel(lat=slice(0, 4)))
    for source in ("prediction", "small"):
        assert score(card, source=source) == pytest.approx(expected, rel=1e-6)
    assert "rows and 0 of 9 columns of truth" in said(card)[1]
    warned = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warned == [" | ".join(said(card))]


def test_curvilinear_regions(forecast, truth):
    def turned(ds):
        lat, lon = np.meshgrid(LAT, LON, indexing="ij")
        made = ds.rename(lat="y", lon="x").drop_vars(["y", "x"])
        return made.assign_coords(
            lat=(("y", "x"), lat + 0.1 * lon, {"standard_name": "latitude"}),
            lon=(("y", "x"), lon - 0.1 * lat, {"standard_name": "longitude"}),
        )

    part = {"y": slice(1, 6), "x": slice(2, 9)}
    card = st_cdgm.evaluate(turned(forecast), turned(truth).isel(part))
    same = st_cdgm.evaluate(turned(forecast).isel(part), turned(truth).isel(part))
    assert score(card) == pytest.approx(score(same), rel=1e-6)
    assert "left out 3 of 8 rows and 2 of 9 columns of prediction" in said(card)[1]
    with pytest.raises(GridMismatchError):
        st_cdgm.evaluate(turned(forecast), truth)


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.isel(lat=slice(None, None, 2)),  # twice the spacing
        lambda ds: ds.assign_coords(lat=ds.lat + 0.25),
        lambda ds: ds.assign_coords(lon=ds.lon + 90.0).isel(lon=slice(0, 5)),
    ],
)
def test_grids_that_share_too_little_are_named(change, forecast, truth):
    with pytest.raises(GridMismatchError) as caught:
        st_cdgm.evaluate(forecast, change(truth))
    facts = caught.value.facts
    assert {facts["file"]} == {"prediction"}
    assert "8 x 9 regular" in facts["found"]
    assert "regular, lat" in facts["expected"]
    assert facts["found"] != facts["expected"]


def test_a_region_without_common_values(forecast, truth):
    sea = forecast.isel(lon=slice(0, 4))
    land = truth.where(truth.lon > 0)
    with pytest.raises(InputError, match="no values on the scored days"):
        st_cdgm.evaluate(sea, land)


# -- Variables -------------------------------------------------------------------------


def test_variables_that_both_have_are_scored(forecast, truth, tmp_path):
    other = dataset(["pr", "sfcWind"], seed=1).assign(pr=truth.pr)
    other.to_netcdf(tmp_path / "observed.nc")
    card = st_cdgm.evaluate(forecast, tmp_path / "observed.nc")
    assert list(card.wide().columns) == ["pr"]
    assert score(card, "pr") == pytest.approx(by_hand(forecast, truth, "pr"), rel=1e-6)
    assert said(card)[1] == (
        f"variables: left out sfcWind of {tmp_path / 'observed.nc'}; left out tas of "
        "prediction"
    )
    for rule in ("truth", "strict"):
        with pytest.raises(MissingVariableError, match="lacks a variable") as caught:
            st_cdgm.evaluate(forecast, tmp_path / "observed.nc", mask=rule)
        assert caught.value.facts["variable"] == "sfcWind"

    # More than the truth is allowed by one rule, and not by the other.
    card = st_cdgm.evaluate(forecast, truth[["pr"]], mask="truth")
    assert list(card.wide().columns) == ["pr"]
    with pytest.raises(MissingVariableError, match="The truth lacks") as caught:
        st_cdgm.evaluate(forecast, truth[["pr"]], mask="strict")
    assert caught.value.facts["variable"] == "tas"


def test_no_variable_in_common(forecast, truth):
    with pytest.raises(MissingVariableError, match="lacks") as caught:
        st_cdgm.evaluate(forecast[["tas"]], truth[["pr"]])
    assert caught.value.facts["file"] == "truth"
    assert (caught.value.facts["variable"], caught.value.facts["found"]) == (
        "tas",
        "pr",
    )
    with pytest.raises(MissingVariableError, match="no field to score"):
        st_cdgm.evaluate(forecast[["lat"]], truth)


def test_synonyms_are_one_variable(forecast, truth, caplog):
    plain = st_cdgm.evaluate(forecast, truth, {"other": forecast})
    renamed = truth.rename(pr="RR", tas="tg")
    other = forecast.rename(pr="tp")
    card = st_cdgm.evaluate(forecast, renamed, {"other": other}, mask="strict")
    assert list(card.wide().columns) == ["tas", "pr"]
    np.testing.assert_allclose(card.wide(), plain.wide(), rtol=1e-6)
    assert "pr is taken from RR" in caplog.text
    # which of two is meant is not guessed
    both = renamed.assign(prcp=renamed.RR)
    card = st_cdgm.evaluate(forecast, both)
    assert list(card.wide().columns) == ["tas"]
    assert "left out RR, prcp of truth; left out pr of prediction" in said(card)[1]


def test_a_reference_without_a_variable_says_so(forecast, truth):
    card = st_cdgm.evaluate(forecast, truth, {"rain": forecast[["pr"]]})
    assert np.isnan(score(card, "tas", "rain"))
    assert np.isfinite(score(card, "pr", "rain"))
    assert said(card)[1] == "variables: rain is not scored in tas: absent"
    for rule in ("truth", "strict"):
        with pytest.raises(MissingVariableError, match="A forecast lacks") as caught:
            st_cdgm.evaluate(forecast, truth, {"rain": forecast[["pr"]]}, mask=rule)
        assert caught.value.facts["file"] == "rain"


def test_fields_without_time_are_not_compared(forecast, truth):
    height = xr.full_like(truth.tas[0], 100.0).assign_attrs(units="m")
    height.attrs["standard_name"] = "surface_altitude"
    first = forecast.assign(orog=height.drop_vars("time"))
    second = truth.assign(orog=height.drop_vars("time"))
    card = st_cdgm.evaluate(first, second, mask="strict")
    assert list(card.wide().columns) == ["tas", "pr"]


# -- All together ----------------------------------------------------------------------


def test_days_cells_and_variables_at_once(forecast, truth):
    both = {"lat": slice(2, None), "lon": slice(0, 6), "time": slice(1, 5)}
    card = st_cdgm.evaluate(
        forecast.isel(time=slice(0, 5)),
        truth[["tas"]].isel(both | {"time": slice(1, None)}),
        {"late": forecast.isel(time=slice(1, None))},
        metrics=["histogram_distance"],
    )
    expected = by_hand(*(d.isel(both) for d in (forecast, truth)))
    assert score(card) == pytest.approx(expected, rel=1e-6)
    assert score(card, source="late") == pytest.approx(expected, rel=1e-6)
    assert card.protocol["scored"]["days"] == 4
    first, grid, variables, cells = said(card)
    assert "4 days, left out 1 of 5 days of truth (2001-01-06..2001-01-06)" in first
    assert grid.count("left out 2 of 8 rows and 3 of 9 columns") == 2
    assert variables == "variables: left out pr of prediction; left out pr of late"
    assert cells == "tas: 36 of 36 cells with truth"
    assert "histogram_distance" in set(card.rows["metric"])
