"""Classifier-free guidance and self-conditioning: off by default, right when on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
from st_cdgm.models.guidance import GuidedDenoiser
from st_cdgm.models.samplers import sample
from st_cdgm.models.sampling import Sampling

SMALL = UNetConfig(block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4)


def decoder(**kwargs) -> CausalDiffusionDecoder:
    torch.manual_seed(0)
    config = DiffusionConfig(**{"scheduler_type": "heun", "unet": SMALL} | kwargs)
    return CausalDiffusionDecoder(2, 6, 5, 7, config=config, spatial_channels=3)


def condition(batch: int) -> Conditioning:
    generator = torch.Generator().manual_seed(3)
    return Conditioning(
        torch.randn(batch, 4, 6, generator=generator),
        torch.randn(batch, 2, 5, 7, generator=generator),
        torch.randn(batch, 1, 5, 7, generator=generator),
    )


def error(model: CausalDiffusionDecoder, told: Conditioning) -> Tensor:
    b = len(told.tokens)
    generator = torch.Generator().manual_seed(4)
    target = torch.randn(b, 2, 5, 7, generator=generator)
    noise = torch.randn(b, 2, 5, 7, generator=generator)
    return model.denoising_error(target, told, sigma=torch.ones(b), noise=noise)


def draw(model: CausalDiffusionDecoder, **options) -> Tensor:
    noise = torch.randn(2, 3, 2, 5, 7, generator=torch.Generator().manual_seed(5))
    return model.eval().draw_residual(
        condition(2), lambda: noise, Sampling(steps=3, **options)
    )


# --- dropout of the conditioning ------------------------------------------------------


def test_without_dropout_nothing_is_dropped_and_no_number_is_drawn():
    model = decoder()
    before = torch.get_rng_state()
    trained = error(model.train(), condition(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(trained, error(model.eval(), condition(4)))


def test_dropped_days_lose_their_causal_states_and_keep_their_context():
    model, told = decoder(condition_dropout=0.4), condition(200)
    drop = torch.arange(200) % 3 == 0
    null = told.without_states(drop)
    assert null.tokens[drop].abs().max() == null.state_maps[drop].abs().max() == 0
    assert torch.equal(null.tokens[~drop], told.tokens[~drop])
    assert torch.equal(null.context, told.context)

    torch.manual_seed(1)
    as_told, as_null = (
        error(model.eval(), told),
        error(model, told.without_states(~drop | drop)),
    )
    trained = error(model.train(), told)
    is_told = torch.isclose(trained, as_told, atol=1e-5).flatten(1).all(1)
    is_null = torch.isclose(trained, as_null, atol=1e-5).flatten(1).all(1)
    assert (is_told ^ is_null).all()
    # 0.4 of 200, with four standard deviations.
    assert abs(is_null.float().mean().item() - 0.4) < 0.14


def test_dropout_leaves_the_checkpoint_as_it_is():
    """The zeros that stand for "unknown" are no parameters."""
    plain, guided = decoder().state_dict(), decoder(condition_dropout=0.1).state_dict()
    assert plain.keys() == guided.keys()
    assert all(torch.equal(plain[key], guided[key]) for key in plain)


# --- guidance -------------------------------------------------------------------------


def test_a_scale_of_one_is_plain_sampling():
    guided = decoder(condition_dropout=0.1)
    plain = draw(decoder())
    assert torch.equal(draw(guided, guidance_scale=1.0), plain)
    assert torch.equal(draw(guided), plain)
    assert not torch.equal(draw(guided, guidance_scale=1.5), plain)


def test_a_scale_of_zero_ignores_the_causal_states():
    guided, told = decoder(condition_dropout=0.1), condition(2)
    ignored = draw(guided, guidance_scale=0.0)
    noise = torch.randn(2, 3, 2, 5, 7, generator=torch.Generator().manual_seed(5))
    null = told.without_states(torch.ones(2, dtype=torch.bool))
    expected = guided.draw_residual(null, lambda: noise, Sampling(steps=3))
    torch.testing.assert_close(ignored, expected)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_guidance_moves_a_gaussian_by_its_scale(scale):
    """N(mu, s^2) given the states, N(0, s^2) without: guided, N(scale mu, s^2)."""
    spread, count = 0.5, 20_000
    told = Conditioning(
        torch.full((count, 1, 1), 2.0),
        torch.zeros(count, 0, 1, 1),
        torch.zeros(count, 0, 1, 1),
    )

    def exact(x, sigma, condition, *, previous=None):
        gain = spread**2 / (spread**2 + sigma[:, None, None, None] ** 2)
        return torch.lerp(condition.tokens[..., None].to(x), x, gain)

    made = sample(
        GuidedDenoiser(exact, told, guidance_scale=scale, dtype=torch.float64),
        (count, 1, 1, 1),
        sampler="heun",
        steps=64,
        generator=torch.Generator().manual_seed(0),
        sigma_max=200.0,
    )
    # The start is centred on 0: the mean is short by mean * s / sigma_max = 0.01, and
    # known to 0.5 / sqrt(20 000) = 0.0035.
    assert made.mean().item() == pytest.approx(2.0 * scale, abs=0.025)
    assert made.std().item() == pytest.approx(spread, rel=0.03)


def test_guidance_needs_a_model_trained_for_it():
    with pytest.raises(ConfigError, match="condition_dropout"):
        draw(decoder(), guidance_scale=2.0)
    with pytest.raises(ConfigError, match="condition_dropout"):
        decoder(condition_dropout=1.0)
    for option in ({"condition_dropout": 0.1}, {"self_conditioning": True}):
        with pytest.raises(ConfigError, match="one_step"):
            decoder(scheduler_type="one_step", **option)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale):
    with pytest.raises(ConfigError, match="guidance_scale"):
        draw(decoder(condition_dropout=0.1), guidance_scale=scale)


# --- self-conditioning ----------------------------------------------------------------


def seen_by(model: CausalDiffusionDecoder) -> list[Tensor]:
    """Record the last two input channels of every call of the network."""
    seen: list[Tensor] = []
    model.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 5:7]))
    return seen


def test_self_conditioning_is_off_by_default():
    assert decoder().unet.config.in_channels == 2 + 3
    assert decoder(self_conditioning=True).unet.config.in_channels == 2 + 3 + 2


def test_the_sampler_hands_back_the_previous_estimate():
    model = decoder(self_conditioning=True, scheduler_type="euler").eval()
    seen = seen_by(model)
    estimates: list[Tensor] = []

    def watch(x0: Tensor) -> Tensor:
        estimates.append(x0.flatten(0, 1).float())
        return x0

    draw(model, projection=watch)
    assert len(seen) == 3
    assert seen[0].abs().max() == 0
    for shown, estimate in zip(seen[1:], estimates, strict=False):
        assert torch.equal(shown[..., :5, :7], estimate)


def test_training_shows_the_estimate_half_the_time():
    model = decoder(self_conditioning=True).train()
    seen = seen_by(model)
    torch.manual_seed(0)
    error(model, condition(64)).mean().backward()
    first, second = seen
    assert first.abs().max() == 0
    shown = second.flatten(1).abs().amax(1) > 0
    assert 16 < shown.sum() < 48
    assert not second.requires_grad
    # Validation is a deterministic function of the weights.
    model.eval()
    assert torch.equal(error(model, condition(4)), error(model, condition(4)))


def test_a_public_estimate_takes_the_previous_one():
    model = decoder(self_conditioning=True).eval()
    x, sigma = torch.randn(2, 2, 5, 7), torch.ones(2)
    alone = model.denoise(x, sigma, condition(2))
    again = model.denoise(x, sigma, condition(2), previous=torch.zeros_like(x))
    assert torch.equal(alone, again)
    other = model.denoise(x, sigma, condition(2), previous=torch.ones_like(x))
    assert not torch.equal(alone, other)
