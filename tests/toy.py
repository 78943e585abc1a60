"""A model trained for seconds on the toy climate."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.data.time.splits import SplitConfig
from st_cdgm.models.config import (
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    UNetConfig,
)
from st_cdgm.training.config import LossConfig, TrainingConfig
from st_cdgm.training.fit import TrainingResult, train

SPLITS = SplitConfig(
    train=["2001-01-01", "2001-05-31"],
    validation=["2001-06-03", "2001-07-10"],
    test=["2001-07-15", "2001-08-28"],
)


def tiny_model(kind: str = "one_step") -> ModelConfig:
    return ModelConfig(
        encoder=EncoderConfig(hidden_dim=8, conditioning_dim=8),
        diffusion=DiffusionConfig(
            scheduler_type=kind,
            spatial_channels=8,
            noise_margin=2,
            num_sampling_steps=6,
            unet=UNetConfig(
                block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4
            ),
        ),
    )


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_files: Path) -> NetCDFDataPipeline:
    return NetCDFDataPipeline.from_config(
        DataConfig(
            root=str(tiny_files),
            lr_path="lr.nc",
            hr_path="hr.nc",
            static_path="static.nc",
            seq_len=3,
            baseline_map={"tasmin": "tas", "tasmax": "tas"},
            baseline_strategy="auto",
            splits=SPLITS,
        )
    )


@pytest.fixture(scope="session")
def trained(
    tiny_pipeline: NetCDFDataPipeline, tmp_path_factory: pytest.TempPathFactory
) -> TrainingResult:
    return train(
        tiny_pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=TrainingConfig(
            epochs=25, batch_size=16, lr=3e-3, validation_every=5, validation_stride=1
        ),
        run_dir=tmp_path_factory.mktemp("run"),
        seed=3,
    )
