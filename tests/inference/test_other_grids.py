"""Predictors on another grid than the model's, and predictors that do not fit it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.cli.main import app
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.predictor_check import check_predictors, open_predictors
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.errors import (
    ConfigError,
    GridMismatchError,
    InputError,
    MissingVariableError,
)
from st_cdgm.inference.downscale import downscale
from st_cdgm.training.fit import TrainingResult

# The model's grid: 40, 42, 44, 46 N and 0, 2, 4, 6, 8 E.
LAT, LON = np.arange(40.0, 48.0, 2.0), np.arange(0.0, 10.0, 2.0)
HALF = np.arange(39.0, 47.1, 0.5), np.arange(-1.0, 9.1, 0.5)
NESTED = np.arange(39.5, 47.0, 1.0), np.arange(-0.5, 9.0, 1.0)
UNITS = {"q_850": "kg kg-1", "z_500": "m2 s-2", "tas": "K"}
NAMES = {
    "q_850": "specific_humidity",
    "z_500": "geopotential",
    "tas": "air_temperature",
}
DAYS = 8


def linear(lat, lon):
    """What a bilinear interpolation gives back exactly."""
    return 280.0 + 0.5 * (lat - 43.0) - 0.25 * lon + 0.02 * (lat - 43.0) * lon


def made(lat, lon, tas=linear, days=DAYS, **time) -> xr.Dataset:
    """A file whose temperature is ``tas`` of the place, a degree warmer every day."""
    field = tas(lat[:, None], lon[None, :])
    warmer = np.arange(days, dtype=float)[:, None, None] + field
    scale = {"q_850": (1e-5, 0.005), "z_500": (10.0, 50000.0), "tas": (1.0, 0.0)}
    dims = ("time", "lat", "lon")
    dates = xr.date_range("2001-02-01", periods=days, use_cftime=True, **time)
    ds = xr.Dataset(
        {
            name: (
                dims,
                (factor * warmer + offset).astype(np.float32),
                {"units": UNITS[name], "standard_name": NAMES[name]},
            )
            for name, (factor, offset) in scale.items()
        },
        coords={"time": dates, "lat": lat, "lon": lon},
    )
    ds.lat.attrs = {"units": "degrees_north", "standard_name": "latitude"}
    ds.lon.attrs = {"units": "degrees_east", "standard_name": "longitude"}
    return ds


@pytest.fixture(scope="module")
def prep(trained: TrainingResult) -> Preprocessor:
    return load_checkpoint(trained.checkpoint).preprocessor


def temperature(prep: Preprocessor, ds: xr.Dataset, **options) -> np.ndarray:
    """The predictor on the model's grid, first day. Shape ``(4, 5)``."""
    cube = open_predictors(prep, ds, **options).cube
    assert cube.grid.shape == (4, 5)
    return cube.load()[0, list(cube.names).index("tas")]


# -- Values ----------------------------------------------------------------------------

TURNS = {
    "as written": lambda ds: ds,
    "descending": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "0 to 360": lambda ds: ds.assign_coords(
        lon=ds.lon.copy(data=ds.lon % 360.0)
    ).sortby("lon"),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("regrid", ["auto", "bilinear"])
def test_a_linear_field_comes_back_exactly(prep, turn, regrid):
    ds = TURNS[turn](made(*HALF))
    opened = open_predictors(prep, ds, regrid=regrid)
    assert opened.regridding.startswith("bilinear, from 17 x 21 regular")
    found = temperature(prep, ds, regrid=regrid)
    np.testing.assert_allclose(found, linear(LAT[:, None], LON), rtol=1e-6)
    every = opened.cube.load()  # (T, C, y, x): day by day one degree more
    np.testing.assert_allclose(np.diff(every[:, 2], axis=0), 1.0, atol=1e-3)


def test_a_missing_cell_is_left_out_and_only_a_hole_stays_missing(prep):
    # 41, 43, 45, 47 and 1, 3 ... : each model cell lies between four of the file's.
    ds = made(np.arange(39.0, 48.0, 2.0), np.arange(-1.0, 10.0, 2.0), days=DAYS)
    plain = temperature(prep, ds)
    ds.tas[:, 0, 0] = np.nan
    one = temperature(prep, ds)
    corners = linear(np.array([39.0, 41.0, 41.0]), np.array([1.0, -1.0, 1.0]))
    assert one[0, 0] == pytest.approx(corners.mean(), rel=1e-6)
    np.testing.assert_array_equal(one.ravel()[1:], plain.ravel()[1:])

    ds.tas[:, 0:2, 0:2] = np.nan
    hole = temperature(prep, ds)
    assert np.isnan(hole[0, 0])
    assert np.isfinite(hole.ravel()[1:]).all()
    arrays, _ = load_predictors(prep, ds)
    assert np.isfinite(arrays.lr).all()  # filled as in training


def test_a_global_file_closes_the_circle(prep):
    globe = made(np.arange(35.0, 50.0, 1.0), np.arange(1.0, 360.0, 2.0), tas=wave)
    found = temperature(prep, globe)
    beside = 0.5 * (wave(LAT, 359.0) + wave(LAT, 1.0))
    np.testing.assert_allclose(found[:, 0], beside, rtol=1e-6)
    assert check_predictors(prep, globe).usable
    cut = globe.isel(lon=slice(0, 100))
    assert (
        "begins at 1 E, the model needs 0 E" in check_predictors(prep, cut).problems[0]
    )
    means = temperature(prep, globe, regrid="conservative")
    assert means[0, 0] == pytest.approx(float(beside[0]), abs=1e-4)


def wave(lat, lon):
    return 280.0 + 10.0 * np.sin(np.deg2rad(lon)) + 0.0 * lat


def test_conservative_keeps_areal_means(prep):
    noise = np.random.default_rng(0).normal(280.0, 9.0, (8, 10))
    ds = made(*NESTED, tas=lambda lat, lon: noise)
    found = temperature(prep, ds, regrid="conservative")
    sine = np.sin(np.deg2rad(np.arange(39.0, 47.1, 1.0)))
    area = np.diff(sine)[:, None] * np.ones(10)
    blocks = (noise * area).reshape(4, 2, 5, 2).sum(axis=(1, 3))
    sizes = area.reshape(4, 2, 5, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(found, blocks / sizes, rtol=1e-6)
    whole = np.average(noise, weights=area)
    assert np.average(found, weights=sizes) == pytest.approx(whole, rel=1e-6)
    assert found != pytest.approx(temperature(prep, ds), abs=1e-3)

    # Half of a cell is missing: the mean of what there is.
    ds.tas[:, 0:2, 0] = np.nan
    part = temperature(prep, ds, regrid="conservative")
    expected = np.average(noise[0:2, 1], weights=area[0:2, 1])
    assert part[0, 0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("regrid", ["auto", "bilinear", "conservative", "none"])
def test_on_the_models_grid_nothing_changes(prep, tiny_files, regrid):
    plain = xr.open_dataset(tiny_files / "lr.nc", decode_times=False)
    values = np.stack([plain[name].values for name in UNITS], axis=1)
    opened = open_predictors(prep, tiny_files / "lr.nc", regrid=regrid)
    assert opened.regridding is None
    np.testing.assert_array_equal(opened.cube.load(), values.astype(np.float32))
    turned = plain.isel(lat=slice(None, None, -1), lon=[4, 3, 2, 1, 0])
    again = open_predictors(prep, turned, regrid=regrid)
    assert again.regridding is None
    np.testing.assert_array_equal(again.cube.load(), opened.cube.load())


def test_a_curvilinear_file_goes_by_its_nearest_cells(prep):
    ds = made(*HALF).rename(lat="y", lon="x")
    lat, lon = np.meshgrid(*HALF, indexing="ij")
    ds = ds.drop_vars(["y", "x"]).assign_coords(
        lat=(("y", "x"), lat + 1e-3 * lon, {"standard_name": "latitude"}),
        lon=(("y", "x"), lon, {"standard_name": "longitude"}),
    )
    opened = open_predictors(prep, ds)
    assert opened.regridding.startswith("inverse distance of 4 cells, from 17 x 21")
    found = temperature(prep, ds)
    np.testing.assert_allclose(found, linear(LAT[:, None], LON), atol=0.01)
    with pytest.raises(GridMismatchError, match="one is regular and the other is not"):
        open_predictors(prep, ds, regrid="conservative")
    with pytest.raises(GridMismatchError, match="does not cover") as caught:
        open_predictors(prep, ds.isel(x=slice(0, 15)))
    assert "4 of 20 cells of the model not covered" in caught.value.facts["found"]


# -- What is refused -------------------------------------------------------------------


def test_what_is_not_covered_is_said_in_numbers(prep):
    part = made(np.arange(39.0, 45.1, 0.5), np.arange(3.0, 9.1, 0.5))
    with pytest.raises(GridMismatchError, match="does not cover") as caught:
        open_predictors(prep, part)
    found = caught.value.facts["found"]
    assert "the file ends at 45 N, the model needs 46 N: 1 of 4 rows not covered" in (
        found
    )
    assert (
        "the file begins at 3 E, the model needs 0 E: 2 of 5 columns not covered"
        in found
    )


def test_areal_means_need_whole_cells(prep):
    """Centres are covered from 40 to 46 N, cells from 39 to 47."""
    centres = made(np.arange(40.0, 46.1, 1.0), np.arange(-1.0, 9.1, 1.0))
    assert open_predictors(prep, centres).regridding
    with pytest.raises(GridMismatchError, match="does not cover") as caught:
        open_predictors(prep, centres, regrid="conservative")
    found = caught.value.facts["found"]
    assert "begins at 39.5 N, the model needs 39 N: 1 of 4 rows" in found
    assert "ends at 46.5 N, the model needs 47 N: 1 of 4 rows" in found


def test_none_refuses_another_grid_and_unknown_ways_are_named(prep):
    with pytest.raises(GridMismatchError, match="another shape"):
        open_predictors(prep, made(*HALF), regrid="none")
    with pytest.raises(ConfigError, match="unknown value of regrid"):
        open_predictors(prep, made(*HALF), regrid="cubic")


def test_all_that_does_not_fit_is_listed_at_once(prep):
    bad = made(np.arange(39.0, 45.1, 0.5), HALF[1]).drop_vars(["z_500", "q_850"])
    bad["tas"].attrs["units"] = "Pa"
    bad["other"] = bad.tas.assign_attrs(units="K", standard_name="air_temperature")
    with pytest.raises(InputError, match="do not fit the model in 2 ways") as caught:
        open_predictors(prep, bad)
    text = str(caught.value)
    assert "variable q_850, z_500" in text
    assert "tas" in text
    assert "Pa" in text

    bad["tas"].attrs["units"] = "K"
    report = check_predictors(prep, bad)
    assert not report.usable
    assert len(report.problems) == 2
    assert "q_850, z_500" in report.problems[0]
    assert "1 of 4 rows not covered" in report.problems[1]


def test_one_problem_keeps_its_kind(prep):
    with pytest.raises(MissingVariableError) as caught:
        open_predictors(prep, made(*HALF).drop_vars(["z_500", "q_850"]))
    assert caught.value.facts["variable"] == "q_850, z_500"


def test_steps_levels_and_variables_together(prep):
    monthly = made(*HALF, days=12, freq="MS").rename(q_850="q_700")
    report = check_predictors(prep, monthly)
    assert len(report.problems) == 2
    assert "q_850" in report.problems[0]
    assert "q_700" in report.problems[0]
    assert "longer than a day" in report.problems[1]


# -- Through the tool ------------------------------------------------------------------


def test_the_output_names_the_regridding(trained, tmp_path, caplog, prep):
    made(*HALF).to_netcdf(tmp_path / "fine.nc")
    made(LAT, LON).to_netcdf(tmp_path / "same.nc")
    with caplog.at_level("WARNING", logger="st_cdgm"):
        for name in ("fine", "same"):
            output = tmp_path / f"{name}_out.nc"
            downscale(trained.checkpoint, tmp_path / f"{name}.nc", output, members=2)
    assert caplog.text.count("is regridded: bilinear") == 1
    assert "conservative regridding takes the mean" in caplog.text
    fine = xr.open_dataset(tmp_path / "fine_out.nc", decode_times=False)
    same = xr.open_dataset(tmp_path / "same_out.nc", decode_times=False)
    assert fine.attrs["regridding"] == (
        f"bilinear, from 17 x 21 regular, lat 39..47 (south to north), lon -1..9 to "
        f"{prep.lr_grid}"
    )
    assert "regridding" not in same.attrs
    # The same field, given on two grids: the same ensemble.
    np.testing.assert_allclose(fine.tasmin, same.tasmin, atol=2e-2)


def inspect(*arguments: object):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_inspect_says_beforehand_what_downscale_would_say(trained, tmp_path):
    files: dict[str, Path] = {}
    for name, ds in {
        "same": made(LAT, LON),
        "fine": made(*HALF),
        "bad": made(np.arange(41.0, 47.1, 0.5), HALF[1]).drop_vars("z_500"),
    }.items():
        files[name] = tmp_path / f"{name}.nc"
        ds.to_netcdf(files[name])

    model = ("--checkpoint", trained.checkpoint)
    same = inspect(files["same"], *model)
    assert same.exit_code == 0, same.output
    assert f"usable with {trained.checkpoint}: 8 days" in same.stdout
    assert "will be regridded" not in same.stdout
    fine = inspect(files["fine"], *model)
    assert "will be regridded: bilinear, from 17 x 21" in fine.stdout

    bad = inspect(files["bad"], *model)
    assert bad.exit_code == 2
    assert f"not usable with {trained.checkpoint} because" in bad.stdout
    assert "z_500" in bad.stdout
    assert "begins at 41 N, the model needs 40 N: 1 of 4 rows" in bad.stdout
    content = json.loads(inspect(files["bad"], *model, "--json").stdout)
    assert content["checkpoint"]["usable"] is False
    assert len(content["checkpoint"]["problems"]) == 2
