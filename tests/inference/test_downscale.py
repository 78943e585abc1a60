"""From a checkpoint and new predictors to an ensemble file."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from st_cdgm.errors import (
    ConfigError,
    GridMismatchError,
    InputError,
    MissingFileError,
    MissingVariableError,
    OutputError,
)
from st_cdgm.inference.downscale import downscale
from st_cdgm.training.fit import TrainingResult


def open_ensemble(path: Path) -> xr.Dataset:
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    return xr.open_dataset(path, decode_times=coder).load()


@pytest.fixture(scope="module")
def ensemble(
    trained: TrainingResult, tiny_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> xr.Dataset:
    output = tmp_path_factory.mktemp("out") / "out.nc"
    downscale(trained.checkpoint, tiny_files / "lr.nc", output, members=4, seed=9)
    return open_ensemble(output)


def test_the_output_covers_every_day_of_the_input_on_the_fine_grid(
    ensemble: xr.Dataset, tiny_files: Path
):
    """Also the first days, whose history is short: the first day is repeated."""
    fine = xr.open_dataset(tiny_files / "hr.nc", decode_times=False)
    assert ensemble.sizes == {
        "time": 240,
        "realization": 4,
        "lat": 8,
        "lon": 10,
        "bnds": 2,
    }
    np.testing.assert_array_equal(ensemble.lat, fine.lat)
    np.testing.assert_array_equal(ensemble.lon, fine.lon)
    assert ensemble.time.dt.calendar == "noleap"
    assert str(ensemble.time.values[0]).startswith("2001-01-01")


def test_guarantees_hold_in_every_value(ensemble: xr.Dataset):
    land = np.isfinite(ensemble.pr.values)
    assert land[:, :, :3, :4].sum() == 0
    assert land[:, :, 3:].all()
    pr = ensemble.pr.values[land]
    assert (pr >= 0).all()
    assert ((pr == 0) | (pr >= 0.1)).all()
    assert (pr == 0).any()
    low, high = ensemble.tasmin.values[land], ensemble.tasmax.values[land]
    assert (low <= high).all()
    assert {v: ensemble[v].attrs["units"] for v in ("pr", "tasmax")} == {
        "pr": "mm day-1",
        "tasmax": "degC",
    }


@pytest.mark.parametrize(
    ("name", "least"), [("tasmin", 0.6), ("tasmax", 0.6), ("pr", 0.3)]
)
def test_the_ensemble_follows_the_truth(
    ensemble: xr.Dataset, tiny_files: Path, name: str, least: float
):
    """On days after training the mean goes with the truth; members differ."""
    coder = xr.coders.CFDatetimeCoder(use_cftime=True)
    truth = xr.open_dataset(tiny_files / "hr.nc", decode_times=coder)[name]
    members = ensemble[name].isel(time=slice(195, 240))
    mean = members.mean("realization")
    correlation = xr.corr(mean, truth.isel(time=slice(195, 240)), dim="time")
    assert float(correlation.mean()) > least
    assert float(members.std("realization").mean()) > 0.05


def test_members_and_days_do_not_depend_on_what_else_is_asked_for(
    ensemble: xr.Dataset, trained: TrainingResult, tiny_files: Path, tmp_path: Path
):
    """Two of four members, ten of 240 days, other batches: the same numbers."""
    downscale(
        trained.checkpoint,
        tiny_files / "lr.nc",
        tmp_path / "part.nc",
        members=2,
        seed=9,
        start="2001-03-05",
        end="2001-03-14",
        batch_days=3,
    )
    part = open_ensemble(tmp_path / "part.nc")
    same = ensemble.sel(time=part.time).isel(realization=slice(0, 2))
    assert part.sizes["time"] == 10
    for name in ("pr", "tasmin", "tasmax"):
        np.testing.assert_allclose(part[name], same[name], atol=2e-4, rtol=1e-4)


def test_another_seed_gives_another_ensemble(
    ensemble: xr.Dataset, trained: TrainingResult, tiny_files: Path, tmp_path: Path
):
    downscale(
        trained.checkpoint,
        tiny_files / "lr.nc",
        tmp_path / "other.nc",
        members=4,
        seed=10,
        end="2001-01-20",
    )
    other = open_ensemble(tmp_path / "other.nc")
    difference = other.tasmin - ensemble.tasmin.sel(time=other.time)
    assert float(abs(difference).mean()) > 0.05


def test_no_truth_is_needed(trained: TrainingResult, tiny_files: Path, tmp_path: Path):
    """D4: the checkpoint and the predictors are all that is read."""
    checkpoint = shutil.copytree(trained.checkpoint, tmp_path / "moved")
    shutil.copy(tiny_files / "lr.nc", tmp_path / "new.nc")
    before = {p.name for p in tmp_path.iterdir()}
    downscale(
        checkpoint,
        tmp_path / "new.nc",
        tmp_path / "out.nc",
        members=1,
        end="2001-01-03",
    )
    assert {p.name for p in tmp_path.iterdir()} == before | {"out.nc"}


def broken(kind: str, source: Path, target: Path) -> Path:
    ds = xr.open_dataset(source, decode_times=False).load()
    if kind == "variable":
        ds = ds.drop_vars("z_500")
    elif kind == "level":
        ds = ds.rename(q_850="q_700")
    elif kind == "grid":
        ds = ds.isel(lat=slice(0, 3))
    elif kind == "nan":
        ds["q_850"] = ds["q_850"] * np.nan
    elif kind == "moved":
        ds = ds.assign_coords(lon=ds.lon + 0.5)
    ds.to_netcdf(target)
    return target


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("variable", MissingVariableError, ["z_500", "new.nc"]),
        ("level", MissingVariableError, ["q_850", "new.nc"]),
        ("grid", GridMismatchError, ["new.nc"]),
        ("moved", GridMismatchError, ["new.nc"]),
        ("nan", InputError, ["q_850", "new.nc"]),
    ],
)
def test_bad_predictors_are_refused_and_leave_nothing(
    trained: TrainingResult,
    tiny_files: Path,
    tmp_path: Path,
    kind: str,
    error: type[Exception],
    words: list[str],
):
    lr = broken(kind, tiny_files / "lr.nc", tmp_path / "new.nc")
    with pytest.raises(error) as caught:
        downscale(trained.checkpoint, lr, tmp_path / "out.nc", members=2)
    for word in words:
        assert word in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["new.nc"]


def test_other_bad_requests(trained: TrainingResult, tiny_files: Path, tmp_path: Path):
    lr, out = tiny_files / "lr.nc", tmp_path / "out.nc"
    with pytest.raises(MissingFileError, match=r"nothing\.nc"):
        downscale(trained.checkpoint, tmp_path / "nothing.nc", out)
    with pytest.raises(MissingFileError, match="checkpoint"):
        downscale(tmp_path, lr, out)
    with pytest.raises(InputError, match="2050"):
        downscale(trained.checkpoint, lr, out, start="2050-01-01")
    with pytest.raises(ConfigError, match="members"):
        downscale(trained.checkpoint, lr, out, members=0)
    with pytest.raises(OutputError):
        downscale(trained.checkpoint, lr, tmp_path / "no" / "out.nc")
    assert not list(tmp_path.iterdir())
