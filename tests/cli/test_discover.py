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
from st_cdgm.discovery.record import predictor_record
from st_cdgm.evaluation.report.build import build_report

YEARS = (2001, 2007)  # the last one is for testing
QUICK = [
    "discovery.steps=150",
    "discovery.head_steps=200",
    "discovery.max_cells=4",
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
    assert "edges.json" in result.stdout.replace("\n", "")
    found = json.loads((run_dir / "edges.json").read_text("utf-8"))
    assert found["variables"] == ["GP850", "GP500"]
    verdicts = {(p["source"], p["target"]): p["verdict"] for p in found["pairs"]}
    assert verdicts[("GP850", "GP500")] == "edge"
    assert verdicts.get(("GP500", "GP850"), "none") == "none"
    assert found["protocol"]["years"] == list(range(2001, 2007))  # no test year
    with (run_dir / "edges.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [p["verdict"] for p in found["pairs"]]
    page = build_report(run_dir).read_text("utf-8")
    assert "1 of 2 possible links between 2 groups of predictors hold." in page
    assert "2001 to 2006" in page


def test_too_short_a_record_is_refused_and_nothing_is_left(files, tmp_path):
    short = "data.splits.train=[2005-01-01,2005-12-31]"
    arguments = ["discover", "--config", *options(files, tmp_path / "run", short)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "too few years" in result.stderr
    assert not (tmp_path / "run").exists()


def test_record_has_no_test_day_and_means_of_blocks(files, tmp_path):
    name, *overrides = options(files, tmp_path)
    config = load_config(name, overrides)
    pipeline = NetCDFDataPipeline.from_config(config.data)
    whole = predictor_record(pipeline)
    assert whole.year.max() == 2006
    assert whole.ordinal is not None
    assert set(np.diff(whole.ordinal)) == {1}
    coarse = predictor_record(pipeline, most_nodes=6)
    for name, field in whole.fields.items():
        days, channels = field.shape[:2]
        blocks = field[:, :, :4, :4].reshape(days, channels, 2, 2, 2, 2)
        np.testing.assert_allclose(
            coarse.fields[name], blocks.mean((3, 5)), rtol=1e-5, atol=1e-6
        )
