"""The Zarr pipeline offers what the NetCDF pipeline offers, with the same values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tests.data import prepared_task
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.store.preprocess import write_zarr
from st_cdgm.data.store.zarr_pipeline import ZarrDataPipeline
from st_cdgm.data.task.prepared import PipelineViews
from st_cdgm.errors import ConfigError, InputError

TINY = "400 kB"  # 16 of 29 blocks of 8 days: the rest is read again


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("task")


@pytest.fixture(scope="module")
def original(folder):
    return prepared_task.pipeline(folder)


@pytest.fixture(scope="module")
def stores(original, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "zarr"
    return write_zarr(original, out, block_size="200 kB")


@pytest.fixture(params=["4 GiB", TINY])
def pipeline(stores, request):
    return ZarrDataPipeline(stores, memory=request.param)


def test_prepared_fields_are_the_same_bits(pipeline, original):
    for start, stop in ((0, 232), (0, 1), (30, 70), (231, 232)):
        expected = original.prepared(start, stop)
        for key, values in pipeline.prepared(start, stop).items():
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, expected[key])


@pytest.mark.parametrize(
    "name",
    [
        "lr_dataset",
        "lr_dataset_normalised",
        "hr_dataset",
        "hr_prepared",
        "baseline_prepared",
        "residual_dataset",
        "static_dataset",
    ],
)
def test_data_sets(pipeline, original, name):
    """D19: every data set, with coordinates and the order of channels."""
    found, expected = getattr(pipeline, name), getattr(original, name)
    assert list(found.data_vars) == list(expected.data_vars)
    xr.testing.assert_equal(found.load(), expected.load())


def test_stores_are_opened_lazily(pipeline):
    assert all(v.chunks is not None for v in pipeline.lr_dataset.data_vars.values())


def test_accessors(pipeline, original):
    """D19: statistics, static fields and the inverse transform."""
    for key, expected in original.get_lr_stats().items():
        xr.testing.assert_equal(pipeline.get_lr_stats()[key], expected)
    xr.testing.assert_equal(
        pipeline.get_static_dataset(), original.get_static_dataset()
    )
    xr.testing.assert_equal(pipeline.get_lr_dataset().load(), original.get_lr_dataset())
    xr.testing.assert_equal(pipeline.get_hr_dataset().load(), original.get_hr_dataset())
    encoded = original.get_baseline_dataset()
    xr.testing.assert_equal(
        pipeline.get_target_inverse_transform()(encoded),
        original.get_target_inverse_transform()(encoded),
    )
    xr.testing.assert_equal(
        pipeline.get_residual_dataset().load(), original.get_residual_dataset()
    )
    np.testing.assert_array_equal(pipeline.static_tensor_np, original.static_tensor_np)
    assert pipeline.dims == original.dims
    for name in ("baseline_strategy", "baseline_factor", "normalize", "seq_len"):
        assert getattr(pipeline, name) == getattr(original, name)


def test_every_public_name_of_the_views_is_there(pipeline):
    """D19: nothing the mixin promises is left unimplemented."""
    missing = {
        name
        for name in {*dir(NetCDFDataPipeline), *dir(PipelineViews)}
        if not name.startswith("_") and not hasattr(type(pipeline), name)
    }
    # What belongs to files that were read.
    assert missing <= {
        "from_config",
        "export_lr_metadata_to_json",
        "export_lr_metadata_to_csv",
        "export_hr_metadata_to_json",
        "export_hr_metadata_to_csv",
    }


@pytest.mark.parametrize("split", ["train", "test", None])
def test_windows_are_the_same(pipeline, original, split):
    found = list(pipeline.build_sequence_dataset(split=split, stride=3))
    expected = list(original.build_sequence_dataset(split=split, stride=3))
    assert len(found) == len(expected)
    for sample, other in zip(found, expected, strict=True):
        assert prepared_task.mark(sample) == prepared_task.mark(other)


def test_training_batches_are_the_same(pipeline, original):
    one, other = pipeline.windows("train"), original.windows("train")
    assert len(one) == len(other)
    index = [0, 7, len(one) - 1]
    for name, value in vars(other.batch(index)).items():
        torch.testing.assert_close(
            getattr(one.batch(index), name), value, rtol=0, atol=0, equal_nan=True
        )


def test_splits_and_days(pipeline, original):
    assert set(pipeline.indices) == set(original.indices)
    for name, index in original.indices.items():
        np.testing.assert_array_equal(pipeline.indices[name], index)
    np.testing.assert_array_equal(pipeline.days.ordinal, original.days.ordinal)
    with pytest.raises(ConfigError):
        pipeline.arrays("future")


def test_physical_fields_keep_the_codecs_guarantees(pipeline, original):
    raw, found = original.hr_dataset_raw, pipeline.hr_dataset_raw
    assert (found.tasmin <= found.tasmax).where(found.tasmin.notnull(), True).all()
    assert float(found.pr.min()) == 0
    wet = raw.pr >= 0.1
    np.testing.assert_allclose(found.pr.where(wet), raw.pr.where(wet), rtol=1e-5)
    assert (found.pr.where(~wet & raw.pr.notnull(), 0) == 0).all()
    np.testing.assert_allclose(found.tasmin, raw.tasmin, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.tasmax.isnull(), raw.tasmax.isnull())
    lr, own = original.lr_dataset_raw, pipeline.lr_dataset_raw
    for name in lr.data_vars:
        np.testing.assert_allclose(own[name], lr[name], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(
        pipeline.baseline_raw.tasmin, original.baseline_raw.tasmin, rtol=1e-5, atol=1e-5
    )
    assert pipeline.baseline_raw.attrs == original.baseline_raw.attrs


def test_arrays_of_a_split(pipeline, original):
    found, expected = pipeline.arrays("test"), original.arrays("test")
    np.testing.assert_array_equal(found.day, expected.day)
    np.testing.assert_array_equal(found.lr, expected.lr)
    np.testing.assert_allclose(
        found.hr[:, 1:], expected.hr[:, 1:], rtol=1e-4, atol=1e-4
    )
    assert pipeline.arrays("test") is found


@pytest.mark.parametrize("workers", [1, 4])
def test_loader_workers_read_each_window_once(stores, workers):
    """Also where every window is read from the stores in forked processes."""
    dataset = ZarrDataPipeline(stores, memory=TINY).build_sequence_dataset(
        split="train", stride=3
    )
    expected = sorted(prepared_task.mark(sample) for sample in dataset)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    assert sorted(prepared_task.mark(sample) for sample in loader) == expected


def test_reader_forgets_its_open_arrays_when_sent(stores):
    import cloudpickle

    reader = ZarrDataPipeline(stores).prepared_reader()
    expected = reader(3, 9)
    sent = cloudpickle.dumps(reader)
    assert len(sent) < 2000
    for key, values in cloudpickle.loads(sent)(3, 9).items():
        np.testing.assert_array_equal(values, expected[key])


def test_stores_of_another_task_are_noticed(stores, tmp_path):
    metadata = json.loads((stores / "metadata.json").read_text("utf-8"))
    metadata["variables"]["lr"].reverse()
    metadata["checksums"] = {}
    for name in ("preprocessor.json", "preprocessor.safetensors"):
        (tmp_path / name).write_bytes((stores / name).read_bytes())
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(InputError, match="do not belong together"):
        ZarrDataPipeline(tmp_path)


def test_everything_public_but_the_inputs_themselves_is_there(pipeline, original):
    """D19: every attribute and method of the one is one of the other."""
    offered = {name for name in dir(original) if not name.startswith("_")}
    absent = {name for name in offered if not hasattr(pipeline, name)}
    assert absent == {"from_config", "source"}
    for name in ("lr_path", "hr_path", "static_path", "means_path", "stds_path"):
        assert getattr(pipeline, name) == getattr(original, name)


def test_metadata_of_the_sources(pipeline, original, tmp_path):
    for kind in ("json", "csv"):
        for side in ("lr", "hr"):
            name = f"export_{side}_metadata_to_{kind}"
            made = [
                getattr(one, name)(tmp_path / f"{i}.{kind}")
                for i, one in enumerate((pipeline, original))
            ]
            first, second = (Path(one).read_bytes() for one in made)
            assert first == second
