"""Values that cannot be true are refused, or masked with a report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from safetensors.torch import load_file, save_file

from st_cdgm.api import load
from st_cdgm.checkpoint.directory import load_checkpoint
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError, InputError
from st_cdgm.inference.checks import OutputCheck, target_limits
from st_cdgm.inference.downscale import downscale

PERIOD = {"start": "2001-07-15", "end": "2001-07-20", "members": 2}


@pytest.fixture
def damaged_lr(tiny_files, tmp_path):
    """Return the predictors with one value of 17 July 2001 replaced."""

    def write(value: float) -> Path:
        with xr.open_dataset(tiny_files / "lr.nc") as ds:
            ds = ds.load()
        ds["tas"].loc[{"time": "2001-07-17"}][:, 2, 2] = value
        path = tmp_path / "lr.nc"
        ds.astype("float64").to_netcdf(path)
        return path

    return write


@pytest.mark.parametrize("value", [1e30, 1e20, 0.0])
def test_impossible_predictors_make_no_file(trained, damaged_lr, tmp_path, value):
    """1e30 gave days of NaN, 1e20 tas of 5.6e19 degC, 0 K gave -283.7; exit 0."""
    output = tmp_path / "out.nc"
    with pytest.raises(InputError, match="cannot be true") as caught:
        downscale(trained.checkpoint, damaged_lr(value), output, **PERIOD)
    found = str(caught.value)
    assert "2001071" in found
    assert "--on-invalid mask" in found
    assert not output.exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "lr.nc"]


def test_masked_values_are_reported_with_days_and_numbers(
    trained, tiny_files, damaged_lr, tmp_path, caplog
):
    output, sound = tmp_path / "out.nc", tmp_path / "sound.nc"
    options = {"on_invalid": "mask", **PERIOD}
    downscale(trained.checkpoint, damaged_lr(1e20), output, **options)
    downscale(trained.checkpoint, tiny_files / "lr.nc", sound, **options)
    with xr.open_dataset(output) as made, xr.open_dataset(sound) as expected:
        assert "on 20010717" in made.attrs["invalid_values"]
        assert "invalid_values" not in expected.attrs
        # The days before are what they were.
        before = {"time": slice("2001-07-15", "2001-07-16")}
        xr.testing.assert_allclose(made.sel(before), expected.sel(before))
        lost = np.isnan(made["tasmax"]) & np.isfinite(expected["tasmax"])
        assert lost.sel(time="2001-07-17").any()
        assert float(made["tasmax"].max()) < 67.0
    assert "values masked: " in caplog.text


def test_weights_that_make_nothing_true_make_no_file(trained, tiny_files, tmp_path):
    """Of a version without checksums, so that they are loaded."""
    folder = Path(shutil.copytree(trained.checkpoint, tmp_path / "copy"))
    meta = json.loads((folder / "meta.json").read_text("utf-8"))
    del meta["checksums"]
    (folder / "meta.json").write_text(json.dumps(meta), "utf-8")
    tensors = load_file(folder / "model.safetensors")
    key = next(k for k in sorted(tensors) if k.endswith("conv_out.weight"))
    tensors[key].fill_(1e30)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match="cannot be true"):
        downscale(folder, tiny_files / "lr.nc", tmp_path / "out.nc", **PERIOD)


def test_the_front_door_checks_too(trained, damaged_lr):
    model, path = load(trained.checkpoint, device="cpu"), damaged_lr(1e20)
    with pytest.raises(InputError, match="cannot be true"):
        model.downscale(path, **PERIOD)
    made = model.downscale(path, on_invalid="mask", **PERIOD)
    assert float(made["tasmax"].max()) < 67.0
    with pytest.raises(ConfigError, match="on_invalid"):
        model.downscale(path, on_invalid="ignore", **PERIOD)


def test_cells_without_truth_are_no_errors(trained):
    preprocessor = load_checkpoint(trained.checkpoint).preprocessor
    valid = np.asarray(preprocessor.valid)
    fields = np.where(valid, 1.0, np.nan)[None, None].astype(np.float32)
    check = OutputCheck(preprocessor)
    assert check(np.array([20010717]), fields) is fields
    assert check.report is None
    fields[0, 0][valid] = np.inf
    with pytest.raises(InputError, match=r"inf degC on 20010717, member 0"):
        check(np.array([20010717]), fields)


@pytest.mark.parametrize(
    ("name", "units", "standard_name", "low", "high"),
    [
        ("tasmax", "degC", "air_temperature", -103.15, 66.85),
        ("prcp", "mm day-1", None, -0.01, 2036.164),
        ("anything", "1", None, -3.4e38, 3.4e38),
    ],
)
def test_limits_of_targets(name, units, standard_name, low, high):
    target = TargetVariable(name=name, units=units, standard_name=standard_name)
    assert target_limits(target) == pytest.approx((low, high), rel=1e-2)
