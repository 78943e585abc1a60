"""Checkpoints that earlier versions wrote give what they gave.

``tests/earlier/checkpoint`` was written by commit 6ab0c8d (format 1, codec state
without names), after two epochs on the toy climate; ``ensemble.npz`` is what that
version made of six days of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.inference.downscale import downscale

EARLIER = Path(__file__).parents[1] / "earlier"


@pytest.fixture(scope="module")
def made(tiny_files, tmp_path_factory):
    output = tmp_path_factory.mktemp("earlier") / "out.nc"
    days = {"start": "2001-07-15", "end": "2001-07-20"}
    predictors = tiny_files / "lr.nc"
    downscale(EARLIER / "checkpoint", predictors, output, members=2, seed=1, **days)
    with xr.open_dataset(output, decode_times=False) as opened:
        return opened.load()


@pytest.mark.parametrize("name", ["tasmin", "tasmax", "pr"])
def test_an_earlier_checkpoint_gives_the_same_fields(made, name):
    """To 1e-5 of the standard deviation, as between batch shapes and machines."""
    expected = np.load(EARLIER / "ensemble.npz")[name]
    scale = float(np.nanstd(expected))
    np.testing.assert_allclose(made[name], expected, rtol=0, atol=1e-5 * scale)


def test_its_codec_is_understood():
    codec = load_checkpoint(EARLIER / "checkpoint").preprocessor.codec
    assert codec.names == ("tasmin", "tasmax", "pr")
    assert codec.guarantees() == [
        "tasmin <= tasmax",
        "pr >= 0, exactly 0 below 0.1 mm day-1",
    ]
