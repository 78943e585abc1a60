"""Days of a long lazy record."""

from __future__ import annotations

import pickle

import cloudpickle
import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from st_cdgm.data.read.cubes import MANY_BLOCKS, DayBlocks
from st_cdgm.data.read.readers import read_channels
from st_cdgm.errors import InputError

DAYS = 40


@given(
    chunks=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    bounds=st.tuples(st.integers(0, DAYS - 1), st.integers(1, DAYS)),
    columns=st.integers(1, 3),
)
def test_any_days_of_any_chunks_are_those_of_dask(chunks, bounds, columns):
    chunks = [*chunks, DAYS] if sum(chunks) < DAYS else chunks
    length = sum(chunks)
    values = np.arange(length * 6.0).reshape(length, 3, 2)
    array = 2 * da.from_array(values, chunks=(tuple(chunks), columns, 1)) + 1
    start, stop = min(bounds), max(bounds)
    if start == stop:
        stop += 1
    read = DayBlocks(array).read(start, min(stop, length))
    np.testing.assert_array_equal(read, 2 * values[start : min(stop, length)] + 1)


def record(days, *, chunk, read=None):
    """Return a lazy predictor; ``read`` is told each chunk that is computed."""
    lat, lon = np.linspace(40, 44, 3), np.linspace(0, 6, 4)
    values = 280 + np.random.default_rng(0).random((days, 3, 4)).astype(np.float32)

    def block(start):
        if read is not None:
            read.append(start)
        return values[start : start + chunk]

    parts = [
        da.from_delayed(
            dask.delayed(block)(start), (min(chunk, days - start), 3, 4), np.float32
        )
        for start in range(0, days, chunk)
    ]
    time = xr.date_range("2001-01-01", periods=days, freq="D")
    coords = {
        "time": time,
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    lazy = (("time", "lat", "lon"), da.concatenate(parts), {"units": "K"})
    return xr.Dataset({"tas": lazy}, coords=coords), values


def test_a_slice_computes_its_own_blocks_alone():
    read = []
    ds, values = record(200, chunk=5, read=read)
    cube = read_channels(ds)
    read.clear()
    np.testing.assert_array_equal(cube.load(slice(48, 61))[:, 0], values[48:61])
    assert sorted(read) == [45, 50, 55, 60]


def test_single_days_lists_and_everything_are_read_too():
    ds, values = record(100, chunk=100 // MANY_BLOCKS)
    cube = read_channels(ds)
    for index in (slice(7, 8), np.array([3, 90, 4]), slice(0, 99, 7), slice(5, 5)):
        np.testing.assert_array_equal(cube.load(index)[:, 0], values[index])
    np.testing.assert_array_equal(cube.load()[:, 0], values)


def test_what_a_process_made_for_itself_stays_there():
    ds, values = record(100, chunk=2)
    cube = read_channels(ds)
    fresh = len(cloudpickle.dumps(cube))
    cube.load(slice(0, 9))
    assert len(cloudpickle.dumps(cube)) < fresh + 1000  # graph of 50 blocks: more
    copy = pickle.loads(cloudpickle.dumps(cube))
    np.testing.assert_array_equal(copy.load(slice(0, 9))[:, 0], values[:9])


def test_a_block_that_cannot_be_read_is_an_input_error():
    ds, _ = record(64, chunk=2)
    cube = read_channels(ds)

    def broken(values):
        raise OSError("NetCDF: HDF error")

    bad = cube.values.copy(data=cube.values.data.map_blocks(broken, dtype="f4"))
    cube = type(cube)(**{**cube.__dict__, "values": bad})
    with pytest.raises(InputError, match="the values cannot be read"):
        cube.load(slice(0, 4))
