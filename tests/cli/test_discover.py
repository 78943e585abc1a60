"""``st-cdgm discover``: verdicts about links from data files alone."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from st_cdgm.cli.main import app
from st_cdgm.config.load import load_config
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.discovery.record import training_records
from st_cdgm.evaluation.report.build import build_report

YEARS = (2001, 2007)  # the last one is for testing
QUICK = [
    "discovery.max_cells=4",
    "discovery.target_cells=3",
    "data.splits.train=[2001-01-01,2005-12-31]",
    "data.splits.validation=[2006-01-01,2006-12-31]",
    "data.splits.test=[2007-01-01,2007-12-31]",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with a climate in which the 850 hPa level drives 500 hPa."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    time = xr.date_range(f"{YEARS[0]}-01-01", f"{YEARS[1]}-12-31", freq="D")
    days, shape = len(time), (4, 5)
    low, high = np.zeros((2, days, *shape))
    for t in range(1, days):
        low[t] = 0.7 * low[t - 1] + rng.standard_normal(shape)
        high[t] = 0.5 * high[t - 1] + 0.8 * low[t - 1] + rng.standard_normal(shape)
    season = 8 * np.cos(2 * np.pi * np.arange(days) / 365.25)[:, None, None]
    coarse = {
        "lat": ("lat", np.linspace(40, 46, 4), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(0, 8, 5), {"units": "degrees_east"}),
    }
    dims = ("time", "lat", "lon")
    fields = {
        "t_850": (dims, 280 + season + low, {"units": "K"}),
        "t_500": (dims, 250 + season + high, {"units": "K"}),
    }
    xr.Dataset(fields, {"time": time, **coarse}).to_netcdf(folder / "lr.nc")
    fine = {
        "lat": ("lat", np.linspace(40, 46, 8), {"units": "degrees_north"}),
        "lon": ("lon", np.linspace(0, 8, 10), {"units": "degrees_east"}),
    }
    tas = 7 + season + low.repeat(2, 1).repeat(2, 2)
    xr.Dataset(
        {"tas": (dims, tas, {"units": "degC"})}, {"time": time, **fine}
    ).to_netcdf(folder / "hr.nc")
    return folder


def options(folder, run_dir, *more):
    """Return the file with the paths, and the rest as overrides."""
    config = folder / "my.yaml"
    config.write_text(
        "defaults: [base, _self_]\n"
        f"data: {{root: '{folder}', lr_path: lr.nc, hr_path: hr.nc}}\n",
        encoding="utf-8",
    )
    return [str(config), f"run.dir='{run_dir}'", *QUICK, *more]


def test_the_link_that_is_there_is_found_and_reported(files, tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["discover", "--config", *options(files, run_dir)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "dag.json" in result.stdout.replace("\n", "")
    found = json.loads((run_dir / "edges.json").read_text("utf-8"))
    assert found["variables"] == ["GP850", "GP500", "tas"]
    assert found["targets"] == ["tas"]
    verdicts = {(p["source"], p["target"]): p["verdict"] for p in found["pairs"]}
    held = {pair for pair, verdict in verdicts.items() if verdict == "predictive link"}
    assert held == {("GP850", "GP500"), ("GP850", "tas")}
    lags = {(p["source"], p["target"]): p["lag"] for p in found["pairs"]}
    assert (lags["GP850", "GP500"], lags["GP850", "tas"]) == ("1", "0")
    assert found["protocol"]["years"] == list(range(2001, 2006))  # training alone
    with (run_dir / "edges.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [p["verdict"] for p in found["pairs"]]
    page = build_report(run_dir).read_text("utf-8")
    assert "2 of 4 tested links between 3 variables hold." in page
    assert "2001 to 2005" in page


def test_too_short_a_record_is_refused_and_nothing_is_left(files, tmp_path):
    short = "data.splits.train=[2005-10-01,2005-12-31]"
    arguments = ["discover", "--config", *options(files, tmp_path / "run", short)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "too few steps" in result.stderr
    assert not (tmp_path / "run").exists()


def test_record_has_no_test_day_and_means_of_blocks(files, tmp_path):
    name, *overrides = options(files, tmp_path)
    config = load_config(name, overrides)
    pipeline = NetCDFDataPipeline.from_config(config.data)
    whole, target = training_records(pipeline, target_cells=3)
    assert whole.year.max() == 2005
    assert target is not None
    assert target.values.shape == (len(whole.year), 3, 1)
    assert whole.ordinal is not None
    assert set(np.diff(whole.ordinal)) == {1}
    coarse, none = training_records(pipeline, target_cells=0, most_nodes=6)
    assert none is None
    for name, field in whole.fields.items():
        days, channels = field.shape[:2]
        blocks = field[:, :, :4, :4].reshape(days, channels, 2, 2, 2, 2)
        np.testing.assert_allclose(
            coarse.fields[name], blocks.mean((3, 5)), rtol=1e-5, atol=1e-6
        )


def test_plain_series_with_a_known_driver_and_another_method(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1500, 2))
    for t in range(1, len(x)):
        x[t, 1] += 0.5 * x[t - 1, 0]
    dates = xr.date_range("2001-01-01", periods=1500).strftime("%Y-%m-%d")
    rows = [f"{day},{a:.4f},{b:.4f}" for day, (a, b) in zip(dates, x, strict=True)]
    rows[100] = f"{dates[100]},,"  # a gap
    table, index = tmp_path / "x.csv", tmp_path / "enso.csv"
    table.write_text("time,a,b\n" + "\n".join(rows), encoding="utf-8")
    driver = rng.standard_normal(1500)
    lines = [f"{day},{value:.3f}" for day, value in zip(dates, driver, strict=True)]
    index.write_text("time,nino\n" + "\n".join(lines), encoding="utf-8")
    result = CliRunner().invoke(
        app,
        ["discover", "--series", str(table), "--known", str(index), "max_lag=2"]
        + ["--compare", "var", "--output", str(tmp_path / "out")],
    )
    assert result.exit_code == 0, result.output
    assert "var: 1 of our 1 edges" in result.output
    found = json.loads((tmp_path / "out" / "dag.json").read_text("utf-8"))
    assert [(e["source"], e["target"], e["lag"]) for e in found["edges"]] == [
        ("a", "b", "1")
    ]


def test_neither_or_both_inputs_are_refused():
    assert CliRunner().invoke(app, ["discover"]).exit_code == 2
