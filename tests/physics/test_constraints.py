"""Block means: exact inside the sampler, exact on decoded fields, order kept."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import ConfigError, GridMismatchError
from st_cdgm.models.samplers import sample
from st_cdgm.physics.blocks import Blocks
from st_cdgm.physics.constraints import BlockMeanProjection, match_block_means

DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def square_blocks(shape, side, **options) -> Blocks:
    """Blocks of ``side`` x ``side`` cells, row by row; the last may be cut."""
    rows, columns = (-(-n // side) for n in shape)
    y, x = (torch.arange(n) // side for n in shape)
    index = y[:, None] * columns + x[None, :]
    return Blocks.from_index(index, rows * columns, **options)


def uneven() -> Blocks:
    """5 x 7 cells in blocks of 2: cut at two edges, unequal areas, the first empty."""
    area = torch.rand(5, 7, generator=seeded(), dtype=DOUBLE) + 0.2
    valid = torch.ones(5, 7, dtype=torch.bool)
    valid[:2, :2] = valid[0, 2] = False
    return square_blocks((5, 7), 2, area=area, valid=valid)


# --- blocks ---------------------------------------------------------------------------


def test_weights_of_a_block_by_hand():
    area = torch.tensor([[1.0, 3.0, 5.0]])
    blocks = square_blocks((1, 3), 2, area=area)
    assert blocks.count == 2
    assert blocks.weight.tolist() == [[0.25, 0.75, 1.0]]
    assert blocks.means(torch.tensor([[4.0, 8.0, 7.0]])).tolist() == [7.0, 7.0]
    assert blocks.spread(torch.tensor([1.0, 2.0])).tolist() == [[1.0, 1.0, 2.0]]
    assert blocks.cells().tolist() == [[0, 1], [2, -1]]


def test_cells_outside_have_no_weight_and_blocks_may_be_empty():
    valid = torch.tensor([[True, False, False, False]])
    blocks = square_blocks((1, 4), 2, valid=valid)
    assert blocks.weight.tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert blocks.filled.tolist() == [True, False]
    field = torch.tensor([[3.0, math.nan, math.nan, math.nan]])
    assert blocks.means(field).tolist()[0] == 3.0


def test_weights_sum_to_one_in_every_filled_block():
    blocks = uneven()
    total = blocks.totals(blocks.weight)
    torch.testing.assert_close(total, blocks.filled.double())
    assert blocks.filled.sum() == 3 * 4 - 1


@pytest.mark.parametrize(
    ("index", "area"),
    [
        (torch.tensor([[0, 2]]), torch.ones(1, 2)),
        (torch.tensor([[0, 1]]), torch.tensor([[1.0, 0.0]])),
        (torch.tensor([[0, 1]]), torch.ones(2, 2)),
    ],
)
def test_blocks_that_do_not_fit_are_refused(index, area):
    with pytest.raises(GridMismatchError):
        Blocks.from_index(index, 2, area=area)


# --- projection -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_projected_fields_have_the_given_means(dtype):
    """1e-5, with a baseline in degrees, a scale per channel, cut blocks and areas."""
    blocks, generator = uneven(), seeded(1)
    x0 = torch.randn(2, 3, 2, 5, 7, generator=generator).to(dtype)
    baseline = 20 + torch.randn(2, 2, 5, 7, generator=generator)
    scale = torch.tensor([2.0, 0.3]).view(2, 1, 1)
    coarse = 20 + torch.randn(2, 2, blocks.count, generator=generator, dtype=DOUBLE)
    project = BlockMeanProjection(blocks, coarse, baseline=baseline, scale=scale)
    made = project(x0)
    assert made.dtype == dtype
    field = baseline[:, None].double() + scale * made.double()
    error = (blocks.means(field) - coarse[:, None])[..., blocks.filled]
    assert error.abs().max() < 1e-5
    # Cells without a block stay, and projecting twice changes nothing.
    torch.testing.assert_close(made[..., 0, :2], x0[..., 0, :2], atol=0, rtol=0)
    torch.testing.assert_close(project(made), made)


def test_the_projection_is_the_nearest_point():
    """The step is at right angles to every direction that keeps the mean."""
    blocks = square_blocks((2, 2), 2, area=torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    x0 = torch.zeros(1, 1, 1, 2, 2, dtype=DOUBLE)
    step = BlockMeanProjection(blocks, torch.ones(1, 1, 1))(x0)
    weight = torch.tensor([[0.1, 0.2], [0.3, 0.4]], dtype=DOUBLE)
    torch.testing.assert_close(step[0, 0, 0], weight / weight.square().sum())


def test_blocks_without_a_coarse_value_are_free():
    blocks = square_blocks((2, 4), 2)
    coarse = torch.tensor([[[5.0, math.nan]]])
    x0 = torch.randn(1, 2, 1, 2, 4, generator=seeded())
    made = BlockMeanProjection(blocks, coarse)(x0)
    assert torch.equal(made[..., 2:], x0[..., 2:])
    torch.testing.assert_close(made[..., :2].mean((-1, -2)), torch.full((1, 2, 1), 5.0))


def test_a_coarse_map_is_a_coarse_row_of_blocks():
    blocks = square_blocks((4, 4), 2)
    coarse = torch.randn(1, 1, 2, 2, generator=seeded())
    x0 = torch.zeros(1, 1, 1, 4, 4)
    by_map = BlockMeanProjection(blocks, coarse)(x0)
    assert torch.equal(by_map, BlockMeanProjection(blocks, coarse.flatten(2))(x0))
    with pytest.raises(GridMismatchError, match="4 blocks"):
        BlockMeanProjection(blocks, coarse[..., :1])


# --- inside the sampler ---------------------------------------------------------------

COUNT, SIDE = 4_000, 4
MEAN, STD, GOAL = 0.3, 0.8, 1.5


def gaussian_denoiser(covariance: Tensor):
    """Exact denoiser of N(MEAN, covariance) on 4 x 4 cells."""
    values, vectors = torch.linalg.eigh(covariance)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        gain = values / (values + sigma[0] ** 2)
        centred = (x - MEAN).flatten(1)
        return (MEAN + (centred @ vectors * gain) @ vectors.T).reshape(x.shape)

    return denoise


def projected_sample(covariance: Tensor, sampler: str, steps: int) -> Tensor:
    blocks = square_blocks((SIDE, SIDE), SIDE)
    goal = torch.full((COUNT, 1, 1), GOAL)
    project = BlockMeanProjection(blocks, goal)
    denoise = gaussian_denoiser(covariance)
    return sample(
        lambda x, sigma: project(denoise(x, sigma)[:, None])[:, 0],
        (COUNT, 1, SIDE, SIDE),
        sampler=sampler,
        steps=steps,
        generator=seeded(4),
        sigma_min=0.01,
        sigma_max=20.0,
    ).flatten(1)


def conditional(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance given that the 16 cells average to GOAL."""
    row = torch.full((1, SIDE**2), 1 / SIDE**2, dtype=DOUBLE)
    gain = covariance @ row.T / (row @ covariance @ row.T)
    mean = MEAN + gain[:, 0] * (GOAL - MEAN)
    return mean, covariance - gain @ row @ covariance


def exponential(length: float) -> Tensor:
    place = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    return STD**2 * torch.exp(-torch.cdist(place, place) / length)


@pytest.mark.parametrize(("sampler", "steps"), [("heun", 64), ("dpm_solver_sde", 200)])
def test_white_gaussian_given_its_block_mean(sampler, steps):
    """The exact conditional distribution: mean GOAL, covariance s^2 (I - 11'/16)."""
    covariance = STD**2 * torch.eye(SIDE**2, dtype=DOUBLE)
    x = projected_sample(covariance, sampler, steps)
    assert (x.mean(1) - GOAL).abs().max() < 1e-9
    mean, expected = conditional(covariance)
    # Five standard errors of a mean and of a covariance over 4 000 samples.
    limit = 5 * STD / math.sqrt(COUNT)
    assert (x.mean(0) - mean).abs().max() < limit
    assert (torch.cov(x.T) - expected).abs().max() < 1.2 * limit


def test_correlated_gaussian_given_its_block_mean_is_an_approximation():
    """The block means stay exact; the cells' means come out a little wrong.

    The projection treats all cells of a block alike, while the condition moves inner
    cells by more than corner cells. With a correlation length of 2 cells and a block
    mean 2.3 standard deviations off: measured 0.17 standard deviations at most, and
    0.03 in spread, which is sampling noise.
    """
    covariance = exponential(2.0)
    x = projected_sample(covariance, "heun", 64)
    assert (x.mean(1) - GOAL).abs().max() < 1e-9
    mean, expected = conditional(covariance)
    std = expected.diagonal().sqrt()
    mean_error = ((x.mean(0) - mean) / std).abs().max().item()
    std_error = (x.std(0) / std - 1).abs().max().item()
    assert 0.05 < mean_error < 0.25
    assert std_error < 0.05


# --- on decoded fields ----------------------------------------------------------------


def test_temperatures_precipitation_and_wind_by_hand():
    """One block of two equal cells; tasmin, tasmax, pr, uas."""
    blocks = square_blocks((1, 2), 2)
    fields = torch.tensor([[[10.0, 14.0]], [[20.0, 18.0]], [[0.0, 4.0]], [[1.0, 3.0]]])
    coarse = torch.tensor([[13.0], [18.0], [3.0], [-1.0]])
    out = match_block_means(
        fields[None], coarse[None], blocks, ordered=(0, 1), nonnegative=(2,)
    )[0]
    # tasmin + 1; the increments 10 and 4 (mean 7) become 50/7 and 20/7 (mean 5).
    assert out[0].tolist() == [[11.0, 15.0]]
    torch.testing.assert_close(
        out[1], torch.tensor([[11 + 50 / 7, 15 + 20 / 7]], dtype=DOUBLE)
    )
    assert out[2].tolist() == [[0.0, 6.0]]
    assert out[3].tolist() == [[-2.0, 0.0]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.0, 0.1]))
def test_matching_keeps_every_guarantee_of_the_codec(seed, threshold):
    """Order, signs, dry cells and rank of the wet ones survive; the means are exact."""
    names = ("tasmin", "tas", "tasmax", "pr")
    targets = [TargetVariable(name=name, units="1") for name in names]
    codec = build_codec(targets, wet_threshold=threshold)
    blocks, generator = uneven(), seeded(seed)
    fields = codec.decode(2 * torch.randn(2, 3, 4, 5, 7, generator=generator)).double()
    coldest = torch.randn(2, 1, blocks.count, generator=generator)
    steps = torch.rand(2, 2, blocks.count, generator=generator)
    rain = torch.randn(2, 1, blocks.count, generator=generator).clamp(min=0) ** 2
    coarse = torch.cat([coldest, coldest + steps.cumsum(1), rain], dim=1).double()
    out = match_block_means(
        fields,
        coarse[:, None],
        blocks,
        ordered=codec.ordered,
        nonnegative=codec.nonnegative,
        wet_threshold=threshold,
    )
    assert (out[:, :, :2] <= out[:, :, 1:3]).all()
    means = blocks.means(out)
    error = (means - coarse[:, None]).abs()[..., blocks.filled]
    assert error[:, :, :3].max() < 1e-9
    _check_rain(fields[:, :, 3], out[:, :, 3], error[:, :, 3], blocks, threshold)
    # Cells without a block stay.
    assert torch.equal(out[..., 0, :2], fields[..., 0, :2])


def _check_rain(before, after, error, blocks, threshold):
    assert (after >= 0).all()
    inside = blocks.index >= 0
    wet = after[..., inside] > 0
    assert (after[..., inside][wet] >= threshold * (1 - 1e-12)).all()
    assert error.max() <= threshold + 1e-9
    cells = blocks.cells()
    for block in torch.nonzero(blocks.filled).flatten().tolist():
        index = cells[block][cells[block] >= 0]
        old, new = before.flatten(-2)[..., index], after.flatten(-2)[..., index]
        some = (old > 0).any(-1)
        assert (new[some][old[some] == 0] == 0).all()
        rising = old.argsort(-1)
        assert (new.gather(-1, rising).diff(dim=-1) >= -1e-12)[some].all()


def test_a_dry_block_that_must_be_wet_becomes_uniform_or_stays_dry():
    blocks = square_blocks((1, 2), 2)
    fields = torch.zeros(1, 1, 1, 2)
    options = {"nonnegative": (0,), "wet_threshold": 0.1}
    wet = match_block_means(fields, torch.tensor([[[0.5]]]), blocks, **options)
    assert wet.flatten().tolist() == [0.5, 0.5]
    drizzle = match_block_means(fields, torch.tensor([[[0.05]]]), blocks, **options)
    assert drizzle.flatten().tolist() == [0.0, 0.0]


def test_little_rain_is_kept_in_the_wettest_cells():
    """A mean of 0.06 over four cells is one cell of 0.24 and another of nothing."""
    blocks = square_blocks((1, 4), 4)
    fields = torch.tensor([[[[0.3, 0.2, 0.15, 0.0]]]])
    out = match_block_means(
        fields, torch.tensor([[[0.06]]]), blocks, nonnegative=(0,), wet_threshold=0.1
    )
    # Two cells would be 0.144 and 0.096 < 0.1.
    torch.testing.assert_close(
        out.flatten(), torch.tensor([0.24, 0.0, 0.0, 0.0], dtype=DOUBLE)
    )


def test_free_blocks_and_missing_cells_are_left_alone():
    blocks = square_blocks((1, 4), 2)
    fields = torch.tensor([[[[1.0, math.nan, 3.0, 5.0]]]]).expand(1, 2, 1, 4).clone()
    coarse = torch.tensor([[[9.0, math.nan]]]).expand(1, 2, 2)
    out = match_block_means(fields, coarse, blocks, nonnegative=(1,))
    torch.testing.assert_close(out, fields.double(), equal_nan=True)


def test_impossible_coarse_means_are_refused():
    blocks = square_blocks((1, 2), 2)
    fields = torch.ones(1, 2, 1, 2)
    with pytest.raises(ConfigError, match="order"):
        match_block_means(
            fields, torch.tensor([[[2.0], [1.0]]]), blocks, ordered=(0, 1)
        )
    with pytest.raises(ConfigError, match="negative"):
        match_block_means(
            fields, torch.tensor([[[2.0], [-1.0]]]), blocks, nonnegative=(1,)
        )


def test_a_threshold_of_rain_is_not_one_of_gusts():
    """Each channel has a threshold of its own; without one, small values stay."""
    blocks = square_blocks((1, 2), 2)
    fields = torch.tensor([[[[0.04, 0.08]], [[0.04, 0.08]]]])
    means = torch.tensor([[[0.06], [0.06]]])
    options = {"nonnegative": (0, 1), "wet_threshold": {0: 0.1}}
    rain, gust = match_block_means(fields, means, blocks, **options)[0]
    assert float(rain.min()) == 0.0
    torch.testing.assert_close(gust.flatten(), torch.tensor([0.04, 0.08], dtype=DOUBLE))


def test_codecs_name_the_thresholds_of_their_channels(tiny_pipeline):
    codec = tiny_pipeline.preprocessor.codec
    assert codec.wet_thresholds == {codec.names.index("pr"): 0.1}
