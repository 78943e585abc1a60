"""The plain training loop, used as its documentation says."""

from __future__ import annotations

import logging
import math
from typing import get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.causal_rcn import RCNCell, RCNSequenceRunner
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.convolutions import IntelligibleVariableConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
from st_cdgm.models.graph_builder import HeteroGraphBuilder
from st_cdgm.models.intelligible_encoder import IntelligibleVariableEncoder
from st_cdgm.models.truth import Draws
from st_cdgm.training import training_loop
from st_cdgm.training.config import LossConfig, PhysicalLossConfig
from st_cdgm.training.loop_epoch import (
    _SCALERS,
    Epoch,
    TrainingStepResult,
    loss_scaler,
    to_device,
)
from st_cdgm.training.loop_step import LoopStep
from st_cdgm.training.losses import _bounded, loss_dagma
from st_cdgm.training.training_loop import (
    convert_sample_to_batch,
    iterate_batches,
    train_epoch,
)

LR, HR, C_LR, C, T, HIDDEN = (4, 5), (8, 10), 3, 2, 3, 8
UNET = {
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
}


def builder(levels=("GP850",)) -> HeteroGraphBuilder:
    static = torch.linspace(-1, 1, HR[0] * HR[1]).reshape(1, *HR)
    return HeteroGraphBuilder(LR, HR, levels=levels, static_features=static)


class Models:
    """The three modules, built by hand, and their optimiser."""

    def __init__(self, kind: str = "ddpm", *, maps: int = 0, lr: float = 1e-3) -> None:
        torch.manual_seed(0)
        paths = [
            ("weather", ("GP850", "spat_adj", "GP850")),
            ("terrain", ("SP_HR", "causes", "GP850")),
        ]
        self.encoder = IntelligibleVariableEncoder(
            [IntelligibleVariableConfig(name, path) for name, path in paths],
            HIDDEN,
            in_channels={"GP850": C_LR, "SP_HR": 1},
        )
        cell = RCNCell(2, HIDDEN, C_LR, reconstruction_dim=C_LR)
        with torch.no_grad():
            cell.A_dag[0, 1], cell.A_dag[1, 0] = 0.5, 0.4
        self.runner = RCNSequenceRunner(cell)
        config = DiffusionConfig(scheduler_type=kind, noise_channels=2)
        if kind != "one_step":
            config.parameterisation = "eps"
        self.decoder = CausalDiffusionDecoder(
            C, HIDDEN, *HR, unet_kwargs=UNET, config=config, spatial_channels=maps
        )
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr)

    def parameters(self) -> list[nn.Parameter]:
        modules = (self.encoder, self.runner.cell, self.decoder)
        return [p for module in modules for p in module.parameters()]

    @property
    def cell(self) -> RCNCell:
        return self.runner.cell

    def train(self, batches, **kwargs) -> dict[str, float]:
        given = {
            "lambda_gen": 1.0,
            "beta_rec": 0.1,
            "gamma_dag": 0.1,
            "device": "cpu",
            "verbose": False,
        }
        return train_epoch(
            encoder=self.encoder,
            rcn_runner=self.runner,
            diffusion_decoder=self.decoder,
            optimizer=self.optimizer,
            data_loader=batches,
            **{**given, **kwargs},
        )


def sample(seed: int = 0, days: int = T) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(3, days, C, *HR, generator=generator)
    return {
        "lr": torch.randn(days, C_LR, *LR, generator=generator),
        "residual": fine[0],
        "baseline": fine[1],
        "hr": fine[2],
        "static": torch.zeros(1, *HR),
        "time": [f"2001-01-{4 + seed + day:02d}" for day in range(days)],
    }


def batches(count: int = 1, **kwargs) -> list[dict[str, object]]:
    samples = [sample(seed, **kwargs) for seed in range(count)]
    return list(iterate_batches(samples, builder(), "cpu"))


# -- Every option reaches its parameters, and no others ------------------------------

GENERATOR = {"decoder", "encoder", "graph"}
RECONSTRUCTION = {"reconstruction", "encoder", "graph"}
FOCAL = {"use_focal_loss": True}
EXTREME = {"extreme_weight_factor": 3.0}
PHYSICAL = {"lambda_phy": 1.0}
L1 = {"dag_l1_regularization": True}
SPHERE = {"lat": np.linspace(60, 25, HR[0]), "lon": np.linspace(0, 45, HR[1])}

OPTIONS = [
    ("lambda_gen", {}, {"lambda_gen": 2.0}, GENERATOR),
    ("focal", {}, FOCAL, GENERATOR),
    ("focal_alpha", FOCAL, FOCAL | {"focal_alpha": 2.0}, GENERATOR),
    ("focal_gamma", FOCAL, FOCAL | {"focal_gamma": 1.0}, GENERATOR),
    ("min_snr_gamma", {}, {"min_snr_gamma": 1e-4}, GENERATOR),
    (
        "min_snr_gamma, focal",
        FOCAL | {"min_snr_gamma": 1.0},
        FOCAL | EXTREME | {"min_snr_gamma": 1.0, "focal_gamma": 1.0},
        GENERATOR,
    ),
    ("extreme_weight_factor", {}, EXTREME, GENERATOR),
    (
        "extreme_percentiles",
        EXTREME,
        EXTREME | {"extreme_percentiles": [50.0]},
        GENERATOR,
    ),
    ("extreme_key", EXTREME, EXTREME | {"extreme_key": "hr"}, GENERATOR),
    ("beta_rec", {}, {"beta_rec": 1.0}, RECONSTRUCTION),
    ("cosine", {}, {"reconstruction_loss_type": "cosine"}, RECONSTRUCTION),
    ("mixed", {}, {"reconstruction_loss_type": "mse+cosine"}, RECONSTRUCTION),
    ("gamma_dag", {}, {"gamma_dag": 1.0}, {"graph"}),
    ("dag_method", {}, {"dag_method": "no_tears"}, {"graph"}),
    ("no dag", {}, {"dag_method": "none"}, {"graph"}),
    ("dagma_s", {}, {"dagma_s": 2.0}, {"graph"}),
    ("dag_l1_regularization", {}, L1, {"graph"}),
    ("dag_l1_weight", L1, L1 | {"dag_l1_weight": 1.0}, {"graph"}),
    ("lambda_phy", {}, PHYSICAL, GENERATOR),
    ("dx", PHYSICAL, PHYSICAL | {"dx": 2.0}, GENERATOR),
    ("dy", PHYSICAL, PHYSICAL | {"dy": 2.0}, GENERATOR),
    ("sphere", PHYSICAL, {"lambda_phy": 1e12} | SPHERE, GENERATOR),
    ("predicted", PHYSICAL, PHYSICAL | {"use_predicted_output": True}, GENERATOR),
    (
        "physical_num_steps",
        PHYSICAL | {"use_predicted_output": True},
        PHYSICAL | {"use_predicted_output": True, "physical_num_steps": 2},
        GENERATOR,
    ),
    ("decoder_steps", {}, {"decoder_steps": "all"}, GENERATOR),
]
ENSEMBLE_OPTIONS = [
    ("energy_weight", {}, {"energy_weight": 1.0}, GENERATOR),
    (
        "energy_patch",
        {"energy_weight": 1.0},
        {"energy_weight": 1.0, "energy_patch": 2},
        GENERATOR,
    ),
    ("members", {}, {"members": 4}, GENERATOR),
    ("extreme_weight_factor", {}, EXTREME, GENERATOR),
    (
        "extreme_percentiles",
        EXTREME,
        EXTREME | {"extreme_percentiles": [50.0]},
        GENERATOR,
    ),
    ("lambda_phy", {}, PHYSICAL, GENERATOR),
]


_SEEN: dict[str, dict[str, torch.Tensor]] = {}


def gradients(kind: str, options: dict[str, object]) -> dict[str, torch.Tensor]:
    key = f"{kind} {options}"
    if key not in _SEEN:
        _SEEN[key] = new_gradients(kind, options)
    return _SEEN[key]


def new_gradients(kind: str, options: dict[str, object]) -> dict[str, torch.Tensor]:
    models = Models(kind)
    torch.manual_seed(5)
    models.train(batches(), **options)
    parts = {
        "decoder": models.decoder.parameters(),
        "encoder": models.encoder.parameters(),
        "graph": [models.cell.A_dag],
        "reconstruction": models.cell.reconstruction_decoder.parameters(),
    }
    return {
        name: torch.cat([p.grad.flatten() for p in part if p.grad is not None])
        for name, part in parts.items()
    }


@pytest.mark.parametrize(
    ("kind", "before", "after", "reached"),
    [pytest.param("ddpm", b, a, r, id=name) for name, b, a, r in OPTIONS]
    + [
        pytest.param("one_step", b, a, r, id=f"one_step {name}")
        for name, b, a, r in ENSEMBLE_OPTIONS
    ],
)
def test_an_option_changes_the_gradient_it_should(kind, before, after, reached):
    """D57, D58, D59, D61, D63: nothing is accepted and ignored."""
    first, second = gradients(kind, before), gradients(kind, after)
    for name, gradient in first.items():
        change = (second[name] - gradient).norm() / gradient.norm()
        if name in reached:
            assert change > 1e-4, name
        else:
            assert change < 1e-6, name


def test_the_reconstruction_type_counts_under_mixed_precision_too():
    """D59: the original always took the MSE there."""
    found = []
    for kind in ("mse", "cosine"):
        models = Models()
        result = models.train(
            batches(),
            use_amp=True,
            amp_dtype=torch.bfloat16,
            reconstruction_loss_type=kind,
        )
        found.append(result["loss_rec"])
    plain = Models().train(batches(), reconstruction_loss_type="cosine")["loss_rec"]
    assert abs(found[0] - found[1]) > 0.05
    assert found[1] == pytest.approx(plain, rel=0.05)


# -- The loop itself -------------------------------------------------------------------


def test_it_learns_from_the_documented_data_set(tiny_pipeline):
    """The way of a user: pipeline, graph, encoder, cell, runner, decoder, loop."""
    data = tiny_pipeline.build_sequence_dataset(seq_len=3, stride=3, split="train")
    prep = tiny_pipeline.preprocessor
    graph = HeteroGraphBuilder(
        prep.lr_grid.shape,
        prep.hr_grid.shape,
        static_dataset=tiny_pipeline.get_static_dataset(),
        include_mid_layer=False,
    )
    models = Models(lr=3e-3)
    shape = prep.hr_grid.shape
    models.decoder = CausalDiffusionDecoder(
        3, HIDDEN, *shape, unet_kwargs=UNET, spatial_channels=4
    )
    models.optimizer = torch.optim.Adam(models.parameters(), lr=3e-3)
    samples = list(data)[::3]
    assert len(samples) > 15
    torch.manual_seed(0)
    losses = [
        models.train(
            iterate_batches(samples, graph, "cpu"),
            context_keys=("baseline", "static"),
            gradient_clipping=1.0,
        )
        for _ in range(3)
    ]
    assert set(losses[0]) == {"loss", "loss_gen", "loss_rec", "loss_dag", "skipped"}
    assert losses[0]["skipped"] == 0
    assert losses[-1]["loss_gen"] < 0.9 * losses[0]["loss_gen"]
    assert losses[-1]["loss_rec"] < losses[0]["loss_rec"]


def test_a_converted_sample_has_the_documented_form():
    given = sample()
    batch = convert_sample_to_batch(given, builder(), "cpu")
    assert batch["lr"].shape == (T, 20, C_LR)
    # Node i * w + j is cell (i, j).
    torch.testing.assert_close(batch["lr"][1, 7], given["lr"][1, :, 1, 2])
    assert batch["hetero"]["GP850"].x.shape == (20, C_LR)
    torch.testing.assert_close(batch["hetero"]["GP850"].x, batch["lr"][0])
    assert batch["residual"].shape == (T, C, *HR)
    assert batch["time"] == given["time"]
    as_numpy = {k: v.numpy() if k != "time" else v for k, v in given.items()}
    again = convert_sample_to_batch(as_numpy, builder(), "cpu")
    torch.testing.assert_close(again["lr"], batch["lr"])
    wide = {k: v.double() if k != "time" else v for k, v in given.items()}
    again = convert_sample_to_batch(wide, builder(), "cpu")
    assert again["lr"].dtype == again["residual"].dtype == torch.float32
    torch.testing.assert_close(again["lr"], batch["lr"])


def test_levels_get_their_own_channels(caplog):
    """D36: all channels on every level only with a warning."""
    levels = ("GP850", "GP500")
    groups = {"GP850": [0, 2], "GP500": [1]}
    batch = convert_sample_to_batch(sample(), builder(levels), "cpu", groups=groups)
    torch.testing.assert_close(batch["hetero"]["GP850"].x, batch["lr"][0][:, [0, 2]])
    assert batch["hetero"]["GP500"].x.shape == (20, 1)
    assert not caplog.records
    graphs = builder(levels)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            convert_sample_to_batch(sample(), graphs, "cpu")
    assert caplog.text.count("pass groups") == 1


def test_the_graph_penalty_does_not_grow_with_the_window():
    """D61: the original's was proportional to T."""
    found = {days: Models().train(batches(days=days))["loss_dag"] for days in (2, 3, 6)}
    expected = loss_dagma(Models().cell.effective_dag()).item()
    for value in found.values():
        assert value == pytest.approx(expected, rel=1e-5)


def test_a_step_out_of_the_domain_is_shortened():
    """D62: the matrix stays where the penalty is what it claims to be."""
    models = Models(lr=50.0)
    start = models.cell.A_dag.detach().clone()
    models.train(batches())
    assert torch.isfinite(loss_dagma(models.cell.effective_dag()))
    step = models.cell.A_dag.detach() - start
    # Adam's step is 50 in every entry: the same share of each is left.
    assert step[0, 1].abs() == pytest.approx(step[1, 0].abs())
    assert 0.1 < step[0, 1].abs() < 2
    free = Models(lr=50.0)
    free.train(batches(), dag_method="none")
    assert free.cell.A_dag.abs().max() > 10


def test_residual_falls_back_to_hr():
    batch = batches()[0]
    only_hr = {k: v for k, v in batch.items() if k != "residual"}
    renamed = {**only_hr, "residual": batch["hr"]}
    results = []
    for chosen in (only_hr, renamed):
        torch.manual_seed(1)
        results.append(Models().train([chosen])["loss_gen"])
    assert results[0] == results[1]


def test_missing_truth_does_not_count():
    """D63: one NaN cell made the total of the original NaN."""
    batch = batches()[0]
    batch["residual"][:, 0, :2] = torch.nan
    models = Models()
    result = models.train([batch], lambda_phy=1.0)
    assert math.isfinite(result["loss"])
    assert math.isfinite(result["loss_phy"])
    assert all(torch.isfinite(p).all() for p in models.parameters())


def test_a_day_without_truth_trains_the_rest():
    """D55: no constant without gradient, and no perfect generator loss."""
    batch = batches()[0]
    batch["residual"][-1] = torch.nan
    models = Models(lr=1e-2)
    before = models.cell.reconstruction_decoder.weight.detach().clone()
    result = models.train([batch])
    assert math.isnan(result["loss_gen"])
    assert math.isfinite(result["loss_rec"])
    assert not torch.equal(before, models.cell.reconstruction_decoder.weight)


def broken(seed: int = 2) -> dict[str, object]:
    batch = convert_sample_to_batch(sample(seed), builder(), "cpu")
    batch["lr"][1, 3, 0] = torch.nan
    return batch


def test_a_broken_batch_stops_with_its_days():
    """D66: and nothing was updated by it."""
    models = Models()
    before = [p.detach().clone() for p in models.parameters()]
    with pytest.raises(FloatingPointError, match="2001-01-06 to 2001-01-08"):
        models.train([broken()])
    for old, new in zip(before, models.parameters(), strict=True):
        assert torch.equal(old, new)


def test_broken_batches_can_be_left_out_and_are_counted(caplog):
    """D66: only broken batches give NaN, not a perfect 0."""
    with caplog.at_level(logging.WARNING):
        result = Models().train([broken(), *batches(2)], on_invalid="skip")
    assert result["skipped"] == 1
    assert math.isfinite(result["loss"])
    assert "2001-01-06" in caplog.text
    nothing = Models().train([broken()], on_invalid="skip", lambda_phy=1.0)
    assert nothing["skipped"] == 1
    for key in ("loss", "loss_gen", "loss_rec", "loss_dag", "loss_phy"):
        assert math.isnan(nothing[key])
    blind = {**batches()[0], "residual": torch.full((T, C, *HR), torch.nan)}
    unseen = Models().train(batches(), validation_loader=[blind])
    assert math.isnan(unseen["val_loss"])
    empty = Models().train([])
    assert math.isnan(empty["loss"])
    assert empty["skipped"] == 0


@pytest.mark.parametrize("kind", ["ddpm", "one_step"])
def test_a_prediction_that_is_not_finite_is_invalid_too(kind):
    """D66: whether the decoder looks at its prediction itself or not."""
    models = Models(kind)
    with torch.no_grad():
        models.decoder.unet.conv_out.bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="days 2001-01-04"):
        models.train(batches())


def test_wrong_shapes_are_not_taken_for_invalid_numbers():
    batch = batches()[0]
    for residual, match in (
        (batch["residual"][0], "wrong rank"),
        (batch["residual"][:, :1], "numbers of channels"),
    ):
        with pytest.raises(InputError, match=match):
            Models().train([{**batch, "residual": residual}], on_invalid="skip")
    with pytest.raises(ValueError, match="conditioning maps"):
        Models(maps=2).train(batches(), on_invalid="skip")


@pytest.mark.parametrize(
    "kwargs",
    [
        {"dag_method": "dag"},
        {"reconstruction_loss_type": "mae"},
        {"decoder_steps": "first"},
        {"on_invalid": "ignore"},
        {"scheduler_interval": "day"},
        {"physical_num_steps": 0},
        {"lat": np.arange(8.0)},
        {"energy_weight": 1.0},
        {"min_snr_gamma": 0.0},
        {"lambda_phy": 1.0, "target_names": ["tas", "pr"]},
    ],
)
def test_options_that_cannot_be_are_refused(kwargs):
    """D63: physics of other variables than wind among them."""
    with pytest.raises(ConfigError):
        Models().train(batches(), **kwargs)


def test_min_snr_5_is_the_decoders_own():
    """D45: its weight falls towards clean data."""
    torch.manual_seed(2)
    own = Models().train(batches())["loss_gen"]
    given = Models().train(batches(), min_snr_gamma=5.0)["loss_gen"]
    assert given == pytest.approx(own, rel=1e-5)
    with pytest.raises(ConfigError, match="noise or v"):
        Models("one_step").train(batches(), min_snr_gamma=5.0)


def test_focal_weights_are_for_a_denoiser():
    with pytest.raises(ConfigError, match="use_focal_loss"):
        Models("one_step").train(batches(), use_focal_loss=True)


def test_unnamed_channels_are_taken_for_wind_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        unnamed = Models().train(batches(), lambda_phy=1.0)["loss_phy"]
    assert "target_names" in caplog.text
    named = []
    for names in (["uas", "vas"], ["vas", "uas"]):
        torch.manual_seed(0)
        result = Models().train(batches(), lambda_phy=1.0, target_names=names)
        named.append(result["loss_phy"])
    assert unnamed > 0
    assert named[0] != named[1]


def test_a_sampled_output_is_compared_every_so_many_batches():
    models = Models()
    seen = []
    original = models.decoder.denoise

    def counted(*args, **kwargs):
        seen.append(torch.is_grad_enabled())
        return original(*args, **kwargs)

    models.decoder.denoise = counted
    models.train(
        batches(3),
        lambda_phy=1.0,
        use_predicted_output=True,
        physical_sample_interval=2,
        physical_num_steps=4,
    )
    # Batches 0 and 2: three steps without and one with a gradient, after the denoising
    # error that every batch has.
    error, drawn = [True], [False, False, False, True]
    assert seen == [*error, *drawn, *error, *error, *drawn]


def test_target_scale_restores_the_units_of_the_physical_loss():
    torch.manual_seed(0)
    plain = Models().train(batches(), lambda_phy=1.0)["loss_phy"]
    torch.manual_seed(0)
    scaled = Models().train(
        batches(), lambda_phy=1.0, target_scale=torch.tensor([3.0, 3.0])
    )["loss_phy"]
    assert scaled == pytest.approx(9 * plain, rel=1e-4)


def test_several_windows_in_one_batch():
    """B graphs side by side give the mean of the windows' losses."""
    singles = batches(2)
    both = {
        "lr": torch.cat([b["lr"] for b in singles], dim=1),
        "residual": torch.stack([b["residual"] for b in singles]),
        "hetero": builder().prepare_batch(
            {"GP850": torch.stack([b["lr"][0] for b in singles])}
        ),
        "batch_index": torch.arange(2).repeat_interleave(20),
    }
    together = Models().train([both], lambda_gen=0.0)["loss_rec"]
    apart = Models(lr=0.0).train(singles, lambda_gen=0.0)["loss_rec"]
    assert together == pytest.approx(apart, rel=1e-5)
    no_index = {k: v for k, v in both.items() if k != "batch_index"}
    with pytest.raises(InputError, match="numbers of days"):
        Models().train([no_index])


def test_a_window_of_one_day_has_no_reconstruction():
    result = Models().train(batches(days=1))
    assert result["loss_rec"] == 0.0
    assert result["loss_gen"] > 0


def test_conditioning_fn_replaces_the_default():
    calls = []

    def tokens(state, index):
        calls.append((tuple(state.shape), index))
        return torch.zeros(1, 2, HIDDEN)

    models = Models()
    models.train(batches(), conditioning_fn=tokens, beta_rec=0.0)
    assert calls == [((2, 20, HIDDEN), None)]
    assert all(
        p.grad is None or (p.grad == 0).all() for p in models.encoder.parameters()
    )


def test_gradients_are_clipped_module_by_module():
    models = Models(lr=0.0)
    models.train(batches(), lambda_gen=1e3, beta_rec=1e3, gradient_clipping=0.01)
    for module in (models.encoder, models.cell, models.decoder):
        squares = [
            p.grad.square().sum() for p in module.parameters() if p.grad is not None
        ]
        assert torch.stack(squares).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


# -- Schedules, precision, devices -----------------------------------------------------


def test_a_plateau_follows_the_validation_loss(caplog):
    """D60: the schedule was accepted and never stepped."""
    models = Models()
    seen = []

    class Spy(torch.optim.lr_scheduler.ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append(metrics)
            super().step(metrics)

    schedule = Spy(models.optimizer, patience=0, factor=0.5)
    validation = batches(2)
    for _ in range(2):
        result = models.train(
            batches(), scheduler=schedule, validation_loader=validation
        )
        assert seen[-1] == result["val_loss"]
    assert not caplog.records
    schedule.step(math.inf)
    assert models.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
    with caplog.at_level(logging.WARNING):
        result = models.train(batches(), scheduler=schedule)
    assert seen[-1] == result["loss"]
    assert "validation_loader" in caplog.text


def test_the_validation_loss_is_the_same_each_time():
    """D66: and a broken batch is not left out of it in silence."""
    models = Models(lr=0.0)
    validation = batches(2)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        options = {"use_focal_loss": seed == 2, "extreme_weight_factor": seed - 1}
        results.append(
            models.train(batches(), validation_loader=validation, **options)["val_loss"]
        )
    # The same noise, and no weights of cells.
    assert results[0] == results[1]
    with pytest.raises(FloatingPointError, match="2001-01-06"):
        models.train(batches(), validation_loader=[broken()])


def test_other_schedules_step_once_per_epoch_or_per_batch():
    """D60."""
    for interval, power in (("epoch", 1), ("step", 3)):
        models = Models()
        schedule = torch.optim.lr_scheduler.ExponentialLR(models.optimizer, 0.5)
        models.train(batches(3), scheduler=schedule, scheduler_interval=interval)
        assert models.optimizer.param_groups[0]["lr"] == pytest.approx(
            1e-3 * 0.5**power
        )
    models.train([], scheduler=schedule)
    assert schedule.last_epoch == 3


def test_mixed_precision_is_left_out_without_cuda(caplog):
    """D65: and it is off unless asked for, as in the configuration."""
    with caplog.at_level(logging.WARNING):
        Models().train(batches())
        assert not caplog.records
        Models().train(batches(), use_amp=True)
    assert "mixed precision is left out" in caplog.text


@pytest.mark.filterwarnings("error::FutureWarning")
def test_the_whole_forward_pass_is_in_mixed_precision():
    """D65: the conditioning was outside autocast."""
    seen = []
    models = Models()
    original = models.encoder.project_state_tensor

    def watched(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return original(*args, **kwargs)

    models.encoder.project_state_tensor = watched
    result = models.train(batches(), use_amp=True, amp_dtype=torch.bfloat16)
    assert seen == [True]
    assert math.isfinite(result["loss"])


@pytest.mark.filterwarnings("error::FutureWarning")
def test_a_loss_scaler_outlives_the_epoch():
    """D65: it was rebuilt every epoch, by a deprecated call."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    cpu, half = torch.device("cpu"), torch.float16
    kept = loss_scaler(optimizer, half, cpu)
    assert loss_scaler(optimizer, half, cpu) is kept
    assert loss_scaler(other, half, cpu) is not kept
    assert not loss_scaler(other, torch.bfloat16, cpu).is_enabled()
    count = len(_SCALERS)
    del other
    assert len(_SCALERS) == count - 1
    models = Models()
    step = LoopStep(
        encoder=models.encoder,
        rcn_runner=models.runner,
        diffusion_decoder=models.decoder,
        loss=LossConfig(),
        look=PhysicalLossConfig(),
    )
    epochs = [
        Epoch(step=step, optimizer=optimizer, device=cpu, amp_dtype=half)
        for _ in range(2)
    ]
    assert epochs[0].scaler is epochs[1].scaler is kept


def test_a_given_scaler_goes_on_from_epoch_to_epoch():
    """D65: its scale doubles every three steps, of one epoch or of several."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    models, found = Models(), []
    for _ in range(3):
        models.train(batches(2), scaler=scaler)
        found.append(scaler.get_scale())
    assert found == [8.0, 16.0, 32.0]


def test_everything_of_a_batch_is_moved():
    """D67: the graph stayed where it was."""
    moved = to_device(batches()[0], torch.device("meta"))
    assert moved["lr"].is_meta
    assert moved["residual"].is_meta
    assert moved["hetero"]["GP850"].x.is_meta
    assert moved["hetero"]["GP850", "spat_adj", "GP850"].edge_index.is_meta
    assert moved["time"] == ["2001-01-04", "2001-01-05", "2001-01-06"]


class Movable:
    """Something else with ``to``, as a graph is; it notes where it was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def to(self, device: torch.device) -> Movable:
        self.sent.append(device.type)
        return self


def test_every_batch_is_moved_to_where_it_is_used():
    """D67: batches of the training and of the validation, and converted samples."""
    seen, unseen = Movable(), Movable()
    Models().train(
        [{**batches()[0], "other": seen}],
        validation_loader=[{**batches()[0], "other": unseen}],
    )
    assert seen.sent == unseen.sent == ["cpu"]
    made = convert_sample_to_batch(sample(), builder(), "meta")
    assert made["lr"].is_meta
    assert made["residual"].is_meta
    assert made["hetero"]["GP850"].x.is_meta
    assert made["hetero"]["SP_HR", "causes", "GP850"].edge_index.is_meta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_it_trains_on_a_gpu(dtype):
    models = Models(lr=3e-3)
    for module in (models.encoder, models.cell, models.decoder):
        module.cuda()
    results = [
        models.train(
            batches(8),
            device="cuda",
            use_amp=dtype is not None,
            amp_dtype=dtype,
            gradient_clipping=1.0,
        )
        for _ in range(10)
    ]
    assert results[-1]["loss"] < results[0]["loss"]


def test_logs_can_be_asked_for(caplog):
    with caplog.at_level(logging.INFO):
        Models().train(batches(3), log_interval=2)
        assert not caplog.records
        Models().train(batches(3), log_interval=2, verbose=True)
    lines = [r.getMessage() for r in caplog.records]
    assert [line.split(":")[0] for line in lines] == ["batch 0", "batch 2", "epoch"]


def test_public_names_and_their_type_hints():
    """D68: hints resolve, and the step result is used."""
    for name in training_loop.__all__:
        public = getattr(training_loop, name)
        assert get_type_hints(public), name
    result = TrainingStepResult(1.0, 2.0, 3.0, 4.0)
    assert (result.loss_total, result.loss_gen) == (1.0, 2.0)
    assert math.isnan(result.loss_phy)


def test_the_physical_loss_cannot_drown_the_generators():
    """The clean estimate of a noise-predicting decoder is off by sigma times its error.

    The loss of it was some thousand times that of the generator, for sigma up to 157.
    """
    losses = Models().train(batches(6), lambda_phy=1.0)
    assert 0 < losses["loss_phy"] < 10 * losses["loss_gen"]


@pytest.mark.parametrize("sigma", [0.01, 1.0, 150.0])
def test_errors_of_the_estimate_are_weighted_by_the_share_of_the_signal(sigma):
    residual, estimate = torch.randn(2, 1, C, *HR)
    draws = Draws(noise=residual, sigma=torch.tensor([sigma]))
    bounded = _bounded(estimate, residual, draws)
    weight = ((bounded - residual) / (estimate - residual)).square()
    torch.testing.assert_close(weight, torch.full_like(weight, 1 / (1 + sigma**2)))
