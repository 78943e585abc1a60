"""Terms of the objective against hand-computed values and an independent library."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import torch

from st_cdgm.training.losses import fair_crps, masked_mean, multiscale_crps, pool_valid


def test_fair_crps_by_hand():
    """Members 0, 1, 3 and truth 2: mean error 4/3, mean pairwise distance 2, half."""
    members = torch.tensor([[0.0, 1.0, 3.0]]).reshape(1, 3, 1)
    assert fair_crps(members, torch.tensor([[2.0]])).item() == pytest.approx(4 / 3 - 1)


def test_fair_crps_equals_the_library():
    rng = np.random.default_rng(0)
    members, truth = rng.normal(size=(5, 7, 4)), rng.normal(size=(5, 4))
    expected = scoringrules.crps_ensemble(
        truth, members, m_axis=1, estimator="fair", backend="numpy"
    )
    ours = fair_crps(torch.from_numpy(members), torch.from_numpy(truth))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def test_fair_crps_does_not_depend_on_ensemble_size_in_expectation():
    """Fair: its mean over ensembles of 2 equals that over ensembles of 50."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(40_000, 1, generator=generator)
    small = fair_crps(torch.randn(40_000, 2, 1, generator=generator), truth).mean()
    large = fair_crps(torch.randn(40_000, 50, 1, generator=generator), truth).mean()
    # Both are E|X - Y| / 2 = 1 / sqrt(pi); four standard errors of the small one.
    assert small.item() == pytest.approx(np.pi**-0.5, abs=0.02)
    assert large.item() == pytest.approx(np.pi**-0.5, abs=0.01)


def test_fair_crps_refuses_one_member():
    with pytest.raises(ValueError, match="at least 2 members"):
        fair_crps(torch.zeros(1, 1, 3), torch.zeros(1, 3))


def test_masked_mean_ignores_invalid_and_survives_empty():
    values = torch.tensor([[[1.0, 100.0], [3.0, 5.0]]], requires_grad=True)  # (1, 2, 2)
    weight = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    mean = masked_mean(values, weight)
    assert mean.tolist() == [1.0, 0.0]
    mean.sum().backward()
    assert values.grad.tolist() == [[[1.0, 0.0], [0.0, 0.0]]]


def test_pool_valid_averages_valid_cells_only():
    values = torch.tensor([[[1.0, 3.0, 9.0], [99.0, 5.0, 99.0]]])
    valid = torch.tensor([[[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]])
    pooled, share = pool_valid(values, valid, 2)
    # The last column is half a block; only one of its two cells is valid.
    torch.testing.assert_close(pooled, torch.tensor([[[3.0, 9.0]]]))
    torch.testing.assert_close(share, torch.tensor([[[0.75, 0.5]]]))


def test_multiscale_crps_sees_wrong_dependence_between_cells():
    """Independent cells, coherent truth: right per cell, wrong per block."""
    generator = torch.Generator().manual_seed(1)
    shape = (4_000, 2, 1, 4, 4)
    coherent = torch.randn(4_000, 2, 1, 1, 1, generator=generator).expand(shape)
    noise = torch.randn(shape, generator=generator)
    truth = torch.randn(4_000, 1, 1, 1, generator=generator).expand(4_000, 1, 4, 4)
    valid = torch.ones(4_000, 1, 4, 4, dtype=torch.bool)
    cells = [multiscale_crps(x, truth, valid, [1]).item() for x in (coherent, noise)]
    blocks = [multiscale_crps(x, truth, valid, [4]).item() for x in (coherent, noise)]
    assert cells[0] == pytest.approx(cells[1], rel=0.05)
    assert blocks[1] > 1.2 * blocks[0]


def test_multiscale_crps_per_day_averages_to_the_total():
    generator = torch.Generator().manual_seed(2)
    members = torch.randn(6, 3, 2, 5, 7, generator=generator)
    truth = torch.randn(6, 2, 5, 7, generator=generator)
    valid = torch.ones_like(truth, dtype=torch.bool)
    days = multiscale_crps(members, truth, valid, [1, 2, 4], per_day=True)
    total = multiscale_crps(members, truth, valid, [1, 2, 4])
    assert days.shape == (6, 2)
    torch.testing.assert_close(days.mean(dim=0), total)
