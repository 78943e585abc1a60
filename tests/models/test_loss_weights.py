"""Weights of cells in the loss, by hand and by invariant."""

from __future__ import annotations

import math

import pytest
import torch

from st_cdgm.errors import ConfigError
from st_cdgm.models.loss_weights import (
    extreme_thresholds,
    extreme_weight,
    focal_weight,
)


def squares(*errors: float) -> torch.Tensor:
    return torch.tensor(errors).square().reshape(1, 1, 1, -1)


def test_focal_weight_by_hand():
    """Errors 1, 1, 2, 0: mean square 1.5; gamma 2 gives e^2 / 1.5, gamma 1 its root."""
    error, valid = squares(1, -1, 2, 0), torch.ones(1, 1, 1, 4)
    w = focal_weight(error, valid, alpha=3.0)
    torch.testing.assert_close(w.flatten(), torch.tensor([2.0, 2.0, 8.0, 0.0]))
    root = focal_weight(error, valid, gamma=1.0)
    expected = torch.tensor([1.0, 1.0, 2.0, 0.0]) / math.sqrt(1.5)
    torch.testing.assert_close(root.flatten(), expected)
    assert focal_weight(error, valid, gamma=0.0).unique().tolist() == [1.0]


def test_focal_weight_is_detached_and_knows_no_other_sample():
    """D54: the original's carried gradients and depended on the batch's maximum."""
    error = torch.rand(3, 2, 4, 5, requires_grad=True)
    valid = torch.ones(3, 2, 4, 5)
    together = focal_weight(error, valid)
    assert not together.requires_grad
    changed = error.detach().clone()
    changed[2] *= 1000
    torch.testing.assert_close(focal_weight(changed, valid)[:2], together[:2])
    # Units do not matter either.
    torch.testing.assert_close(focal_weight(100 * error.detach(), valid), together)


def test_focal_weight_takes_its_scale_from_valid_cells():
    valid = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    w = focal_weight(squares(1, 1, 50, 50), valid).flatten()
    torch.testing.assert_close(w[:2], torch.ones(2))
    assert focal_weight(squares(0, 0), torch.zeros(1, 1, 1, 2)).tolist() == [[[[0, 0]]]]


def test_extreme_weight_by_hand():
    """|values| 0..99: the 95th percentile is 94.05, the 99th 98.01."""
    values = torch.arange(100.0).reshape(1, 1, 10, 10)
    values[0, 0, 9, 9] = -99  # extremes of either sign
    valid = torch.ones(1, 1, 10, 10, dtype=torch.bool)
    limits = extreme_thresholds(values, valid, [95, 99])
    torch.testing.assert_close(limits.flatten(), torch.tensor([94.05, 98.01]))
    w = extreme_weight(values, valid, factor=2.0).flatten()
    raw = torch.tensor([1.0] * 95 + [3.0] * 4 + [5.0])
    torch.testing.assert_close(w, raw / raw.mean())


def test_extreme_weights_average_one_over_the_valid_cells_of_each_channel():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4, 3, 9, 8, generator=generator)
    valid = torch.rand(4, 3, 9, 8, generator=generator) < 0.6
    valid[:, 2] = False
    w = extreme_weight(values, valid, factor=1.5, percentiles=[80])
    for c in (0, 1):
        assert w[:, c][valid[:, c]].mean().item() == pytest.approx(1.0, rel=1e-5)
    assert w[:, 2].unique().tolist() == [1.0]


def test_percentiles_ignore_cells_that_are_not_valid():
    values = torch.tensor([1.0, 2.0, 3.0, 1e6]).reshape(1, 1, 1, 4)
    valid = torch.tensor([True, True, True, False]).reshape(1, 1, 1, 4)
    assert extreme_thresholds(values, valid, [100]).item() == 3.0


def test_fixed_thresholds_replace_percentiles():
    values = torch.tensor([1.0, 5.0]).reshape(1, 1, 1, 2)
    valid = torch.ones_like(values)
    w = extreme_weight(values, valid, factor=1.0, thresholds=torch.tensor([[4.0]]))
    torch.testing.assert_close(w.flatten(), torch.tensor([2 / 3, 4 / 3]))


def test_no_factor_no_weight():
    values = torch.randn(2, 1, 3, 3)
    assert extreme_weight(values, torch.ones_like(values), factor=0.0).eq(1).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda x: focal_weight(x, x, gamma=-1.0),
        lambda x: focal_weight(x, x, alpha=0.0),
        lambda x: extreme_weight(x, x, factor=-0.1),
        lambda x: extreme_weight(x, x, factor=1.0, percentiles=[101]),
    ],
)
def test_options_out_of_range(call):
    with pytest.raises(ConfigError):
        call(torch.ones(1, 1, 1, 2))
