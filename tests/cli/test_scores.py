"""The scorecard on the terminal."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

from st_cdgm.cli.main import app
from st_cdgm.evaluation.gains import Gain
from st_cdgm.evaluation.scorecard import COLUMNS, Scorecard
from st_cdgm.runs.score_table import scorecard_table


def test_gains_follow_the_table_line_by_line():
    rows = [
        ("st-cdgm", "pr", "crps", 0.5, "mm day-1"),
        ("ridge", "pr", "crps", 0.75, "mm day-1"),
        ("st-cdgm", "tas", "crps", 1.5, "degC"),
        ("ridge", "tas", "crps", 1.49, "degC"),
        ("st-cdgm", "tas", "rmse", 1.5, "degC"),
    ]
    gains = [
        Gain(
            variable="pr",
            reference="ridge",
            gain=1 / 3,
            low=0.3,
            high=0.4,
            days=365,
            block=10,
        ),
        Gain(
            variable="tas",
            reference="ridge",
            gain=-0.0067,
            low=-0.02,
            high=0.01,
            days=365,
            block=10,
        ),
        Gain(
            variable="hus",
            reference="ridge",
            gain=0.5,
            low=math.nan,
            high=math.nan,
            days=9,
            block=10,
        ),
    ]
    card = Scorecard(rows=pd.DataFrame(rows, columns=COLUMNS), gains=gains)
    out = io.StringIO()
    Console(file=out, width=120).print(scorecard_table(card))
    below = out.getvalue().split("st-cdgm against the best reference")[1]
    lines = [" ".join(line.split()) for line in below.splitlines()]
    assert "variable reference gain 95 % interval verdict" in lines
    assert "pr ridge +33 % +30 % to +40 % better" in lines
    assert "tas ridge -0.67 % -2.0 % to +1.0 % tie" in lines
    assert "hus ridge +50 % too few days no clear difference" in lines
    assert max(map(len, below.splitlines())) < 80
    out = io.StringIO()
    Console(file=out, width=120).print(scorecard_table(card, "rmse"))
    assert "best reference" not in out.getvalue()


def test_evaluate_names_the_file_and_says_what_is_left_out(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    ds = xr.Dataset(
        {"tas": (("time", "lat", "lon"), values, {"units": "degC"})},
        coords={
            "time": xr.date_range("2001-01-01", periods=4, use_cftime=True),
            "lat": [40.0, 41.0, 42.0],
            "lon": [0.0, 1.0, 2.0],
        },
    )
    ds.to_netcdf(tmp_path / "observed.nc")
    ds.tas[:, 2, 2] = np.nan
    ds.tas[:] += 1.0
    ds.to_netcdf(tmp_path / "my_winter.nc")

    def evaluate(*more):
        files = ("--prediction", tmp_path / "my_winter.nc")
        files += ("--truth", tmp_path / "observed.nc", "--output", tmp_path / "out")
        return CliRunner().invoke(app, ["evaluate", *map(str, (*files, *more))])

    result = evaluate()
    assert result.exit_code == 0, result.output
    assert "my_winter" in result.stdout
    assert "st-cdgm" not in result.stdout.split("Scores:")[0]
    assert "left out 1 within 42..42 N, 2..2 E, missing in my_winter" in result.stdout
    for mask, word in (
        ("truth", "not finite"),
        ("strict", "not finite"),
        ("x", "mask"),
    ):
        refused = evaluate("--mask", mask)
        assert refused.exit_code == 2
        assert word in refused.stderr

    more = evaluate("--metric", "rmse", "--metric", "histogram_distance")
    assert more.exit_code == 0, more.output
    tables = [line for line in more.stdout.splitlines() if "(* best)" in line]
    assert [line.split(" (")[0] for line in tables] == [
        "fair CRPS",
        "RMSE of the ensemble mean",
        "distance of the histograms of all values",
    ]
    unknown = evaluate("--metric", "histogram")
    assert unknown.exit_code == 2
    assert "histogram_distance" in unknown.stderr.split("expected:")[1]
    dry = evaluate("--metric", "fss")  # of precipitation alone
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.count("(* best)") == 1
