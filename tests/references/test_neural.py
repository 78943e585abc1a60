"""Neural opponents: what each must keep, on a climate learned in seconds."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from st_cdgm.errors import InputError
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.references.base import build_reference
from st_cdgm.references.neural.corrdiff import CorrDiffReference
from st_cdgm.references.neural.engression import EngressionReference
from st_cdgm.references.neural.noise_cnn import NoiseCnnReference
from st_cdgm.references.neural.task import Task, two_days
from st_cdgm.references.neural.training import Schedule, seeded, train
from st_cdgm.references.neural.unet import UNetSizes
from st_cdgm.references.neural.unet_residuals import UNetResidualsReference
from st_cdgm.registry import names

pytest.importorskip("engression", reason="the extra rivals is not installed")

SMALL = UNetSizes(widths=(16, 32), dropout=0.0)


def budget(epochs):
    return Schedule(
        epochs=epochs,
        batch_size=16,
        learning_rate=5e-3,
        weight_decay=1e-3,
        patience=epochs,
    )


QUICK = {
    "engression": lambda **o: EngressionReference(
        **{
            "seeds": 2,
            "epochs": 20,
            "width": 50,
            "noise": 20,
            "batch_size": 32,
            "learning_rate": 1e-2,
            **o,
        }
    ),
    "noise_cnn": lambda **o: NoiseCnnReference(
        **{"seeds": 2, "filters": (8, 8), "schedule": budget(15), **o}
    ),
    "unet_residuals": lambda **o: UNetResidualsReference(
        **{"seeds": 1, "sizes": SMALL, "schedule": budget(15), **o}
    ),
    "corrdiff": lambda **o: CorrDiffReference(
        **{
            "seeds": 2,
            "regressions": 1,
            "sizes": SMALL,
            "regression": budget(15),
            "diffusion": budget(10),
            **o,
        }
    ),
}
# A few steps suffice for what does not ask how good the fields are.
FEW_STEPS = {
    "engression": {"epochs": 6},
    "noise_cnn": {"schedule": budget(5)},
    "unet_residuals": {"schedule": budget(4)},
    "corrdiff": {"regression": budget(4), "diffusion": budget(2)},
}
# Engression has one score for all cells of a field: with few days it stays too wide.
SHARE_OF_CLIMATE = {"engression": 0.85}
MOST_SPREAD = {"engression": 3.5}
POOLS = ["engression", "noise_cnn", "corrdiff"]


@pytest.fixture(scope="module")
def days(world):
    """Training days, validation days, days to predict."""
    others = world.test.select(slice(0, None, 2)), world.test.select(slice(1, None, 4))
    return world.train, *others


@pytest.fixture(scope="module")
def fitted(world, days):
    """All of them after a few steps."""
    training, validation, _ = days
    return {
        name: make(**FEW_STEPS[name]).fit(training, world.preprocessor, validation)
        for name, make in QUICK.items()
    }


@pytest.fixture(scope="module")
def trained(world, days):
    """All of them after as many steps as good fields take."""
    training, validation, _ = days
    return {
        name: make().fit(training, world.preprocessor, validation)
        for name, make in QUICK.items()
    }


def shares_of_climatology(world, days, reference):
    """CRPS of each target in units of that of the climatology."""
    climate = build_reference("climatology").fit(days[0], world.preprocessor)
    for c in range(3):
        score, usual = (
            crps(one.predict(days[2], members=20, seed=0)[:, :, c], days[2].hr[:, c])
            for one in (reference, climate)
        )
        yield score / usual


def same(found, expected):
    """Equal but for rounding; near the wet threshold that makes a drizzle or none."""
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    apart = np.abs(np.nan_to_num(found) - np.nan_to_num(expected))
    assert np.sort(apart.ravel())[-3] < 1e-3
    assert apart.max() < 0.15


def test_they_are_registered_and_made_without_arguments():
    assert set(QUICK) <= set(names("reference"))
    for name in QUICK:
        reference = build_reference(name)
        assert reference.history == 2
        assert reference.networks == (reference.seeds if name in POOLS else 1)


@pytest.mark.parametrize("name", QUICK)
def test_contract(world, days, fitted, name):
    fields = fitted[name].predict(days[2], members=5, seed=1)
    assert fields.shape == (len(days[2]), 5, 3, 6, 8)
    assert fields.dtype == np.float32
    valid = np.broadcast_to(world.preprocessor.valid, fields.shape)
    np.testing.assert_array_equal(np.isfinite(fields), valid)
    tasmin, tasmax, pr = np.moveaxis(fields[..., 1:, :], 2, 0)
    assert (tasmin <= tasmax).all()
    assert (pr >= 0).all()
    assert (pr == 0).any()
    with pytest.raises(InputError, match="needs a member"):
        fitted[name].predict(days[2], members=0, seed=0)


@pytest.mark.parametrize("name", QUICK)
def test_a_day_depends_on_seed_and_date_alone(days, fitted, name):
    whole = fitted[name].predict(days[2], members=4, seed=5)
    blind = replace(days[2].select(slice(3, 30, 5)), hr=None)
    same(fitted[name].predict(blind, members=4, seed=5), whole[3:30:5])
    np.testing.assert_array_equal(
        fitted[name].predict(days[2], members=4, seed=5), whole
    )
    other = fitted[name].predict(days[2], members=4, seed=6)
    assert not np.allclose(other, whole, equal_nan=True)


@pytest.mark.parametrize("name", QUICK)
def test_first_members_do_not_depend_on_their_number(days, fitted, name):
    few = fitted[name].predict(days[2], members=3, seed=2)
    many = fitted[name].predict(days[2], members=8, seed=2)
    same(many[:, :3], few)


@pytest.mark.parametrize("name", QUICK)
def test_a_few_steps_beat_the_climatology(world, days, fitted, name):
    assert max(shares_of_climatology(world, days, fitted[name])) < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_they_learn_something(world, days, trained, name):
    most = SHARE_OF_CLIMATE.get(name, 0.6)
    assert max(shares_of_climatology(world, days, trained[name])) < most


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_members_differ_as_much_as_they_err(world, days, trained, name):
    fields = trained[name].predict(days[2], members=20, seed=0)
    valid = world.preprocessor.valid
    error = (fields.mean(axis=1) - days[2].hr)[:, :2][:, valid[:2]]
    spread = fields.std(axis=1, ddof=1)[:, :2][:, valid[:2]]
    ratio = np.sqrt(np.mean(spread**2) / np.mean(error**2))
    assert 0.5 < ratio < MOST_SPREAD.get(name, 1.7)


@pytest.mark.parametrize("name", POOLS)
def test_members_are_dealt_over_networks(days, fitted, name):
    """Member m of a pool is what network m modulo K makes of its own numbers."""
    reference, some = fitted[name], days[2].select(slice(0, 4))
    whole = reference.predict(some, members=4, seed=0)
    turned = reference._networks[::-1]
    kept, reference._networks = reference._networks, [turned[0], turned[0]]
    try:
        changed = reference.predict(some, members=4, seed=0)
    finally:
        reference._networks = kept
    same(changed[:, 1::2], whole[:, 1::2])
    assert not np.allclose(changed[:, ::2], whole[:, ::2], equal_nan=True)


@pytest.mark.parametrize("name", ["engression", "noise_cnn"])
def test_training_is_reproducible_and_leaves_torch_alone(world, days, name):
    options = {"seeds": 1} | (
        {"epochs": 3} if name == "engression" else {"schedule": budget(2)}
    )
    few = days[0].select(slice(0, None, 3))
    torch.manual_seed(11)
    before = torch.get_rng_state()
    fields = []
    for seed in (0, 0, 1):
        made = QUICK[name](seed=seed, **options)
        made.fit(few, world.preprocessor, days[1])
        fields.append(made.predict(days[2], members=2, seed=0))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(fields[0], fields[1])
    assert not np.allclose(fields[0], fields[2], equal_nan=True)


# -- the task they share ---------------------------------------------------------------


def test_inputs_are_two_days_on_the_fine_grid(world, days):
    task = Task.of(days[0], world.preprocessor, days[1])
    some = days[2].select(slice(2, 9))
    np.testing.assert_array_equal(two_days(some)[:, :2], some.lr)
    np.testing.assert_array_equal(two_days(some)[:, 2:], some.lagged(1))
    maps = task.maps(task.train, slice(0, 3))
    assert maps.shape == (3, 2 * 2 + 2, 6, 8)  # no static fields here
    expected = task.inputs.to_fine.apply(days[0].lr[:3])
    np.testing.assert_allclose(maps[:, :2].numpy(), expected, rtol=1e-6)
    angle = 2 * np.pi * days[0].season[:3].astype(float)
    np.testing.assert_allclose(maps[:, -2, 2, 2].numpy(), np.cos(angle), rtol=1e-5)


def test_targets_come_back(world, days):
    task = Task.of(days[0], world.preprocessor, days[1])
    decoded = task.targets.decode(task.train.target)
    valid, truth = world.preprocessor.valid, task.train.days.hr
    error = np.abs(decoded[:, 2] - truth[:, 2])[:, valid[2]]
    assert error.max() < 0.101  # drizzle below the wet threshold
    assert error[truth[:, 2][:, valid[2]] > 0.11].max() < 1e-3
    np.testing.assert_allclose(
        decoded[:, :2][:, valid[:2]], truth[:, :2][:, valid[:2]], atol=1e-3
    )
    assert task.targets.groups == [[0, 1], [2]]
    learned = task.train.target[:, task.targets.cells]
    assert learned.mean(dim=0).abs().max() < 1e-4


def test_without_validation_the_last_year_is_held_out(world, days):
    task = Task.of(days[0], world.preprocessor, None)
    years = days[0].day // 10000
    assert set(task.held_out.days.day // 10000) == {years.max()}
    assert set(task.train.days.day // 10000) == set(years) - {years.max()}


def test_a_cell_with_truth_in_one_temperature_only(world, days):
    hr, valid = days[0].hr.copy(), world.preprocessor.valid.copy()
    hr[:, 0, 3, 3], valid[0, 3, 3] = np.nan, False
    changed = replace(world.preprocessor, valid=valid)
    made = QUICK["unet_residuals"](**FEW_STEPS["unet_residuals"])
    made.fit(replace(days[0], hr=hr), changed, days[1])
    fields = made.predict(days[2], members=4, seed=0)
    np.testing.assert_array_equal(
        np.isfinite(fields), np.broadcast_to(valid, fields.shape)
    )
    error = fields[:, :, 1, 3, 3].mean(axis=1) - days[2].hr[:, 1, 3, 3]
    assert np.sqrt(np.mean(error**2)) < 0.8 * days[2].hr[:, 1, 3, 3].std()


@pytest.mark.parametrize("name", QUICK)
def test_days_without_truth(world, days, name):
    blind = replace(days[0], hr=None)
    with pytest.raises(InputError, match="with truth"):
        QUICK[name]().fit(blind, world.preprocessor, days[1])
    with pytest.raises(InputError, match="with truth"):
        QUICK[name]().fit(days[0], world.preprocessor, replace(days[1], hr=None))


def test_more_members_than_days_held_out(world, days, fitted):
    with pytest.raises(InputError, match="larger than"):
        fitted["unet_residuals"].predict(days[2], members=100, seed=0)


def test_a_missing_package_names_the_extra(world, days, monkeypatch):
    monkeypatch.setitem(sys.modules, "engression", None)
    with pytest.raises(InputError, match="not installed") as caught:
        QUICK["engression"]().fit(days[0], world.preprocessor, days[1])
    assert "st-cdgm[rivals]" in str(caught.value)


# -- the loop they share ---------------------------------------------------------------


def test_the_best_weights_are_kept_and_patience_ends_the_loop():
    network = torch.nn.Linear(1, 1, bias=False)
    scores, weights = iter([3.0, 1.0, 2.0, 2.5, 0.0]), []

    def score():
        weights.append(network.weight.item())
        return next(scores)

    def loss(index):
        return (network(torch.ones(len(index), 1)) - 10).square().mean()

    schedule = Schedule(
        epochs=5, batch_size=4, learning_rate=0.1, weight_decay=0.0, patience=2
    )
    with seeded(0):
        best = train(network, loss, score, days=10, schedule=schedule)
    assert best == 1.0
    assert len(weights) == 4
    assert network.weight.item() == weights[1]
    assert not network.training


def test_scores_see_the_same_random_numbers_every_time():
    network, drawn = torch.nn.Linear(1, 1), []

    def score():
        drawn.append(torch.rand(1).item())
        return 1.0

    schedule = Schedule(
        epochs=3, batch_size=2, learning_rate=0.1, weight_decay=0.0, patience=9
    )
    train(
        network,
        lambda index: network(torch.ones(len(index), 1)).mean(),
        score,
        days=4,
        schedule=schedule,
    )
    assert len(set(drawn)) == 1
