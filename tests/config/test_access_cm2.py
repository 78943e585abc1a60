"""The preset for the original's files, on synthetic ones of their layout."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import torch
import xarray as xr

from st_cdgm.checkpoint.build import build_model
from st_cdgm.config.load import load_config
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.runs.console import Session
from st_cdgm.runs.workflow import run_workflow

DAYS = 50
SPLITS = [
    "data.splits.train=['2001-01-01','2001-01-25']",
    "data.splits.validation=['2001-01-27','2001-02-07']",
    "data.splits.test=['2001-02-09','2001-02-19']",
]
SMALL = [
    *("encoder.hidden_dim=8", "encoder.conditioning_dim=8", "training.epochs=1"),
    *("training.batch_size=2", "data.stride=8", "inference.members=2"),
    *("training.validation_stride=5", "training.validation_members=2"),
    *("evaluation.stride=5", "evaluation.references=[climatology]"),
    *("diffusion.unet.block_out_channels=[8,16]", "diffusion.train_members=2"),
    *("diffusion.unet.norm_num_groups=4", "diffusion.unet.attention_head_dim=4"),
    *("diffusion.spatial_channels=4", "training.fit_noise_memory=false"),
    "data.seq_len=3",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Predictors on 23 x 26 cells, precipitation on 172 x 179."""
    folder = tmp_path_factory.mktemp("access")
    rng = np.random.default_rng(0)
    time = cftime.num2date(np.arange(DAYS) + 0.5, "days since 2001-01-01", "standard")

    def field(name, lat, lon, attrs, values):
        shape = (DAYS, len(lat), len(lon))
        return xr.Dataset(
            {name: (("time", "lat", "lon"), values(shape).astype("float32"), attrs)},
            coords={
                "time": time,
                "lat": ("lat", lat, {"units": "degrees_north"}),
                "lon": ("lon", lon, {"units": "degrees_east"}),
            },
        )

    lr = -53.75 + 1.25 * np.arange(23), 158.0 + 1.875 * np.arange(26)
    hr = -48.0 + 0.12 * np.arange(172), 165.0 + 0.12 * np.arange(179)
    wind = {"units": "m s-1", "standard_name": "eastward_wind"}
    humidity = {"units": "kg kg-1", "standard_name": "specific_humidity"}
    parts = [
        field("u_850", *lr, wind, lambda shape: 8 * rng.standard_normal(shape)),
        field("u_500", *lr, wind, lambda shape: 15 * rng.standard_normal(shape)),
        field("q_850", *lr, humidity, lambda shape: 1e-3 + 4e-3 * rng.random(shape)),
    ]
    xr.merge(parts).to_netcdf(folder / "predictor_ACCESS-CM2_hist.nc")
    rain = {"units": "mm day-1", "standard_name": "lwe_precipitation_rate"}
    field("pr", *hr, rain, lambda shape: rng.gamma(0.4, 6, shape)).to_netcdf(
        folder / "pr_ACCESS-CM2_hist.nc"
    )
    return folder


def test_the_preset_fits_the_files(folder):
    config = load_config("access_cm2", [f"data.root={folder}", *SPLITS, *SMALL])
    pipeline = NetCDFDataPipeline.from_config(config.data)
    assert pipeline.preprocessor.lr_grid.shape == (23, 26)
    assert pipeline.preprocessor.hr_grid.shape == (172, 179)
    zeros = torch.zeros(1)
    model = build_model(
        pipeline.preprocessor,
        config.model(),
        baseline_mean=zeros,
        baseline_std=zeros + 1,
    )
    assert model.hr_shape == (172, 179)
    assert list(model.groups) == ["GP850", "GP500"]


@pytest.mark.slow
def test_the_preset_runs_from_files_to_a_report(folder, tmp_path):
    overrides = [f"data.root={folder}", f"run.dir={tmp_path}/run", *SPLITS, *SMALL]
    overrides += ["evaluation.save_visualizations=true", "evaluation.output_dir=drawn"]
    report = run_workflow(load_config("access_cm2", overrides), Session())
    assert report.is_file()
    assert list((tmp_path / "run" / "drawn").glob("maps-*.png"))
