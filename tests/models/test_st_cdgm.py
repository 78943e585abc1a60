"""The assembled model on a small grid."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from st_cdgm.errors import ConfigError
from st_cdgm.models.config import (
    DiffusionConfig,
    EncoderConfig,
    MetaPathConfig,
    ModelConfig,
    RCNConfig,
    UNetConfig,
)
from st_cdgm.models.st_cdgm import STCDGM, ModelInputs, default_metapaths
from st_cdgm.randomness import member_day_noise

GROUPS = {"SURF": [0, 1], "GP850": [2, 3, 4], "GP500": [5]}
SMALL = UNetConfig(block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4)


def inputs() -> ModelInputs:
    generator = torch.Generator().manual_seed(0)
    lr_lat, lr_lon = torch.meshgrid(
        torch.tensor([40.0, 42.0]), torch.tensor([0.0, 2.0, 4.0]), indexing="ij"
    )
    hr_lat, hr_lon = torch.meshgrid(
        torch.linspace(39.5, 42.5, 4), torch.linspace(-0.5, 4.5, 6), indexing="ij"
    )
    nearest = (hr_lat > 41).long() * 3 + (hr_lon / 2).round().clamp(0, 2).long()
    return ModelInputs(
        groups=GROUPS,
        lr_shape=(2, 3),
        hr_shape=(4, 6),
        target_channels=2,
        static=torch.randn(1, 4, 6, generator=generator),
        index=nearest.reshape(-1, 1),
        weight=torch.ones(24, 1),
        parent=nearest.flatten(),
        lr_lat=lr_lat,
        lr_lon=lr_lon,
        hr_lat=hr_lat,
        hr_lon=hr_lon,
        baseline_mean=torch.zeros(2),
        baseline_std=torch.ones(2),
    )


def build(**kwargs) -> STCDGM:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=EncoderConfig(hidden_dim=8, conditioning_dim=8),
        diffusion=DiffusionConfig(unet=SMALL, spatial_channels=4, **kwargs),
    )
    return STCDGM(inputs(), config).eval()


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_generator_has_a_channel_for_every_target(channels):
    """D52: precipitation alone met a decoder of three channels and stopped."""
    flat = torch.zeros(channels)
    given = replace(
        inputs(),
        target_channels=channels,
        baseline_mean=flat,
        baseline_std=torch.ones(channels),
    )
    model = STCDGM(given, build().config).eval()
    told = model.condition(
        model.rollout(window()).state,
        baseline=torch.zeros(3, channels, 4, 6),
        season=torch.zeros(3),
        valid=torch.ones(3, channels, 4, 6, dtype=torch.bool),
    )
    noise = torch.zeros(3, *model.decoder.noise_shape)
    assert model.decoder.generate_one_step(noise, told).shape == (3, channels, 4, 6)


def window(batch: int = 3, days: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, days, 6, 2, 3, generator=generator)


def condition(model: STCDGM, lr: torch.Tensor):
    b = len(lr)
    return model.condition(
        model.rollout(lr).state,
        baseline=torch.zeros(b, 2, 4, 6),
        season=torch.zeros(b),
        valid=torch.ones(b, 2, 4, 6, dtype=torch.bool),
    )


def test_one_variable_per_source():
    model = build()
    assert model.names == ["surface", "level_850", "level_500", "terrain"]
    assert model.sources == ["SURF", "GP850", "GP500", "SP_HR"]
    assert model.effective_dag().shape == (4, 4)


def inside(**kwargs) -> STCDGM:
    torch.manual_seed(0)
    config = replace(build().config, rcn=RCNConfig(**kwargs))
    return STCDGM(inputs(), config).eval()


def test_only_the_given_edges_are_in_the_cell():
    model = inside(parents={"SURF": ["GP500"], "GP850": []})
    dag = model.effective_dag()[:3, :3].clone().fill_diagonal_(0)
    assert dag.nonzero().tolist() == [[2, 0]]  # GP500 -> SURF
    assert model.effective_dag()[3, :3].abs().min() > 0  # the terrain acts anyway


def test_a_level_that_drives_no_target_does_not_reach_the_generator():
    """Neither by tokens nor by maps; its children carry what it does to them."""
    closed = inside(parents={"SURF": []}, conditioning=["SURF", "GP850"])
    lr, other = window(), window()
    other[:, :, GROUPS["GP500"]] += 5.0
    told, same = condition(closed, lr), condition(closed, other)
    assert torch.equal(told.tokens, same.tokens)
    assert torch.equal(told.state_maps, same.state_maps)
    opened = inside(parents={"SURF": ["GP500"]}, conditioning=["SURF", "GP850"])
    assert not torch.equal(
        condition(opened, lr).state_maps, condition(opened, other).state_maps
    )
    every = inside(parents={"SURF": []})
    assert not torch.equal(condition(every, lr).tokens, condition(every, other).tokens)


def test_nothing_causes_a_static_field():
    model = build()
    dag = model.effective_dag()
    assert model.possible_edges == 3 * 2 + 3  # between levels, and from the terrain
    assert dag[:, 3].abs().max() == 0
    assert dag[3, :3].abs().min() > 0


def test_drivers_hold_only_the_channels_of_their_level():
    """D36: each variable is driven by its own level, at the right node and day."""
    model, lr = build(), window()
    drivers = model.drivers(lr)  # (T, Q, B*N, D)
    assert drivers.shape == (4, 4, 3 * 6, 3)
    b, t, node = 1, 2, 4  # node 4 = row 1, column 1 of 3
    at = b * 6 + node
    torch.testing.assert_close(drivers[t, 0, at, :2], lr[b, t, :2, 1, 1])
    torch.testing.assert_close(drivers[t, 1, at], lr[b, t, 2:5, 1, 1])
    torch.testing.assert_close(drivers[t, 2, at, 0], lr[b, t, 5, 1, 1])
    assert drivers[t, 0, at, 2] == 0
    assert drivers[t, 2, at, 1:].tolist() == [0, 0]


def test_the_static_variable_is_driven_by_what_lies_above_a_node():
    model = build()
    given = inputs()
    mean = given.static.flatten()[given.parent == 4].mean()
    drivers = model.drivers(window())
    torch.testing.assert_close(drivers[0, 3, 4, 0], mean)
    torch.testing.assert_close(drivers[3, 3, 6 + 4, 0], mean)


def test_no_driver_is_predicted_from_a_state_that_has_seen_it():
    """D41: changing day t changes the predictions of later days only."""
    model, lr = build(), window()
    changed = lr.clone()
    changed[:, 2] += 1.0
    before = model.rollout(lr).predicted  # days 2, 3, 4 of the window
    after = model.rollout(changed).predicted
    assert before.shape == (3, 4, 18, 3)
    torch.testing.assert_close(before[:2], after[:2])
    assert (before[2] - after[2]).abs().max() > 1e-4


def test_a_window_of_one_day_has_a_state_and_no_prediction():
    rollout = build().rollout(window(days=1))
    assert rollout.predicted is None
    assert rollout.state.shape == (4, 18, 8)


def test_windows_of_a_batch_do_not_mix():
    model, lr = build(), window()
    together = model.rollout(lr).state.reshape(4, 3, 6, 8)
    alone = model.rollout(lr[1:2]).state
    torch.testing.assert_close(together[:, 1], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["one_step", "edm", "ddpm"])
def test_members_do_not_depend_on_how_many_are_asked_for(kind):
    """Members 1-2 of 4 equal members 1-2 of 2, whatever the batching."""
    model, lr = build(scheduler_type=kind, num_sampling_steps=4), window()
    days = torch.tensor([20030101, 20030102, 20030103]).numpy()

    def sample(index: list[int], members: int) -> torch.Tensor:
        noise = member_day_noise(
            7, range(members), days[index], model.decoder.noise_shape
        )
        return model.decoder.draw_residual(condition(model, lr[index]), noise)

    many, few = sample([0, 1, 2], 4), sample([1], 2)
    assert many.shape == (3, 4, 2, 4, 6)
    assert not many.requires_grad
    torch.testing.assert_close(many[1, :2], few[0], atol=1e-5, rtol=1e-4)
    assert (many[1, 0] - many[1, 1]).abs().max() > 1e-3


def test_every_part_of_the_causal_chain_gets_a_gradient():
    model = build()
    rollout = model.rollout(window())
    made = condition(model, window())
    noise = torch.randn(3, *model.decoder.noise_shape)
    loss = model.decoder.generate_one_step(noise, made).square().mean()
    (loss + rollout.predicted.square().mean()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without
    dag = model.cell.A_dag.grad
    allowed = ~torch.eye(4, dtype=torch.bool)
    allowed[:, 3] = False  # the terrain has no causes
    assert dag[~allowed].abs().max() == 0
    assert dag[allowed].abs().min() > 0


def test_a_metapath_to_an_absent_level_is_refused():
    """D31: the message lists the levels that the data have."""
    config = ModelConfig(
        encoder=EncoderConfig(
            hidden_dim=8,
            conditioning_dim=8,
            metapaths=[
                MetaPathConfig(
                    name="jet", src="GP250", relation="spat_adj", target="GP250"
                )
            ],
        )
    )
    with pytest.raises(ConfigError, match=r"GP250[\s\S]*SURF, GP850, GP500, SP_HR"):
        STCDGM(inputs(), config)


def test_driver_scope_all_gives_every_channel_to_every_level():
    torch.manual_seed(0)
    config = ModelConfig(
        encoder=EncoderConfig(hidden_dim=8, conditioning_dim=8),
        rcn=RCNConfig(driver_scope="all"),
        diffusion=DiffusionConfig(unet=SMALL),
    )
    lr = window()
    drivers = STCDGM(inputs(), config).drivers(lr)
    assert drivers.shape[-1] == 6
    torch.testing.assert_close(drivers[0, 0], drivers[0, 2])


def test_default_metapaths_without_static_fields():
    assert [p.name for p in default_metapaths(["GP1000"], static=False)] == [
        "level_1000"
    ]
