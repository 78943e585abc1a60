"""Training, checkpoints and the shuffle test on the toy climate."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pytorch_lightning import Callback
from tests.toy import tiny_model

from st_cdgm.checkpoint.directory import load_checkpoint, save_checkpoint
from st_cdgm.data.pipeline import NetCDFDataPipeline
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.models.acyclicity import in_dagma_domain
from st_cdgm.models.objective import Objective
from st_cdgm.models.truth import Draws
from st_cdgm.training.ablation import Ablations, _shuffle_within_months
from st_cdgm.training.config import DagConfig, LossConfig, TrainingConfig
from st_cdgm.training.fit import TrainingResult, _new_model, train
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition


def module(pipeline: NetCDFDataPipeline, kind: str = "one_step", **kwargs):
    torch.manual_seed(0)
    return STCDGMModule(
        _new_model(pipeline, tiny_model(kind)),
        pipeline.preprocessor,
        loss=kwargs.get("loss", LossConfig()),
        training=kwargs.get("training", TrainingConfig()),
        total_steps=100,
    )


def test_training_lowers_the_validation_loss_and_logs(trained: TrainingResult):
    # D86: there was no validation.
    logs = pd.read_csv(trained.checkpoint.parents[1] / "logs" / "metrics.csv")
    losses = logs["val_loss"].dropna()
    assert losses.iloc[-1] < 0.9 * losses.iloc[0]
    assert trained.best_loss == pytest.approx(losses.min())
    assert {"epoch", "step", "train_loss", "loss_gen", "loss_rec"} <= set(logs)


def test_same_seed_same_weights(tiny_pipeline, tmp_path):
    # D86: the random state was not fixed.
    runs = []
    for name in ("a", "b"):
        result = train(
            tiny_pipeline,
            model=tiny_model(),
            loss=LossConfig(),
            training=TrainingConfig(epochs=1, batch_size=16),
            run_dir=tmp_path / name,
            seed=5,
        )
        runs.append(load_checkpoint(result.checkpoint).model.state_dict())
    for key, value in runs[0].items():
        torch.testing.assert_close(value, runs[1][key], rtol=0, atol=0)


def test_a_checkpoint_gives_back_the_model(tiny_pipeline, tmp_path):
    # D86: there was no checkpoint.
    model = _new_model(tiny_pipeline, tiny_model("edm")).eval()
    path = save_checkpoint(
        tmp_path / "point", model, tiny_pipeline.preprocessor, extra={"epoch": 4}
    )
    assert sorted(p.name for p in path.iterdir()) == ["meta.json", "model.safetensors"]
    assert [p.name for p in tmp_path.iterdir()] == ["point"]
    again = load_checkpoint(path)
    assert again.meta["epoch"] == 4
    assert again.model.config == model.config
    batch = tiny_pipeline.windows("validation").batch([0, 5])
    outputs = [
        last_day_condition(m, batch, m.rollout(batch.lr)).maps()
        for m in (model, again.model)
    ]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)


def test_damaged_checkpoints_are_refused_with_the_file(trained, tmp_path):
    with pytest.raises(MissingFileError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    copy = Path(shutil.copytree(trained.checkpoint, tmp_path / "copy"))
    meta = json.loads((copy / "meta.json").read_text())
    (copy / "meta.json").write_text(json.dumps({**meta, "format_version": 99}))
    with pytest.raises(InputError, match="format_version 99"):
        load_checkpoint(copy)
    (copy / "meta.json").write_text(json.dumps(meta))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_checkpoint(copy)


def test_a_nan_loss_stops_and_names_the_days(tiny_pipeline):
    """D66: no batch is skipped in silence."""
    batch = tiny_pipeline.windows("train").batch([4, 9])
    batch.truth[1, -1, 0, 7, 9] = float("nan")
    assert bool(batch.valid[1, -1, 0, 7, 9])
    with pytest.raises(FloatingPointError, match="20010105 to 20010112"):
        module(tiny_pipeline).training_step(batch, 0)


def test_sea_cells_do_not_reach_the_loss(tiny_pipeline):
    batch = tiny_pipeline.windows("train").batch([0, 1])
    net = module(tiny_pipeline).eval()
    condition = last_day_condition(net.model, batch, net.model.rollout(batch.lr))
    draws = Draws(torch.randn(6, *net.model.decoder.noise_shape))
    before = net.generator_loss(batch, condition, draws)
    batch.truth[..., :3, :4] = 77.0
    after = net.generator_loss(batch, condition, draws)
    torch.testing.assert_close(before, after)


def test_the_graph_penalty_counts_once_and_only_where_asked(tiny_pipeline):
    """D58, D61: a step's penalty is that of one matrix, for any window length."""
    on = module(tiny_pipeline)
    with torch.no_grad():
        on.model.cell.A_dag[0, 1] = on.model.cell.A_dag[1, 0] = 0.5
        for i in range(4):
            for k in range(4):
                if {i, k} != {0, 1}:
                    on.model.cell.A_dag[i, k] = 0.0
    on.loss_config = LossConfig(dag=DagConfig(l1_weight=0.0))
    assert on.dag_loss().item() == pytest.approx(0.0645, abs=1e-4)
    on.loss_config = LossConfig(dag=DagConfig(constraint="none", l1_weight=0.1))
    assert on.dag_loss().item() == pytest.approx(0.1 * 1.0, rel=1e-5)


@pytest.mark.parametrize("days", [1, 2, 3])
def test_the_graph_penalty_does_not_grow_with_the_window(tiny_pipeline, days):
    """D61: the original's was proportional to T."""
    loss = LossConfig(lambda_gen=0.0, beta_rec=0.0, gamma_dag=0.7)
    net = module(tiny_pipeline, loss=loss)
    net.log_dict = lambda *args, **kwargs: None
    batch = tiny_pipeline.windows("train").batch([4, 9])
    found = net.training_step(replace(batch, lr=batch.lr[:, -days:]), 0)
    assert found.item() == pytest.approx(0.7 * net.dag_loss().item(), rel=1e-6)


class Push(Callback):
    """Push the causal matrix far out of its domain after every update."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        with torch.no_grad():
            pl_module.model.cell.A_dag += 50.0


def test_a_training_pulls_its_causal_matrix_back(tiny_pipeline, tmp_path):
    """D62: outside its domain the penalty was another function."""
    result = train(
        tiny_pipeline,
        model=tiny_model(),
        loss=LossConfig(),
        training=TrainingConfig(epochs=1, batch_size=64, ema_decay=0.0),
        run_dir=tmp_path,
        callbacks=[Push()],
    )
    matrix = load_checkpoint(result.checkpoint).model.effective_dag()
    assert result.steps == 2
    assert in_dagma_domain(matrix)
    assert matrix.abs().max() > 0.1


def test_the_causal_matrix_never_leaves_the_domain(tiny_pipeline):
    """D62: a step of size 50 is shortened, not clamped."""
    net = module(tiny_pipeline)
    net.on_before_optimizer_step(None)
    with torch.no_grad():
        net.model.cell.A_dag += 50.0
    net.on_train_batch_end(None, None, 0)
    assert torch.isfinite(net.dag_loss())
    assert net.model.cell.A_dag.max() > 0.1


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_the_loss_is_a_function_of_the_noise(tiny_pipeline, kind):
    batch = tiny_pipeline.windows("validation").batch([0, 1, 2])
    net = module(tiny_pipeline, kind).eval()
    condition = last_day_condition(net.model, batch, net.model.rollout(batch.lr))
    count = 12 if kind == "one_step" else 3
    noise = torch.randn(count, *net.model.decoder.noise_shape)
    draws = Draws(noise, torch.tensor([0.1, 1.0, 5.0]))
    days = net.generator_loss(batch, condition, draws, per_day=True)
    total = net.generator_loss(batch, condition, draws)
    assert days.shape == (3, 3)
    torch.testing.assert_close(days.mean(dim=0), total)


def ablations(pipeline, model, preprocessor=None, **options) -> Ablations:
    return Ablations(
        model=model,
        preprocessor=preprocessor or pipeline.preprocessor,
        windows=pipeline.windows("validation"),
        **options,
    )


def test_shuffled_states_make_the_loss_worse(trained, tiny_pipeline):
    """D44: the generator uses the causal states, in every variable."""
    checkpoint = load_checkpoint(trained.checkpoint)
    results = ablations(
        tiny_pipeline, checkpoint.model, checkpoint.preprocessor, resamples=500
    ).shuffle_states()
    assert [r.variable for r in results] == ["tasmin", "tasmax", "pr"]
    for result in results:
        assert result.days == 36
        assert result.low < result.increase < result.high
        assert result.low > 0, result


def test_shuffling_an_unconditional_generator_changes_nothing(tiny_pipeline):
    """The test can fail: without a path from the states there is no increase."""
    net = _new_model(tiny_pipeline, tiny_model()).eval()
    with torch.no_grad():
        maps = net.config.diffusion.spatial_channels
        noise = net.config.diffusion.noise_channels
        net.decoder.unet.conv_in.weight[:, noise : noise + maps] = 0.0
        for name, parameter in net.decoder.unet.named_parameters():
            if "attn2.to_v" in name:
                parameter.zero_()
    results = ablations(tiny_pipeline, net).shuffle_states()
    assert [r.increase for r in results] == pytest.approx([0.0] * 3, abs=1e-6)


def test_days_that_are_alone_in_their_month_leave_nothing_to_compare(tiny_pipeline):
    """``zero-size array`` came at the end of a run."""
    net = _new_model(tiny_pipeline, tiny_model()).eval()
    windows = tiny_pipeline.windows("validation", stride=30)
    assert len(windows) == 2  # in June and in July
    found = Ablations(
        model=net, preprocessor=tiny_pipeline.preprocessor, windows=windows
    )
    assert found.shuffle_states() == []
    assert len(found.remove_edges()) == 4


def test_states_are_exchanged_within_a_month():
    days = np.array([20010101, 20010102, 20010201, 20010202, 20010203, 20020103])
    days = np.append(days, 20010501)
    order = _shuffle_within_months(days, seed=0).numpy()
    assert sorted(order) == list(range(7))
    np.testing.assert_array_equal(days[order] // 100 % 100, days // 100 % 100)
    assert (order[:6] != np.arange(6)).all()
    assert order[6] == 6


def test_removing_the_edges_is_seen_and_undone(tiny_pipeline):
    """Strong edges: their removal changes the losses; the graph comes back."""
    torch.manual_seed(0)
    net = _new_model(tiny_pipeline, tiny_model()).eval()
    with torch.no_grad():
        net.cell.A_dag.fill_(0.5)
    before = net.effective_dag().clone()
    results = ablations(tiny_pipeline, net, resamples=50).remove_edges()
    assert [r.variable for r in results] == ["tasmin", "tasmax", "pr", "drivers"]
    assert abs(results[-1].increase) > 1e-3
    torch.testing.assert_close(net.effective_dag(), before, rtol=0, atol=0)


def test_a_model_without_edges_loses_nothing_with_them(tiny_pipeline):
    net = _new_model(tiny_pipeline, tiny_model()).eval()
    net.cell.restrict_edges(torch.zeros_like(net.cell.edge_mask))
    results = ablations(tiny_pipeline, net, resamples=50).remove_edges()
    assert [r.increase for r in results] == [0.0] * 4


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_lightning_and_the_decoder_have_one_objective(tiny_pipeline, kind):
    """Same draws, same days: the ways to the loss give the same number."""
    net = module(tiny_pipeline, kind).eval()
    batch = tiny_pipeline.windows("validation").batch([0, 1])
    batch.valid[..., 2, :3, :] = False  # of one variable
    condition = last_day_condition(net.model, batch, net.model.rollout(batch.lr))
    decoder, truth = net.model.decoder, net.truth(batch)
    truth = replace(truth, fields=None, to_fields=None)  # in units of the residual
    draws = Draws.of(decoder, truth.residual, members=4)

    own = Objective().loss(decoder, truth, condition, draws).per_variable
    target = truth.residual.masked_fill(~truth.valid, torch.nan)
    given = {"noise": draws.noise, "sigma": draws.sigma, "members": 4}
    public = decoder.compute_loss(target, condition, per_variable=True, **given)
    torch.testing.assert_close(public, own, rtol=0, atol=0)
    if kind == "edm":
        lightning = net.generator_loss(batch, condition, draws)
        torch.testing.assert_close(lightning, own, rtol=0, atol=0)
