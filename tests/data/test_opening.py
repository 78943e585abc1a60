from __future__ import annotations

import os

import numpy as np
import pytest
import xarray as xr
from climate_files import LON, dataset, field, predictors, times, write

from st_cdgm.data.files.open import (
    data_variables,
    file_label,
    open_dataset,
    resolve_paths,
    time_bounds,
    time_name,
)
from st_cdgm.errors import InputError, MissingFileError, MissingVariableError


def test_missing_file_names_its_neighbours(tmp_path):
    write(predictors(), tmp_path / "here.nc")
    with pytest.raises(
        MissingFileError, match="predictor file does not exist"
    ) as caught:
        open_dataset(tmp_path / "there.nc", role="lr")
    assert caught.value.facts["file"] == tmp_path / "there.nc"
    assert "here.nc" in caught.value.facts["found"]
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("pattern", ["none_*.nc", "no/such/folder/*.nc"])
def test_pattern_without_match(tmp_path, pattern):
    with pytest.raises(MissingFileError):
        resolve_paths(tmp_path / pattern)


def test_no_path_at_all():
    with pytest.raises(MissingFileError, match="no target file is named"):
        open_dataset([], role="hr")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 bytes"),
        (b"this is text\n", "OSError"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"GRIB\x00\x00", "GRIB"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04abcd", "ZIP"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 40, "Error"),
    ],
)
def test_files_that_are_not_netcdf(tmp_path, content, found):
    path = tmp_path / "a.nc"
    path.write_bytes(content)
    with pytest.raises(InputError, match="target file cannot be read") as caught:
        open_dataset(path, role="hr")
    assert found in caught.value.facts["found"]
    assert caught.value.facts["file"] == path
    assert caught.value.facts["remedy"]


def test_truncated_file(tmp_path):
    path = write(predictors(200), tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cannot be read"):
        open_dataset(path, role="lr")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path):
    path = write(predictors(), tmp_path / "a.nc")
    path.chmod(0)
    with pytest.raises(MissingFileError, match="may not be read"):
        open_dataset(path, role="lr")


@pytest.mark.parametrize("units", ["days since yesterday", "months since 2000-01-01"])
def test_undecodable_time_units(tmp_path, units):
    ds = predictors().assign_coords(time=("time", np.arange(4), {"units": units}))
    path = write(ds, tmp_path / "a.nc")
    with pytest.raises(InputError, match="time axis cannot be decoded") as caught:
        open_dataset(path, role="lr")
    assert caught.value.facts["variable"] == "time"
    assert units in caught.value.facts["found"]


def test_unknown_calendar(tmp_path):
    attrs = {"units": "days since 2000-01-01", "calendar": "martian"}
    ds = predictors().assign_coords(time=("time", np.arange(4), attrs))
    with pytest.raises(InputError, match="time axis") as caught:
        open_dataset(write(ds, tmp_path / "a.nc"), role="lr")
    assert "martian" in str(caught.value)


@pytest.mark.parametrize("store", ["NETCDF4", "NETCDF3_64BIT", "zarr2", "zarr3"])
def test_every_format_is_lazy_and_uses_cftime(tmp_path, store):
    ds = predictors(time=times(4, calendar="noleap"))
    path = tmp_path / ("a.zarr" if store.startswith("zarr") else "a.nc")
    if store.startswith("zarr"):
        ds.to_zarr(path, zarr_format=int(store[-1]), consolidated=store == "zarr2")
    else:
        ds.to_netcdf(path, format=store)
    opened = open_dataset(str(path), role="lr")
    assert opened.t_850.chunks is not None
    assert opened.time.dt.calendar == "noleap"
    assert file_label(opened) == str(path)
    np.testing.assert_array_equal(opened.t_850, ds.t_850)


def test_durations_are_numbers_not_time_deltas(tmp_path):
    ds = predictors()
    ds["wet_days"] = field(0.0, 4.0, units="days")
    assert (
        open_dataset(write(ds, tmp_path / "a.nc"), role="lr").wet_days.dtype.kind == "f"
    )


# -- Several files ---------------------------------------------------------------------


def parts(tmp_path):
    ds = predictors(6)
    write(ds.isel(time=slice(3, 6)), tmp_path / "b_1.nc")
    write(ds.isel(time=slice(0, 3)), tmp_path / "b_2.nc")
    return ds


@pytest.mark.parametrize("how", ["list", "pattern", "folder"])
def test_files_are_joined_in_order_of_time(tmp_path, how):
    ds = parts(tmp_path)
    paths = {
        "list": [tmp_path / "b_1.nc", str(tmp_path / "b_2.nc")],
        "pattern": tmp_path / "b_*.nc",
        "folder": tmp_path,
    }[how]
    opened = open_dataset(paths, role="lr")
    assert opened.t_850.chunks is not None
    assert list(opened.time.values) == list(ds.time.values)
    np.testing.assert_array_equal(opened.t_850, ds.t_850)
    assert "2 files" in file_label(opened)


def test_one_file_per_variable(tmp_path):
    ds = predictors()
    files = [write(ds[[name]], tmp_path / f"{name}.nc") for name in ("t_850", "pr")]
    opened = open_dataset(files, role="lr")
    assert set(opened.data_vars) == {"t_850", "pr"}
    assert opened.sizes["time"] == 4


def test_rounding_of_coordinates_does_not_split_a_grid(tmp_path):
    ds = predictors(4)
    late = ds.isel(time=slice(2, 4)).assign_coords(lon=ds.lon + 1e-6)
    files = [
        write(ds.isel(time=slice(0, 2)), tmp_path / "a.nc"),
        write(late, tmp_path / "b.nc"),
    ]
    opened = open_dataset(files, role="lr")
    np.testing.assert_array_equal(opened.lon, LON)
    assert opened.t_850.shape == ds.t_850.shape


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.assign_coords(lon=ds.lon + 0.5),
        lambda ds: ds.isel(lat=slice(0, 2)),
        lambda ds: ds.assign_coords(time=times(4)[1:3]),
    ],
    ids=["other longitudes", "other shape", "overlap"],
)
def test_files_that_do_not_fit(tmp_path, change):
    ds = predictors(4)
    files = [
        write(ds.isel(time=slice(0, 2)), tmp_path / "a.nc"),
        write(change(ds.isel(time=slice(2, 4))), tmp_path / "b.nc"),
    ]
    with pytest.raises(InputError, match="do not fit together") as caught:
        open_dataset(files, role="lr")
    assert caught.value.facts["found"]


def test_files_with_different_calendars(tmp_path):
    first, second = predictors(), predictors(time=times(4, calendar="360_day"))
    files = [write(first, tmp_path / "a.nc"), write(second, tmp_path / "b.nc")]
    with pytest.raises(InputError, match="different calendars") as caught:
        open_dataset(files, role="lr")
    assert "360_day in b.nc" in caught.value.facts["found"]


# -- Contents --------------------------------------------------------------------------


def test_d39_only_real_fields_are_data_variables(tmp_path):
    ds = predictors(2)
    ds["lat_bnds"] = (("lat", "bnds"), np.zeros((3, 2)))
    ds["lat"].attrs["bounds"] = "lat_bnds"
    ds["corners"] = (("lat", "lon", "vertices"), np.zeros((3, 4, 4)))
    ds["lon"].attrs["bounds"] = "corners"
    ds["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    ds["pr"].attrs["grid_mapping"] = "crs"
    ds["gw"] = ("lat", np.ones(3))
    ds["date"] = ("time", np.array([1, 2]))
    ds["cell_name"] = (("lat", "lon"), np.full((3, 4), "x", dtype=object))
    ds["mask"] = (("lat", "lon"), np.ones((3, 4), np.int8))
    opened = open_dataset(write(ds, tmp_path / "a.nc"), role="lr")
    assert data_variables(opened) == ["t_850", "t_500", "pr", "mask"]
    assert data_variables(ds) == ["t_850", "t_500", "pr", "mask"]


def test_data_variables_without_a_grid():
    ds = xr.Dataset(
        {"pr": (("time", "y", "x"), np.zeros((2, 3, 3))), "n": ("y", [1, 2, 3])}
    )
    assert data_variables(ds) == ["pr"]


def test_d11_time_is_found_by_what_it_holds():
    ds = predictors().rename(time="valid_day")
    ds = ds.assign_coords(leadtime=("valid_day", np.arange(4)))
    assert time_name(ds) == "valid_day"


def test_no_time_axis():
    with pytest.raises(MissingVariableError, match="no time coordinate") as caught:
        time_name(predictors().isel(time=0, drop=True))
    assert "lat=3" in caught.value.facts["found"]


def test_time_bounds(tmp_path):
    ds = predictors(3)
    stamps = times(4)
    ds["time_bnds"] = (("time", "bnds"), np.stack([stamps[:3], stamps[1:]], axis=1))
    ds["time"].attrs["bounds"] = "time_bnds"
    ds["time"].encoding["units"] = "days since 2000-01-01"
    opened = open_dataset(write(ds, tmp_path / "a.nc"), role="lr")
    bounds = time_bounds(opened, "time")
    assert bounds is not None
    assert bounds.values[2, 1] == stamps[3]
    assert time_bounds(predictors(), "time") is None


def test_data_set_in_memory_has_a_label():
    assert "memory" in file_label(dataset({"pr": field(0.0, 1.0)}))
