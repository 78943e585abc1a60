"""The world model gives a record back, and answers edits along its edges alone."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.errors import InputError
from st_cdgm.explanation.regressions import latent
from st_cdgm.explanation.world import WorldModel

GROUPS = {"GP850": [0], "GP500": [1, 2], "SURF": [3]}
# GP500 acts on GP850, GP850 on SURF with lag 2; nothing acts on GP500.
INPUTS = {
    "GP850": (("GP850", 1), ("GP500", 1)),
    "GP500": (("GP500", 1),),
    "SURF": (("SURF", 1), ("GP850", 2)),
}
OWN, DRIVEN, LATE = 0.6, 0.5, 0.4
DAYS = 1200


def var_record(seed: int = 0) -> np.ndarray:
    """Return a VAR that acts cell by cell. Shape ``(T, 4, 4, 5)``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(DAYS, 4, 4, 5)).astype(np.float32)
    for t in range(2, DAYS):
        x[t] += OWN * x[t - 1]
        x[t, 0] += DRIVEN * x[t - 1, 1]
        x[t, 3] += LATE * x[t - 2, 0]
    return x


@pytest.fixture(scope="module")
def record() -> np.ndarray:
    return var_record()


@pytest.fixture(scope="module")
def world(record: np.ndarray) -> WorldModel:
    day = np.arange(DAYS)
    season = (day % 365 / 365).astype(np.float32)
    return WorldModel.fit(record, season, day, groups=GROUPS, inputs=INPUTS)


@pytest.fixture(scope="module")
def days(record: np.ndarray, world: WorldModel) -> np.ndarray:
    """Anomalies of two days and the ten after."""
    index = np.arange(700, 712)
    season = (index % 365 / 365).astype(np.float32)
    return world.climate.anomalies(record[index], season)


def test_anomalies_become_fields_again(record, world):
    season = np.full(3, 0.4, np.float32)
    anomalies = world.climate.anomalies(record[:3], season)
    back = world.climate.fields(anomalies, season)
    np.testing.assert_allclose(back, record[:3], atol=1e-5)


def test_a_record_is_given_back_by_its_own_errors(world, days):
    assert world.lags == 2
    errors = world.abduct(days)
    assert errors.shape == (10, 4, 4, 5)
    rolled = world.roll(days[:2], errors)
    np.testing.assert_allclose(rolled, days[2:], atol=1e-4)
    # Without them it is not: the model does not tell everything.
    assert np.abs(world.roll(days[:2], 0 * errors) - days[2:]).max() > 1


def test_the_answer_to_an_edit_has_the_coefficients_of_the_process(world, days):
    """A uniform shift of GP500: own memory, the driven level, and its own child."""
    shift = 0.5

    def edit(lead: int, day: np.ndarray) -> np.ndarray:
        out = day.copy()
        out[1] += shift * (lead == 0)
        return out

    errors = world.abduct(days)
    factual = world.roll(days[:2], errors)
    change = (world.roll(days[:2], errors, edit=edit) - factual) * world.climate.scale
    mean = change.mean(axis=(2, 3)) / (shift * world.climate.scale[1, 0, 0])

    # Products of components make the answer depend a little on the day.
    np.testing.assert_allclose(mean[:4, 1], OWN ** np.arange(4), atol=0.1)
    driven = [0, DRIVEN, 2 * OWN * DRIVEN, 3 * OWN**2 * DRIVEN]
    np.testing.assert_allclose(mean[:4, 0], driven, atol=0.1)
    np.testing.assert_allclose(mean[3, 3], LATE * DRIVEN, atol=0.1)
    np.testing.assert_array_equal(change[:3, 3], 0)
    np.testing.assert_allclose(mean[:4, 2], 0, atol=0.1)


def test_levels_that_an_edit_does_not_reach_stay_to_the_bit(world, days):
    def edit(lead: int, day: np.ndarray) -> np.ndarray:
        out = day.copy()
        out[3] = 2.0
        return out

    errors = world.abduct(days)
    change = world.roll(days[:2], errors, edit=edit) - world.roll(days[:2], errors)
    np.testing.assert_array_equal(change[:, :3], 0)
    assert (change[:, 3] != 0).any()


def test_levels_that_are_held_keep_what_they_are_given(world, days):
    errors, held = world.abduct(days), {"GP850": days[2:, [0]]}

    def edit(lead: int, day: np.ndarray) -> np.ndarray:
        out = day.copy()
        out[1] += 1.0 * (lead == 0)
        return out

    rolled = world.roll(days[:2], errors, edit=edit, held=held)
    np.testing.assert_array_equal(rolled[:, 0], days[2:, 0])
    assert np.abs(rolled[1, 1] - days[3, 1]).mean() > 0.3


def test_what_lies_below_the_floor_is_the_mean_of_half_a_normal():
    values = np.array([[0.0], [1.5]], np.float32)
    hidden, variance = latent(values, 0 * values, 0 * values, np.ones(1))
    np.testing.assert_allclose(hidden[:, 0], [-np.sqrt(2 / np.pi), 1.5], rtol=1e-6)
    np.testing.assert_allclose(variance[:, 0], [1 - 2 / np.pi, 0], atol=1e-6)


def test_a_quantity_with_a_floor_answers_as_what_it_stands_for():
    """Rain is a latent process where that is above 0: half of the days are dry."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(DAYS, 2, 4, 5)).astype(np.float32)
    x[1:, 1] += DRIVEN * x[:-1, 0]
    x[:, 1] = np.maximum(x[:, 1], 0.0)
    assert 0.4 < (x[:, 1] == 0).mean() < 0.6
    day = np.arange(DAYS)
    season = np.zeros(DAYS, np.float32)
    groups = {"GP500": [0], "SURF": [1]}
    inputs = {"GP500": (("GP500", 1),), "SURF": (("SURF", 1), ("GP500", 1))}

    def slope(floors: dict[int, np.ndarray]) -> float:
        world = WorldModel.fit(
            x, season, day, groups=groups, inputs=inputs, floors=floors
        )
        past = world.climate.anomalies(x[700:701], season[:1])
        higher = past.copy()
        higher[:, 0] += 0.5
        change = (world.step(higher) - world.step(past)) * world.climate.scale
        return float(change[1].mean() / (0.5 * world.climate.scale[0, 0, 0]))

    assert slope({}) < 0.7 * DRIVEN
    assert slope({1: np.zeros((1, 1), np.float32)}) == pytest.approx(DRIVEN, abs=0.06)


def test_a_record_with_a_floor_is_given_back_and_stays_above(record):
    day = np.arange(DAYS)
    season = (day % 365 / 365).astype(np.float32)
    wet, low = record.copy(), np.full((4, 5), 0.2, np.float32)
    wet[:, 3] = np.maximum(wet[:, 3], low)
    world = WorldModel.fit(
        wet, season, day, groups=GROUPS, inputs=INPUTS, floors={3: low}
    )

    index = np.arange(700, 712)
    recorded = world.climate.anomalies(wet[index], season[index])
    floor = world.climate.floor(season[index[2:]])
    assert np.isneginf(floor[:, :3]).all()
    errors = world.abduct(recorded, floor)
    rolled = world.roll(recorded[:2], errors, floor=floor)
    np.testing.assert_allclose(rolled, recorded[2:], atol=1e-4)
    dry = world.roll(recorded[:2], errors - 5, floor=floor)
    np.testing.assert_array_equal(dry[:, 3], floor[:, 3])


def test_far_days_are_told_by_their_distance(world, days):
    assert world.distance("GP850", days) < 1
    assert world.distance("GP850", days + 20) > 1


def test_too_few_training_days_are_refused(record):
    day = np.arange(60)
    season = (day / 365).astype(np.float32)
    with pytest.raises(InputError, match="too few training days"):
        WorldModel.fit(record[:60], season, day, groups=GROUPS, inputs=INPUTS)
    none = np.zeros(0, np.int64)
    with pytest.raises(InputError, match="--lr may be repeated"):
        WorldModel.fit(record[:0], season[:0], none, groups=GROUPS, inputs=INPUTS)
