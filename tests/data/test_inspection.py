from __future__ import annotations

import json

import numpy as np
import pytest
from climate_files import on_levels, predictors, times, write

from st_cdgm.data.inspection import inspect_file, roughness
from st_cdgm.errors import InputError, MissingFileError


def test_report_of_a_sound_file(tmp_path):
    path = write(predictors(5, time=times(6)[[0, 1, 2, 4, 5]]), tmp_path / "a.nc")
    report = inspect_file(path)
    assert report.problems == ()
    assert report.format == "NETCDF4"
    assert report.size_bytes == path.stat().st_size
    assert report.grid is not None
    assert (report.grid.kind, report.grid.shape) == ("regular", (3, 4))
    assert report.grid.lat == (40.0, 45.0)
    assert report.grid.latitude_order == "south to north"
    assert report.time is not None
    assert report.time.first.startswith("2001-01-01")
    assert report.time.gaps == [("2001-01-03", "2001-01-05")]
    assert (report.time.calendar, report.time.step_hours) == ("standard", 24.0)
    first = report.variables[0]
    assert (first.name, first.levels, first.units) == ("t_850", [850.0], "K")
    assert (first.minimum, first.maximum, first.nan_share) == (270.0, 290.0, 0.0)
    assert report.variables[2].canonical_units == "mm day-1"


def test_report_is_valid_json(tmp_path):
    ds = predictors()
    ds["t_500"] = ds.t_500 * np.nan
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    text = json.dumps(report.to_dict(), allow_nan=False)
    empty = json.loads(text)["variables"][1]
    assert (empty["minimum"], empty["maximum"], empty["nan_share"]) == (None, None, 1.0)
    assert any("no values (variable t_500" in p for p in report.problems)


def test_levels_and_missing_share(tmp_path):
    ds = on_levels([85000.0, 50000.0], "Pa")
    ds["psl"] = ds.psl.where(ds.lon < 0).assign_attrs(ds.psl.attrs)
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    by_name = {v.name: v for v in report.variables}
    assert by_name["hus"].levels == [850.0, 500.0]
    assert by_name["psl"].nan_share == 0.5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda ds: ds.drop_vars("lat"), "no latitude and longitude"),
        (lambda ds: ds.isel(time=[0, 0]), "several time stamps"),
        (lambda ds: ds.isel(time=slice(0, 0)), "time axis is empty"),
        (lambda ds: ds.assign(pr=ds.pr.assign_attrs(units="K")), "units do not fit"),
        (lambda ds: ds.assign(pr=ds.pr.drop_attrs()), "no units (variable pr)"),
        (lambda ds: ds[[]], "no field on a horizontal grid"),
    ],
)
def test_problems_are_reported_and_do_not_stop(tmp_path, change, problem):
    report = inspect_file(write(change(predictors()), tmp_path / "a.nc"))
    assert any(problem in text for text in report.problems)


def test_static_file_needs_no_time(tmp_path):
    ds = predictors().isel(time=0, drop=True)
    report = inspect_file(write(ds, tmp_path / "a.nc"))
    assert report.time is None
    assert report.problems == ()


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(MissingFileError):
        inspect_file(tmp_path / "a.nc")
    (tmp_path / "b.nc").write_text("text")
    with pytest.raises(InputError, match="cannot be read"):
        inspect_file(tmp_path / "b.nc")


def test_zarr(tmp_path):
    predictors().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    report = inspect_file(tmp_path / "a.zarr")
    assert report.format == "Zarr"
    assert report.size_bytes > 0
    assert len(report.variables) == 3


def test_roughness_by_hand():
    # A ramp of n steps: differences 1 one way and 0 the other, variance (n^2-1)/12.
    ramp = np.broadcast_to(np.arange(10.0), (10, 10))
    assert roughness(ramp) == pytest.approx(0.5 * 0.5 / (99 / 12))
    # A chequerboard: differences 2, variance 1.
    board = np.where(np.indices((10, 10)).sum(axis=0) % 2, 1.0, -1.0)
    assert roughness(board) == pytest.approx(2.0)
    noise = np.random.default_rng(1).normal(size=(4, 60, 60))
    assert roughness(noise) == pytest.approx(1.0, abs=0.02)
    assert roughness(np.ones((10, 10))) is None
    assert roughness(np.full((10, 10), np.nan)) is None
    assert roughness(ramp[:4, :4]) is None


def test_shuffled_values_under_right_coordinates_are_noticed(real_data, tmp_path):
    import xarray as xr

    with xr.open_dataset(real_data / "iberia" / "predictors_ncep_r1.nc") as ds:
        sound = ds[["z_500", "psl"]].isel(time=slice(0, 9)).load()
    assert inspect_file(write(sound, tmp_path / "a.nc")).problems == ()
    order = np.random.default_rng(0).permutation(54)
    shuffled = sound.copy()
    flat = sound.z_500.values.reshape(9, 54)[:, order].reshape(9, 6, 9)
    shuffled["z_500"] = sound.z_500.copy(data=flat)
    (problem,) = inspect_file(write(shuffled, tmp_path / "b.nc")).problems
    assert "rough as shuffled" in problem
    assert "z_500" in problem


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        ("uvt.nc", "regular", "units 'Month'"),
        ("eraint_uvz.nc", "regular", "no time coordinate"),
        ("small_rotPole_precipitation.nc", "rotated_latitude_longitude", None),
        ("tas_day_MIROC6_ssp119_r1i1p1f1_gn_20150101.nc", "regular", None),
    ],
)
def test_real_files(real_data, name, kind, problem):
    report = inspect_file(real_data / "edge_cases" / name)
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.grid is not None
    assert report.grid.kind == kind
    if problem is None:
        assert report.problems == ()
    else:
        assert len(report.problems) == 1
        assert problem in report.problems[0]


def test_real_radar(real_data):
    report = inspect_file(real_data / "radar_nl_20100826" / "pr_5min_1km.nc")
    assert report.grid is None
    assert report.time is not None
    assert report.time.step_hours == pytest.approx(1 / 12)
    assert len(report.problems) == 2
