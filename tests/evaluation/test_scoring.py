"""One pass over all variables: the same whatever the blocks, and what is usual."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from st_cdgm import registry
from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics import blocks
from st_cdgm.evaluation.metrics.base import JointMetric, Metric
from st_cdgm.evaluation.metrics.probabilistic import CrpsScore
from st_cdgm.evaluation.resampling import Measured
from st_cdgm.evaluation.scorecard import evaluate_ensembles

LAT, LON = np.linspace(40, 44, 9), np.linspace(0, 5, 11)
T, M = 64, 4
ABOUT = {
    "tas": {"units": "degC", "standard_name": "air_temperature"},
    "pr": {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"},
}


def dataset(fields):
    """Fields (T, M, Y, X) or (T, Y, X) by name, from November to January."""
    dims = ("time", "realization", "lat", "lon")
    return xr.Dataset(
        {
            name: (dims if v.ndim == 4 else (dims[0], *dims[2:]), v, ABOUT[name])
            for name, v in fields.items()
        },
        coords={
            "time": xr.date_range("2001-11-20", periods=T, use_cftime=True),
            "lat": ("lat", LAT, {"standard_name": "latitude"}),
            "lon": ("lon", LON, {"standard_name": "longitude"}),
        },
    )


def sample(*outer, seed=0):
    rng = np.random.default_rng(seed)
    shape = (T, *outer, 9, 11)
    return {
        "tas": rng.normal(8, 3, shape).astype(np.float32),
        "pr": np.clip(rng.normal(0, 4, shape), 0, None).astype(np.float32),
    }


@pytest.fixture
def truth():
    fields = sample(seed=9)
    fields["tas"][20, 2, 3] = np.nan
    fields["pr"][:, :3, :2] = np.nan
    return dataset(fields)


@pytest.fixture
def climatology():
    rng = np.random.default_rng(3)
    return dataset({n: rng.normal(5, 1, (T, 9, 11)).astype(np.float32) for n in ABOUT})


def evaluate(forecasts, truth, **options):
    return evaluate_ensembles(forecasts, truth, protocol={}, output=None, **options)


def value(card, variable, metric):
    rows = card.rows.set_index(["variable", "metric"])
    return float(rows.loc[(variable, metric), "value"])


@pytest.mark.parametrize("size", [1, 40_000])
def test_blocks_of_days_do_not_matter(truth, size, monkeypatch):
    sources = {"model": dataset(sample(M)), "other": dataset(sample(M, seed=1))}
    whole = evaluate(sources, truth)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    parts = evaluate(sources, truth)
    assert len(whole.rows) > 200
    same = ["source", "variable", "metric", "units"]
    pd.testing.assert_frame_equal(parts.rows[same], whole.rows[same])
    for column in ("value", "low", "high"):
        values = (x.rows[column].to_numpy() for x in (parts, whole))
        np.testing.assert_allclose(*values, rtol=2e-5, atol=1e-6)
    assert [g.gain for g in parts.gains] == pytest.approx([g.gain for g in whole.gains])


def test_the_order_of_rows_and_columns_does_not_matter(truth):
    """9 and 11 cells are no whole blocks: they begin in the same corner."""
    forecast = dataset(sample(M))
    turned = {"lat": slice(None, None, -1), "lon": slice(None, None, -1)}
    plain = evaluate({"model": forecast}, truth)
    other = evaluate({"model": forecast}, truth.isel(turned))
    np.testing.assert_allclose(
        other.rows["value"], plain.rows["value"], rtol=1e-5, atol=1e-6
    )


def test_what_forecast_and_truth_share_with_the_climatology_cancels(truth, climatology):
    forecast = dataset(sample(M))
    plain = evaluate({"model": forecast}, truth, climatology=climatology)
    wave = np.sin(np.arange(T))[:, None, None] * np.arange(11.0) * 3
    more = xr.DataArray(wave.repeat(9, axis=1), dims=("time", "lat", "lon"))

    def warmer(ds):
        field = (ds["tas"] + more).transpose(*ds["tas"].dims).astype(np.float32)
        return ds.assign(tas=field.assign_attrs(ABOUT["tas"]))

    moved_forecast, moved_truth = {"model": warmer(forecast)}, warmer(truth)
    moved = evaluate(moved_forecast, moved_truth, climatology=warmer(climatology))
    assert plain.protocol["scored"]["climatology"] == "of the training days"
    for variable, metric in (
        ("tas", "spectrum_distance"),
        ("tas", "small_scale_power"),
        ("all variables", "patch_energy"),
        ("all variables", "patch_variogram"),
    ):
        expected = value(plain, variable, metric)
        assert value(moved, variable, metric) == pytest.approx(expected, abs=1e-3)

    # Not known, the wave is power of both sides.
    without = evaluate(moved_forecast, moved_truth)
    assert without.protocol["scored"]["climatology"] == "mean of the scored days"
    distances = [value(c, "tas", "spectrum_distance") for c in (without, moved)]
    assert abs(distances[0] - distances[1]) > 0.01


def test_a_climatology_must_have_all_that_is_scored(truth, climatology):
    forecast = {"model": dataset(sample(M))}
    with pytest.raises(InputError, match="lacks a scored day"):
        evaluate(forecast, truth, climatology=climatology.isel(time=slice(3, None)))
    holed = climatology.copy(deep=True)
    holed["tas"][5] = np.nan
    with pytest.raises(InputError, match="no value where the truth has one"):
        evaluate(forecast, truth, climatology=holed)
    # A variable that it lacks has its own mean.
    assert len(evaluate(forecast, truth, climatology=climatology[["pr"]]).rows)


def test_a_metric_of_all_variables_is_registered_like_any(truth, monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", registry._ENTRIES.copy())

    class Warm:
        def __init__(self) -> None:
            self.both = self.days = 0.0

        def update(self, found) -> None:
            rain = found["pr"].forecast.mean(axis=(1, 2, 3))
            warmth = found["tas"].forecast.mean(axis=(1, 2, 3))
            self.both += float(((rain > 1.5) & (warmth > 8)).sum())
            self.days += len(rain)

    @registry.register("metric", "warm_and_wet")
    class WarmAndWet(JointMetric):
        score = Warm
        title, ideal, units = "share of warm and wet days", float("nan"), "1"

        def rows(self, score):
            return {"pr & tas": Measured(score.both / score.days)}

    fields = sample(M)
    card = evaluate({"model": dataset(fields)}, truth)
    means = {
        name: np.where(
            np.isfinite(truth[name].values)[:, None], fields[name], 0.0
        ).mean(axis=(1, 2, 3))
        for name in ABOUT
    }
    expected = ((means["pr"] > 1.5) & (means["tas"] > 8)).mean()
    assert value(card, "pr & tas", "warm_and_wet") == pytest.approx(expected)
    assert list(card.wide("warm_and_wet").columns) == ["pr & tas"]


def test_sources_with_fewer_variables(truth):
    card = evaluate(
        {"model": dataset(sample(M)), "rain": dataset({"pr": sample(M, seed=2)["pr"]})},
        truth,
    )
    joint = card.rows[card.rows["metric"] == "variables_members"]
    assert list(joint["source"]) == ["model"]
    assert card.wide("patch_energy").notna().all(axis=None)


@pytest.mark.parametrize("kind", [Metric, JointMetric])
@pytest.mark.parametrize("when", ["seeing", "reading"])
def test_a_failing_metric_leaves_the_others(truth, monkeypatch, caplog, kind, when):
    # D73: one failing metric cancelled the others.
    monkeypatch.setattr(registry, "_ENTRIES", registry._ENTRIES.copy())
    whole = evaluate({"model": dataset(sample(M))}, truth)

    class Broken:
        def update(self, found) -> None:
            if when == "seeing":
                raise ZeroDivisionError("no day at all")

        @property
        def value(self) -> float:
            raise ZeroDivisionError("no day at all")

    @registry.register("metric", "broken")
    class BrokenMetric(kind):
        score, title, ideal, units = Broken, "broken", 0.0, "1"

        def rows(self, score):
            return {"pr": Measured(score.value)}

    card = evaluate({"model": dataset(sample(M))}, truth)
    assert "no broken of model" in caplog.text
    assert "no day at all" in caplog.text
    rows = card.rows[card.rows["metric"] != "broken"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, whole.rows)
    # What every variable has stays a column, without a number.
    left = card.rows[card.rows["metric"] == "broken"]
    assert list(left["variable"]) == (["tas", "pr"] if kind is Metric else [])
    assert left["value"].isna().all()


def test_a_failing_score_of_the_diagnostics_is_an_error(truth, monkeypatch):
    monkeypatch.setattr(CrpsScore, "update", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate({"model": dataset(sample(M))}, truth)
