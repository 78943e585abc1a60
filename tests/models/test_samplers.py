"""Samplers against exact denoisers: the right limit, the right order, known errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from st_cdgm.errors import ConfigError
from st_cdgm.models.config import DiffusionConfig
from st_cdgm.models.noise_levels import karras_sigmas, vp_sigmas
from st_cdgm.models.samplers import (
    draws_needed,
    get_sampler,
    noise_levels,
    resolve_sampler,
    sample,
    sampler_names,
)
from st_cdgm.randomness import member_day_noise

SAMPLERS = sampler_names()
N = 20_000
# Rows of a sample: six Gaussians N(m, s^2), then a two-Gaussian mixture.
MEAN = torch.tensor([0.0, 0.2, 0.0, 3.0, -1.0, 0.5], dtype=torch.float64)
STD = torch.tensor([1.0, 0.3, 3.0, 1.0, 0.05, 0.2], dtype=torch.float64)
SPREAD = 0.2


def gaussian(x: Tensor, sigma: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """E[x0 | x] when x0 ~ N(mean, std^2): the exact denoiser. Rows have their own."""
    weight = std**2 / (std**2 + sigma**2)
    return torch.lerp(mean[:, None], x, weight[:, None])


def mixture(x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] for 0.3 N(-1, 0.2^2) + 0.7 N(1, 0.2^2).

    The odds of the right-hand side are 7/3 exp(2 x / total), so that the expected
    centre is tanh(x / total + log(7/3) / 2).
    """
    total = SPREAD**2 + sigma**2
    centre = torch.tanh(x / total + 0.5 * math.log(0.7 / 0.3))
    return torch.lerp(centre, x, SPREAD**2 / total)


def rows(x: Tensor, sigma: Tensor) -> Tensor:
    """Six Gaussians and the mixture. x: (7, N)."""
    out = torch.empty_like(x)
    out[:6] = gaussian(x[:6], sigma[:6], MEAN, STD)
    out[6] = mixture(x[6], sigma[6])
    return out


def unit(x: Tensor, sigma: Tensor) -> Tensor:
    return x / (1 + sigma[:, None] ** 2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard_noise(count: int) -> Tensor:
    """Rows of mean 0 and variance 1 to rounding: no sampling error in what follows."""
    noise = torch.randn((1, count, N), generator=seeded(1), dtype=torch.float64)
    noise -= noise.mean(2, keepdim=True)
    return noise / noise.std(2, correction=0, keepdim=True)


# --- the limit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "steps"),
    [
        ("heun", 64),
        ("dpm_solver++", 64),
        ("euler", 512),
        ("ddim", 512),
        ("ddpm", 1000),
        ("dpm_solver_sde", 200),
    ],
)
def test_many_steps_give_the_distribution(sampler, steps):
    """D48: the original gives a standard deviation of 0.45-0.68 where 1 is right."""
    generator = seeded(3)

    def fresh(_: int) -> Tensor:  # float32 numbers are drawn faster
        return torch.randn((7, N), generator=generator)

    noise = standard_noise(7) if draws_needed(sampler, steps) == 1 else fresh
    x = sample(rows, (7, N), sampler=sampler, steps=steps, noise=noise)
    scale = torch.maximum(MEAN.abs(), STD)
    mean_error = (x[:6].mean(1) - MEAN).abs() / scale
    std_error = (x[:6].std(1) / STD - 1).abs()
    # DDIM takes 512 of 1 000 fixed levels, which are coarse for s = 0.05.
    limit = torch.where((STD < 0.2) & (sampler == "ddim"), 0.06, 0.025)
    assert (mean_error < 0.025).all(), mean_error
    assert (std_error < limit).all(), std_error

    for weight, side in {0.3: -1.0, 0.7: 1.0}.items():
        there = x[6][x[6] * side > 0]
        assert abs(len(there) / N - weight) < 0.02
        assert abs(there.mean() - side) < 0.01
        assert abs(there.std() / SPREAD - 1) < 0.04


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_default_steps_in_the_unit_variance_range(sampler):
    low, high = DiffusionConfig.sigma_min, DiffusionConfig.sigma_max
    wide = STD >= 0.2
    generator = seeded(3)
    ode = draws_needed(sampler, 2) == 1
    x = sample(
        rows,
        (7, N),
        sampler=sampler,
        noise=standard_noise(7)
        if ode
        else lambda _: torch.randn((7, N), generator=generator),
        sigma_min=low,
        sigma_max=high,
    )
    error = (x[:6].std(1, correction=0) / STD - 1).abs()
    assert (error[wide] < 0.04).all(), error
    assert abs((x[6] < 0).double().mean().item() - 0.3) < 0.02


def test_known_error_of_heun_with_18_steps_on_a_unit_gaussian():
    """4.5 % too wide in [0.002, 80], 2.0 % in [0.01, 20]."""
    for (low, high), error in {(0.002, 80.0): 0.045, (0.01, 20.0): 0.020}.items():
        x = sample(
            unit,
            (1, N),
            sampler="heun",
            steps=18,
            noise=standard_noise(1),
            sigma_min=low,
            sigma_max=high,
        )
        assert x.std(correction=0).item() - 1 == pytest.approx(error, abs=0.002)


# --- the order ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "order", "steps"),
    [
        ("euler", 1, (64, 128, 256, 512)),
        ("ddim", 1, (125, 250, 500, 1000)),
        ("heun", 2, (32, 64, 128, 256)),
        ("dpm_solver++", 2, (32, 64, 128, 256)),
    ],
)
def test_order_of_convergence(sampler, order, steps):
    """Against the exact ODE solution m + (x - m) sqrt((s^2+b^2)/(s^2+a^2)), a -> b."""
    mean = torch.tensor([0.2, -1.0], dtype=torch.float64)
    std = torch.tensor([1.0, 0.5], dtype=torch.float64)
    noise = torch.randn((1, 2, 256), generator=seeded(), dtype=torch.float64)
    errors = []
    for n in steps:
        x = sample(
            lambda x, sigma: gaussian(x, sigma, mean, std),
            (2, 256),
            sampler=sampler,
            steps=n,
            noise=noise,
            final_denoise=False,
        )
        high, low = noise_levels(sampler, n)[[0, -1]]
        start = noise[0] * (torch.sqrt(1 + high**2) if sampler == "ddim" else high)
        shrink = torch.sqrt((std**2 + low**2) / (std**2 + high**2))
        exact = torch.lerp(mean[:, None], start, shrink[:, None])
        errors.append((x - exact).abs().max().item())
    slopes = np.diff(np.log(errors)) / np.diff(-np.log(steps))
    assert slopes == pytest.approx([order] * 3, abs=0.2), errors
    assert errors[-1] < 0.02


def mixture_cdf(x: Tensor, sigma: float) -> Tensor:
    spread = math.sqrt(SPREAD**2 + sigma**2)
    return 0.3 * torch.special.ndtr((x + 1) / spread) + 0.7 * torch.special.ndtr(
        (x - 1) / spread
    )


def same_quantile(start: Tensor, high: float, low: float) -> Tensor:
    """In one dimension the flow cannot cross itself: it keeps every quantile."""
    quantile = mixture_cdf(start, high)
    left, right = torch.full_like(start, -10 * high), torch.full_like(start, 10 * high)
    for _ in range(100):
        middle = (left + right) / 2
        below = mixture_cdf(middle, low) < quantile
        left = torch.where(below, middle, left)
        right = torch.where(below, right, middle)
    return left


@pytest.mark.parametrize(
    ("sampler", "order"),
    [("euler", 1), ("ddim", 1), ("heun", 2), ("dpm_solver++", 2)],
)
def test_order_of_convergence_on_the_mixture(sampler, order):
    """Where the denoiser is not linear, against the exact solution from its noise."""
    noise = torch.linspace(-3, 3, 61, dtype=torch.float64).expand(1, 1, -1)
    steps, errors = (128, 256, 512), []
    for n in steps:
        x = sample(
            lambda x, sigma: mixture(x, sigma[:, None]),
            (1, 61),
            sampler=sampler,
            steps=n,
            noise=noise,
            final_denoise=False,
        )
        high, low = noise_levels(sampler, n)[[0, -1]].tolist()
        start = noise[0] * (math.sqrt(1 + high**2) if sampler == "ddim" else high)
        errors.append((x - same_quantile(start, high, low)).abs().max().item())
    slopes = np.diff(np.log(errors)) / np.diff(-np.log(steps))
    assert slopes == pytest.approx([order] * 2, abs=0.2), errors
    assert errors[-1] < 0.02


def test_two_euler_steps_by_hand():
    """x(2) = 2 -> D = 1; x(1) = 1 + (2 - 1) / 2 = 1.5; then D = 1.5 / 2 = 0.75."""
    options = {"sampler": "euler", "steps": 2, "sigma_min": 1.0, "sigma_max": 2.0}
    options["noise"] = torch.ones(1, 1, 1)
    assert sample(lambda x, _: x / 2, (1, 1), **options).item() == 0.75
    state = sample(lambda x, _: x / 2, (1, 1), final_denoise=False, **options)
    assert state.item() == 1.5


def test_two_heun_steps_by_hand():
    """Slope (2 - 1)/2 = 0.5 at 2; ahead 1.5, slope 0.75; x(1) = 2 - 0.625 = 1.375."""
    x = sample(
        lambda x, _: x / 2,
        (1, 1),
        sampler="edm",
        steps=2,
        noise=torch.ones(1, 1, 1),
        sigma_min=1.0,
        sigma_max=2.0,
    )
    assert x.item() == 1.375 / 2


# --- against diffusers ----------------------------------------------------------------


def diffusers_loop(scheduler, start: Tensor, estimate, generator=None) -> Tensor:
    """Run a diffusers scheduler that is given x0 itself."""
    x = start
    for t in scheduler.timesteps:
        options = {"generator": generator} if generator is not None else {}
        x = scheduler.step(estimate(x, t), t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_vp_samplers_equal_diffusers_at_1000_steps(sampler):
    diffusers = pytest.importorskip("diffusers")
    kinds = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler"}
    extra = {"variance_type": "fixed_large"} if sampler == "ddpm" else {}
    scheduler = getattr(diffusers, kinds[sampler])(
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=False,
        prediction_type="sample",
        **extra,
    )
    scheduler.set_timesteps(1000)
    sigmas = vp_sigmas(1000).flip(0)

    def estimate(x: Tensor, t: Tensor) -> Tensor:
        sigma = sigmas[int(t)].expand(len(x))
        return unit(x * torch.sqrt(1 + sigma[:, None] ** 2), sigma)

    # Both draw one tensor after the other from a generator of the same seed.
    size, generator = (64, 1), seeded()
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    theirs = diffusers_loop(scheduler, start, estimate, generator)
    ours = sample(unit, size, sampler=sampler, steps=1000, generator=seeded())
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [("dpm_solver++", "dpmsolver++"), ("dpm_solver_sde", "sde-dpmsolver++")],
)
def test_dpm_solvers_equal_diffusers(sampler, kind):
    diffusers = pytest.importorskip("diffusers")
    steps, size, sd = 20, (64, 1), 0.5
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(
        sigma_data=sd, algorithm_type=kind, solver_order=2
    )
    scheduler.set_timesteps(steps)
    sigmas = iter(karras_sigmas(steps))

    def network(x: Tensor, _t: Tensor) -> Tensor:
        """The network output from which its preconditioning recovers D."""
        sigma = next(sigmas)
        skip = sd**2 / (sd**2 + sigma**2)
        scale = sigma * sd / torch.sqrt(sd**2 + sigma**2)
        return (unit(x, sigma.expand(len(x))) - skip * x) / scale

    generator = seeded()
    start = 80.0 * torch.randn(size, generator=generator, dtype=torch.float64)
    theirs = diffusers_loop(scheduler, start, network, generator)
    ours = sample(unit, size, sampler=sampler, steps=steps, generator=seeded())
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-3, atol=1e-3)


# --- grids ----------------------------------------------------------------------------


def test_karras_grid():
    sigmas = karras_sigmas(5, sigma_min=1.0, sigma_max=16.0, rho=2.0)
    expected = [16.0, 3.25**2, 2.5**2, 1.75**2, 1.0]
    torch.testing.assert_close(sigmas, torch.tensor(expected, dtype=torch.float64))
    assert karras_sigmas(18)[[0, -1]].tolist() == [80.0, 0.002]
    assert karras_sigmas(1).tolist() == [80.0]


def test_vp_grid():
    whole = vp_sigmas(1000)
    assert whole[-1].item() == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)))
    last_two = 1 - (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999)
    assert whole[-2].item() == pytest.approx(math.sqrt(last_two / (1 - last_two)))
    assert whole[0].item() == pytest.approx(157.4, abs=0.1)
    assert (whole.diff() < 0).all()
    some = vp_sigmas(50)
    assert some[[0, -1]].tolist() == whole[[0, -1]].tolist()
    assert (some.diff() < 0).all()
    assert vp_sigmas(1).tolist() == whole[:1].tolist()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_denoiser_sees_the_noise_levels_in_falling_order(sampler):
    """D48: the original ran its noise levels from the wrong end, on [0, 1]."""
    seen = []

    def watch(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (3,)
        seen.append(sigma[0].item())
        return unit(x, sigma)

    sample(watch, (3, 2), sampler=sampler, steps=6, generator=seeded())
    levels = noise_levels(sampler, 6).tolist()
    if sampler == "heun":  # both ends of each step, but for the step to zero
        levels = [*(v for p in zip(levels, levels[1:], strict=False) for v in p)]
        levels.append(levels[-1])
    assert seen == levels


# --- random numbers -------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_generator_governs_every_random_number(sampler):
    """D49: with the same generator the original gave different output."""
    options = {"sampler": sampler, "steps": 12}
    first = sample(unit, (8, 3), generator=seeded(5), **options)
    torch.manual_seed(1)
    again = sample(unit, (8, 3), generator=seeded(5), **options)
    other = sample(unit, (8, 3), generator=seeded(6), **options)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("final", [True, False])
def test_draws_needed_are_the_draws_used(sampler, final):
    used = []

    def source(i: int) -> Tensor:
        used.append(i)
        return noise[i]

    draws = draws_needed(sampler, 7)
    noise = torch.randn((draws + 2, 4, 3), generator=seeded())
    options = {"sampler": sampler, "steps": 7, "final_denoise": final}
    lazily = sample(unit, (4, 3), noise=source, **options)
    assert used == list(range(draws))
    assert draws == (7 if sampler in ("ddpm", "dpm_solver_sde") else 1)
    assert torch.equal(lazily, sample(unit, (4, 3), noise=noise, **options))
    short = noise[: draws - 1]
    with pytest.raises(ValueError, match="noise has shape"):
        sample(unit, (4, 3), noise=short, **options)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_few_members_are_the_first_of_many(sampler):
    days = np.array([20010101, 20010102])

    def members(count: int) -> Tensor:
        draw = member_day_noise(3, range(count), days, (5,))
        out = sample(
            unit,
            (2 * count, 5),
            sampler=sampler,
            steps=6,
            noise=lambda _: draw().flatten(0, 1),
        )
        return out.unflatten(0, (2, count))

    assert torch.equal(members(4), members(20)[:, :4])


# --- contracts ------------------------------------------------------------------------


class Linear(nn.Module):
    """A module with float32 weights and a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32
        return self.scale * unit(x, sigma)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_state_in_float64_network_in_its_own_dtype_and_no_gradient(sampler):
    """D49, D50: samples of the original carried gradients."""
    x = sample(Linear(), (4, 2), sampler=sampler, steps=5, generator=seeded())
    assert x.dtype == torch.float64
    assert not x.requires_grad
    exact = sample(unit, (4, 2), sampler=sampler, steps=5, generator=seeded())
    torch.testing.assert_close(x, exact, rtol=1e-4, atol=1e-4)


def test_denoiser_dtype_of_a_plain_function():
    def half(x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.bfloat16
        return unit(x, sigma)

    x = sample(
        half, (4, 2), steps=4, denoiser_dtype=torch.bfloat16, dtype=torch.float32
    )
    assert x.dtype == torch.float32


def test_steps_do_not_outlive_a_call():
    """D49: a later call without a step count took over the previous one."""
    calls = []

    def count(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        return unit(x, sigma)

    sample(count, (2, 1), sampler="dpm_solver", steps=3, generator=seeded())
    sample(count, (2, 1), sampler="dpm_solver", generator=seeded())
    assert len(calls) == 3 + get_sampler("dpm_solver++").default_steps


def test_aliases():
    assert resolve_sampler("edm") == "heun"
    assert resolve_sampler("dpm_solver") == "dpm_solver++"
    assert all(resolve_sampler(name) == name for name in SAMPLERS)


@pytest.mark.parametrize("name", ["", "DDPM", "dpm", "one_step"])
def test_unknown_name_is_an_error_that_lists_the_names(name):
    """D51: the original fell back to DDPM in silence."""
    with pytest.raises(ValueError, match=r"dpm_solver\+\+") as caught:
        sample(unit, (2, 1), sampler=name, steps=3)
    assert all(known in str(caught.value) for known in (*SAMPLERS, "edm"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"steps": 0}, "at least 1"),
        ({"sampler": "ddpm", "steps": 1001}, "1 to 1000"),
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 90.0}, "sigma_min"),
        ({"rho": 0.0}, "rho"),
        ({"noise": torch.zeros(1, 2, 1), "generator": seeded()}, "not both"),
        ({"noise": lambda _: torch.zeros(1)}, r"noise\(0\)"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        sample(unit, (2, 1), **{"sampler": "heun", "steps": 4} | options)


def test_denoiser_must_keep_the_shape():
    with pytest.raises(ValueError, match="shape of the denoiser"):
        sample(lambda x, _: x[:, :1], (2, 3), steps=4)


def test_values_that_are_not_finite_are_an_error():
    """They would pass for missing values in the output."""
    with pytest.raises(FloatingPointError, match="heun"):
        sample(lambda x, _: x * math.nan, (2, 1), sampler="heun", steps=4)


def test_a_sampler_from_outside_is_as_good_as_a_built_in_one(monkeypatch):
    """HOUSE 4: one registered class is enough, for the model's and for any draw."""
    from tests.models.test_diffusion_decoder import TINY

    import st_cdgm.registry as registry
    from st_cdgm.models.config import DiffusionConfig
    from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder
    from st_cdgm.models.samplers import Sampler
    from st_cdgm.models.sampling import Sampling

    sampler_names()  # the package's own, before the copy
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @registry.register("sampler", "one_jump")
    @registry.register("sampler", "jump")
    class OneJump(Sampler):
        name = "one_jump"
        default_steps = 1

        def walk(self, D, x, sigmas, draw):
            return D(x, x.new_tensor(sigmas[0]))

    assert "one_jump" in sampler_names()
    assert "jump" not in sampler_names()
    assert resolve_sampler("jump") == "one_jump"
    config = DiffusionConfig(scheduler_type="jump", parameterisation="eps")
    config.check()
    model = CausalDiffusionDecoder(2, 8, 5, 7, config=config, unet_kwargs=TINY)
    told = torch.zeros(2, 3, 8)
    own = model.sample(told, generator=seeded()).residual
    named = model.sample(told, generator=seeded(), scheduler_type="one_jump").residual
    assert torch.equal(own, named)
    Sampling(sampler="one_jump").check(config, section="inference.")
    with pytest.raises(ConfigError, match="one_jump"):
        Sampling(sampler="one_jmp").check(config)
