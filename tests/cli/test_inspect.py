"""The verb ``inspect``: what it prints, writes and returns."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from typer.testing import CliRunner

from st_cdgm.cli.main import EXIT_INPUT, app


def call(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def strict(text):
    def refuse(token):
        raise AssertionError(token)

    return json.loads(text, parse_constant=refuse)


def test_predictors(tiny_files):
    result = call(tiny_files / "lr.nc")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == str(tiny_files / "lr.nc")
    assert "  grid: 4 x 5 regular, cells of 2 degrees" in lines
    assert "    lat 40 to 46 (south to north), lon 0 to 8" in lines
    assert "  time: 2001-01-01 to 2001-08-28" in lines
    assert "    240 steps of 1 d, calendar noleap" in lines
    (row,) = [line.split() for line in lines if line.startswith("  z_500")]
    assert row[:4] == ["z_500", "500", "m2", "s-2"]
    assert (
        "  usable as LR because 240 days (2001-01-01..2001-08-28), 3 channels "
        "(q_850, z_500, tas), 4 x 5 cells of 2 degrees" in lines
    )
    assert any(line.startswith("  not usable as HR because") for line in lines)
    assert any(line.startswith("  not usable as static because") for line in lines)


def test_targets_and_static_fields(tiny_files):
    result = call(tiny_files / "hr.nc", tiny_files / "static.nc")
    assert "  usable as HR because 240 days" in result.stdout
    assert "  usable as static because 1 field without change in time" in result.stdout
    assert "15.0%" in result.stdout  # 12 of 80 cells are sea


def test_the_table_fits_80_columns(tiny_files):
    lines = call(tiny_files / "lr.nc", tiny_files / "hr.nc").stdout.splitlines()
    tables = [
        line for line in lines if line.startswith(("  variable", "  q_850", "  pr  "))
    ]
    assert len(tables) == 4
    assert max(map(len, tables)) <= 80


def test_problems_with_place_and_date(tiny_files, tmp_path):
    with xr.open_dataset(tiny_files / "hr.nc") as ds:
        broken = ds.load()
    broken.tasmax[7, 5, 6] = 1e20
    broken.tasmax[:3, 5, 7] = np.nan
    broken.to_netcdf(tmp_path / "a.nc")
    result = call(tmp_path / "a.nc")
    assert result.exit_code == 0
    assert "  problems:" in result.stdout.splitlines()
    assert "1e+20 at time 2001-01-08, lat 44.5, lon 5.5" in result.stdout
    assert "  * not always the same cells" in result.stdout.splitlines()


def test_remedies_where_a_file_is_of_no_use(tiny_files, tmp_path):
    with xr.open_dataset(tiny_files / "lr.nc") as ds:
        ds.isel(time=0, drop=True).to_netcdf(tmp_path / "a.nc")
    text = call(tmp_path / "a.nc").stdout
    assert text.count("    remedy: ") == 3
    assert "remedy" not in call(tiny_files / "lr.nc").stdout


def test_json_on_the_terminal_and_in_a_file(tiny_files, tmp_path):
    file = tiny_files / "static.nc"
    printed = strict(call(file, "--json").stdout)
    assert printed[str(file)]["variables"][0]["name"] == "orog"
    assert [v["usable"] for v in printed[str(file)]["verdicts"]] == [False, False, True]
    result = call(file, "--output", tmp_path / "out.json")
    assert "usable as static" in result.stdout
    assert strict((tmp_path / "out.json").read_text("utf-8")) == printed
    nowhere = call(file, "--output", tmp_path / "none" / "out.json")
    assert nowhere.exit_code == EXIT_INPUT
    assert "does not exist" in nowhere.stderr


def test_a_usable_pair(tiny_files):
    result = call("--pair", tiny_files / "lr.nc", tiny_files / "hr.nc")
    assert result.exit_code == 0, result.stdout
    lines = result.stdout.splitlines()
    assert lines[0] == f"predictors: {tiny_files / 'lr.nc'}"
    assert "  shared days: 240 (2001-01-01..2001-08-28)" in lines
    assert "  region: the coarse grid encloses the fine one" in lines
    assert "  best lag: 0 days (240 read)" in lines
    assert "  usable as a pair because days, region and weather fit" in lines


def test_a_pair_that_is_not_usable(tiny_files, tmp_path):
    with xr.open_dataset(tiny_files / "lr.nc") as ds:
        later = ds.assign_coords(lon=ds.lon + 90.0).load()
    later.to_netcdf(tmp_path / "lr.nc")
    pair = ("--pair", tmp_path / "lr.nc", tiny_files / "hr.nc")
    result = call(*pair)
    assert result.exit_code == EXIT_INPUT
    assert "  not usable because the regions differ" in result.stdout
    assert "    remedy: " in result.stdout
    assert "Traceback" not in result.output
    printed = call(*pair, "--json")
    assert printed.exit_code == EXIT_INPUT
    assert strict(printed.stdout)["pair"]["usable"] is False


def test_nothing_to_inspect():
    result = call()
    assert result.exit_code == EXIT_INPUT
    assert "--pair LR HR" in result.output


def test_a_file_of_a_pair_that_does_not_exist(tiny_files):
    result = call("--pair", tiny_files / "lr.nc", tiny_files / "none.nc")
    assert result.exit_code == EXIT_INPUT
    assert result.stdout == ""
    assert "does not exist" in result.stderr
