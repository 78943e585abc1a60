"""What is certified, what is not, and what chance makes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.search import discover_edges, link_losses
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import DOUBTFUL, EDGE, judge
from st_cdgm.errors import InputError
from st_cdgm.explanation.certificate import (
    CERTIFIED,
    UNIDENTIFIABLE,
    UNSTABLE,
    _certified,
    _phases_randomised,
    _years_shuffled,
    certify,
    r2_sortability,
)

QUICK = DiscoveryConfig(max_lag=1, squares=1)
YEARS, DAYS = 6, 365
YEAR = np.arange(YEARS * DAYS) // DAYS


def record(strength=0.4):
    """Three series; x0 drives x1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((YEARS * DAYS, 3))
    for t in range(1, len(x)):
        x[t, 1] += 0.4 * x[t - 1, 1] + strength * x[t - 1, 0]
        x[t, 2] += 0.6 * x[t - 1, 2]
    season = np.arange(len(x)) % DAYS / DAYS
    fields = {f"x{k}": x[:, [k], None, None] for k in range(3)}
    return Record(fields=fields, year=YEAR, season=season)


@functools.cache
def clear():
    return certify(record(), QUICK, seeds=2, resamples=10, surrogates=2)


def test_a_clear_link_is_certified_and_surrogates_have_none():
    found = clear()
    (edge,) = found.links
    assert (edge.link.source, edge.link.target) == ("x0", "x1")
    assert edge.verdict == CERTIFIED
    assert edge.share == 1.0
    assert edge.signs == (1, 1)
    assert set(edge.season_gains) == {"DJF", "MAM", "JJA", "SON"}
    assert min(edge.season_gains.values()) > 0
    assert found.rescaled
    assert sum(map(sum, found.surrogates.values())) == 0
    content = found.to_dict()
    assert content["edges"][0]["verdict"] == "certified"
    assert set(content["words"]) >= {"certified", "unstable"}


@pytest.mark.parametrize(
    ("share", "signs", "found", "expected"),
    [
        (0.90, (1, 1), EDGE, CERTIFIED),
        (0.89, (1, 1), EDGE, UNSTABLE),
        (1.0, (1, -1), EDGE, UNSTABLE),
        (1.0, (0, 0), EDGE, CERTIFIED),  # not linear: both halves gain
        (1.0, (1, 1), DOUBTFUL, EDGE),
        (1.0, (1, 1), UNIDENTIFIABLE, UNIDENTIFIABLE),
    ],
)
def test_every_condition_decides(share, signs, found, expected):
    rec = record()
    parts = link_losses(rec, QUICK)
    graph = judge(parts, QUICK)
    (link,) = (dataclasses.replace(one, verdict=found) for one in graph.edges)
    halves = [
        dataclasses.replace(graph, links=(dataclasses.replace(link, sign=sign),))
        for sign in signs
    ]
    assert _certified(link, share, halves, parts, rec).verdict == expected


def test_a_weak_link_is_unstable():
    found = certify(record(0.12), QUICK, seeds=2, resamples=20, surrogates=0)
    assert [edge.verdict for edge in found.links] == [UNSTABLE]
    assert 0.5 < found.links[0].share < 0.9


def test_shuffled_years_keep_every_year_and_its_season_and_no_pair_together():
    values = np.stack([YEAR, np.arange(len(YEAR)) % DAYS], axis=1).astype(float)
    made = [_years_shuffled(values, YEAR, k, 3) for k in range(4)]
    for found in made:
        np.testing.assert_array_equal(found[:, 1], values[:, 1])
        assert sorted(found[::DAYS, 0]) == list(range(YEARS))
    for a in range(4):
        assert (made[a][:, 0] != YEAR).all() or a >= YEARS
        for b in range(a):
            assert (made[a][:, 0] != made[b][:, 0]).all()


def test_random_phases_keep_spectrum_and_cross_channel_phase():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((500, 2, 1, 1))
    values[:, 1] = np.roll(values[:, 0], 3, axis=0)
    made = _phases_randomised(values, 1)
    for channel in (0, 1):
        np.testing.assert_allclose(
            np.abs(np.fft.rfft(made[:, channel, 0, 0])),
            np.abs(np.fft.rfft(values[:, channel, 0, 0])),
            atol=1e-8,
        )
    assert abs(np.corrcoef(made[:, 0, 0, 0], values[:, 0, 0, 0])[0, 1]) < 0.2
    assert np.corrcoef(np.roll(made[:, 0, 0, 0], 3), made[:, 1, 0, 0])[0, 1] > 0.99


def test_sortability_is_a_half_without_edges():
    graph = discover_edges(record(), QUICK)
    assert 0 <= r2_sortability(record(), graph) <= 1
    empty = dataclasses.replace(graph, links=())
    assert r2_sortability(record(), empty) == 0.5


def test_a_record_too_short_to_be_halved_is_refused():
    with pytest.raises(InputError, match="too few steps to certify"):
        certify(record().select(slice(0, 300)), QUICK, seeds=1, resamples=1)
