"""The generator: preconditioning against the definitions, shapes, noise."""

from __future__ import annotations

import math

import pytest
import torch

from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import (
    CausalDiffusionDecoder,
    multiscale_noise,
    precondition,
)
from st_cdgm.models.samplers import vp_sigmas

SIGMA = torch.tensor([0.05, 0.5, 1.0, 5.0, 60.0])
GRID = vp_sigmas(1000).flip(0)  # ascending
SMALL = UNetConfig(block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4)


def decoder(**kwargs) -> CausalDiffusionDecoder:
    config = DiffusionConfig(unet=SMALL, **kwargs)
    return CausalDiffusionDecoder(2, 6, 5, 7, config=config, spatial_channels=3)


def condition(batch: int) -> Conditioning:
    generator = torch.Generator().manual_seed(3)
    return Conditioning(
        torch.randn(batch, 4, 6, generator=generator),
        torch.randn(batch, 2, 5, 7, generator=generator),
        torch.randn(batch, 1, 5, 7, generator=generator),
    )


@pytest.mark.parametrize("kind", ["edm", "eps", "v"])
def test_a_perfect_network_denoises_perfectly(kind):
    """Put each parameterisation's own regression target in for F: D must be x0."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(5, 11, generator=generator)
    noise = torch.randn(5, 11, generator=generator)
    sigma = SIGMA[:, None]
    x = x0 + sigma * noise
    alpha, spread = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    target = {
        "edm": (x0 - x / (1 + sigma**2)) / spread,
        "eps": noise,
        "v": alpha * noise - spread * x0,
    }[kind]
    c = precondition(kind, SIGMA, GRID)
    estimate = c.c_skip[:, None] * x + c.c_out[:, None] * target
    torch.testing.assert_close(estimate, x0, atol=2e-5, rtol=1e-4)
    # The network's input has unit variance at every noise level.
    torch.testing.assert_close(c.c_in, (1 + SIGMA**2).rsqrt())


def test_min_snr_weights_are_not_inverted():
    """D45: of the eps error, min(SNR, 5) / SNR: 1 at high noise, small at low."""
    c = precondition("eps", SIGMA, GRID)
    of_eps_error = c.weight * SIGMA**2  # |D - x0|^2 = sigma^2 |eps error|^2
    snr = 1 / SIGMA**2
    torch.testing.assert_close(of_eps_error, snr.clamp(max=5) / snr)
    assert of_eps_error[0] < 0.02
    assert of_eps_error[-1] == pytest.approx(1.0)


def test_edm_weight_makes_the_network_error_uniform():
    """Karras et al. 2022, table 1: weight * c_out^2 = 1."""
    c = precondition("edm", SIGMA, GRID)
    torch.testing.assert_close(c.weight * c.c_out**2, torch.ones(5))


def test_vp_timestep_matches_the_grid():
    """D48: a noise level of the grid is handed to the network as its own index."""
    index = torch.tensor([0, 1, 499, 999])
    c = precondition("eps", GRID[index], GRID)
    assert c.c_noise.tolist() == index.tolist()


def test_few_training_levels_still_span_what_the_samplers_visit():
    """With a schedule of its own, 100 levels would end at a sigma of about 1.3."""
    grid = decoder(parameterisation="eps", steps=100).vp_grid
    assert len(grid) == 100
    assert (grid.diff() > 0).all()
    torch.testing.assert_close(grid[[0, -1]], GRID[[0, -1]])
    for steps in (1, 1001):
        with pytest.raises(ConfigError, match="levels of the VP schedule"):
            decoder(steps=steps)


@pytest.mark.parametrize("kind", ["one_step", "edm"])
def test_any_grid_size_and_gradients(kind):
    """5 x 7 is no multiple of 2; the result is cropped back, finite, differentiable."""
    torch.manual_seed(0)
    model = decoder(scheduler_type=kind)
    noise = torch.randn(3, *model.noise_shape)
    if kind == "one_step":
        out = model.generate_one_step(noise, condition(3))
        loss = out.square().mean()
    else:
        target = torch.randn(3, 2, 5, 7)
        error = model.denoising_error(
            target, condition(3), sigma=SIGMA[:3], noise=noise
        )
        assert error.shape == (3, 2, 5, 7)
        out, loss = error, error.mean()
    assert out.shape == (3, 2, 5, 7)
    loss.backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    assert torch.stack(norms).isfinite().all()
    assert max(norms) > 0


def test_gradient_checkpointing_changes_nothing_but_memory():
    """D47: it can be switched on, and gives the same gradient."""
    grads = []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = decoder(use_gradient_checkpointing=enabled).train()
        noise = torch.randn(2, *model.noise_shape)
        model.generate_one_step(noise, condition(2)).square().mean().backward()
        grads.append(model.unet.conv_in.weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1])


def test_tokens_must_have_three_axes():
    model = decoder()
    flat = condition(2)
    wrong = Conditioning(flat.tokens[:, 0], flat.state_maps, flat.context)
    with pytest.raises(ValueError, match=r"\(B, Q, D\)"):
        model.generate_one_step(torch.randn(2, *model.noise_shape), wrong)


def test_multiscale_noise_blocks_and_variance():
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(20_000, 3, 5, 6, generator=generator)
    z = multiscale_noise(white, [1, 2, 100], "blocks")
    torch.testing.assert_close(z[:, 0], white[:, 0])
    assert (z[:, 1, 0, 0] == z[:, 1, 1, 1]).all()
    assert (z[:, 1, 0, 0] != z[:, 1, 0, 2]).all()
    assert (z[:, 2] == z[:, 2, :1, :1]).all()
    # Unit variance in every cell; 4 standard errors at 20 000 draws.
    torch.testing.assert_close(z.var(dim=0), torch.ones(3, 5, 6), atol=0.04, rtol=0)


def test_smooth_noise_is_the_same_everywhere():
    """Unit variance in every cell; neighbours alike, wherever they lie."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(20_000, 3, 8, 12, generator=generator)
    z = multiscale_noise(white, [1, 4, 100])
    torch.testing.assert_close(z[:, 0], white[:, 0])
    # 4 standard errors at 20 000 draws.
    torch.testing.assert_close(z.var(dim=0), torch.ones(3, 8, 12), atol=0.04, rtol=0)
    step = (z[:, 1, :, 1:] - z[:, 1, :, :-1]).var(dim=0)
    # A Gaussian filter of standard deviation 2: correlation exp(-1 / 16) at distance 1.
    expected = 2 * (1 - math.exp(-1 / 16))
    torch.testing.assert_close(step, torch.full((8, 11), expected), atol=0.01, rtol=0)
    # A length beyond the grid: one number for the whole field.
    assert (z[:, 2] - z[:, 2, :1, :1]).abs().max() < 0.05


def test_validation_noise_levels_follow_the_training_distribution():
    torch.manual_seed(0)
    model = decoder(scheduler_type="edm")
    drawn = model.training_sigma(20_000, torch.device("cpu")).log()
    spread = model.validation_sigma(2_000).log()
    assert drawn.mean().item() == pytest.approx(spread.mean().item(), abs=0.04)
    assert drawn.std().item() == pytest.approx(spread.std().item(), abs=0.04)


def test_configuration_is_checked():
    with pytest.raises(ConfigError, match="scheduler_type"):
        decoder(scheduler_type="ddmp")
    with pytest.raises(ConfigError, match="two members"):
        decoder(train_members=1)
