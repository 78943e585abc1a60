"""Names, transforms and arrays for users' own scripts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from climate_files import predictors

from st_cdgm.data import pipeline
from st_cdgm.data.tables.stacking import (
    dataset_to_numpy,
    ensure_callable_transform,
    infer_dim,
)


def test_dimensions_are_found_by_convention_then_by_name():
    ds = predictors().rename(lat="south_north", time="valid")
    assert infer_dim(ds, "time") == "valid"
    assert infer_dim(ds, "lat") == "south_north"
    assert infer_dim(ds, "lon") == "lon"
    bare = xr.Dataset({"a": (("my_time", "rlat", "rlon"), np.zeros((1, 2, 3)))})
    assert [infer_dim(bare, k) for k in ("time", "lat", "lon")] == list(bare.sizes)
    with pytest.raises(ValueError, match="my_time, rlat, rlon"):
        infer_dim(bare, "lev")


def test_a_two_dimensional_latitude_is_no_dimension():
    """D11: a name must not be that of a 2-D coordinate."""
    ds = predictors().drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    ds["lat"] = (("y", "x"), np.zeros((3, 4)), {"units": "degrees_north"})
    with pytest.raises(ValueError, match="no dimension"):
        infer_dim(ds.set_coords("lat"), "lat")


def test_transforms():
    rain = predictors()[["pr"]]
    for name, wanted in (
        ("log", np.log(rain.pr.values + 1e-3)),
        ("log1p", np.log1p(rain.pr.values)),
    ):
        made = ensure_callable_transform(name, 1e-3)(rain)
        np.testing.assert_allclose(made.pr, wanted, rtol=1e-6)
        assert made.pr.attrs == rain.pr.attrs
    assert ensure_callable_transform(None, 1.0) is None
    assert ensure_callable_transform(abs, 1.0) is abs
    with pytest.raises(ValueError, match="unknown transform 'sqrt'"):
        ensure_callable_transform("sqrt", 1.0)
    with pytest.raises(TypeError, match="not int"):
        ensure_callable_transform(3, 1.0)


def test_arrays_have_one_channel_per_variable_and_level():
    """D10: levels are channels, not averaged."""
    ds = predictors()
    made = dataset_to_numpy(ds.transpose("lon", "lat", "time"), "time", "lat", "lon")
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made[:, 2], ds.pr)
    levels = ds[["t_850"]].expand_dims(plev=[1, 2, 3]).transpose("time", ...)
    assert dataset_to_numpy(levels, "time", "lat", "lon").shape == (4, 3, 3, 4)
    renamed = ds.rename(lat="a", lon="b")
    np.testing.assert_array_equal(dataset_to_numpy(renamed, "time", "lat", "lon"), made)


def test_flattened_cells_need_their_shape():
    ds = predictors()
    flat = ds.stack(sample=("lat", "lon")).reset_index("sample", drop=True)
    flat = flat.drop_vars(["lat", "lon"], errors="ignore")
    made = dataset_to_numpy(flat, "time", "lat", "lon", spatial_shape=(3, 4))
    np.testing.assert_array_equal(made, dataset_to_numpy(ds, "time", "lat", "lon"))
    for shape in (None, (5, 4)):
        with pytest.raises(ValueError, match="12 flattened cells"):
            dataset_to_numpy(flat, "time", "lat", "lon", spatial_shape=shape)
    with pytest.raises(ValueError, match="no dimension 'time'"):
        dataset_to_numpy(ds.isel(time=0), "time", "lat", "lon")


def test_the_documented_module_has_all_documented_names():
    for name in (
        *("GridMetadata", "_infer_dim", "_ensure_callable_transform"),
        *("_dataset_to_numpy", "NetCDFDataPipeline", "ResDiffIterableDataset"),
        *("ZarrDataPipeline", "WebDatasetIterableDataset"),
    ):
        assert callable(getattr(pipeline, name))
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = pipeline.nothing_such
