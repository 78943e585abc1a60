"""Records beyond memory: the same values, read block by block and kept in a budget."""

from __future__ import annotations

import cloudpickle
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_task import config, predictors, stamps, targets, write
from torch.utils.data import DataLoader

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.datasets import WindowDataset
from st_cdgm.data.task.days import DayFields, FieldArrays, memory_bytes
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.errors import ConfigError

KEYS = ("lr", "baseline", "residual", "hr")


class Record:
    """A record that counts what is read from it."""

    def __init__(self, days=50, width=3):
        self.values = np.arange(days * width, dtype=np.float32).reshape(days, width)
        self.calls = []

    def __call__(self, start, stop):
        self.calls.append((start, stop))
        return {"a": self.values[start:stop], "b": -self.values[start:stop, :1]}

    def fields(self, memory, block):
        width = 4 * (self.values.shape[1] + 1)
        return DayFields(
            self,
            len(self.values),
            bytes_per_day=width,
            memory=memory,
            days_per_block=block,
        )


@given(
    memory=st.sampled_from([1, 16 * 9, 16 * 30, 10**6]),
    block=st.integers(1, 60),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_window_is_the_record_whatever_block_and_budget(memory, block, data):
    record = Record()
    fields = record.fields(memory, block)
    for _ in range(5):
        start = data.draw(st.integers(0, 49))
        stop = data.draw(st.integers(start + 1, 50))
        window = fields.window(start, stop)
        assert np.array_equal(window["a"], record.values[start:stop])
        assert np.array_equal(window["b"], -record.values[start:stop, :1])
        kept = sum(len(b["a"]) * 16 for b in fields._blocks.values())
        assert kept <= max(memory, 16)


@pytest.mark.parametrize("memory", [1, 10**6])
def test_windows_of_a_batch_may_repeat_their_first_day(memory):
    record = Record()
    index = np.array([[0, 0, 0], [6, 7, 8], [31, 32, 33]])
    taken = record.fields(memory, 8).take(index, ["a"])
    assert taken.keys() == {"a"}
    assert np.array_equal(taken["a"], record.values[index])


def test_what_fits_is_read_once_and_what_does_not_is_read_again():
    record = Record()
    whole = record.fields(10**6, 20)
    for _ in range(3):
        whole.window(5, 9)
    assert record.calls == [(0, 20), (20, 40), (40, 50)]
    record.calls.clear()
    short = record.fields(16 * 32, 10)
    for day in (0, *range(2, 32, 2), 0, 32, 0, 2):
        short.window(day, day + 1)
    # Sixteen blocks of two days are kept; those used last stay.
    assert record.calls == [(d, d + 2) for d in (*range(0, 34, 2), 2)]


@pytest.mark.parametrize(
    ("text", "number"), [("2 GiB", 2**31), ("500 MB", 5 * 10**8), (1024, 1024)]
)
def test_amounts_of_memory(text, number):
    assert memory_bytes(text) == number


@pytest.mark.parametrize("text", ["", "much", "-1 GiB", 0, None])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ConfigError, match="amount of memory"):
        memory_bytes(text)


# -- The pipeline ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    time = stamps(keep=[i for i in range(240) if i != 45])
    return write(tmp_path_factory.mktemp("task"), predictors(time), targets(time))


@pytest.fixture(scope="module")
def pipelines(folder):
    made = [
        NetCDFDataPipeline.from_config(config(folder, memory=memory, baseline_map={}))
        for memory in ("4 GiB", "500 kB")
    ]
    assert made[0].fields.in_memory
    assert made[0].source.raw is not None
    assert not made[1].fields.in_memory
    assert made[1].source.raw is None
    return made


def test_statistics_do_not_depend_on_memory(pipelines):
    (meta, arrays), (other_meta, other) = (p.preprocessor.to_state() for p in pipelines)
    assert meta == other_meta
    for key, value in arrays.items():
        assert np.array_equal(value, other[key]), key


def test_prepared_days_do_not_depend_on_memory_or_partition(pipelines):
    whole = pipelines[0].prepared(0, 239)
    reader = pipelines[1].prepared_reader()
    for start, stop in ((0, 239), (17, 18), (40, 97)):
        for found in (pipelines[1].prepared(start, stop), reader(start, stop)):
            for key in KEYS:
                expected = whole[key][start:stop]
                assert np.array_equal(found[key], expected, equal_nan=True), key


def test_lazy_data_sets_hold_the_same_values(pipelines):
    eager, lazy = pipelines
    for name in (
        "lr_dataset_raw",
        "hr_dataset_raw",
        "lr_dataset",
        "hr_prepared",
        "baseline_prepared",
        "residual_dataset",
    ):
        found = getattr(lazy, name)
        assert all(variable.chunks for variable in found.data_vars.values())
        assert found.identical(getattr(eager, name).chunk()), name


def test_the_reader_travels_to_another_process(pipelines):
    again = cloudpickle.loads(cloudpickle.dumps(pipelines[1].prepared_reader()))
    first, second = again(50, 60), pipelines[0].prepared(50, 60)
    for key in KEYS:
        assert np.array_equal(first[key], second[key], equal_nan=True)


def _windows(dataset, workers):
    loader = DataLoader(dataset, batch_size=None, num_workers=workers)
    found = sorted(loader, key=lambda sample: sample["time"])
    return [s["time"] for s in found], [s["residual"].nansum() for s in found]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_samples_do_not_depend_on_memory(pipelines, workers, shuffle):
    expected = _windows(pipelines[0].build_sequence_dataset(), 0)
    dataset = pipelines[1].build_sequence_dataset(shuffle=shuffle)
    times, sums = _windows(dataset, workers)
    assert times == expected[0]
    assert torch.equal(torch.stack(sums), torch.stack(expected[1]))


@pytest.mark.parametrize("number", [0, 1])
def test_shuffling_is_reproducible_and_changes_with_the_epoch(pipelines, number):
    def order(epoch, seed=3):
        dataset = pipelines[number].build_sequence_dataset(shuffle=True, seed=seed)
        dataset.set_epoch(epoch)
        return [sample["time"][0] for sample in dataset]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0) != order(0, seed=4)
    assert sorted(order(0)) == sorted(order(1))
    assert order(0) != sorted(order(0))


def test_training_batches_do_not_depend_on_memory(pipelines):
    index = [3, 0, 60]
    first, second = (p.windows("train").batch(index) for p in pipelines)
    for key in ("lr", "baseline", "truth", "valid", "season", "time"):
        assert torch.equal(getattr(first, key), getattr(second, key)), key
    loader = DataLoader(
        pipelines[1].windows("test"),
        batch_size=8,
        collate_fn=WindowDataset.collate,
        num_workers=2,
    )
    assert sum(batch.batch_size for batch in loader) == 48


def test_earlier_predictors_are_found_among_all_days_of_the_record():
    ordinal = np.array([5, 6, 7, 10, 11])  # days 8 and 9 are missing
    days = CalendarDays(
        day=20010101 + ordinal,
        ordinal=ordinal,
        season=np.zeros(5, np.float32),
        calendar="standard",
    )
    lr = ordinal.astype(np.float32)[:, None, None, None]
    record = FieldArrays(days=days, lr=lr, baseline=lr, hr=lr)

    assert record.lagged(1).ravel().tolist() == [5, 5, 6, 10, 10]
    assert record.lagged(3).ravel().tolist() == [5, 5, 5, 10, 10]
    # Of every second day the day before is still the day before, and holds no truth.
    chosen = record.select(slice(None, None, 2)).select(slice(1, None))
    assert chosen.lagged(1).ravel().tolist() == [6, 10]
    assert chosen.lagged(0).ravel().tolist() == [7, 11]
    assert chosen.record.hr is None
