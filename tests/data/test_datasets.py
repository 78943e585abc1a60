"""Windows: no gap crossed, batches as promised, samples shared among workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_task import config, predictors, stamps, targets, write
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.batch import Batch
from st_cdgm.data.task.datasets import (
    PreparedDays,
    ResDiffIterableDataset,
    WindowDataset,
)
from st_cdgm.data.task.predictors import load_predictors
from st_cdgm.data.time.windows import runs_of_days, window_index
from st_cdgm.errors import ConfigError, InputError

GAP = 45  # the day that is missing from the small task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    time = stamps(keep=[i for i in range(240) if i != GAP])
    folder = tmp_path_factory.mktemp("task")
    return write(folder, predictors(time), targets(time))


@pytest.fixture(scope="module")
def pipeline(folder):
    return NetCDFDataPipeline.from_config(config(folder))


ordinals = st.lists(st.integers(1, 3), min_size=1, max_size=40).map(np.cumsum)


@given(ordinal=ordinals, seq_len=st.integers(1, 6), stride=st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_windows_are_consecutive_days_and_none_is_forgotten(ordinal, seq_len, stride):
    # D16: also for a stride beyond the window.
    windows = window_index(ordinal, seq_len, stride=stride)
    assert (np.diff(ordinal[windows], axis=1) == 1).all()
    expected = [
        len(range(0, len(run) - seq_len + 1, stride)) for run in runs_of_days(ordinal)
    ]
    assert len(windows) == sum(max(n, 0) for n in expected)


@given(ordinal=ordinals, seq_len=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_padded_windows_end_on_every_day_and_repeat_the_runs_first(ordinal, seq_len):
    windows = window_index(ordinal, seq_len, pad_start=True)
    assert windows[:, -1].tolist() == list(range(len(ordinal)))
    assert set(np.diff(ordinal[windows], axis=1).ravel()) <= {0, 1}


def test_windows_by_hand():
    ordinal = np.array([1, 2, 3, 4, 7, 8])
    assert window_index(ordinal, 3).tolist() == [[0, 1, 2], [1, 2, 3]]
    assert window_index(ordinal, 2, stride=3).tolist() == [[0, 1], [4, 5]]
    padded = window_index(ordinal, 3, pad_start=True).tolist()
    assert padded == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [4, 4, 4], [4, 4, 5]]


@pytest.mark.parametrize("options", [{"seq_len": 0}, {"seq_len": 2, "stride": 0}])
def test_lengths_below_one_are_refused(options):
    with pytest.raises(ConfigError, match="at least 1"):
        window_index(np.arange(5), **options)


def test_a_batch_has_the_promised_shapes_and_values(pipeline):
    windows, arrays = pipeline.windows("train"), pipeline.arrays("train")
    batch = windows.batch([5, 0])
    prep = pipeline.preprocessor
    assert batch.lr.shape == (2, 4, 3, 4, 5)
    assert batch.truth.shape == batch.baseline.shape == batch.valid.shape
    assert batch.truth.shape == (2, 4, *prep.valid.shape)
    assert batch.static.shape == prep.static.shape
    assert (batch.valid.dtype, batch.time.dtype) == (torch.bool, torch.int64)
    assert batch.time[0].tolist() == [20010106, 20010107, 20010108, 20010109]
    assert np.array_equal(batch.lr[0], arrays.lr[5:9])
    assert np.array_equal(batch.season[1], arrays.season[:4])
    fields = prep.codec.decode(batch.truth)
    truth = torch.from_numpy(arrays.hr[[[5, 6, 7, 8], [0, 1, 2, 3]]])
    assert torch.allclose(fields[batch.valid], truth[batch.valid], atol=1e-3)
    assert torch.equal(batch.valid, torch.isfinite(truth))


def test_no_window_holds_days_on_both_sides_of_the_gap(pipeline):
    windows = pipeline.windows("train")
    times = windows.batch(torch.arange(len(windows))).time
    assert len(windows) == 119 - 2 * 3
    before, after = 20010214, 20010216
    assert not ((times[:, 0] <= before) & (times[:, -1] >= after)).any()
    assert np.array_equal(pipeline.arrays("train").day[windows.ends], times[:, -1])


def test_the_configured_stride_is_the_default(folder):
    made = NetCDFDataPipeline.from_config(config(folder, stride=7, baseline_factor=0))
    assert np.diff(made.windows("test").ends).tolist() == [7] * 6
    assert len(made.windows("test", stride=1)) == 48
    assert len(made.windows("test", stride=1, pad_start=True)) == 51
    assert (made.baseline_strategy, made.normalize) == ("auto", True)
    assert made.baseline_factor == 1


def test_a_loader_yields_batches_and_shuffles(pipeline):
    windows = pipeline.windows("train", stride=2)
    loader = DataLoader(
        windows,
        batch_size=16,
        shuffle=True,
        collate_fn=WindowDataset.collate,
        generator=torch.Generator().manual_seed(0),
    )
    batches = list(loader)
    assert all(isinstance(batch, Batch) for batch in batches)
    ends = torch.cat([batch.time[:, -1] for batch in batches])
    assert ends.tolist() != sorted(ends.tolist())
    days = pipeline.arrays("train").day
    assert sorted(ends.tolist()) == days[windows.ends].tolist()
    assert windows[3] == 3
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_without_truth_there_is_no_target_and_valid_is_where_training_was(
    pipeline, folder
):
    prep = pipeline.preprocessor
    arrays, first = load_predictors(prep, folder / "lr.nc", start="2001-03-01")
    windows = WindowDataset(
        PreparedDays.of_arrays(arrays, prep), seq_len=4, pad_start=True
    )
    assert (len(windows), first) == (len(arrays), 3)
    batch = windows.batch([first])
    assert batch.truth is None
    assert batch.time[0].tolist() == [20010226, 20010227, 20010228, 20010301]
    assert np.array_equal(batch.valid[0, 2], prep.valid)


def test_too_short_a_period_says_how_long_its_runs_are(pipeline):
    arrays = pipeline.arrays("train").select(slice(0, 60))
    record = PreparedDays.of_arrays(arrays, pipeline.preprocessor)
    with pytest.raises(InputError, match="at most 45 consecutive days"):
        WindowDataset(record, seq_len=46)


# -- Dictionaries ----------------------------------------------------------------------


def _starts(samples):
    return [sample["time"][0] for sample in samples]


def test_samples_have_the_documented_keys_shapes_and_dates(pipeline):
    sample = next(iter(pipeline.build_sequence_dataset(split="train")))
    shapes = {key: tuple(value.shape) for key, value in sample.items() if key != "time"}
    fine = (4, *pipeline.preprocessor.valid.shape)
    assert shapes == {
        "lr": (4, 3, 4, 5),
        "baseline": fine,
        "residual": fine,
        "hr": fine,
        "static": (2, *fine[2:]),
    }
    # D14: strings pass the loader, datetime64 does not.
    assert sample["time"] == ["2001-01-01", "2001-01-02", "2001-01-03", "2001-01-04"]
    assert sample["lr"].dtype == torch.float32
    assert sample["residual"].isnan().any()


def test_numpy_samples_equal_torch_samples(pipeline):
    arrays = list(pipeline.build_sequence_dataset(split="test", as_torch=False))
    tensors = list(pipeline.build_sequence_dataset(split="test"))
    assert len(arrays) == len(tensors) == 51 - 3
    assert isinstance(arrays[7]["static"], np.ndarray)
    for key in ("lr", "baseline", "residual", "hr"):
        assert np.array_equal(arrays[7][key], tensors[7][key].numpy(), equal_nan=True)


def test_samples_do_not_cross_the_gap(pipeline):
    dataset = pipeline.build_sequence_dataset(split="train")
    assert len(dataset) == len(list(dataset)) == 119 - 2 * 3
    for sample in dataset:
        assert not {"2001-02-14", "2001-02-16"} <= set(sample["time"])


def test_a_stride_beyond_the_window_skips_days(pipeline):
    # D16.
    dataset = pipeline.build_sequence_dataset(seq_len=2, stride=20, split="test")
    assert _starts(dataset) == ["2001-07-01", "2001-07-21", "2001-08-10"]


def test_the_tail_is_yielded_on_request(pipeline):
    # D16: 51 test days are 12 windows of 4 and a rest of 3.
    options = {"stride": 4, "split": "test"}
    whole = list(pipeline.build_sequence_dataset(**options))
    rest = list(pipeline.build_sequence_dataset(drop_last=False, **options))
    assert (len(whole), len(rest)) == (12, 13)
    assert rest[-1]["time"] == ["2001-08-18", "2001-08-19", "2001-08-20"]
    # With stride 1 the last full window already covers the end.
    assert (
        len(list(pipeline.build_sequence_dataset(split="test", drop_last=False))) == 48
    )


def test_workers_share_the_windows(pipeline):
    # D15: each window exactly once.
    dataset = pipeline.build_sequence_dataset(split="test", stride=4)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    assert sorted(_starts(loader)) == _starts(dataset)


def test_ranks_share_the_windows(pipeline, monkeypatch):
    dataset = pipeline.build_sequence_dataset(split="test")
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(_starts(dataset))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("RANK")
    assert sorted(sum(parts, [])) == _starts(dataset)
    assert len({len(part) for part in parts}) == 1


def test_the_default_loader_collates_batches(pipeline):
    # D14.
    dataset = pipeline.build_sequence_dataset(split="test")
    batch = next(iter(DataLoader(dataset, batch_size=2)))
    assert batch["lr"].shape == (2, 4, 3, 4, 5)
    assert list(batch["time"][0]) == ["2001-07-01", "2001-07-02"]


def test_a_variable_with_another_dimension_is_refused(pipeline):
    # D10: never averaged away.
    lr = pipeline.lr_dataset.expand_dims(lev=2)
    fine = pipeline.hr_prepared
    with pytest.raises(InputError, match="does not span"):
        ResDiffIterableDataset(
            lr_dataset=lr,
            baseline_dataset=fine,
            residual_dataset=fine,
            hr_dataset=fine,
            static_tensor_np=None,
            static_tensor_torch=None,
            dims=pipeline.dims,
            seq_len=4,
        )
