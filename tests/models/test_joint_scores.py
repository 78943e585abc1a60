"""Scores that see variables, days and wavelengths together."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import torch

from st_cdgm.models.ensemble_loss import (
    _cosines,
    _log_power,
    joint_energy,
    multiscale_crps,
    spectral_crps,
)
from st_cdgm.models.objective import _changes
from st_cdgm.models.truth import _remembering


def normals(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def correlated(days: int, members: int, rate: float, seed: int) -> torch.Tensor:
    """Two variables with correlation ``rate``, shape ``(B, M, 2, 4, 4)``."""
    first, other = normals(2, days, members, 4, 4, seed=seed)
    return torch.stack([first, rate * first + (1 - rate**2) ** 0.5 * other], dim=2)


def test_the_joint_energy_sees_wrong_dependence_between_variables():
    """Right per variable, wrong together: only the joint score tells them apart."""
    truth = correlated(4_000, 1, -0.8, seed=1)[:, 0]
    valid = torch.ones_like(truth, dtype=torch.bool)
    right, wrong = (correlated(4_000, 2, r, seed=2) for r in (-0.8, 0.8))
    alone = [multiscale_crps(x, truth, valid, [1]).mean() for x in (right, wrong)]
    joint = [joint_energy(x, truth, valid, [1]) for x in (right, wrong)]
    assert alone[0].item() == pytest.approx(alone[1].item(), rel=0.01)
    assert joint[1] > 1.03 * joint[0]


def test_the_joint_energy_of_one_variable_and_cell_is_the_crps():
    truth, members = normals(5, 1, 3, 4), normals(5, 4, 1, 3, 4, seed=1)
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[0, 0, 0] = False
    joint = joint_energy(members, truth, valid, [1])
    torch.testing.assert_close(joint, multiscale_crps(members, truth, valid, [1])[0])


def test_the_joint_energy_by_hand():
    """Two members of two variables in a cell; norms are divided by sqrt 2."""
    truth = torch.zeros(1, 2, 1, 1)
    members = torch.tensor([[[[[3.0]], [[4.0]]], [[[0.0]], [[0.0]]]]])
    valid = torch.ones_like(truth, dtype=torch.bool)
    assert joint_energy(members, truth, valid, [1]).item() == pytest.approx(0, abs=1e-6)
    members[0, 1] = 6.0  # norms: 5, sqrt 72; between them: sqrt(9 + 4)
    expected = ((5 + 72**0.5) / 2 - 13**0.5 / 2) / 2**0.5
    found = joint_energy(members, truth, valid, [1]).item()
    assert found == pytest.approx(expected, rel=1e-6)


def test_per_day_scores_average_to_the_total():
    truth, members = normals(6, 2, 5, 7), normals(6, 3, 2, 5, 7, seed=1)
    valid = torch.ones_like(truth, dtype=torch.bool)
    given = members, truth, valid
    whole = joint_energy(*given, [1, 2, 0], side=2)
    days = joint_energy(*given, [1, 2, 0], side=2, per_day=True)
    torch.testing.assert_close(days.mean(), whole)
    days = spectral_crps(*given, per_day=True)
    torch.testing.assert_close(days.mean(dim=0), spectral_crps(*given))


def test_cosine_transform_is_that_of_scipy():
    field = normals(6, 9).double()
    ours = _cosines(6, field) @ field @ _cosines(9, field).T
    expected = scipy.fft.dctn(field.numpy(), norm="ortho")
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-12)


def test_power_lies_in_the_band_of_its_wavelength():
    """A wave of period 4 on 32 cells: normalised wavenumber 2 / period = 1 / 2."""
    x = torch.arange(32, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * (x + 0.5) / 4).expand(32, 32)
    power = _log_power(wave)
    assert power.shape == (31,)
    assert int(power.argmax()) + 1 == 16


def test_the_spectral_score_prefers_the_right_roughness():
    truth = normals(200, 1, 16, 16)
    valid = torch.ones_like(truth, dtype=torch.bool)
    rough = normals(200, 3, 1, 16, 16, seed=1)
    smooth = (rough + rough.roll(1, -1) + rough.roll(1, -2)) / 3**0.5
    scores = [spectral_crps(x, truth, valid).item() for x in (rough, smooth)]
    assert scores[1] > 1.5 * scores[0]


def test_changes_score_the_dependence_between_days():
    """Members that persist as the truth does are better than independent ones."""
    memory, days = 0.6, 4_000

    def pairs(rate: float, seed: int) -> torch.Tensor:
        noise = normals(2 * days, 3, 2, 2, seed=seed)
        return _remembering(noise, [rate] * 3)[:, :, None]  # (2 B, M, 1, 2, 2)

    truth = pairs(memory, 1)[:, 0]
    valid = torch.ones_like(truth, dtype=torch.bool)
    scores = [
        multiscale_crps(*_changes(pairs(rate, 2), truth, valid), [1]).item()
        for rate in (memory, 0.0)
    ]
    assert scores[1] > 1.03 * scores[0]


def test_a_change_counts_where_both_days_are_valid():
    members, truth = normals(4, 2, 1, 2, 2), normals(4, 1, 2, 2, seed=1)
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[0, 0, 0, 0] = valid[3, 0, 1, 1] = False
    moved, change, both = _changes(members, truth, valid)
    torch.testing.assert_close(moved, members[2:] - members[:2])
    torch.testing.assert_close(change, truth[2:] - truth[:2])
    assert both[:, 0].flatten(1).tolist() == [
        [False, True, True, True],
        [True, True, True, False],
    ]


def test_remembered_noise_has_unit_variance_and_the_correlation_asked_for():
    noise = _remembering(normals(200_000, 2, 1, 1), (0.3, 0.9))
    first, second = noise.chunk(2)
    assert second.var(dim=0).flatten().tolist() == pytest.approx([1, 1], abs=0.02)
    found = (first * second).mean(dim=0).flatten().tolist()
    assert found == pytest.approx([0.3, 0.9], abs=0.02)
