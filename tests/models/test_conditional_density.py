"""Both generators, trained end to end on a known conditional density.

Days of 16 x 16 cells with a condition t (in the tokens) and a plane g (a map):

    y | t, g ~ N(0.8 g + 0.5 t, s(t)^2),  s(t) = 0.5 exp(t / 2),  white in space,

t uniform on [-1, 1], g a plane with slopes uniform on [-1, 1]. The network has to learn
a mean that depends on both and a spread that depends on t alone; no cell repeats.
"""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor

from st_cdgm.models.conditioning import Conditioning
from st_cdgm.models.config import DiffusionConfig, UNetConfig
from st_cdgm.models.diffusion_decoder import CausalDiffusionDecoder

SIZE, TOKEN_DIM = 16, 8
UNET = UNetConfig(
    block_out_channels=[16, 16],
    norm_num_groups=4,
    attention_levels=0,
    attention_head_dim=1,
)
# White noise is all that the truth has. The means lie up to four standard deviations
# from 0, hence a wider noise range than the default: the samplers start around 0 and
# come short of a mean by its share std / sigma_max.
CONFIGS = {
    "edm": DiffusionConfig(
        scheduler_type="edm",
        num_sampling_steps=32,
        sigma_max=40.0,
        p_mean=-0.2,
        p_std=1.4,
        unet=UNET,
    ),
    "one_step": DiffusionConfig(
        scheduler_type="one_step",
        noise_channels=2,
        noise_scales=[1],
        unet=UNET,
    ),
}


def planes(slopes: Tensor) -> Tensor:
    """Return planes over [-1, 1]^2. Shape ``(B, 1, Y, X)``."""
    axis = torch.linspace(-1, 1, SIZE)
    rows = slopes[:, :1, None] * axis[None, :, None]
    return (rows + slopes[:, 1:, None] * axis[None, None, :])[:, None]


def truth(t: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean ``(B, 1, Y, X)`` and standard deviation ``(B, 1, 1, 1)``."""
    t = t[:, None, None, None]
    return 0.8 * g + 0.5 * t, 0.5 * torch.exp(0.5 * t)


def told(t: Tensor, g: Tensor) -> Conditioning:
    """Return t in the first of two tokens, and g as a map."""
    tokens = torch.zeros(len(t), 2, TOKEN_DIM)
    tokens[:, 0, 0] = 2 * t
    tokens[:, 0, 2] = tokens[:, 1, 1] = 1.0  # which token is which
    return Conditioning(tokens, g, g[:, :0])


def days(count: int, generator: torch.Generator) -> tuple[Tensor, Conditioning]:
    t = 2 * torch.rand(count, generator=generator) - 1
    g = planes(2 * torch.rand(count, 2, generator=generator) - 1)
    mean, std = truth(t, g)
    noise = torch.randn(mean.shape, generator=generator)
    return mean + std * noise, told(t, g)


def train(
    kind: str, *, seed: int, steps: int, batch: int = 32, train_members: int = 2
) -> CausalDiffusionDecoder:
    """Train with AdamW and average the weights; nothing here knows the truth."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    config = dataclasses.replace(CONFIGS[kind], train_members=train_members)
    model = CausalDiffusionDecoder(
        1, TOKEN_DIM, SIZE, SIZE, config=config, spatial_channels=1
    )
    averaged = copy.deepcopy(model).eval()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=4e-3, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 4e-3, total_steps=steps, pct_start=0.05
    )
    for step in range(steps):
        target, condition = days(batch, generator)
        optimizer.zero_grad()
        model.compute_loss(target, condition).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        keep = min(0.99, (1 + step) / (10 + step))
        with torch.no_grad():
            for old, new in zip(averaged.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 1 - keep)
    return averaged


def exact_moments(shape: tuple[int, ...]) -> Tensor:
    """Noise whose members have mean 0 and variance 1 in every cell.

    Leaves next to no sampling error where a cell of the output follows one noise value,
    that of the same cell, as in a diffusion model of white noise. A one-step generator
    mixes channels and neighbours: there the antithetic pairs only halve what a variance
    is estimated from.
    """
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(shape, generator=generator)
    noise = torch.cat([noise, -noise], dim=1)
    return noise / noise.square().mean(dim=1, keepdim=True).sqrt()


SLOPES = [[0.7, -0.4], [-0.2, 0.9], [0.5, 0.5], [-0.8, -0.3], [0.1, -0.6]]


def bins() -> tuple[Tensor, Tensor, Tensor]:
    """Return t and g of five values of t, and the quarters of their cells.

    Quarters by the true mean, 64 cells each. Shapes ``(5,)``, ``(5, 1, Y, X)`` and
    ``(5, 4, cells)``.
    """
    t, g = torch.linspace(-0.8, 0.8, 5), planes(torch.tensor(SLOPES))
    order = truth(t, g)[0].flatten(1).argsort(1)
    return t, g, order.reshape(5, 4, -1)


def grouped(cells: Tensor, quarters: Tensor) -> Tensor:
    """Put ``(5, ..., Y, X)`` into bins: ``(5, 4, cells, ...)``."""
    per_cell = cells.flatten(-2).movedim(-1, 1)  # (5, Y * X, ...)
    return torch.stack([per_cell[i][quarters[i]] for i in range(5)])


def conditional_errors(
    model: CausalDiffusionDecoder,
    *,
    members: int,
    num_steps: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the errors of mean and standard deviation in the bins of (t, mean).

    Those of the mean relative to the larger of |mean| and standard deviation. Of M
    independent members and 64 cells, a standard deviation has a relative standard
    error of ``1 / sqrt(128 * M)``: 0.2 % of 2 000.
    """
    t, g, quarters = bins()
    mean, std = truth(t, g)
    shape = (len(t), members, *model.noise_shape)
    if model.config.one_step:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    else:
        noise = exact_moments((len(t), members // 2, *model.noise_shape))
    made = model.sample(
        told(t, g), members=members, noise=lambda: noise, num_steps=num_steps
    ).residual
    cells = grouped(made[:, :, 0], quarters)  # (5, 4, cells, M)
    expected = grouped(mean[:, 0], quarters).mean(-1)
    std = std.reshape(5, 1)
    bessel = members - 1 if model.config.one_step else members
    squares = (cells - cells.mean(-1, keepdim=True)).square().sum(-1) / bessel
    scale = torch.maximum(expected.abs(), std)
    errors = (cells.mean((-1, -2)) - expected) / scale
    return errors, squares.mean(-1).sqrt() / std - 1


def ignorant_errors() -> tuple[Tensor, Tensor]:
    """Return the same errors of a generator that ignores what it is told."""
    t, g, quarters = bins()
    mean, std = truth(t, g)
    expected = grouped(mean[:, 0], quarters).mean(-1)
    scale = torch.maximum(expected.abs(), std.reshape(5, 1))
    many, slopes = torch.linspace(-1, 1, 201), torch.linspace(-1, 1, 21)
    planar = (slopes**2).mean() * 2 * (torch.linspace(-1, 1, SIZE) ** 2).mean()
    own = (0.25 * torch.exp(many)).mean()
    total = (own + 0.64 * planar + 0.25 * (many**2).mean()).sqrt()
    return -expected / scale, (total / std.reshape(5, 1) - 1).expand(5, 4)


@pytest.mark.parametrize(("kind", "steps"), [("edm", 100), ("one_step", 100)])
def test_a_hundred_steps_teach_most_of_the_condition(kind, steps):
    """Less than half the error of a generator that ignores it, in mean and spread."""
    options = {"members": 20, "num_steps": 12 if kind == "edm" else None}
    model = train(kind, seed=0, steps=steps, batch=16)
    for made, ignorant in zip(
        conditional_errors(model, **options), ignorant_errors(), strict=True
    ):
        assert made.square().mean() < 0.25 * ignorant.square().mean(), made


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("kind", "training", "members"),
    [
        ("edm", {"steps": 1000}, 60),
        ("one_step", {"steps": 2000, "train_members": 4}, 2000),
    ],
)
def test_conditional_mean_and_std_within_5_percent(kind, training, members, seed):
    """In each of the 20 bins of (t, mean); batches of 32 days."""
    model = train(kind, seed=seed, **training)
    mean_error, std_error = conditional_errors(model, members=members)
    assert mean_error.abs().max() < 0.05, mean_error
    assert std_error.abs().max() < 0.05, std_error
