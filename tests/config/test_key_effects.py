"""Every key of the original's configuration is changed, and something else comes out.

Weights of the objective are in ``tests/training/test_loss_options.py``; that each of
them is there is seen here. Sizes that are checked are in ``test_original_keys.py``.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from pytorch_lightning.callbacks import EarlyStopping
from tests.toy import SPLITS, tiny_model
from tests.training.test_loss_options import OPTIONS

from st_cdgm.checkpoint.build import build_model
from st_cdgm.config.load import load_config
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.data.task.config import DataConfig
from st_cdgm.models.config import MetaPathConfig
from st_cdgm.training.callbacks import PlateauSchedule
from st_cdgm.training.config import TrainingConfig
from st_cdgm.training.fit import _callbacks, _trainer
from st_cdgm.training.resume import StateStore

# -- Data ------------------------------------------------------------------------------

ORACLE = {"baseline_strategy": "hr_smoothing", "baseline_factor": 2}
DELTA = {"precipitation_codec": "log1p"}
DATA = [
    ({}, {"lr_path": "other_lr.nc"}),
    ({}, {"hr_path": "other_hr.nc"}),
    ({}, {"static_path": None}),
    ({}, {"seq_len": 4}),
    ({}, {"stride": 2}),
    ({}, {"baseline_strategy": "climatology"}),
    (ORACLE, {"baseline_factor": 3}),
    ({}, {"normalize": False}),
    ({}, {"target_transform": "log1p"}),
    ({"lr_path": "holes.nc"}, {"nan_fill_strategy": "interpolate"}),
    (DELTA, {"precipitation_delta": 0.1}),
    ({}, {"lr_variables": ["q_850", "tas"]}),
    ({}, {"hr_variables": ["pr"]}),
    ({"static_path": "two.nc"}, {"static_variables": ["orog"]}),
]


@pytest.fixture(scope="module")
def folder(tiny_files, tmp_path_factory):
    """The toy climate, another one, and one with holes."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("lr", "hr", "static"):
        (folder / f"{name}.nc").symlink_to(tiny_files / f"{name}.nc")
        with xr.open_dataset(tiny_files / f"{name}.nc", decode_times=False) as ds:
            (0.99 * ds).assign_coords(ds.coords).map(
                lambda v, ds=ds: v.assign_attrs(ds[v.name].attrs)
            ).to_netcdf(folder / f"other_{name}.nc")
            if name == "static":
                ds.assign(relief=ds["orog"] ** 2).to_netcdf(folder / "two.nc")
            if name == "lr":
                holed = ds.load()
                holed["q_850"][::3, 1, 1] = np.nan
                holed.to_netcdf(folder / "holes.nc")
    return folder


def prepared(folder, **options):
    """Return a mark of all that a model is given, by what it is."""
    base = {"root": str(folder), "lr_path": "lr.nc", "hr_path": "hr.nc"}
    base |= {"static_path": "static.nc", "seq_len": 3, "splits": replace(SPLITS)}
    pipeline = NetCDFDataPipeline.from_config(DataConfig(**{**base, **options}))
    windows, digest = pipeline.windows("train"), hashlib.sha256()
    batch = windows.batch([0, len(windows) // 2])
    parts = (batch.lr, batch.baseline, batch.truth, batch.valid)
    for part in (*parts, torch.as_tensor(pipeline.preprocessor.static)):
        digest.update(np.ascontiguousarray(part.numpy()).tobytes())
        digest.update(str(tuple(part.shape)).encode())
    return len(windows), digest.hexdigest()


@pytest.mark.parametrize(
    ("before", "change"), DATA, ids=[next(iter(change)) for _, change in DATA]
)
def test_a_key_of_the_data_changes_what_a_model_is_given(folder, before, change):
    first, again = prepared(folder, **before), prepared(folder, **before)
    assert first == again
    assert prepared(folder, **{**before, **change}) != first


# -- Model -----------------------------------------------------------------------------

PATH = MetaPathConfig(name="rain", src="SURF", relation="spat_adj", target="SURF")
MODEL = [
    ("encoder.hidden_dim", 16),
    ("encoder.conditioning_dim", 16),
    ("encoder.metapaths", [PATH]),
    ("rcn.dropout", 0.5),
    ("rcn.detach_interval", 1),
    ("diffusion.steps", 50),
    ("diffusion.scheduler_type", "edm"),
    ("diffusion.use_gradient_checkpointing", True),
]


def made_model(pipeline, **changes):
    """Return a small model with seeded weights."""
    config = tiny_model("ddpm")
    config.diffusion.parameterisation = "eps"
    for key, value in changes.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    torch.manual_seed(0)
    zeros = torch.zeros(len(pipeline.preprocessor.targets))
    return build_model(
        pipeline.preprocessor, config, baseline_mean=zeros, baseline_std=zeros + 1
    )


def behaviour(model, pipeline):
    """Return what can be seen of a model: sizes, states, gradients, noise levels."""
    torch.manual_seed(1)
    lr = pipeline.windows("train").batch([0, 5]).lr
    rollout = model.train().rollout(torch.cat([lr, lr.flip(1)], dim=1))
    rollout.state.square().sum().backward()
    through = [p.grad for p in model.encoder.parameters() if p.grad is not None]
    return {
        "sizes": sum(p.numel() for p in model.parameters()),
        "states": round(float(rollout.state.detach().abs().mean()), 6),
        "gradient": round(sum(float(g.abs().sum()) for g in through), 6),
        "levels": model.decoder.vp_grid.numel(),
        "sampler": model.decoder.config.scheduler_type,
        "checkpointing": any(
            getattr(part, "gradient_checkpointing", False)
            for part in model.decoder.unet.modules()
        ),
    }


@pytest.mark.parametrize(("key", "value"), MODEL, ids=[key for key, _ in MODEL])
def test_a_key_of_the_model_changes_the_model(tiny_pipeline, key, value):
    first = behaviour(made_model(tiny_pipeline), tiny_pipeline)
    assert behaviour(made_model(tiny_pipeline), tiny_pipeline) == first
    changed = made_model(tiny_pipeline, **{key: value})
    assert behaviour(changed, tiny_pipeline) != first


# -- Training --------------------------------------------------------------------------


def test_every_weight_of_the_objective_is_tried():
    tried = {name for _, before, after, _ in OPTIONS for name in {**before, **after}}
    keys = {
        "lambda_gen",
        "beta_rec",
        "gamma_dag",
        "lambda_phy",
        "dag_method",
        "dagma_s",
    }
    keys |= {"use_focal_loss", "focal_alpha", "focal_gamma", "extreme_weight_factor"}
    keys |= {"extreme_percentiles", "dag_l1_regularization", "dag_l1_weight"}
    assert keys | {"reconstruction_loss_type"} <= tried


TRAINING = [
    ("epochs", 3, lambda trainer: trainer.max_epochs),
    ("gradient_clipping", 0.25, lambda trainer: trainer.gradient_clip_val),
    ("log_every", 4, lambda trainer: trainer.log_every_n_steps),
    ("precision", "bf16-mixed", lambda trainer: trainer.precision),
]


@pytest.mark.parametrize(
    ("key", "value", "seen"), TRAINING, ids=[t[0] for t in TRAINING]
)
def test_a_key_of_the_training_reaches_the_trainer(tmp_path, key, value, seen):
    made = _trainer(TrainingConfig(**{key: value}), tmp_path, [], StateStore())
    other = _trainer(TrainingConfig(), tmp_path, [], StateStore())
    assert seen(made) == value != seen(other)


def callbacks(tmp_path, *overrides):
    training = load_config("demo", list(overrides)).training
    made, best = _callbacks(training, tmp_path, {}, StateStore())
    return {type(one): one for one in made}, best


def test_stopping_and_schedule_are_as_configured(tmp_path):
    none, best = callbacks(tmp_path)
    assert not {EarlyStopping, PlateauSchedule} & set(none)
    assert not best.restore_best
    stop = "training.early_stopping"
    given = [f"{stop}.enabled=true", f"{stop}.patience=2", f"{stop}.min_delta=0.5"]
    found, best = callbacks(tmp_path, *given)
    assert (found[EarlyStopping].patience, best.restore_best) == (2, True)
    assert abs(found[EarlyStopping].min_delta) == 0.5
    assert not callbacks(tmp_path, *given, f"{stop}.restore_best=false")[1].restore_best

    plan = "training.lr_scheduler"
    sizes = [f"{plan}.factor=0.1", f"{plan}.patience=1", f"{plan}.min_lr=1e-3"]
    found, _ = callbacks(tmp_path, f"{plan}.enabled=true", *sizes, "training.lr=0.5")
    schedule = found[PlateauSchedule]
    assert schedule.lr == 0.5
    assert vars(schedule.settings) == {
        "enabled": True,
        "mode": "min",
        "factor": 0.1,
        "patience": 1,
        "min_lr": 1e-3,
    }
