"""The generator: preconditioning against the definitions, shapes, noise."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError
from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
from st_cdgm.models.diffusion_output import DiffusionOutput, encode_temperatures
from st_cdgm.models.noise import multiscale_noise
from st_cdgm.models.noise_levels import vp_sigmas
from st_cdgm.models.preconditioning import precondition
from st_cdgm.models.samplers import sampler_names
from st_cdgm.models.sampling import Sampling
from st_cdgm.models.unet import unet_kwargs

SIGMA = torch.tensor([0.05, 0.5, 1.0, 5.0, 60.0])
GRID = vp_sigmas(1000).flip(0)  # ascending
PARTS = ("tokens", "state_maps", "context")
SMALL = UNetConfig(block_out_channels=[8, 16], norm_num_groups=4, attention_head_dim=4)


def decoder(**kwargs) -> CausalDiffusionDecoder:
    config = DiffusionConfig(**{"unet": SMALL} | kwargs)
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


def test_the_noise_levels_move_with_the_module():
    """D46: the original indexed a table on the CPU with indices on the device."""
    model = decoder(scheduler_type="ddpm", parameterisation="v").to("meta")
    sigma = model.training_sigma(4, torch.device("meta"))
    assert model.vp_grid.device.type == sigma.device.type == "meta"
    assert precondition("v", sigma, model.vp_grid).weight.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", ["edm", "eps", "v"])
def test_the_loss_is_the_same_on_the_device(kind):
    """D46: the original's loss changed there in silence."""
    model = decoder(scheduler_type="heun", parameterisation=kind).eval()
    target, noise = torch.randn(2, 3, 2, 5, 7).unbind(1)[:2]
    options = {"sigma": SIGMA[:2], "noise": noise}
    here = model.compute_loss(target, condition(2), **options)
    there = model.cuda().compute_loss(
        target.cuda(),
        Conditioning(*(getattr(condition(2), n).cuda() for n in PARTS)),
        **{name: value.cuda() for name, value in options.items()},
    )
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=1e-3)


def test_few_training_levels_still_span_what_the_samplers_visit():
    """With a schedule of its own, 100 levels would end at a sigma of about 1.3."""
    grid = decoder(parameterisation="eps", steps=100).vp_grid
    assert len(grid) == 100
    assert (grid.diff() > 0).all()
    torch.testing.assert_close(grid[[0, -1]], GRID[[0, -1]])
    for steps in (1, 1001):
        with pytest.raises(ConfigError, match=r"diffusion\.steps"):
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
    grads, passes = [], []
    for enabled in (False, True):
        torch.manual_seed(0)
        model = decoder(use_gradient_checkpointing=enabled).train()
        seen: list[int] = []
        block = model.unet.down_blocks[0].resnets[0]
        block.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        noise = torch.randn(2, *model.noise_shape)
        model.generate_one_step(noise, condition(2)).square().mean().backward()
        grads.append(model.unet.conv_in.weight.grad.clone())
        passes.append(len(seen))
    torch.testing.assert_close(grads[0], grads[1])
    # Activations are computed a second time instead of being kept.
    assert passes == [1, 2]


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


@pytest.mark.parametrize("pattern", ["gaussian", "smooth"])
def test_smooth_noise_is_the_same_everywhere(pattern):
    """Unit variance in every cell; neighbours alike, wherever they lie."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(20_000, 4, 8, 12, generator=generator)
    z = multiscale_noise(white, [1, 4, 100, 0], pattern)
    torch.testing.assert_close(z[:, 0], white[:, 0])
    # 4 standard errors at 20 000 draws.
    torch.testing.assert_close(z.var(dim=0), torch.ones(4, 8, 12), atol=0.04, rtol=0)
    step = (z[:, 1, :, 1:] - z[:, 1, :, :-1]).var(dim=0)
    # A Gaussian filter of standard deviation 2: correlation exp(-1 / 16) at distance 1.
    expected = 2 * (1 - math.exp(-1 / 16))
    torch.testing.assert_close(step, torch.full((8, 11), expected), atol=0.01, rtol=0)
    # The whole domain, or a length beyond it: one number for the whole field.
    assert (z[:, 3] == z[:, 3, :1, :1]).all()
    alike = (z[:, 2] - z[:, 2, :1, :1]).abs().max()
    assert alike < (0.05 if pattern == "smooth" else 1.0)


def test_noise_is_not_wrapped_around_the_domain():
    """Opposite edges: exp(-(d / s)^2) at their distance d, as anywhere else."""
    generator = torch.Generator().manual_seed(0)
    white = torch.randn(20_000, 1, 12, 16, generator=generator)
    wrapped = multiscale_noise(white, [6], "smooth")[:, 0]
    z = multiscale_noise(white, [6])[:, 0]
    for y, x in ((6, 15), (11, 0), (3, 2)):
        expected = math.exp(-((y - 3) ** 2) / 36 - (x - 2) ** 2 / 36)
        found = (z[:, 3, 2] * z[:, y, x]).mean().item()
        assert found == pytest.approx(expected, abs=0.03)
    assert (z[:, :, 0] * z[:, :, -1]).mean().abs() < 0.02
    assert (wrapped[:, :, 0] * wrapped[:, :, -1]).mean() > 0.9  # what it was


def test_modulation_starts_without_effect_and_is_learned():
    model = decoder(noise_modulation=3, noise_channels=2, noise_groups=2)
    assert model.noise_shape[0] == 2 * 2 + 3
    noise, told = torch.randn(3, *model.noise_shape), condition(3)
    other = noise.clone()
    other[:, 4:] = torch.randn_like(other[:, 4:])
    made = model.generate_one_step(noise, told)
    torch.testing.assert_close(made, model.generate_one_step(other, told))

    made.square().mean().backward()
    weight = model.unet.class_embedding.weight
    assert weight.grad.abs().max() > 0
    with torch.no_grad():
        weight += torch.randn_like(weight)
    assert (made - model.generate_one_step(other, told)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ([], ()),
        ([0.0, 0.0, 0.0], ()),
        ([0.3], (0.3,) * 5),
        ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3, 0.1, 0.3)),
    ],
)
def test_every_noise_channel_has_the_memory_of_its_scale(memory, expected):
    """The last channel is a number of the whole domain: that of the largest scale."""
    model = decoder(
        noise_channels=4,
        noise_modulation=1,
        noise_scales=[1, 4, 16],
        noise_memory=memory,
    )
    assert model.noise_memory == expected


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
    with pytest.raises(ConfigError, match="train_members"):
        decoder(train_members=1)
    with pytest.raises(ConfigError, match="noise_margin"):
        decoder(noise_margin=-1)
    with pytest.raises(ConfigError, match="noise_scales"):
        decoder(noise_scales=[-1])
    with pytest.raises(ConfigError, match="noise_memory"):
        decoder(noise_memory=[0.1, 0.2])
    with pytest.raises(ConfigError, match="noise_memory"):
        decoder(noise_memory=[0.99])


# --- the documented calls -------------------------------------------------------------

TINY = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4}


def documented(channels: int = 3, **kwargs) -> CausalDiffusionDecoder:
    torch.manual_seed(0)
    kwargs = {"num_diffusion_steps": 20, "unet_kwargs": TINY} | kwargs
    return CausalDiffusionDecoder(channels, 6, 5, 7, **kwargs).eval()


def tokens(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 6, generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_documented_decoder_predicts_noise_from_tokens_alone():
    model = documented()
    assert model.config.scheduler_type == "ddpm"
    assert model.config.parameterisation == "eps"
    x = torch.randn(2, 3, 5, 7)
    predicted = model(x, torch.tensor([3, 17]), tokens())
    assert predicted.shape == (2, 3, 5, 7)
    # The estimate of x0 is what that noise prediction means: x0 = x - sigma eps.
    sigma = model.vp_grid[[3, 17]].float()
    noisy = x * (1 + sigma[:, None, None, None] ** 2).sqrt()
    expected = noisy - sigma[:, None, None, None] * predicted
    estimate = model.denoise(noisy, sigma, tokens())
    torch.testing.assert_close(estimate, expected, atol=1e-4, rtol=1e-4)


def test_every_documented_argument():
    model = documented(
        scheduler_type="dpm_solver++",
        use_gradient_checkpointing=True,
        unet_kwargs=TINY | {"layers_per_block": 1, "act_fn": "gelu"},
    )
    assert model.config.scheduler_type == "dpm_solver++"
    assert model.unet.config.act_fn == "gelu"
    assert model.unet.config.down_block_types == ("DownBlock2D", "CrossAttnDownBlock2D")
    assert len(model.vp_grid) == 20
    loss = model.compute_loss(torch.randn(2, 3, 5, 7), tokens(), True, 0.5, 1.0)
    assert loss.ndim == 0
    loss.backward()
    out = model.sample(tokens(), num_steps=4, generator=seeded())
    assert out.residual.shape == (2, 3, 5, 7)
    with pytest.raises(ConfigError, match="in_channels"):
        documented(unet_kwargs={"in_channels": 3})


def test_arguments_change_the_config_they_come_with():
    config = DiffusionConfig(unet=SMALL, scheduler_type="edm")
    model = CausalDiffusionDecoder(1, 6, 4, 4, config=config, scheduler_type="euler")
    assert model.config.scheduler_type == "euler"
    assert model.config.parameterisation == "edm"
    assert config.scheduler_type == "edm"


def test_tokens_alone_do_not_fit_a_decoder_with_maps():
    """D44: a decoder with maps is never left without them."""
    model = decoder(scheduler_type="edm")
    with pytest.raises(ValueError, match="3 channels of conditioning maps, found 0"):
        model.compute_loss(torch.zeros(2, 2, 5, 7), tokens())


def test_the_maps_tell_the_generator_where():
    """D44: a change of one map cell moves the output; the original saw tokens only."""
    model = decoder(scheduler_type="edm").eval()
    x, sigma, told = torch.zeros(1, 2, 5, 7), torch.ones(1), condition(1)

    def with_bump(y: int, x_: int) -> Tensor:
        maps = told.state_maps.clone()
        maps[0, 0, y, x_] += 3.0
        return model.denoise(x, sigma, Conditioning(told.tokens, maps, told.context))

    # The same bump elsewhere: a decoder of averages could not tell.
    assert (with_bump(2, 3) - with_bump(4, 6)).abs().max() > 1e-2


class Echo(nn.Module):
    """In the place of the U-Net: returns two of its input channels."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first, self.weight = first, nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor, *_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=inputs[:, self.first : self.first + 2])


@pytest.mark.parametrize("margin", [0, 3, 4])
def test_the_margin_is_dropped_where_it_was_added(margin):
    model = decoder(noise_channels=2, noise_scales=[1], noise_margin=margin)
    noise, told = torch.randn(3, *model.noise_shape), condition(3)
    assert model.noise_shape == (2, 5 + 2 * margin, 7 + 2 * margin)
    model.unet = Echo(2)  # the state maps, behind the noise
    assert torch.equal(model.generate_one_step(noise, told), told.state_maps)
    model.unet = Echo(0)
    inside = noise[..., margin : margin + 5, margin : margin + 7]
    assert torch.equal(model.generate_one_step(noise, told), inside)


def test_the_margin_makes_the_spread_the_same_up_to_the_border():
    """Convolutions see zeros beyond what they are given, which damps the noise there.

    By how much depends on the weights, hence ten networks.
    """
    generator, damped = seeded(), {0: [], 4: []}
    shapes = [(1, 4, 6), (1, 2, 16, 16), (1, 1, 16, 16)]
    still = Conditioning(*(torch.zeros(shape) for shape in shapes)).repeat(200)
    for margin, ratios in damped.items():
        for seed in range(10):
            torch.manual_seed(seed)
            config = DiffusionConfig(unet=SMALL, noise_margin=margin)
            model = CausalDiffusionDecoder(
                2, 6, 16, 16, config=config, spatial_channels=3
            )
            noise = torch.randn(200, *model.noise_shape, generator=generator)
            with torch.no_grad():
                made = model.eval().generate_one_step(noise, still)
            std = made.std(0).mean(0)
            border = torch.cat([std[0], std[-1], std[:, 0], std[:, -1]]).mean()
            ratios.append((border / std[4:-4, 4:-4].mean()).item())
    assert max(damped[0]) < 0.9, damped
    assert min(damped[4]) > 0.9, damped
    assert sum(damped[4]) / 10 > 0.95, damped


# --- sizes ----------------------------------------------------------------------------


def test_the_default_unet_is_small():
    """D53: 843.5 million parameters without a way to choose."""
    model = CausalDiffusionDecoder(3, 64, 172, 179)
    assert sum(p.numel() for p in model.parameters()) < 3e6


def test_presets():
    tiny, base, large = (
        UNetConfig(preset=n).resolved() for n in ("tiny", "base", "large")
    )
    assert tiny == UNetConfig()
    assert unet_kwargs(UNetConfig(preset="base")) == unet_kwargs(base)
    assert sum(tiny.block_out_channels) < sum(base.block_out_channels)
    assert sum(base.block_out_channels) < sum(large.block_out_channels)
    assert UNetConfig(preset="base", dropout=0.1).resolved().dropout == 0.1


def test_a_preset_and_a_contradicting_size_are_refused():
    with pytest.raises(ConfigError, match="tiny"):
        UNetConfig(preset="huge").resolved()
    with pytest.raises(ConfigError, match="layers_per_block"):
        decoder(unet=UNetConfig(preset="base", layers_per_block=3))


# --- the loss -------------------------------------------------------------------------


def loss_of(model: CausalDiffusionDecoder, target: Tensor, **kwargs) -> Tensor:
    options = {"sigma": SIGMA[:2], "noise": torch.ones_like(target)} | kwargs
    return model.compute_loss(target, condition(2), **options)


def test_the_loss_is_the_mean_of_the_denoising_error():
    model = decoder(scheduler_type="edm").eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    noise = torch.ones_like(target)
    error = model.denoising_error(target, condition(2), sigma=SIGMA[:2], noise=noise)
    torch.testing.assert_close(loss_of(model, target), error.mean())
    per = loss_of(model, target, per_variable=True)
    torch.testing.assert_close(per, error.mean(dim=(0, 2, 3)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_cells_without_a_target_do_not_count(bad):
    """D55: neither their value nor their error, and no gradient is lost to NaN."""
    model = decoder(scheduler_type="edm").eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    filled, valid = target.clone(), torch.ones_like(target, dtype=torch.bool)
    target[0, :, :2] = bad
    filled[0, :, :2], valid[0, :, :2] = 0.0, False
    loss = loss_of(model, target)
    torch.testing.assert_close(loss, loss_of(model, filled, valid=valid))
    assert loss != loss_of(model, filled)
    loss.backward()
    assert all(
        p.grad.isfinite().all() for p in model.parameters() if p.grad is not None
    )


def test_a_variable_is_averaged_over_its_own_cells():
    """Much missing truth does not make a variable weigh less than another."""
    model = decoder(scheduler_type="edm").eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    target[:, 1, 1:] = math.nan
    noise = torch.ones_like(target)
    filled = target.nan_to_num()
    error = model.denoising_error(filled, condition(2), sigma=SIGMA[:2], noise=noise)
    means = torch.stack([error[:, 0].mean(), error[:, 1, :1].mean()])
    torch.testing.assert_close(loss_of(model, target), means.mean())
    torch.testing.assert_close(loss_of(model, target, per_variable=True), means)


@pytest.mark.parametrize("kind", ["edm", "one_step"])
def test_a_target_without_any_cell_gives_zero_with_a_gradient(kind):
    """D55: the original returned a constant that backward() refused."""
    model = decoder(scheduler_type=kind)
    loss = model.compute_loss(torch.full((2, 2, 5, 7), math.nan), condition(2))
    assert loss.item() == 0
    loss.backward()
    grad = model.unet.conv_in.weight.grad
    assert grad is not None
    assert grad.abs().max() == 0


@pytest.mark.parametrize("part", PARTS)
def test_nan_in_the_conditioning_is_an_error(part):
    """D55: one policy: only a target may be missing."""
    model, told = decoder(scheduler_type="edm"), condition(2)
    getattr(told, part).view(-1)[3] = math.nan
    with pytest.raises(ValueError, match=f"1 values of the conditioning's {part}"):
        model.compute_loss(torch.zeros(2, 2, 5, 7), told)


@pytest.mark.parametrize("kind", ["edm", "one_step"])
def test_nan_in_the_prediction_is_an_error(kind):
    model = decoder(scheduler_type=kind)
    torch.nn.init.constant_(model.unet.conv_out.bias, math.nan)
    with pytest.raises(ValueError, match="the network predicts NaN"):
        model.compute_loss(torch.zeros(2, 2, 5, 7), condition(2))


def test_a_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape of the target"):
        decoder().compute_loss(torch.zeros(2, 1, 5, 7), condition(2))


def test_focal_weights_raise_large_errors():
    """D54: weights of mean 1 for gamma 2, detached."""
    model = decoder(scheduler_type="edm").eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    noise = torch.ones_like(target)
    error = model.denoising_error(target, condition(2), sigma=SIGMA[:2], noise=noise)
    share = error / error.mean(dim=(2, 3), keepdim=True)
    focal = loss_of(model, target, use_focal_loss=True)
    torch.testing.assert_close(focal, (share * error).mean())
    assert focal > loss_of(model, target)
    with pytest.raises(ConfigError, match="focal"):
        decoder().compute_loss(target, condition(2), True)


@pytest.mark.parametrize("kind", ["edm", "one_step"])
def test_extreme_weights_reach_the_loss(kind):
    """D57's expectation: the option changes the loss, by the values given."""
    model = decoder(scheduler_type=kind).eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    noise = torch.randn(
        2 if kind == "edm" else 6, *model.noise_shape, generator=seeded()
    )

    def loss(**kwargs) -> float:
        return loss_of(model, target, noise=noise, **kwargs).item()

    plain = loss()
    assert loss(extreme_weight_factor=0.0, extreme_percentiles=[50]) == plain
    by_target = loss(extreme_weight_factor=3.0)
    assert by_target != plain
    # Every value is as extreme as any other: weights of 1.
    alike = loss(extreme_weight_factor=3.0, extreme_values=torch.ones_like(target))
    assert alike == pytest.approx(plain, rel=1e-5)


def test_the_one_step_loss_is_the_fair_crps():
    from st_cdgm.models.ensemble_loss import multiscale_crps

    model = decoder(scheduler_type="one_step", pooling_scales=[1, 2]).eval()
    target = torch.randn(2, 2, 5, 7, generator=seeded())
    noise = torch.randn(10, *model.noise_shape, generator=seeded())
    made = model.generate_one_step(noise, condition(2).repeat(5)).unflatten(0, (2, 5))
    expected = multiscale_crps(made, target, torch.ones_like(target), [1, 2])
    loss = model.compute_loss(target, condition(2), noise=noise, members=5)
    torch.testing.assert_close(loss, expected.mean())


# --- sampling -------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [*sampler_names(), "edm", "dpm_solver"])
def test_the_documented_sample(sampler):
    """D49, D50: the generator governs every number and no gradient is kept."""
    model = documented()
    options = {"num_steps": 5, "scheduler_type": sampler}
    out = model.sample(tokens(), generator=seeded(3), **options)
    assert isinstance(out, DiffusionOutput)
    assert out.residual.shape == (2, 3, 5, 7)
    assert not out.residual.requires_grad
    torch.manual_seed(99)
    again = model.sample(tokens(), generator=seeded(3), **options)
    other = model.sample(tokens(), generator=seeded(4), **options)
    assert torch.equal(out.residual, again.residual)
    assert not torch.equal(out.residual, other.residual)


@pytest.mark.parametrize("sampler", [*sampler_names(), "one_step"])
def test_members_1_to_4_are_the_first_of_20(sampler):
    model = documented(scheduler_type=sampler)
    many, few = (
        model.sample(tokens(), members=m, num_steps=3, generator=seeded(5)).residual
        for m in (20, 4)
    )
    assert many.shape == (2, 20, 3, 5, 7)
    # Batches of another size round differently, in the seventh digit.
    torch.testing.assert_close(many[:, :4], few, atol=1e-4, rtol=1e-4)
    assert (many[:, 0] - many[:, 1]).abs().mean() > 1e-2


def test_two_calls_with_one_generator_differ():
    model, generator = documented(), seeded()
    first, second = (
        model.sample(tokens(), num_steps=3, generator=generator).residual
        for _ in range(2)
    )
    assert not torch.equal(first, second)


def test_without_a_generator_torchs_seed_decides():
    model = documented()
    torch.manual_seed(7)
    first = model.sample(tokens(), num_steps=3).residual
    torch.manual_seed(7)
    assert torch.equal(first, model.sample(tokens(), num_steps=3).residual)


def test_the_step_count_of_a_call_does_not_outlive_it():
    """D49: a later call reused the previous one's; ddpm walks the training levels."""
    model, seen = documented(), []
    model.unet.register_forward_hook(lambda *_: seen.append(1))
    for options, steps in (({"num_steps": 4}, 4), ({}, 20), ({"num_steps": 2}, 2)):
        seen.clear()
        model.sample(tokens(), **options)
        assert len(seen) == steps


@pytest.mark.parametrize("sampler", [*sampler_names(), "one_step"])
def test_samples_are_not_clipped(sampler):
    """D49: the original clipped x0 to [-1, 1]."""
    model = documented(scheduler_type=sampler)
    torch.nn.init.zeros_(model.unet.conv_out.weight)
    torch.nn.init.constant_(model.unet.conv_out.bias, 20.0)
    out = model.sample(tokens(), num_steps=3, generator=seeded())
    assert out.residual.abs().max() > 10


@pytest.mark.parametrize("sampler", [*sampler_names(), "one_step"])
def test_no_way_to_a_sample_keeps_a_gradient(sampler):
    """D49, D50: neither ``sample`` nor ``draw_residual``, in one step or in many."""
    model = documented(scheduler_type=sampler)
    given = tokens().requires_grad_()
    noise = torch.randn(2, 1, *model.noise_shape, generator=seeded())
    sampled = model.sample(given, num_steps=2, generator=seeded()).residual
    drawn = model.draw_residual(given, lambda: noise, Sampling(steps=2))
    assert not sampled.requires_grad
    assert not drawn.requires_grad


@pytest.mark.parametrize("name", ["DDPM", "dpm", "unknown"])
def test_unknown_schedulers_are_refused(name):
    """D51: the original fell back to DDPM."""
    with pytest.raises(ValueError, match=name):
        documented(scheduler_type=name)
    with pytest.raises(ValueError, match=name):
        documented().sample(tokens(), scheduler_type=name)


def test_one_step_has_no_sampler_to_choose():
    model = documented(scheduler_type="one_step")
    assert model.sample(tokens(), scheduler_type="one_step").residual.ndim == 4
    with pytest.raises(ConfigError, match="one step"):
        model.sample(tokens(), scheduler_type="ddpm")
    with pytest.raises(ConfigError, match="one_step"):
        documented().sample(tokens(), scheduler_type="one_step")


def test_noise_from_outside_replaces_the_generator():
    model = documented(scheduler_type="dpm_solver++")
    noise = torch.randn(2, 3, 3, 5, 7, generator=seeded())
    out = model.sample(tokens(), members=3, noise=lambda: noise, num_steps=3)
    again = model.draw_residual(tokens(), lambda: noise, Sampling(steps=3))
    assert torch.equal(out.residual, again)
    with pytest.raises(ValueError, match="not both"):
        model.sample(tokens(), noise=lambda: noise, generator=seeded())


# --- the condition adapter ------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddpm", "edm", "dpm_solver++", "one_step"])
def test_the_condition_adapter_is_applied_once(sampler):
    """D50: the DPM-Solver path applied it twice."""
    model, calls = documented(scheduler_type=sampler), []

    def double(given: Tensor) -> Tensor:
        calls.append(1)
        return 2 * given

    plain = model.sample(2 * tokens(), num_steps=3, generator=seeded()).residual
    model.set_condition_adapter(double)
    adapted = model.sample(tokens(), num_steps=3, generator=seeded()).residual
    assert len(calls) == 1
    assert torch.equal(adapted, plain)
    fields, sigma = torch.zeros(2, 3, 5, 7), torch.ones(2)
    noise = torch.randn(2, 1, *model.noise_shape, generator=seeded())
    ways = [
        lambda: model.compute_loss(fields, tokens()),
        lambda: model.draw_residual(tokens(), lambda: noise, Sampling(steps=3)),
    ]
    if sampler == "one_step":
        ways.append(lambda: model.generate_one_step(noise[:, 0], tokens()))
    else:
        ways += [
            lambda: model(fields, 3, tokens()),
            lambda: model.denoise(fields, sigma, tokens()),
            lambda: model.denoising_error(fields, tokens(), sigma=sigma, noise=fields),
        ]
    for way in ways:
        calls.clear()
        way()
        assert len(calls) == 1
    model.set_condition_adapter(None)
    again = model.sample(2 * tokens(), num_steps=3, generator=seeded()).residual
    assert torch.equal(again, plain)


def test_an_adapter_with_weights_is_trained_and_can_be_replaced():
    model = documented()
    model.set_condition_adapter(torch.nn.Linear(6, 6))
    assert "condition_adapter.weight" in model.state_dict()
    model.compute_loss(torch.zeros(2, 3, 5, 7), tokens()).backward()
    assert model.condition_adapter.weight.grad.abs().max() > 0
    model.set_condition_adapter(lambda given: given)
    assert "condition_adapter.weight" not in model.state_dict()
    model.set_condition_adapter(None)
    assert model.condition_adapter is None


# --- fields ---------------------------------------------------------------------------


def test_three_channels_are_no_temperature_triple():
    """D52: a triple exists where one is declared, never by its channel count."""
    baseline = torch.randn(2, 3, 5, 7)
    out = documented().sample(tokens(), num_steps=2, baseline=baseline)
    assert (out.t_min, out.t_mean, out.t_max) == (None, None, None)
    assert list(out.fields) == ["channel_0", "channel_1", "channel_2"]
    torch.testing.assert_close(
        out.fields["channel_1"], out.residual[:, 1] + baseline[:, 1]
    )
    with pytest.raises(ValueError, match="channel_0"):
        _ = out.composite
    with pytest.raises(ValueError, match="triple"):
        documented().reconstruct_from_residual(out.residual)
    with pytest.raises(ConfigError, match="three channels"):
        documented(2, temperature_triple=True)


@pytest.mark.parametrize("members", [None, 4])
def test_a_declared_triple_is_ordered(members):
    model = documented(temperature_triple=True)
    baseline = torch.randn(2, 3, 5, 7, generator=seeded())
    out = model.sample(tokens(), num_steps=2, baseline=baseline, members=members)
    assert (out.t_min <= out.t_mean).all()
    assert (out.t_mean <= out.t_max).all()
    lead = (2,) if members is None else (2, members)
    assert out.t_min.shape == (*lead, 1, 5, 7)
    assert out.composite.shape == (*lead, 3, 5, 7)
    assert out.fields["t_max"].shape == (*lead, 5, 7)
    t_min, t_mean, t_max = model.reconstruct_from_residual(
        out.residual, baseline=baseline
    )
    torch.testing.assert_close(torch.cat([t_min, t_mean, t_max], -3), out.composite)


def test_the_triple_decodes_what_was_encoded():
    """D52: softplus added 0.693 to what were plain temperatures."""
    model = documented(temperature_triple=True)
    steps = torch.rand(2, 3, 5, 7, generator=seeded()) * 8 + 0.02
    fields = steps.cumsum(1) - 10
    decoded = model.reconstruct_from_residual(encode_temperatures(fields))
    torch.testing.assert_close(torch.cat(decoded, 1), fields, atol=1e-4, rtol=1e-5)
    # Channels that are temperatures already are left as they are.
    plain = model.reconstruct_from_residual(fields, apply_constraints=False)
    assert torch.equal(torch.cat(plain, 1), fields)


def test_physical_constraints_by_hand():
    raw = torch.tensor([1.0, 0.0, -3.0]).reshape(1, 3, 1, 1)
    soft = CausalDiffusionDecoder.apply_physical_constraints(raw)
    log2 = math.log(2)
    expected = [1.0, 1 + log2, 1 + log2 + math.log1p(math.exp(-3))]
    assert [t.item() for t in soft] == pytest.approx(expected)
    hard = CausalDiffusionDecoder.apply_physical_constraints(raw, use_soft=False)
    assert [t.item() for t in hard] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="3 channels"):
        CausalDiffusionDecoder.apply_physical_constraints(raw[:, :2])


def codec_of(*names):
    return build_codec([TargetVariable(name=name, units="1") for name in names])


def test_a_codec_names_and_decodes_the_fields():
    """D52: precipitation alone works, and never comes out negative."""
    rain = codec_of("pr")
    out = documented(1).sample(tokens(), num_steps=2, codec=rain, members=2)
    assert out.fields["pr"].shape == (2, 2, 5, 7)
    assert (out.fields["pr"] >= 0).all()
    assert out.t_min is None
    four = codec_of("pr", "tasmin", "tasmax", "tas")
    out = documented(4).sample(tokens(), num_steps=2, codec=four)
    assert torch.equal(out.t_mean[:, 0], out.fields["tas"])
    assert (out.t_mean <= out.t_max).all()
    raw = documented(4).sample(
        tokens(), num_steps=2, codec=four, apply_constraints=False
    )
    assert list(raw.fields) == list(four.names)
    assert raw.t_min is None


def test_a_baseline_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="shape of the baseline"):
        documented().sample(tokens(), baseline=torch.zeros(2, 1, 5, 7))
    model = documented(temperature_triple=True)
    with pytest.raises(ValueError, match="shape of the baseline"):
        model.reconstruct_from_residual(
            torch.zeros(2, 3, 5, 7), baseline=torch.zeros(2, 1, 5, 7)
        )


def test_projection_holds_in_the_sample():
    from st_cdgm.physics.blocks import BlockMeanProjection, Blocks

    blocks = Blocks.from_factor((5, 7), 2)
    coarse = torch.randn(2, 3, blocks.count, generator=seeded())
    project = BlockMeanProjection(blocks, coarse)
    for kind in ("one_step", "dpm_solver++", "heun", "ddpm"):
        model = documented(scheduler_type=kind)
        out = model.sample(tokens(), members=2, num_steps=4, projection=project)
        means = blocks.means(out.residual)
        assert (means - coarse[:, None]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["euler", "one_step"])
def test_data_of_another_precision_pass_through(kind):
    """float64 targets failed inside a matrix product of the library."""
    model, told = decoder(scheduler_type=kind, num_sampling_steps=2), condition(2)
    wide = Conditioning(*(getattr(told, part).double() for part in PARTS))
    count = 2 * model.config.train_members if kind == "one_step" else 2
    given = {
        "noise": torch.randn(count, *model.noise_shape),
        "sigma": None if kind == "one_step" else torch.tensor([0.5, 2.0]),
    }
    target = torch.randn(2, 2, 5, 7)
    narrow_loss = model.compute_loss(target, told, **given)
    wide_loss = model.compute_loss(target.double(), wide, **given)
    torch.testing.assert_close(wide_loss.float(), narrow_loss)
    for dtype in (torch.float64, torch.bfloat16):
        same = decoder(scheduler_type=kind, num_sampling_steps=2).to(dtype)
        cast = Conditioning(*(getattr(told, part).to(dtype) for part in PARTS))
        assert bool(torch.isfinite(same.sample(cast).residual).all())
