"""The memory of the noise is found again where it is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from st_cdgm.data.task.days import FieldArrays
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.errors import InputError
from st_cdgm.inference import memory as room
from st_cdgm.inference.memory import fit_noise_memory
from st_cdgm.models.noise import multiscale_noise
from st_cdgm.randomness import member_day_noise, moving_average

SCALES = [1, 6]
SHAPE = (2, 12, 16)


def world(days: int, members: range, memory, seed: int) -> np.ndarray:
    """Fields ``(T, M, 1, Y, X)``: half their variance is white, half is smooth."""
    weights = moving_average(memory)
    count = weights.shape[1]
    keys = 10_000 + np.arange(days)[:, None] - np.arange(count)
    noise = member_day_noise(seed, members, keys, SHAPE, weights=weights)()
    maps = multiscale_noise(noise.flatten(0, 1), SCALES)
    return maps.mean(dim=1).reshape(days, len(members), 1, *SHAPE[1:]).numpy()


def record(days: int, memory) -> FieldArrays:
    ordinal = np.arange(days)
    truth = world(days, range(1), memory, seed=5)[:, 0]
    stamps = CalendarDays(
        day=20010101 + ordinal,
        ordinal=ordinal,
        season=np.zeros(days, np.float32),
        calendar="standard",
    )
    return FieldArrays(days=stamps, lr=truth, baseline=truth, hr=truth)


def checkpoint(**config):
    kept = SimpleNamespace(
        one_step=True, noise_scales=SCALES, noise_memory=[], **config
    )
    return SimpleNamespace(model=SimpleNamespace(decoder=SimpleNamespace(config=kept)))


@pytest.fixture
def fake(monkeypatch):
    """A generator whose members are the world's, with the memory it is given."""

    def generate(checkpoint, arrays, *, members, seed, batch_days):
        assert arrays.hr is None
        memory = checkpoint.model.decoder.config.noise_memory
        made = world(len(arrays), members, memory, seed=seed)
        yield arrays.day[:7], made[:7]
        yield arrays.day[7:], made[7:]

    monkeypatch.setattr(room, "generate", generate)


@pytest.mark.parametrize("memory", [(0.2, 0.7), (0.5, 0.0), (0.0, 0.0)])
def test_the_memory_of_every_scale_is_found(fake, memory):
    model = checkpoint()
    found = fit_noise_memory(model, record(400, memory), days=400, members=4)
    # 400 days of a field of a few independent blocks.
    assert found == pytest.approx(memory, abs=0.12)
    assert model.model.decoder.config.noise_memory == []


def test_days_that_do_not_follow_each_other_are_no_pair():
    sums = room.Persistence()
    values = [1.0, 2.0, 5.0, 4.0]
    for value, follows in zip(values, [False, True, False, True], strict=True):
        sums.add(torch.full((1, 1, 1, 1), value), follows=follows)
    lagged, variance = sums.covariances()
    assert lagged.tolist() == [pytest.approx((2 + 20) / 2 - 3**2)]
    assert variance.tolist() == [pytest.approx(np.var(values))]


def test_long_records_are_sampled_in_spells():
    chosen = room.spells(record(400, (0.0, 0.0)), 90)
    steps = np.diff(chosen.days.ordinal)
    assert len(chosen) == 90
    assert (steps == 1).sum() == 87


def test_days_without_truth_are_refused(fake):
    days = record(20, (0.0, 0.0))
    blind = FieldArrays(days=days.days, lr=days.lr, baseline=days.baseline, hr=None)
    with pytest.raises(InputError, match="truth"):
        fit_noise_memory(checkpoint(), blind)
