"""The CRPS of a pool: the mixture of its networks' distributions, without bias."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tests.evaluation.test_scorecard import dataset, sample, value
from tests.inference.test_writer import (
    DAYS,
    TARGETS,
    opened,
    read,
    regular_grid,
    some_fields,
)

from st_cdgm.errors import GridMismatchError
from st_cdgm.evaluation.metrics.probabilistic import crps
from st_cdgm.evaluation.scorecard import evaluate_ensembles
from st_cdgm.inference.writer import ensemble_dataset


def by_pairs(members, truth, network, *, fair=True):
    """One cell: mean of means, minus half the mean distance, pair by pair."""
    groups = [members[network == label] for label in np.unique(network)]
    K = len(groups)
    error = np.mean([np.abs(group - truth).mean() for group in groups])

    def distance(a, b, *, same):
        total = np.abs(a[:, None] - b[None]).sum()
        pairs = a.size * (a.size - 1) if same and fair else a.size * b.size
        return total / pairs if pairs else 0.0

    within = np.mean([distance(group, group, same=True) for group in groups])
    between = [
        distance(groups[i], groups[j], same=False)
        for i in range(K)
        for j in range(K)
        if i != j
    ]
    apart = np.mean(between) if between else 0.0
    return error - 0.5 * (within / K + (1 - 1 / K) * apart)


@pytest.mark.parametrize("fair", [True, False])
@pytest.mark.parametrize(
    "network",
    [
        [0, 1, 2, 3, 0, 1, 2, 3],
        [0, 1, 2, 0, 1, 2, 0, 1],  # 3, 3 and 2 members
        [7, 7, 7, 7, 7, 7, 7, 2],  # one member has no pair
        [0, 1, 2, 3, 4, 5, 6, 7],
        ["b", "b", "a", "a", "a", "a", "b", "b"],
    ],
)
def test_every_pair_by_hand(network, fair):
    rng = np.random.default_rng(3)
    members, truth = 5 * rng.normal(size=8), 0.7
    found = crps(
        members.reshape(8, 1, 1), np.full((1, 1), truth), network=network, fair=fair
    )
    expected = by_pairs(members, truth, np.array(network), fair=fair)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("fair", [True, False])
def test_one_network_is_an_ensemble(fair):
    rng = np.random.default_rng(0)
    forecast, truth = rng.normal(size=(4, 6, 2, 3)), rng.normal(size=(4, 2, 3))
    pooled = crps(forecast, truth, network=[5] * 6, fair=fair)
    assert pooled == pytest.approx(crps(forecast, truth, fair=fair), abs=1e-12)


def test_no_bias_whatever_the_number_of_members():
    """Two Gaussians far apart: the mixture's CRPS by quadrature, to the last percent.

    Members counted alike, as if drawn from the mixture at random, would score better.
    """
    centres, sigma, truth, T = np.array([-2.0, 2.0]), 1.0, 0.5, 20_000
    grid = np.linspace(-12, 12, 20_001)
    cdf = stats.norm.cdf((grid[:, None] - centres) / sigma).mean(axis=1)
    exact = np.trapezoid((cdf - (grid >= truth)) ** 2, grid)

    rng = np.random.default_rng(1)
    for M in (4, 6, 20):
        network = np.arange(M) % 2
        drawn = rng.normal(centres[network][None], sigma, size=(T, M))
        forecast, reference = drawn.reshape(T, M, 1, 1), np.full((T, 1, 1), truth)
        assert crps(forecast, reference, network=network) == pytest.approx(
            exact, rel=0.01
        )
        assert crps(forecast, reference) < exact - 0.5 / M


def test_labels_that_do_not_fit():
    with pytest.raises(GridMismatchError, match="networks of the members"):
        crps(np.zeros((2, 4, 1, 1)), np.zeros((2, 1, 1)), network=[0, 1, 0])


# -- in files --------------------------------------------------------------------------


def test_a_file_says_which_network_made_each_member(tmp_path):
    fields, grid = some_fields(), regular_grid()
    with opened(tmp_path / "pool.nc", networks=2) as writer:
        writer.append(DAYS, fields)
    made = ensemble_dataset(
        fields,
        day=DAYS,
        calendar="noleap",
        targets=TARGETS,
        grid=grid,
        members=range(3),
        networks=2,
    )
    for found in (read(tmp_path / "pool.nc"), made):
        assert found["pr"].coords["network"].dims == ("realization",)
        assert found["network"].values.tolist() == [0, 1, 0]
    with opened(tmp_path / "one.nc") as writer:
        writer.append(DAYS, fields)
    assert "network" not in read(tmp_path / "one.nc").variables


def test_the_scorecard_takes_pools_as_mixtures(tmp_path):
    truth, values, network = dataset(sample(M=0, seed=9)), sample(M=5), [0, 1, 0, 1, 0]
    plain = dataset(values)
    pool = plain.assign_coords(network=("realization", network))
    card = evaluate_ensembles(
        {"pool": pool, "plain": plain}, truth, protocol={}, output=tmp_path
    )
    area = np.repeat(np.cos(np.deg2rad(truth["lat"].values))[:, None], 4, axis=1)
    pair = values["pr"].astype(np.float32), truth["pr"].values
    for name, labels in (("pool", network), ("plain", None)):
        expected = crps(*pair, weights=area, network=labels)
        assert value(card, name, "pr", "crps") == pytest.approx(expected, rel=1e-6)
    assert card.protocol["scored"]["networks"] == {"pool": 2}
