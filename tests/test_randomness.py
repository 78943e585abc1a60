"""Random numbers depend on (seed, member, day) and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from st_cdgm.randomness import member_day_noise, seed_everything

DAYS = np.array([20010228, 20010301, 20010302])


def draw(seed=1, members=range(5), days=DAYS, draws=2):
    source = member_day_noise(seed, members, days, (2, 3))
    return torch.stack([source() for _ in range(draws)])


def test_a_stream_belongs_to_the_number_of_its_member_and_day():
    whole = draw()
    assert whole.shape == (2, 3, 5, 2, 3)
    assert whole.dtype == torch.float32
    assert torch.equal(draw(members=range(2, 4)), whole[:, :, 2:4])
    assert torch.equal(draw(days=DAYS[1:]), whole[:, 1:])
    assert torch.equal(draw(draws=1), whole[:1])


def test_no_two_streams_are_the_same():
    fields = torch.cat([draw(), draw(seed=2)]).reshape(-1, 6)
    assert len(torch.unique(fields, dim=0)) == len(fields)


def test_noise_is_standard_normal():
    noise = member_day_noise(0, range(20), DAYS, (40, 50))()
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)


def test_every_generator_is_seeded():
    first, again = [], []
    for drawn in (first, again):
        seed_everything(7)
        drawn += [np.random.rand(), torch.rand(1).item()]  # noqa: NPY002
    assert first == again
