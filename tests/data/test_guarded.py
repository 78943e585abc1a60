from __future__ import annotations

import gc
import pickle

import dask
import netCDF4
import numpy as np
import pytest
from climate_files import predictors, times, write

from st_cdgm.data.files.open import data_variables, open_dataset, time_name
from st_cdgm.data.read.readers import read_channels
from st_cdgm.errors import InputError


def test_files_are_let_go(tmp_path):
    """Closed by request, and without a garbage collection when nobody uses them."""
    path, other = (write(predictors(), tmp_path / f"{n}.nc") for n in "ab")
    late = predictors().assign_coords(time=times(4, start="2002-01-01"))
    for paths in (path, [path, write(late, other)]):
        gc.collect()
        gc.disable()
        try:
            with open_dataset(paths, role="lr") as opened:
                assert opened.t_850.shape == opened.pr.shape
            write(predictors(), path)
            kept = open_dataset(paths, role="lr")
            time_name(kept)
            data_variables(kept)
            del kept
            if paths is path:
                write(predictors(), path)
        finally:
            gc.enable()


def test_pieces_follow_those_of_the_file(tmp_path):
    path = tmp_path / "a.nc"
    encoding = {"t_850": {"chunksizes": (2, 3, 4)}}
    predictors(6).to_netcdf(path, encoding=encoding)
    opened = open_dataset(path, role="lr")
    assert opened.t_850.chunks == ((6,), (3,), (4,))  # small: several of the file's
    with dask.config.set({"array.chunk-size": "200B"}):
        opened = open_dataset(path, role="lr")
    assert opened.t_850.chunks == ((4, 2), (3,), (4,))


@pytest.mark.parametrize(
    "key", [np.s_[2], np.s_[1:3, ::2], np.s_[[3, 0, 2]], np.s_[:, [2, 0], 1:]]
)
def test_every_selection_is_that_of_numpy(tmp_path, key):
    ds = predictors()
    opened = open_dataset(write(ds, tmp_path / "a.nc"), role="lr").t_850
    np.testing.assert_array_equal(opened.data[key].compute(), ds.t_850.values[key])
    again = pickle.loads(pickle.dumps(opened))  # for worker processes; own bytes
    np.testing.assert_array_equal(again.data[key].compute(), ds.t_850.values[key])


def test_the_damaged_one_of_many_files_is_named(tmp_path):
    ds = predictors(6)
    good = write(ds.isel(time=slice(0, 3)), tmp_path / "good.nc")
    bad = tmp_path / "bad.zarr"
    ds.isel(time=slice(3, 6)).to_zarr(bad, zarr_format=3, consolidated=False)
    (bad / "t_500" / "c" / "0" / "0" / "0").write_bytes(b"noise")
    opened = open_dataset([good, bad], role="lr")
    with pytest.raises(InputError, match="values cannot be read") as caught:
        opened.t_500.load()
    assert caught.value.facts["file"] == str(bad)
    assert caught.value.facts["variable"] == "t_500"
    np.testing.assert_array_equal(opened.t_850, ds.t_850)
    with pytest.raises(InputError, match="values cannot be read"):
        read_channels([good, bad]).load()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scale_factor", "0.01"),
        ("scale_factor", np.nan),
        ("scale_factor", 0.0),
        ("add_offset", np.inf),
        ("add_offset", "two"),
    ],
)
def test_packing_that_is_no_number(tmp_path, key, value):
    path = write(predictors(), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["t_850"].setncattr(key, value)
    with pytest.raises(InputError, match="cannot be unpacked") as caught:
        open_dataset(path, role="lr")
    assert caught.value.facts["variable"] == "t_850"
    assert key in caught.value.facts["found"]


def test_attributes_that_should_be_text(tmp_path):
    path = write(predictors(), tmp_path / "a.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["pr"].setncattr("cell_methods", np.array([1.0, 2.0]))
        file["lat"].setncattr("standard_name", np.array([1, 2, 3]))
        file["t_850"].setncattr("long_name", 7)
    opened = open_dataset(path, role="lr")
    assert opened.t_850.attrs["long_name"] == "7"
    assert isinstance(opened.pr.attrs["cell_methods"], str)


@pytest.mark.parametrize("shape", [[2**40, 2**40, 2**40], [2**50, 3, 4]])
def test_sizes_that_cannot_be(tmp_path, shape):
    import json

    predictors().to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    meta = tmp_path / "a.zarr" / "t_850" / "zarr.json"
    content = json.loads(meta.read_text())
    content["shape"] = shape
    content["dimension_names"] = ["a", "b", "c"]
    meta.write_text(json.dumps(content))
    with pytest.raises(InputError, match="size that cannot be") as caught:
        open_dataset(tmp_path / "a.zarr", role="lr")
    assert caught.value.facts["variable"] == "t_850"
