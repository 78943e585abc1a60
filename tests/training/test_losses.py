"""Terms of the objective against hand-computed values and an independent library."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scoringrules
import torch

from st_cdgm.errors import ConfigError, InputError
from st_cdgm.models.ensemble_loss import (
    fair_crps,
    fair_energy_score,
    masked_mean,
    multiscale_crps,
    multiscale_energy,
)
from st_cdgm.physics.blocks import pool_valid
from st_cdgm.training.losses import (
    loss_dag,
    loss_dagma,
    loss_no_tears,
    loss_reconstruction,
)


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
    with pytest.raises(ValueError, match="number of members"):
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
    # The last column is half a block, and only one of its two cells is valid.
    torch.testing.assert_close(pooled, torch.tensor([[[3.0, 9.0]]]))
    torch.testing.assert_close(share, torch.tensor([[[0.75, 0.25]]]))

    whole, share = pool_valid(values, valid, 0)
    torch.testing.assert_close(whole, torch.tensor([[[18.0 / 4]]]))
    torch.testing.assert_close(share, torch.tensor([[[4 / 6]]]))


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


# -- Energy score ----------------------------------------------------------------------


def test_fair_energy_score_by_hand():
    """Members 0 and 3 in both cells, truth 1: (1 + 2) / 2 - 3 / 2."""
    members = torch.tensor([0.0, 3.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    score = fair_energy_score(members, torch.ones(1, 1, 2), torch.ones(1, 1, 2))
    assert score.tolist() == [0.0]
    # A cell without weight changes nothing, whatever is in it.
    wild = torch.cat([members[..., :1], 100 * torch.randn(1, 2, 1, 1)], dim=-1)
    weight = torch.tensor([[[1.0, 0.0]]])
    assert fair_energy_score(wild, torch.ones(1, 1, 2), weight).item() == 0.0


def test_fair_energy_score_equals_the_library():
    rng = np.random.default_rng(1)
    members, truth = rng.normal(size=(4, 6, 3, 5)), rng.normal(size=(4, 3, 5))
    expected = scoringrules.es_ensemble(
        truth.reshape(4, -1),
        members.reshape(4, 6, -1),
        m_axis=1,
        v_axis=2,
        estimator="fair",
        backend="numpy",
    )
    weight = torch.ones(4, 3, 5, dtype=torch.float64)
    ours = fair_energy_score(torch.from_numpy(members), torch.from_numpy(truth), weight)
    # Ours is the root of a mean square, theirs of a sum over 15 cells.
    np.testing.assert_allclose(ours.numpy() * np.sqrt(15), expected, rtol=1e-10)


def test_fair_energy_score_of_gaussians_for_any_ensemble_size():
    """E|X - Y| / 2 = Gamma((n+1)/2) / Gamma(n/2), here divided by the root of n."""
    n, days = 6, 20_000
    expected = math.gamma((n + 1) / 2) / math.gamma(n / 2) / math.sqrt(n)
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(days, 2, 3, generator=generator)
    weight = torch.ones(days, 2, 3)
    for members in (2, 3, 8):
        made = torch.randn(days, members, 2, 3, generator=generator)
        score = fair_energy_score(made, truth, weight)
        error = score.std() / math.sqrt(days)
        assert score.mean().item() == pytest.approx(expected, abs=4 * error.item())


def test_energy_score_sees_what_single_cells_do_not():
    """Anticorrelated cells against correlated truth: the same in every cell."""
    generator = torch.Generator().manual_seed(3)
    shared = torch.randn(5_000, 2, 1, 1, 1, generator=generator)
    right, wrong = shared.expand(-1, -1, 1, 1, 2), torch.cat([shared, -shared], dim=-1)
    truth = torch.randn(5_000, 1, 1, 1, generator=generator).expand(-1, 1, 1, 2)
    valid = torch.ones(5_000, 1, 1, 2, dtype=torch.bool)
    cells = [multiscale_crps(x, truth, valid, [1]).item() for x in (right, wrong)]
    fields = [multiscale_energy(x, truth, valid, [1]).item() for x in (right, wrong)]
    assert cells[0] == pytest.approx(cells[1], rel=0.05)
    assert fields[1] > 1.1 * fields[0]


def test_equal_members_have_a_finite_gradient():
    members = torch.zeros(1, 3, 1, 2, 2, requires_grad=True)
    truth, valid = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    multiscale_energy(members, truth, valid, [1, 2]).sum().backward()
    assert (members.grad == 0).all()


def test_multiscale_energy_masks_patches_and_days():
    generator = torch.Generator().manual_seed(4)
    members = torch.randn(3, 4, 2, 5, 7, generator=generator)
    truth = torch.randn(3, 2, 5, 7, generator=generator)
    valid = torch.rand(3, 2, 5, 7, generator=generator) > 0.3
    whole = multiscale_energy(members, truth, valid, [1, 2])
    assert whole.shape == (2,)
    # One patch as large as the field is the field.
    one = multiscale_energy(members, truth, valid, [1, 2], patch=7)
    torch.testing.assert_close(one, whole)
    # Patches of one cell: the CRPS of the cells.
    single = multiscale_energy(members, truth, valid, [1], patch=1)
    torch.testing.assert_close(single, multiscale_crps(members, truth, valid, [1]))
    # What is not valid changes nothing.
    spoilt = torch.where(valid[:, None], members, 55.0)
    for patch in (None, 2):
        a, b = (
            multiscale_energy(x, truth, valid, [1, 2], patch=patch)
            for x in (members, spoilt)
        )
        torch.testing.assert_close(a, b)
    days = multiscale_energy(members, truth, valid, [1], per_day=True)
    assert days.shape == (3, 2)
    first = multiscale_energy(members[:1], truth[:1], valid[:1], [1])
    torch.testing.assert_close(days[0], first)


def test_a_day_without_truth_has_no_energy_score():
    members, truth = (
        torch.randn(1, 2, 1, 3, 3, requires_grad=True),
        torch.zeros(1, 1, 3, 3),
    )
    score = multiscale_energy(members, truth, torch.zeros_like(truth).bool(), [1, 2])
    score.sum().backward()
    assert score.item() == 0.0
    assert (members.grad == 0).all()


def test_fair_energy_score_refuses_one_member():
    with pytest.raises(ValueError, match="number of members"):
        fair_energy_score(torch.zeros(1, 1, 3, 3), torch.zeros(1, 3, 3), torch.ones(1))


# -- Reconstruction and graph ----------------------------------------------------------


def test_reconstruction_losses_by_hand():
    pred = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    target = torch.tensor([[4.0, 3.0], [-1.0, 0.0]])
    mse = (1 + 1 + 4 + 0) / 4
    cosine = ((1 - 24 / 25) + 2) / 2
    for kind, expected in (
        ("mse", mse),
        ("cosine", cosine),
        ("mse+cosine", 0.5 * mse + 0.5 * cosine),
    ):
        loss = loss_reconstruction(pred, target, kind)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_padding_does_not_count_in_any_reconstruction_loss():
    """Variable 1 has one channel, variable 2 none: their padding is not data."""
    pred, target = torch.randn(2, 4, 3, 5, 2)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).reshape(3, 1, 2)
    spoilt = pred + 9 * (1 - mask)
    for kind in ("mse", "cosine", "mse+cosine"):
        losses = [
            loss_reconstruction(x, target, kind, mask=mask) for x in (pred, spoilt)
        ]
        torch.testing.assert_close(*losses)
    used = [(pred - target)[:, 0].flatten(), (pred - target)[:, 1, :, 0].flatten()]
    expected = torch.cat(used).square().mean()
    torch.testing.assert_close(loss_reconstruction(pred, target, mask=mask), expected)


def test_rows_of_zeros_have_a_finite_gradient():
    pred = torch.zeros(2, 3, requires_grad=True)
    loss_reconstruction(pred, torch.zeros(2, 3), "mse+cosine").backward()
    assert torch.isfinite(pred.grad).all()


def test_nothing_to_reconstruct_is_0_and_mistakes_are_errors():
    assert loss_reconstruction(None, torch.ones(2)).item() == 0.0
    assert loss_reconstruction(torch.ones(2), None).item() == 0.0
    assert loss_reconstruction(None, None).item() == 0.0
    with pytest.raises(ConfigError, match="reconstruction_loss_type"):
        loss_reconstruction(None, None, "mae")
    with pytest.raises(InputError, match="reconstruction_dim"):
        loss_reconstruction(torch.ones(2, 3), torch.ones(2, 4))


def test_losses_are_not_taken_in_half_precision():
    pred = torch.full((1, 3), 300.0, dtype=torch.float16)
    loss = loss_reconstruction(pred, -pred)
    assert loss.dtype == torch.float32
    assert loss.item() == 360_000.0


def test_graph_losses_reach_what_they_say():
    """D58, D62: two-cycle of weights 0.5 -> 0.0645; 0 for a DAG of any size."""
    cycle = torch.tensor([[0.0, 0.5], [0.5, 0.0]])
    dag = torch.tensor([[0.0, 30.0], [0.0, 0.0]])
    assert loss_dagma(cycle).item() == pytest.approx(0.0645, abs=1e-4)
    assert loss_dagma(cycle, 1.0, True, 0.2).item() == pytest.approx(0.2645, abs=1e-4)
    expected = 2 * math.cosh(0.25) - 2
    assert loss_no_tears(cycle).item() == pytest.approx(expected, rel=1e-5)
    for loss in (loss_dagma(dag), loss_no_tears(dag)):
        assert loss.item() == pytest.approx(0.0, abs=1e-6)
    # Outside the domain the formula is another function: an error, not a shift.
    with pytest.raises(InputError, match="spectral radius"):
        loss_dagma(3 * cycle)
    for method, value in (("dagma", 0.0645), ("no_tears", expected), ("none", 0.0)):
        found = loss_dag(cycle, method, l1_weight=0.5)
        assert found.item() == pytest.approx(value + 0.5, abs=1e-4)
    with pytest.raises(ConfigError, match="dag_method"):
        loss_dag(cycle, "tears")
