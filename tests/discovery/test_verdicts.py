"""The rule for links, on losses made by hand: every condition decides."""

from __future__ import annotations

import numpy as np
import pytest

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.losses import Losses
from st_cdgm.discovery.verdicts import LinkLosses, judge

STEPS = 1200  # sixty blocks of twenty steps
NAMES = ("a", "b")


def part(
    *, gain=0.1, evidence=0.1, wobble=0.01, shadow=0.0, given=0.1, alike=0.0, slow=0.0
):
    """Losses in which a gives b this gain, and its shadow that one; b gives a none.

    ``wobble`` is the deviation of a step's gain; ``alike`` and ``slow`` are the shares
    of the residuals that go together from step to step, and for thirty steps.
    """
    rng = np.random.default_rng(0)

    def of(mean):
        out = np.zeros((STEPS, 2, 2))
        out[:, 0, 1] = mean + wobble * np.sqrt(20) * rng.standard_normal(STEPS)
        return out

    together = alike * rng.standard_normal((STEPS, 1))
    together += slow * np.repeat(rng.standard_normal((STEPS // 30, 1)), 30, axis=0)
    same_step = np.zeros((STEPS, 2, 2))
    if alike:
        noise = 0.01 * rng.standard_normal(STEPS)
        same_step[:, 0, 1] = same_step[:, 1, 0] = 0.1 + noise
    losses = Losses(
        step=np.arange(STEPS),
        full=np.ones((STEPS, 2)),
        without=of(gain),
        shadow=np.broadcast_to([[0.0, shadow], [0.0, 0.0]], (STEPS, 2, 2)).copy(),
        evidence=of(evidence),
        lag=np.stack([of(0.1), of(0.0)], axis=1),
        given=of(given),
        same_step=same_step,
        residual=together + rng.standard_normal((STEPS, 2)),
        effect=np.array([[[[0.0, -0.3], [0.0, 0.0]], [[0.0, 0.1], [0.0, 0.0]]]] * 2),
    )
    channels = [(name, name) for name in NAMES]
    return LinkLosses(
        sources=NAMES,
        targets=NAMES,
        source_channels=channels,
        target_channels=channels,
        losses=losses,
        number=np.arange(STEPS),
        segment=np.arange(STEPS) // 300,
        lags=[1, 2],
    )


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        ({}, "predictive link"),
        ({"shadow": 0.049}, "predictive link"),
        ({"shadow": 0.051}, "not identifiable"),  # a shadow does half as well
        ({"gain": -0.1}, "none"),  # costs more than it brings, however sure
        ({"evidence": 0.0}, "none"),
        ({"evidence": 0.02, "wobble": 0.1}, "none"),  # found by chance
        ({"given": 0.0}, "within a step"),
        ({"alike": 1.0}, "predictive link"),  # as alike in weeks as in steps
        ({"slow": 1.0}, "predictive link"),  # nothing goes together within a step
        ({"alike": 1.0, "slow": 1.5}, "doubtful"),
    ],
)
def test_every_condition_of_the_rule_decides(made, verdict):
    graph = judge([part(**made)], DiscoveryConfig())
    found = {(link.source, link.target): link.verdict for link in graph.links}
    assert found == {("a", "b"): verdict, ("b", "a"): "none"}


def test_gain_interval_lag_sign_and_effect_are_those_of_the_table():
    (link,) = judge([part()], DiscoveryConfig()).edges
    assert link.gain == pytest.approx(0.1, abs=0.005)
    # Sixty blocks of deviation .01: 2.0 standard errors of .0013 either side.
    assert link.high - link.low == pytest.approx(4 * 0.01 / np.sqrt(60), rel=0.3)
    assert (link.lag, link.sign, link.effect) == ("1", -1, -0.3)
    assert link.channels == "a -> b"
    assert link.shadow_ratio == float("inf")


def test_the_false_discovery_rate_counts_the_pairs_of_all_parts():
    alone = judge([part()], DiscoveryConfig()).edges[0]
    both = judge([part(), part(evidence=-0.1)], DiscoveryConfig()).edges[0]
    assert both.q == pytest.approx(2 * alone.q)
