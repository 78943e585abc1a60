"""What the generator is told."""

from __future__ import annotations

import pytest
import torch

from st_cdgm.models.conditioning import Conditioning, SpatialConditioner, context_maps


def conditioner(index: torch.Tensor, weight: torch.Tensor) -> SpatialConditioner:
    return SpatialConditioner(
        2, 3, 4, lr_shape=(2, 2), hr_shape=(1, 3), index=index, weight=weight
    )


def test_interpolation_uses_the_given_corners():
    """Three fine cells between the left and the right coarse column."""
    index = torch.tensor([[0, 1], [0, 1], [0, 1]])
    weight = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    coarse = torch.tensor([[[[10.0, 20.0], [0.0, 0.0]]]])
    fine = conditioner(index, weight).interpolate(coarse)
    assert fine.tolist() == [[[[10.0, 15.0, 17.5]]]]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_interpolation_and_its_gradient_are_the_weighted_sums():
    """Many fine cells of few nodes: threads must not race for a node's sum."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(0, 12, (6000, 4), generator=generator)
    weight = torch.rand(6000, 4, generator=generator)
    module = SpatialConditioner(
        2, 3, 4, lr_shape=(3, 4), hr_shape=(60, 100), index=index, weight=weight
    )
    coarse = torch.randn(8, 4, 3, 4, generator=generator).requires_grad_()
    into = torch.randn(8, 4, 60, 100, generator=generator)
    fine = module.interpolate(coarse)
    table = torch.zeros(6000, 12).scatter_add_(1, index, weight)  # as a dense matrix
    expected = torch.einsum("bcn,pn->bcp", coarse.detach().flatten(2), table)
    torch.testing.assert_close(fine.flatten(2), expected)
    gradients = [
        torch.autograd.grad(module.interpolate(coarse), coarse, into)[0]
        for _ in range(20)
    ]
    backwards = torch.einsum("bcp,pn->bcn", into.flatten(2), table)
    torch.testing.assert_close(gradients[0].flatten(2), backwards, rtol=1e-4, atol=1e-3)
    # D86: bit for bit, or no training could be repeated.
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_state_maps_keep_days_apart():
    """A change of one day's states changes that day's maps alone."""
    torch.manual_seed(0)
    module = conditioner(torch.tensor([[0, 3]] * 3), torch.full((3, 2), 0.5))
    state = torch.randn(2, 3 * 4, 3)  # Q = 2, B = 3 days of N = 4 nodes
    changed = state.clone()
    changed[:, 4:8] += 1.0
    difference = (module(changed) - module(state)).abs().amax(dim=(1, 2, 3))
    assert difference[1] > 1e-3
    assert difference[[0, 2]].tolist() == [0.0, 0.0]


def test_repeat_and_shuffle_keep_the_context():
    condition = Conditioning(
        torch.arange(3.0).reshape(3, 1, 1),
        torch.arange(3.0).reshape(3, 1, 1, 1),
        torch.arange(3.0).reshape(3, 1, 1, 1),
    )
    assert condition.repeat(2).tokens.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    mixed = condition.shuffled(torch.tensor([2, 0, 1]))
    assert mixed.tokens.flatten().tolist() == [2, 0, 1]
    assert mixed.state_maps.flatten().tolist() == [2, 0, 1]
    assert mixed.context.flatten().tolist() == [0, 1, 2]


def test_context_holds_baseline_static_season_and_validity():
    baseline = torch.full((2, 1, 2, 2), 7.0)
    static = torch.full((3, 2, 2), 5.0)
    valid = torch.tensor([[[[True, False], [True, True]]]] * 2)
    maps = context_maps(baseline, static, torch.tensor([0.0, 0.25]), valid)
    assert maps.shape == (2, 1 + 3 + 2 + 1, 2, 2)
    assert maps[0, 0].unique().tolist() == [7.0]
    assert maps[0, 1:4].unique().tolist() == [5.0]
    torch.testing.assert_close(maps[:, 4, 0, 0], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(
        maps[:, 5, 0, 0], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0
    )
    assert maps[0, 6].tolist() == [[1.0, 0.0], [1.0, 1.0]]
