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
from st_cdgm.evaluation.report.export import write_figures
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


def test_event_and_distribution_scores_reach_scorecard_and_report(tmp_path):
    """And the figures lie beside them as files."""
    rng = np.random.default_rng(1)
    rain = rng.gamma(0.4, 8.0, size=(20, 3, 12, 14)).astype(np.float32)
    axes = {
        "time": xr.date_range("2001-01-01", periods=20, use_cftime=True),
        "lat": np.linspace(40.0, 45.5, 12),
        "lon": np.linspace(0.0, 6.5, 14),
    }
    dims = ("time", "realization", "lat", "lon")
    ensemble = xr.Dataset({"pr": (dims, rain, {"units": "mm day-1"})}, coords=axes)
    ensemble.to_netcdf(tmp_path / "made.nc")
    ensemble.isel(realization=0, drop=True).to_netcdf(tmp_path / "seen.nc")

    names = ["fss", "fss_10mm", "f1_p95", "f1_p99", "histogram_distance"]
    names += ["sliced_wasserstein", "energy_score"]
    out = tmp_path / "out"
    files = {"--prediction": "made.nc", "--truth": "seen.nc", "--output": "out"}
    words = [
        w for option, name in files.items() for w in (option, str(tmp_path / name))
    ]
    words += [word for name in names for word in ("--metric", name)]
    result = CliRunner().invoke(app, ["evaluate", *words, "--figures"])
    assert result.exit_code == 0, result.output

    scores = Scorecard.from_json(out / "scorecard.json").rows.set_index("metric").value
    assert np.isfinite(scores[names].to_numpy()).all()
    reported = CliRunner().invoke(app, ["report", str(out)])
    assert reported.exit_code == 0, reported.output
    page = (out / "report.html").read_text("utf-8")
    for head in ("FSS, wet days", "F1 above p95", "sliced Wasserstein distance"):
        assert head in page

    drawn = sorted(path.name for path in (out / "figures").iterdir())
    assert f"Figures: {len(drawn)} in" in result.stdout
    assert {"maps-1.png", "spectra-1.svg", "ranks-1.svg"} <= set(drawn)
    assert (out / "figures" / "maps-1.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "figures" / "spectra-1.svg").read_text("utf-8")

    # Those of another evaluation take their place.
    (out / "figures" / "maps-99.png").write_bytes(b"old")
    assert [path.name for path in sorted(write_figures(out))] == drawn
    assert not (out / "figures" / "maps-99.png").exists()
