"""Alignment, scorecard and its files."""

from __future__ import annotations

import datetime
import json

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from st_cdgm import registry
from st_cdgm.errors import (
    ConfigError,
    GridMismatchError,
    InputError,
    MissingFileError,
    MissingVariableError,
    OutputError,
)
from st_cdgm.evaluation.metrics import wasserstein
from st_cdgm.evaluation.metrics.base import Metric
from st_cdgm.evaluation.metrics.blocks import Block
from st_cdgm.evaluation.metrics.distribution import histogram_distance, quantile_change
from st_cdgm.evaluation.metrics.events import f1_extremes, fss
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.evaluation.metrics.wasserstein import sliced_wasserstein
from st_cdgm.evaluation.report.scores import Scores, score_tables
from st_cdgm.evaluation.scorecard import (
    BOUNDS,
    COLUMNS,
    Scorecard,
    evaluate_ensembles,
)

UNITS = {"tasmin": "degC", "pr": "mm day-1"}
STANDARD = {"tasmin": "air_temperature", "pr": "lwe_precipitation_rate"}
LAT, LON = np.array([40.0, 50.0, 60.0]), np.array([0.0, 1.0, 2.0, 3.0])


def days(T, start=0, calendar="standard"):
    return xr.date_range(
        "2001-01-01", periods=T + start, calendar=calendar, use_cftime=True
    )[start:]


def dataset(values, start=0, calendar="standard", lat=LAT):
    """Values: name -> (T, M, Y, X) or (T, Y, X)."""
    fields = {}
    for name, field in values.items():
        dims = ("time", "realization", "lat", "lon")
        dims = dims if field.ndim == 4 else (dims[0], *dims[2:])
        attrs = {"units": UNITS[name], "standard_name": STANDARD[name]}
        fields[name] = (dims, field.astype(np.float32), attrs)
    coords = {
        "time": days(len(next(iter(values.values()))), start, calendar),
        "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", LON, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.Dataset(fields, coords=coords)


def sample(T=6, M=4, seed=0):
    rng = np.random.default_rng(seed)
    shape = (T, M, 3, 4) if M else (T, 3, 4)
    return {
        "tasmin": 10 + 3 * rng.normal(size=shape),
        "pr": rng.gamma(0.5, 4.0, size=shape),
    }


@pytest.fixture
def truth():
    values = sample(M=0, seed=9)
    for field in values.values():
        field[:, 0, 0] = np.nan
    return dataset(values)


def evaluate(forecasts, truth, path, **options):
    return evaluate_ensembles(
        forecasts, truth, protocol={"seed": 3}, output=path, **options
    )


def value(card, source, variable, metric):
    rows = card.rows
    chosen = rows[
        (rows["source"] == source)
        & (rows["variable"] == variable)
        & (rows["metric"] == metric)
    ]
    return chosen["value"].item()


def test_scores_are_area_weighted_and_masked(truth, tmp_path):
    values = sample()
    card = evaluate({"model": dataset(values)}, truth, tmp_path)
    weights = np.repeat(np.cos(np.deg2rad(LAT))[:, None], 4, axis=1)
    expected = crps(
        values["pr"].astype(np.float32), truth["pr"].values, weights=weights
    )
    assert value(card, "model", "pr", "crps") == pytest.approx(expected, rel=1e-6)
    wet = np.average(
        (truth["pr"].values >= 1)[:, np.isfinite(truth["pr"].values[0])].mean(axis=0),
        weights=weights[np.isfinite(truth["pr"].values[0])],
    )
    found = value(card, "model", "pr", "wet_day_frequency_truth")
    assert found == pytest.approx(wet, rel=1e-6)
    tail = quantile_change(
        values["pr"].astype(np.float32), truth["pr"].values, weights=weights, q=0.99
    )
    found = value(card, "model", "pr", "p99_bias")
    assert found == pytest.approx(tail.difference, rel=1e-6)


def test_rows_name_metric_and_units(truth, tmp_path):
    card = evaluate({"model": dataset(sample())}, truth, tmp_path)
    assert list(card.rows.columns) == [*COLUMNS, *BOUNDS]
    units = card.rows.set_index(["variable", "metric"])["units"]
    assert units["tasmin", "crps"] == units["tasmin", "bias"] == "degC"
    assert units["pr", "rmse"] == "mm day-1"
    assert units["pr", "p99_ratio"] == "1"
    assert units["pr", "variogram_distance"] == "dB"
    assert ("pr", "spectrum_distance") not in units.index  # a cell has no truth
    assert units["tasmin & pr", "variables_members"] == "1"
    # wet days and a ratio of quantiles have no meaning for degC
    assert ("tasmin", "p99_ratio") not in units.index
    assert ("tasmin", "wet_day_frequency") not in units.index


def test_days_stamped_at_their_end_meet_their_forecast(truth, tmp_path):
    """As in training, the bounds say on which day a stamp of 24:00 counts."""
    values = sample()
    expected = evaluate({"model": dataset(values)}, truth, tmp_path)
    begin = truth["time"].values
    end = begin + datetime.timedelta(days=1)
    late = truth.assign_coords(
        time=("time", end, {"bounds": "time_bnds"}),
        time_bnds=(("time", "bnds"), np.stack([begin, end], axis=1)),
    )
    card = evaluate({"model": dataset(values)}, late, tmp_path)
    assert card.protocol["scored"] == expected.protocol["scored"]
    pd.testing.assert_frame_equal(card.rows, expected.rows)


def test_all_sources_are_scored_on_the_days_they_share(truth, tmp_path):
    values, other = sample(), sample(seed=1)
    late = dataset({k: v[2:] for k, v in other.items()}, start=2)
    both = evaluate({"model": dataset(values), "other": late}, truth, tmp_path)
    assert both.protocol["scored"]["days"] == 4
    assert both.protocol["scored"]["period"] == "2001-01-03..2001-01-06"
    alone = evaluate(
        {"model": dataset({k: v[2:] for k, v in values.items()}, start=2)},
        truth,
        tmp_path,
    )
    for metric in ("crps", "rmse", "p99_bias", "variogram_distance"):
        expected = value(alone, "model", "tasmin", metric)
        assert value(both, "model", "tasmin", metric) == pytest.approx(expected)


def test_every_other_day_and_days_with_holes(truth, tmp_path):
    values = sample()
    for picked in ([0, 2, 4], [0, 1, 4]):
        sparse = truth.isel(time=picked)
        card = evaluate({"model": dataset(values)}, sparse, tmp_path)
        direct = {k: v[picked] for k, v in values.items()}
        weights = np.repeat(np.cos(np.deg2rad(LAT))[:, None], 4, axis=1)
        expected = crps(
            direct["tasmin"].astype(np.float32),
            sparse["tasmin"].values,
            weights=weights,
        )
        assert value(card, "model", "tasmin", "crps") == pytest.approx(expected)


def test_the_hour_of_the_stamp_and_its_type_do_not_matter(truth, tmp_path):
    # D12
    values = sample()
    midday = dataset(values).assign_coords(
        time=pd.date_range("2001-01-01T12:00", periods=6)
    )
    first = evaluate({"model": dataset(values)}, truth, tmp_path / "a")
    second = evaluate({"model": midday}, truth, tmp_path / "b")
    pd.testing.assert_frame_equal(first.rows, second.rows)


def test_a_deterministic_source_has_no_spread(truth, tmp_path):
    single = {k: v[:, :1] for k, v in sample().items()}
    plain = {k: v[:, 0] for k, v in sample().items()}
    sources = {"model": dataset(single), "plain": dataset(plain)}
    card = evaluate(sources, truth, tmp_path)
    for source in sources:
        assert np.isnan(value(card, source, "pr", "spread_skill"))
        assert value(card, source, "pr", "crps") == pytest.approx(
            value(card, source, "pr", "mae")
        )
    stored = json.loads((tmp_path / "scorecard.json").read_text())
    nulls = {r["metric"] for r in stored["rows"] if r["value"] is None}
    assert nulls == {"spread_skill", "rank_histogram_distance"}


def test_units_are_converted(truth, tmp_path):
    values = sample()
    kelvin = dataset(values)
    kelvin["tasmin"] = (kelvin["tasmin"] + 273.15).assign_attrs(
        units="K", standard_name="air_temperature"
    )
    card = evaluate({"model": kelvin}, truth, tmp_path)
    expected = evaluate({"model": dataset(values)}, truth, tmp_path)
    assert value(card, "model", "tasmin", "bias") == pytest.approx(
        value(expected, "model", "tasmin", "bias"), abs=1e-4
    )


def test_units_that_differ_are_refused(truth, tmp_path):
    other = dataset(sample())
    other["snd"] = other["pr"].assign_attrs(units="m", standard_name="snow")
    wanted = truth.assign(
        snd=truth["pr"].assign_attrs(units="kg", standard_name="snow")
    )
    with pytest.raises(InputError, match="units") as caught:
        evaluate({"model": other}, wanted, tmp_path)
    assert caught.value.facts["variable"] == "snd"


def test_no_common_day_names_both_periods(truth, tmp_path):
    late = dataset(sample(), start=100)
    with pytest.raises(InputError, match="no day in common") as caught:
        evaluate({"model": late}, truth, tmp_path)
    assert "2001-04-11..2001-04-16" in str(caught.value)
    assert "2001-01-01..2001-01-06" in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_other_grids_and_calendars_are_refused(truth, tmp_path):
    with pytest.raises(GridMismatchError):
        evaluate({"model": dataset(sample(), lat=LAT + 1)}, truth, tmp_path)
    with pytest.raises(InputError, match="calendar"):
        evaluate({"model": dataset(sample(), calendar="360_day")}, truth, tmp_path)


def test_a_forecast_hole_names_variable_source_and_count(truth, tmp_path):
    values = sample()
    values["pr"][2, 1, 1, 1] = np.nan
    values["pr"][:, :, 0, 0] = np.nan  # no truth there
    with pytest.raises(InputError, match="not finite") as caught:
        evaluate({"model": dataset(values)}, truth, tmp_path, mask="truth")
    assert caught.value.facts["variable"] == "pr of model"
    assert str(caught.value.facts["found"]).startswith("1 values")


def test_missing_variables(truth, tmp_path, caplog):
    with pytest.raises(MissingVariableError, match="truth lacks"):
        evaluate({"model": dataset(sample())}, truth[["pr"]], tmp_path, mask="strict")
    with pytest.raises(InputError, match="no forecast"):
        evaluate({}, truth, tmp_path)
    rain = {"pr": sample()["pr"]}
    card = evaluate(
        {"model": dataset(sample()), "rain": dataset(rain)}, truth, tmp_path
    )
    assert "rain is not scored in tasmin" in caplog.text
    table = card.wide("crps")
    assert np.isnan(table.loc["rain", "tasmin"])
    assert np.isfinite(table.loc["rain", "pr"])
    # the truth may have more variables than the forecast
    only = evaluate({"rain": dataset(rain)}, truth, tmp_path)
    assert list(only.wide().columns) == ["pr"]
    with pytest.raises(MissingVariableError, match="none of the scored"):
        evaluate(
            {"rain": dataset(rain), "cold": dataset({"tasmin": sample()["tasmin"]})},
            truth,
            tmp_path,
        )


def test_files_come_back_as_they_were(truth, tmp_path):
    sources = {"model": dataset(sample()), "other": dataset(sample(seed=1))}
    card = evaluate(sources, truth, tmp_path / "run")
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert names == {"scorecard.json", "scorecard.csv", "diagnostics.nc"}
    back = Scorecard.from_json(tmp_path / "run" / "scorecard.json")
    pd.testing.assert_frame_equal(back.rows, card.rows)
    assert back.protocol == card.protocol
    assert back.protocol["seed"] == 3
    assert back.protocol["scored"]["members"] == {"model": 4, "other": 4}
    table = pd.read_csv(tmp_path / "run" / "scorecard.csv", dtype={"units": str})
    pd.testing.assert_frame_equal(table, card.rows, check_exact=False)


def test_gains_come_with_intervals_and_survive_the_file(truth, tmp_path):
    far = {name: field + 5 for name, field in sample(seed=1).items()}
    nine = {name: np.concatenate([field] * 9) for name, field in sample().items()}
    far = {name: np.concatenate([field] * 9) for name, field in far.items()}
    long = dataset({n: np.concatenate([truth[n].values] * 9) for n in ("tasmin", "pr")})
    card = evaluate({"model": dataset(nine), "far": dataset(far)}, long, tmp_path)
    assert [(g.variable, g.metric) for g in card.gains] == [
        ("tasmin", "crps"),
        ("pr", "crps"),
        ("all variables", "patch_energy"),
        ("all variables", "patch_variogram"),
    ]
    for gain in card.gains:
        skill = card.skill("far", gain.metric).loc["model"]
        assert (gain.reference, gain.days, gain.block) == ("far", 54, 10)
        assert gain.gain == pytest.approx(skill[gain.variable])
        assert gain.low <= gain.gain <= gain.high
        # Differences between cells do not see that all are 5 too warm.
        assert (gain.outcome == "wins") == (gain.metric != "patch_variogram")
    assert Scorecard.from_json(tmp_path / "scorecard.json").gains == card.gains
    sparse = evaluate(
        {"model": dataset(nine), "far": dataset(far)},
        long.isel(time=slice(None, None, 3)),
        tmp_path,
    )
    assert [(g.days, g.block) for g in sparse.gains] == [(18, 3)] * 4


def test_few_days_give_null_bounds_and_older_files_have_no_gains(truth, tmp_path):
    sources = {"model": dataset(sample()), "other": dataset(sample(seed=1))}
    evaluate(sources, truth, tmp_path)
    path = tmp_path / "scorecard.json"
    stored = json.loads(path.read_text())
    assert set(stored["gains"][0]) == {
        "variable",
        "reference",
        "gain",
        "low",
        "high",
        "days",
        "block",
        "metric",
    }
    assert [(g["low"], g["high"]) for g in stored["gains"]] == [(None, None)] * 4
    assert not any(g.has_interval for g in Scorecard.from_json(path).gains)
    # Before scores of several variables were compared, all gains were in CRPS.
    unnamed = [{k: g[k] for k in g if k != "metric"} for g in stored["gains"]]
    path.write_text(json.dumps({**stored, "gains": unnamed}))
    assert {g.metric for g in Scorecard.from_json(path).gains} == {"crps"}
    del stored["gains"]
    path.write_text(json.dumps(stored))
    older = Scorecard.from_json(path)
    assert older.gains == []
    assert len(older.rows) == len(stored["rows"])
    path.write_text(json.dumps({**stored, "gains": [{"variable": "pr"}]}))
    with pytest.raises(InputError, match="not a scorecard"):
        Scorecard.from_json(path)


def test_json_holds_any_protocol(tmp_path):
    rows = pd.DataFrame([("m", "pr", "crps", np.nan, "mm")], columns=COLUMNS)
    protocol = {
        "path": tmp_path,
        "array": np.arange(2),
        "number": np.float32(0.5),
        "nothing": float("nan"),
        "days": (cftime.DatetimeNoLeap(2001, 1, 1),),
    }
    path = Scorecard(rows=rows, protocol=protocol).to_json(tmp_path / "s.json")
    stored = json.loads(path.read_text(), parse_constant=pytest.fail)  # D30
    assert stored["protocol"]["array"] == [0, 1]
    assert stored["protocol"]["number"] == 0.5
    assert stored["protocol"]["nothing"] is None
    assert np.isnan(Scorecard.from_json(path).rows["value"]).all()


def test_unreadable_and_unwritable_files(tmp_path):
    with pytest.raises(MissingFileError):
        Scorecard.from_json(tmp_path / "none.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"rows": 1}')
    with pytest.raises(InputError, match="not a scorecard"):
        Scorecard.from_json(broken)
    card = Scorecard(rows=pd.DataFrame([], columns=COLUMNS))
    with pytest.raises(OutputError):
        card.to_json(broken / "below" / "s.json")


@pytest.fixture
def card():
    rows = [
        ("model", "tas", "crps", 1.0, "degC"),
        ("model", "tas", "spread_skill", 0.7, "1"),
        ("model", "pr", "crps", 3.0, "mm day-1"),
        ("ridge", "tas", "crps", 2.0, "degC"),
        ("ridge", "tas", "spread_skill", 1.1, "1"),
        ("ridge", "pr", "crps", 2.0, "mm day-1"),
        ("interp", "tas", "crps", np.nan, "degC"),
        ("interp", "tas", "spread_skill", np.nan, "1"),
    ]
    return Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS))


def test_wide_table(card):
    table = card.wide("crps")
    assert list(table.index) == ["model", "ridge", "interp"]
    assert list(table.columns) == ["tas", "pr"]
    np.testing.assert_array_equal(table, [[1, 3], [2, 2], [np.nan, np.nan]])
    assert list(card.wide("spread_skill").columns) == ["tas"]
    with pytest.raises(InputError, match="metric"):
        card.wide("nonsense")


def test_best_is_nearest_to_the_ideal(card):
    assert card.best() == {"tas": "model", "pr": "ridge"}
    assert card.best("spread_skill") == {"tas": "ridge"}


def test_skill_against_a_source(card):
    skill = card.skill("ridge")
    assert skill.loc["model", "tas"] == 0.5
    assert skill.loc["model", "pr"] == -0.5
    with pytest.raises(InputError, match="source"):
        card.skill("analogs")


# Metrics by name ----------------------------------------------------------------------

MORE = {
    "fss": fss,
    "fss_10mm": fss,
    "f1_p95": f1_extremes,
    "f1_p99": f1_extremes,
    "histogram_distance": histogram_distance,
    "sliced_wasserstein": sliced_wasserstein,
}


def test_further_metrics_are_what_their_functions_give(truth, tmp_path):
    values = {name: field.astype(np.float32) for name, field in sample().items()}
    card = evaluate({"model": dataset(values)}, truth, tmp_path, metrics=list(MORE))
    weights = np.repeat(np.cos(np.deg2rad(LAT))[:, None], 4, axis=1)
    rain, wet = values["pr"], truth["pr"].values

    def found(name):
        return value(card, "model", "pr", name)

    for name, threshold in (("fss", 1.0), ("fss_10mm", 10.0)):
        expected = fss(rain, wet, threshold=threshold, weights=weights)
        assert found(name) == pytest.approx(expected, rel=1e-6)
        assert 0 < expected < 1
    expected = f1_extremes(rain, wet, weights=weights)
    assert found("f1_p95") == pytest.approx(expected["p95"], rel=1e-6)
    assert found("f1_p99") == pytest.approx(expected["p99"], rel=1e-6)
    expected = histogram_distance(rain, wet, weights=weights)
    assert found("histogram_distance") == pytest.approx(expected, rel=1e-6)
    expected = sliced_wasserstein(rain, wet, rng=np.random.default_rng(0))
    assert found("sliced_wasserstein") == pytest.approx(expected)
    present = set(card.rows.loc[card.rows["variable"] == "tasmin", "metric"])
    assert present & set(MORE) == set(MORE) - {"fss", "fss_10mm"}  # of rain alone


def test_further_metrics_come_last_and_only_when_named(truth, tmp_path):
    forecasts = {"model": dataset(sample())}
    plain = evaluate(forecasts, truth, tmp_path)
    card = evaluate(forecasts, truth, tmp_path, metrics=["f1_p95", "fss"])
    rain = card.rows[card.rows["variable"] == "pr"]
    assert list(rain["metric"])[-2:] == ["fss", "f1_p95"]
    pd.testing.assert_frame_equal(
        card.rows[~card.rows["metric"].isin(MORE)].reset_index(drop=True), plain.rows
    )
    with pytest.raises(ConfigError, match="no metric of this name") as caught:
        evaluate(forecasts, truth, tmp_path / "new", metrics=["f1"])
    assert caught.value.facts["variable"] == "evaluation.metrics"
    assert not (tmp_path / "new").exists()


def test_the_wasserstein_distance_looks_at_a_sample_of_days(
    truth, tmp_path, monkeypatch
):
    values = {name: field.astype(np.float32) for name, field in sample().items()}
    monkeypatch.setattr(wasserstein, "WASSERSTEIN_VALUES", 3 * 9 * 4 * 12)  # 3 of 6
    card = evaluate(
        {"model": dataset(values)}, truth, tmp_path, metrics=["sliced_wasserstein"]
    )
    some = slice(None, None, 2)
    expected = sliced_wasserstein(
        values["pr"][some], truth["pr"].values[some], rng=np.random.default_rng(0)
    )
    found = value(card, "model", "pr", "sliced_wasserstein")
    assert found == pytest.approx(expected)


def test_a_metric_of_one_class_is_seen_in_scorecard_and_report(
    truth, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "_ENTRIES", registry._ENTRIES.copy())

    class Largest:
        def __init__(self) -> None:
            self.forecast = self.truth = -np.inf

        def update(self, block: Block) -> None:
            self.forecast = max(self.forecast, float(block.forecast.max()))
            self.truth = max(self.truth, float(block.reference.max()))

    @registry.register("metric", "largest")
    class LargestMetric(Metric):
        score = Largest
        title, head = "ratio of the largest values", "largest value"
        ideal, units = 1.0, "1"

        def value(self, score: Largest) -> float:
            return score.forecast / score.truth

    values = {name: field.astype(np.float32) for name, field in sample().items()}
    card = evaluate({"model": dataset(values)}, truth, tmp_path)
    inside = np.isfinite(truth["pr"].values[0])
    expected = values["pr"][..., inside].max() / np.nanmax(truth["pr"].values)
    assert value(card, "model", "pr", "largest") == pytest.approx(expected)
    scores = Scores(Scorecard.from_json(tmp_path / "scorecard.json"))
    *tables, together = score_tables(scores)
    assert together.variable == "all variables"
    assert len(tables) == 2
    for table in tables:
        assert table.columns[-1] == ("largest value", "ideal 1")
    full = score_tables(scores, full=True)[0]
    assert full.columns[-1] == ("ratio of the largest values", "ideal 1")

    # Without the class the file can still be read; nothing is called best.
    del registry._ENTRIES["metric", "largest"]
    assert card.best("largest") == {}
    full = score_tables(scores, full=True)[0]
    assert full.columns[-1] == ("largest", "description only")
