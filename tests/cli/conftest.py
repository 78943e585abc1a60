"""Files of a toy climate, right and wrong; verbs run inside the test process."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import xarray as xr
from tests.toy import tiny_model

from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import train as train_model

# What a wrong file is, as a function of the right one.
CHANGES = {
    "without": lambda ds: ds.drop_vars(["q_850", "pr"], errors="ignore"),
    "narrow": lambda ds: ds.isel(lat=slice(0, -1)),
    "upside_down": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "later": lambda ds: ds.assign_coords(
        time=xr.date_range(
            "2031-01-01", periods=ds.sizes["time"], use_cftime=True, calendar="noleap"
        )
    ),
    "other_calendar": lambda ds: ds.convert_calendar("360_day", align_on="date"),
    "empty": lambda ds: ds.map(
        lambda v: v.where(False) if v.name in ("q_850", "pr") else v
    ),
}


@pytest.fixture(scope="session")
def files(tiny_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy climate and wrong versions of it: ``lr_narrow.nc``, ``hr_empty.nc``."""
    folder = tmp_path_factory.mktemp("données de test")
    for role in ("lr", "hr", "static"):
        shutil.copy(tiny_files / f"{role}.nc", folder)
        with xr.open_dataset(tiny_files / f"{role}.nc") as right:
            right = right.load()
        for name, change in CHANGES.items():
            if "time" in right.dims or name == "narrow":
                change(right).to_netcdf(folder / f"{role}_{name}.nc")
    (folder / "text.nc").write_text("no data here")
    whole = (folder / "hr.nc").read_bytes()
    (folder / "cut.nc").write_bytes(whole[: len(whole) // 2])
    (folder / "file").write_text("x")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tiny_pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned nothing: one pass in big steps."""
    return train_model(
        tiny_pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=TrainingConfig(epochs=1, batch_size=64),
        run_dir=tmp_path_factory.mktemp("run"),
    ).checkpoint
