"""Random numbers depend on (seed, member, day) and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from st_cdgm.data.time.calendar import with_earlier_keys
from st_cdgm.randomness import member_day_noise, moving_average, seed_everything

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


# --- sequences ------------------------------------------------------------------------

MEMORY = (0.0, 0.4, 0.9)


def sequence(first: int, count: int, members=range(3), size=2) -> torch.Tensor:
    """Noise of consecutive days of 2001, shape ``(T, M, 3, size)``."""
    dates = np.datetime64("2001-02-20") + np.arange(first, first + count)
    keys = np.array([int(str(d).replace("-", "")) for d in dates])
    weights = moving_average(MEMORY)
    days = with_earlier_keys(keys, weights.shape[1] - 1, calendar="standard")
    return member_day_noise(1, members, days, (3, size), weights=weights)()


def test_a_part_of_a_sequence_is_that_of_the_whole():
    """Across the end of a month, in any batch, whatever members go along."""
    whole = sequence(0, 30)
    assert torch.equal(sequence(5, 7), whole[5:12])
    assert torch.equal(sequence(12, 1, members=range(1, 2)), whole[12:13, 1:2])


def test_a_sequence_has_the_correlation_asked_for_and_unit_variance():
    noise = sequence(0, 4000, members=range(2), size=50).numpy()
    assert noise.var(axis=(0, 1, 3)) == pytest.approx(np.ones(3), abs=0.03)
    for lag in (1, 2):
        found = (noise[lag:] * noise[:-lag]).mean(axis=(0, 1, 3))
        # 400 000 numbers: the error is far below .01 also where days are alike.
        assert found == pytest.approx(np.array(MEMORY) ** lag, abs=0.012)
    assert (noise[:, 0] * noise[:, 1]).mean() == pytest.approx(0, abs=0.01)


def test_without_memory_the_noise_is_that_of_single_days():
    weights = moving_average([0.0, 0.0])
    assert weights.tolist() == [[1.0], [1.0]]
    alone = member_day_noise(1, range(5), DAYS, (2, 3))()
    mixed = member_day_noise(1, range(5), DAYS[:, None], (2, 3), weights=weights)()
    assert torch.equal(alone, mixed)


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        ("standard", [20010301, 20010228, 20010227]),
        ("360_day", [20010301, 20010230, 20010229]),
        ("all_leap", [20010301, 20010229, 20010228]),
    ],
)
def test_earlier_days_are_those_of_the_calendar(calendar, expected):
    keys = with_earlier_keys(np.array([20010301]), 2, calendar=calendar)
    assert keys.tolist() == [expected]


def test_earlier_steps_may_be_shorter_than_a_day():
    keys = with_earlier_keys(
        np.array([20100101000500]), 2, calendar="standard", step_seconds=300
    )
    assert keys.tolist() == [[20100101000500, 20100101000000, 20091231235500]]
