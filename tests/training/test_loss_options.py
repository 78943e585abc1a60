"""Every option of the objective reaches the gradient of the Lightning module."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.toy import tiny_model

from st_cdgm.config.load import load_config
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.function import FunctionCodec
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.task.batch import Batch
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError
from st_cdgm.models.objective import Draws
from st_cdgm.physics.derivatives import WindDerivatives
from st_cdgm.physics.terms import BlockTerm, WindTerm, coarse_counterparts, wind_loss
from st_cdgm.training.config import (
    DagConfig,
    LossConfig,
    PhysicalLossConfig,
    TrainingConfig,
)
from st_cdgm.training.fit import _new_model
from st_cdgm.training.lightning_module import STCDGMModule, last_day_condition

WIND = {"uas": "eastward_wind", "vas": "northward_wind", "ps": "surface_air_pressure"}


@pytest.fixture(scope="module")
def batch(tiny_pipeline) -> Batch:
    return tiny_pipeline.windows("train").batch([1, 5, 9, 20])


@pytest.fixture(scope="module")
def preprocessor(tiny_pipeline) -> Preprocessor:
    return tiny_pipeline.preprocessor


@pytest.fixture(scope="module")
def windy(preprocessor) -> Preprocessor:
    """The same task, its targets renamed to wind and pressure."""
    targets = tuple(
        TargetVariable(name=name, units="m s-1", standard_name=standard)
        for name, standard in WIND.items()
    )
    return replace(preprocessor, targets=targets, codec=build_codec(targets))


class Make:
    """Build modules of one kind with the same weights."""

    def __init__(self, pipeline, preprocessor: Preprocessor, windy: Preprocessor):
        self.pipeline, self.plain, self.windy = pipeline, preprocessor, windy

    def __call__(
        self,
        kind: str,
        loss: dict[str, object],
        physical: PhysicalLossConfig | None = None,
    ) -> STCDGMModule:
        torch.manual_seed(0)
        config = tiny_model("ddpm" if kind == "eps" else kind)
        config.diffusion.parameterisation = "eps" if kind == "eps" else "edm"
        model = _new_model(self.pipeline, config)
        with torch.no_grad():
            model.cell.A_dag[0, 1], model.cell.A_dag[1, 0] = 0.5, 0.4
        training = TrainingConfig(physical_loss=physical or PhysicalLossConfig())
        module = STCDGMModule(
            model,
            self.windy if "lambda_phy" in loss else self.plain,
            loss=LossConfig(**loss),
            training=training,
            total_steps=100,
        )
        module.log_dict = lambda *args, **kwargs: None
        return module


@pytest.fixture(scope="module")
def make(tiny_pipeline, preprocessor, windy) -> Make:
    return Make(tiny_pipeline, preprocessor, windy)


def gradients(module: STCDGMModule, batch: Batch, number: int = 0):
    torch.manual_seed(1)
    module.training_step(batch, number).backward()
    model = module.model
    parts = {
        "decoder": model.decoder.parameters(),
        "conditioner": model.conditioner.parameters(),
        "encoder": model.encoder.parameters(),
        "graph": [model.cell.A_dag],
        "reconstruction": model.cell.reconstruction_decoder.parameters(),
    }
    return {
        name: torch.cat([p.grad.flatten() for p in part if p.grad is not None])
        for name, part in parts.items()
    }


GENERATOR = {"decoder", "conditioner", "encoder", "graph"}
RECONSTRUCTION = {"reconstruction", "encoder", "graph"}
FOCAL = {"use_focal_loss": True}
EXTREME = {"extreme_weight_factor": 3.0}
ENERGY = {"energy_weight": 1.0}
OPTIONS = [
    ("eps", {}, {"lambda_gen": 2.0}, GENERATOR),
    ("eps", {}, {"min_snr_gamma": 1e-4}, GENERATOR),
    ("edm", {}, FOCAL, GENERATOR),
    ("edm", FOCAL, FOCAL | {"focal_alpha": 2.0}, GENERATOR),
    ("edm", FOCAL, FOCAL | {"focal_gamma": 1.0}, GENERATOR),
    ("edm", {}, EXTREME, GENERATOR),
    ("edm", EXTREME, EXTREME | {"extreme_percentiles": [50.0]}, GENERATOR),
    ("edm", EXTREME, EXTREME | {"extreme_values": "field"}, GENERATOR),
    ("edm", {"lambda_phy": 0.0}, {"lambda_phy": 1.0}, GENERATOR),
    ("edm", {}, {"lambda_block": 1.0}, GENERATOR),
    ("edm", {}, {"variable_weights": {"pr": 3.0}}, GENERATOR),
    ("one_step", {}, EXTREME, GENERATOR),
    ("one_step", EXTREME, EXTREME | {"extreme_percentiles": [50.0]}, GENERATOR),
    ("one_step", {}, ENERGY, GENERATOR),
    ("one_step", ENERGY, ENERGY | {"energy_patch": 2}, GENERATOR),
    ("one_step", {"lambda_phy": 0.0}, {"lambda_phy": 1.0}, GENERATOR),
    ("one_step", {}, {"lambda_block": 1.0}, GENERATOR),
    ("one_step", {}, {"beta_rec": 1.0}, RECONSTRUCTION),
    ("one_step", {}, {"reconstruction_loss_type": "cosine"}, RECONSTRUCTION),
    ("one_step", {}, {"gamma_dag": 1.0}, {"graph"}),
    ("one_step", {}, {"dag_method": "no_tears"}, {"graph"}),
    ("one_step", {}, {"dag": DagConfig(constraint="notears")}, {"graph"}),
    ("one_step", {}, {"dagma_s": 2.0}, {"graph"}),
    ("one_step", {}, {"dag_l1_regularization": False}, {"graph"}),
    ("one_step", {}, {"dag_l1_weight": 1.0}, {"graph"}),
]


@pytest.mark.parametrize(
    ("kind", "before", "after", "reached"),
    OPTIONS,
    ids=[f"{o[0]} {', '.join(map(str, o[2].items()))}" for o in OPTIONS],
)
def test_an_option_changes_the_gradient_it_should(
    make, batch, kind, before, after, reached
):
    """D57, D58, D63: nothing is accepted and ignored."""
    first, second = (gradients(make(kind, loss), batch) for loss in (before, after))
    for name, gradient in first.items():
        change = (second[name] - gradient).norm() / gradient.norm()
        if name in reached:
            assert change > 1e-4, name
        else:
            assert change < 1e-6, name


def test_what_the_physical_loss_looks_at_can_be_chosen(make, batch):
    sampled = PhysicalLossConfig(
        use_predicted_output=True, physical_sample_interval=2, physical_num_steps=3
    )
    longer = replace(sampled, physical_num_steps=4)
    loss = {"lambda_phy": 1.0}
    found = {
        name: gradients(make("edm", loss, physical), batch, number)["decoder"]
        for name, physical, number in (
            ("estimate", None, 0),
            ("sample", sampled, 0),
            ("longer", longer, 0),
            ("between", sampled, 1),
        )
    }
    without = gradients(make("edm", {"lambda_phy": 0.0}), batch)["decoder"]
    for name in ("estimate", "sample", "longer"):
        assert (found[name] - without).norm() > 1e-4 * without.norm(), name
    assert (found["sample"] - found["longer"]).norm() > 1e-4 * without.norm()
    torch.testing.assert_close(found["between"], without)


def test_validation_is_free_of_weights_of_cells(make, batch):
    """Losses of runs with different weights of cells can be compared."""
    values = []
    for loss in ({}, FOCAL | EXTREME):
        module = make("edm", loss).eval()
        torch.manual_seed(3)
        rollout = module.model.rollout(batch.lr)
        condition = last_day_condition(module.model, batch, rollout)
        draws = Draws.of(module.model.decoder, module.truth(batch).residual)
        values.append(module.generator_loss(batch, condition, draws))
    torch.testing.assert_close(values[0], values[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "loss", "match"),
    [
        ("one_step", FOCAL, "denoising error"),
        ("edm", ENERGY, "energy score"),
        ("edm", {"min_snr_gamma": 5.0}, "min-SNR"),
        ("edm", {"beta_rec": -1.0}, "beta_rec"),
    ],
)
def test_a_term_that_the_model_cannot_have_is_refused(make, kind, loss, match):
    with pytest.raises(ConfigError, match=match):
        make(kind, loss)


# -- Physical terms --------------------------------------------------------------------


def test_wind_only(preprocessor, windy):
    """D63: no divergence of temperatures."""
    with pytest.raises(ConfigError, match="needs wind among the targets"):
        WindTerm.of(preprocessor)
    assert WindTerm.of(windy).pairs == [(0, 1)]


def test_the_wind_term_has_no_units(windy):
    """Grid cells and standard deviations: about 1 for noise, whatever the task."""
    term = WindTerm.of(windy)
    shape = windy.hr_grid.shape
    members, target = torch.randn(2, 50, 1, 3, *shape)
    valid = torch.ones(50, 3, *shape, dtype=torch.bool)
    first = term(members, target[:, 0], valid)
    std = windy.residual_std * 10, windy.score_std * 10
    larger = replace(windy, residual_std=std[0], score_std=std[1])
    torch.testing.assert_close(WindTerm.of(larger)(members, target[:, 0], valid), first)
    assert 0.05 < first < 50


def test_the_wind_term_leaves_out_cells_without_truth(windy):
    """D63: any of them spoilt the total."""
    generator, shape = torch.Generator().manual_seed(0), windy.hr_grid.shape
    members = torch.randn(2, 2, 3, *shape, generator=generator)
    target = torch.randn(2, 3, *shape, generator=generator)
    valid = torch.ones(2, 3, *shape, dtype=torch.bool)
    valid[:, 0, :3, :4] = False
    term = WindTerm.of(windy)
    before = term(members, target, valid)
    spoilt = torch.where(valid, target, 9.0)
    shifted = torch.where(valid[:, None], members, -9.0)
    torch.testing.assert_close(term(shifted, spoilt, valid), before)
    assert term(shifted, spoilt, torch.ones_like(valid)) > 2 * before


def test_wind_on_a_rotated_grid_must_follow_it(windy):
    grid = windy.hr_grid
    rotated = replace(
        grid,
        lat=grid.lat2d + 0.1 * np.arange(grid.shape[1]),
        lon=np.array(grid.lon2d),
        y=np.linspace(-3, 3, grid.shape[0]),
        x=np.linspace(-5, 5, grid.shape[1]),
        mapping={"grid_mapping_name": "rotated_latitude_longitude", "variable": "rp"},
    )
    with pytest.raises(ConfigError, match="does not follow"):
        WindTerm.of(replace(windy, hr_grid=rotated))
    along = tuple(
        replace(t, standard_name=t.standard_name and f"grid_{t.standard_name}")
        for t in windy.targets
    )
    term = WindTerm.of(replace(windy, hr_grid=rotated, targets=along))
    # One row is one unit of length, and columns shrink with the rotated latitude.
    torch.testing.assert_close(
        term.derivatives.cosine[:, 0],
        torch.deg2rad(torch.linspace(-3, 3, 8)).cos().double(),
        rtol=1e-6,
        atol=0,
    )
    bare = replace(rotated, y=None, x=None)
    with pytest.raises(ConfigError, match="no coordinates along"):
        WindTerm.of(replace(windy, hr_grid=bare, targets=along))


def test_a_projected_grid_is_a_plane(windy):
    grid = windy.hr_grid
    projected = replace(
        grid,
        lat=np.array(grid.lat2d),
        lon=np.array(grid.lon2d),
        y=np.arange(8) * -2000.0,
        x=np.arange(10) * 1000.0,
        mapping={"grid_mapping_name": "lambert_conformal_conic", "variable": "lcc"},
    )
    along = tuple(
        replace(t, standard_name={"uas": "x_wind", "vas": "y_wind"}.get(t.name))
        for t in windy.targets
    )
    term = WindTerm.of(replace(windy, hr_grid=projected, targets=along))
    x = torch.arange(10.0).expand(8, 10)
    torch.testing.assert_close(
        term.derivatives.divergence(x, 0 * x), torch.full((8, 10), 2.0)
    )
    y = torch.arange(8.0)[:, None].expand(8, 10)
    torch.testing.assert_close(
        term.derivatives.divergence(0 * y, y), torch.full((8, 10), -1.0)
    )


def test_the_wind_loss_leaves_the_spread_alone():
    """Its mean over ensembles is the same for 2 and 20 members, and 0 at the truth."""
    generator = torch.Generator().manual_seed(0)
    operator = WindDerivatives.planar((6, 7))
    target = torch.zeros(1_500, 2, 6, 7)
    valid = torch.ones_like(target, dtype=torch.bool)
    for members in (2, 20):
        made = torch.randn(1_500, members, 2, 6, 7, generator=generator)
        loss = wind_loss(made, target, valid, operator)
        assert abs(loss.item()) < 0.03
        shifted = made + torch.linspace(0, 6, 7)
        # u has grown by x and v by x: divergence and vorticity of 1 each.
        assert wind_loss(shifted, target, valid, operator).item() == pytest.approx(
            2.0, abs=0.05
        )
    single = wind_loss(made[:, :1], target, valid, operator)
    assert single > 1.0


def test_counterparts_are_those_of_the_baseline(preprocessor):
    found = coarse_counterparts(preprocessor)
    names = [c.name for c in preprocessor.channels]
    assert [(c.target, names[c.channel], c.factor) for c in found] == [
        (0, "tas", 1.0),
        (1, "tas", 1.0),
    ]
    assert found[0].offset == pytest.approx(-273.15)


def test_the_block_term_compares_with_the_coarse_field(preprocessor, batch):
    """A residual that lifts every block to its coarse value has no loss."""
    term = BlockTerm(preprocessor)
    baseline, valid = batch.baseline[:, -1], batch.valid[:, -1]
    lr = batch.lr[:, -1]
    residual = torch.zeros(4, 2, *baseline.shape[1:])
    base = term(residual, baseline, lr, valid)
    assert base > 0
    # One coarse standard deviation warmer or colder: one variance more, in the warmest
    # too, which lies an unchanged increment above the coldest.
    channel = [c.name for c in preprocessor.channels].index("tas")
    std = preprocessor.lr_std[channel].item()
    shift = torch.zeros_like(residual)
    shift[:, :, 0] = std / torch.as_tensor(preprocessor.residual_std)[0]
    up, down = (term(s, baseline, lr, valid) for s in (shift, -shift))
    assert ((up + down) / 2 - base).item() == pytest.approx(1.0, rel=1e-3)


def test_the_block_term_needs_a_counterpart_and_a_gradient(preprocessor, windy):
    wind_only = replace(windy, baseline=object())
    with pytest.raises(ConfigError, match="no target has a coarse counterpart"):
        BlockTerm(wind_only)
    codec = FunctionCodec(
        names=preprocessor.codec.names, forward=lambda d: d, inverse=lambda d: d
    )
    with pytest.raises(ConfigError, match="no gradient"):
        BlockTerm(replace(preprocessor, codec=codec))


# -- Configuration ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lambda_phy", -1.0),
        ("energy_weight", -0.5),
        ("energy_patch", 0),
        ("focal_alpha", 0.0),
        ("focal_gamma", -1.0),
        ("extreme_weight_factor", -1.0),
        ("extreme_percentiles", []),
        ("extreme_percentiles", [101.0]),
        ("extreme_values", "hr"),
        ("reconstruction_loss_type", "mae"),
        ("dag_method", "tears"),
        ("dagma_s", 0.0),
        ("dag_l1_weight", -1.0),
        ("dag", DagConfig(constraint="tears")),
        ("dag", DagConfig(mu_factor=1.5)),
        ("dag", DagConfig(mu_stages=0)),
    ],
)
def test_options_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=r"loss\."):
        LossConfig(**{key: value}).check()


def test_both_names_of_the_graph_options():
    """D58: the specification's keys decide where they are given."""
    assert LossConfig().graph() == DagConfig()
    given = LossConfig(
        dag_method="no_tears",
        dagma_s=2.0,
        dag_l1_weight=0.5,
        dag=DagConfig(mu_stages=2),
    ).graph()
    assert given == DagConfig(constraint="notears", s=2.0, l1_weight=0.5, mu_stages=2)
    assert LossConfig(dag_l1_regularization=False).graph().l1_weight == 0.0
    assert LossConfig(dag_l1_regularization=True).graph().l1_weight == 0.01
    own = LossConfig()
    own.graph().l1_weight = 9.0
    assert own.dag.l1_weight == 0.01


def test_the_documented_keys_can_be_set_on_the_command_line():
    """D84: names of the original's YAML files."""
    config = load_config(
        "demo",
        [
            "loss.lambda_phy=0.1",
            "loss.dag_method=no_tears",
            "loss.dagma_s=1.5",
            "loss.use_focal_loss=true",
            "loss.focal_alpha=0.5",
            "loss.focal_gamma=1.5",
            "loss.extreme_weight_factor=2",
            "loss.extreme_percentiles=[90,99.5]",
            "loss.dag_l1_regularization=true",
            "loss.dag_l1_weight=0.02",
            "loss.reconstruction_loss_type=mse+cosine",
            "training.physical_loss.use_predicted_output=true",
            "training.physical_loss.physical_sample_interval=5",
            "training.physical_loss.physical_num_steps=12",
        ],
    )
    assert config.loss.extreme_percentiles == [90.0, 99.5]
    assert config.loss.graph().constraint == "notears"
    assert config.training.physical_loss.physical_num_steps == 12
    with pytest.raises(ConfigError, match="physical_num_steps"):
        load_config("demo", ["training.physical_loss.physical_num_steps=0"])
