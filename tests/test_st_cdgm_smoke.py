"""From synthetic files through the data, the graph and the causal network to fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import st_cdgm
from st_cdgm.checkpoint.build import channel_groups
from st_cdgm.evaluation import autoregressive_inference, evaluate_metrics
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.training.training_loop import convert_sample_to_batch

UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}
WIDTH = 8


@pytest.fixture
def sample(tiny_pipeline):
    return next(iter(tiny_pipeline.build_sequence_dataset(seq_len=3)))


def test_the_parts_fit_together(tiny_pipeline, sample):
    """As somebody would who builds the model by hand, with the documented names."""
    torch.manual_seed(0)
    prep = tiny_pipeline.preprocessor
    lr_shape, hr_shape = prep.lr_grid.shape, prep.hr_grid.shape
    groups = channel_groups(prep.channels)
    channels, targets = len(prep.channels), len(prep.targets)

    # Data and graph.
    assert sample["lr"].shape == (3, channels, *lr_shape)
    assert sample["residual"].shape == (3, targets, *hr_shape)
    builder = st_cdgm.HeteroGraphBuilder(lr_shape, hr_shape, levels=list(groups))
    batch = convert_sample_to_batch(sample, builder, "cpu", groups=groups)

    # Encoder, causal network and decoder.
    paths = [
        IntelligibleVariableConfig(name, (name, "spat_adj", name)) for name in groups
    ]
    sizes = {name: len(index) for name, index in groups.items()}
    encoder = st_cdgm.IntelligibleVariableEncoder(paths, WIDTH, in_channels=sizes)
    cell = st_cdgm.RCNCell(len(paths), WIDTH, channels, reconstruction_dim=channels)
    runner = st_cdgm.RCNSequenceRunner(cell)
    decoder = st_cdgm.CausalDiffusionDecoder(
        targets, WIDTH, *hr_shape, unet_kwargs=UNET
    )
    parameters = [p for m in (encoder, cell, decoder) for p in m.parameters()]
    losses = st_cdgm.train_epoch(
        encoder=encoder,
        rcn_runner=runner,
        diffusion_decoder=decoder,
        optimizer=torch.optim.Adam(parameters),
        data_loader=[batch],
        lambda_gen=1.0,
        beta_rec=0.1,
        gamma_dag=0.1,
        device="cpu",
        verbose=False,
    )
    assert all(np.isfinite(value) for value in losses.values())

    # An ensemble of every day, and its scores.
    result = autoregressive_inference(
        rcn_runner=runner,
        diffusion_decoder=decoder,
        encoder=encoder,
        initial_state=encoder.init_state(batch["hetero"]).detach(),
        drivers=batch["lr"][1:],
        num_samples=2,
        num_steps=2,
        scheduler_type="dpm_solver++",
    )
    report = evaluate_metrics(result.generations[-1], sample["residual"][-1][None])
    assert np.isfinite(report.crps)
    assert report.failed == {}
    stopping = st_cdgm.EarlyStopping(patience=1)
    assert [stopping(loss, decoder) for loss in (1.0, 2.0)] == [False, True]
