"""The one-step generator's score is least at the truth, solved exactly."""

from __future__ import annotations

import math

import pytest
import torch

from st_cdgm.models.ensemble_loss import multiscale_crps

SIZE = 16


@pytest.mark.parametrize("members", [2, 3, 6])
@pytest.mark.parametrize("scales", [[1], [1, 2, 4]])
def test_the_least_score_of_a_gaussian_is_at_its_mean_and_standard_deviation(
    members, scales
):
    """White noise made as ``m + a z`` against ``y ~ N(0, 1)``.

    E[fair CRPS] = sqrt(2 / pi) sqrt(a^2 + 1) exp(-u^2) + m erf(u) - a / sqrt(pi) with
    u = m / sqrt(2 (a^2 + 1)); at (0, 1) its slope is 0, its curvature 1 / (2 sqrt(pi))
    in a and 1 / sqrt(pi) in m. Block means of k cells have standard deviations 1 / k:
    curvature 1 / k of that in a and k times in m. One Newton step from the truth leads
    to the minimum of the sampled score; a bias of the score would show in it, whatever
    the number of members.
    """
    generator = torch.Generator().manual_seed(members)
    days = 6000 // members
    z = torch.randn(days, members, 1, SIZE, SIZE, generator=generator)
    y = torch.randn(days, 1, SIZE, SIZE, generator=generator)
    m = torch.zeros((), requires_grad=True)
    a = torch.ones((), requires_grad=True)
    score = multiscale_crps(m + a * z, y, torch.ones_like(y, dtype=torch.bool), scales)
    slope_m, slope_a = torch.autograd.grad(score.sum(), (m, a))
    curvature = 1 / (2 * math.sqrt(math.pi))
    by_scale = torch.tensor(scales, dtype=torch.float32)
    assert abs(slope_a / (curvature * (1 / by_scale).mean())) < 0.02
    assert abs(slope_m / (2 * curvature * by_scale.mean())) < 0.02


def test_the_score_of_aligned_blocks_leaves_some_dependence_free():
    """Known limit: neighbours alike along rows, opposite along columns, pass as white.

    Cells and the means of 2 x 2 blocks have the variances of white noise, which are
    all that Gaussian cells are scored by at scales 1 and 2.
    """
    generator = torch.Generator().manual_seed(0)
    days, rho = 2000, 0.5
    white = torch.randn(days, 3, 1, 8, 8, generator=generator)
    cells = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    step = (cells[:, None] - cells[None]).abs()
    # Correlation +rho along a row, -rho along a column, 0 across: sums to 0 in a block.
    table = torch.tensor([[1.0, rho], [-rho, 0.0]])
    root = torch.linalg.cholesky(table[step[..., 0], step[..., 1]])
    blocks = white.reshape(days, 3, 1, 4, 2, 4, 2).movedim(-3, -2).flatten(-2)
    made = (blocks @ root.T).unflatten(-1, (2, 2)).movedim(-2, -3).reshape(white.shape)
    along_rows = (made[..., 0::2] * made[..., 1::2]).mean()
    assert along_rows == pytest.approx(rho, abs=0.02)

    truth, everywhere = made[:, 0], torch.ones(days, 1, 8, 8, dtype=torch.bool)
    other = torch.randn(days, 3, 1, 8, 8, generator=generator)
    for scale in (1, 2):
        alike = multiscale_crps(made[:, 1:], truth, everywhere, [scale])
        as_white = multiscale_crps(other[:, 1:], truth, everywhere, [scale])
        assert float(as_white / alike) == pytest.approx(1, abs=0.02)
