"""How far the links of a graph can be trusted.

A link is *certified* when it is found again in nine of ten refits (segments held out in
another order, years resampled), has the same sign in both halves of the record, bears
no mark of a hidden driver, and holds at the false discovery rate of the test.
Surrogates without any link say how many edges chance makes on this record.

References
----------
Stability: Meinshausen & Bühlmann, doi:10.1111/j.1467-9868.2010.00740.x. Surrogates:
Theiler et al., doi:10.1016/0167-2789(92)90102-S. Sortability: Reisach et al.,
arXiv:2303.18211.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.discovery.anomalies import remove_harmonics
from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.targets import TargetRecord
from st_cdgm.discovery.search import link_losses
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import EDGE, Link, LinkGraph, LinkLosses, judge
from st_cdgm.errors import InputError
from st_cdgm.typing import Floats

CERTIFIED, UNSTABLE, UNIDENTIFIABLE = "certified", "unstable", "not identifiable"
WORDS = {
    CERTIFIED: "found in at least 90 % of the refits, same sign in both halves of the "
    "record, no mark of a hidden driver, q below the level: the only edges that may be "
    "called causal, under the assumption that no common cause is missing",
    EDGE: "holds on held-out parts, but bears the mark of a hidden slow driver",
    UNSTABLE: "holds on held-out parts, but not in 90 % of the refits or not with one "
    "sign in both halves",
    UNIDENTIFIABLE: "other years predict as well as the source does",
}
SEASONS = ("DJF", "MAM", "JJA", "SON")
STABLE = 0.9


@dataclass(frozen=True, kw_only=True)
class CertifiedLink:
    """A link and what the refits made of it.

    Attributes
    ----------
    link : Link
        As first tested.
    share : float
        Refits in which it is accepted.
    signs : tuple of int
        Sign of its effect in the first and the second half of the record.
    half_gains : tuple of float
        Held-out gain in both halves.
    season_gains : dict
        Evidence per season, in units of the target's error.
    verdict : str
        See `WORDS`.
    """

    link: Link
    share: float
    signs: tuple[int, int]
    half_gains: tuple[float, float]
    season_gains: dict[str, float]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is certified of a graph, and what chance makes on the same record.

    Attributes
    ----------
    links : tuple of CertifiedLink
        All that were accepted or not identifiable.
    surrogates : dict
        Edges found in each surrogate without links, by kind.
    rescaled : bool
        Whether the same edges are found when every channel has other units.
    r2_sortability : float
        Share of edges along which the predictability by all others rises; .5 says
        that no method could have read the order off the scales.
    protocol : dict
        Seeds, resamples, period, settings.
    """

    links: tuple[CertifiedLink, ...]
    surrogates: dict[str, list[int]]
    rescaled: bool
    r2_sortability: float
    protocol: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        edges = [
            {
                **asdict(found.link),
                **{k: v for k, v in asdict(found).items() if k != "link"},
            }
            for found in self.links
        ]

        # JSON has no infinite number: no shadow gained anything.
        for edge in edges:
            ratio = edge["shadow_ratio"]
            edge["shadow_ratio"] = ratio if np.isfinite(ratio) else None
        return {
            "edges": edges,
            "surrogates": self.surrogates,
            "rescaled": self.rescaled,
            "r2_sortability": self.r2_sortability,
            "words": WORDS,
            "protocol": self.protocol,
        }


def certify(
    record: Record,
    config: DiscoveryConfig,
    *,
    target: TargetRecord | None = None,
    seeds: int = 5,
    resamples: int = 50,
    surrogates: int = 5,
    on_step: Callable[[], None] | None = None,
) -> Certificate:
    """Refit the graph of a record in every way that should not change it.

    Parameters
    ----------
    record, config, target : Record, DiscoveryConfig, TargetRecord
        As in :func:`~st_cdgm.discovery.search.discover_edges`.
    seeds : int
        Orders in which segments are held out.
    resamples : int
        Resamples of the segments in each.
    surrogates : int
        Surrogates of each kind: years in an order of their own for every variable, and
        random phases.
    on_step : callable, optional
        Called after each of the ``seeds + 2 * surrogates + 4`` fits.

    Raises
    ------
    InputError
        The record is too short to be halved.
    """
    done = on_step or (lambda: None)

    # All fits; what follows judges them.
    def losses(
        of: Record, fine: TargetRecord | None, seed: int | None = None
    ) -> list[LinkLosses]:
        found = link_losses(of, config, target=fine, seed=seed)
        done()
        return found

    first = losses(record, target)
    graph = judge(first, config)
    refits = [losses(record, target, seed) for seed in range(1, seeds + 1)]
    halves = [judge(losses(*half), config) for half in _halves(record, target)]
    other_units = judge(losses(_rescaled(record), target), config)

    accepted = np.mean(
        [
            _accepted(again)
            for fit in refits
            for again in _resampled(fit, config, resamples)
        ],
        axis=0,
    )
    links = [
        _certified(link, share, halves, first, record)
        for link, share in zip(graph.links, accepted, strict=True)
        if link.accepted or link.verdict == UNIDENTIFIABLE
    ]
    counts = {
        kind: [len(judge(losses(*made), config).edges) for made in fakes]
        for kind, fakes in _surrogates(record, target, surrogates)
    }
    return Certificate(
        links=tuple(links),
        surrogates=counts,
        rescaled=_pairs(other_units) == _pairs(graph),
        r2_sortability=r2_sortability(record, graph),
        protocol={"seeds": seeds, "resamples": resamples, **asdict(config)},
    )


def _accepted(graph: LinkGraph) -> Floats:
    return np.array([link.accepted for link in graph.links], dtype=np.float64)


def _pairs(graph: LinkGraph) -> set[tuple[str, str]]:
    return {(link.source, link.target) for link in graph.edges}


def _resampled(
    fit: list[LinkLosses], config: DiscoveryConfig, count: int
) -> Iterator[LinkGraph]:
    """Judge again with segments drawn with replacement; the losses stay."""
    number = int(fit[0].segment.max()) + 1
    rng = np.random.default_rng(number)
    for _ in range(count):
        drawn = rng.multinomial(number, np.full(number, 1 / number))
        # Two segments at least: one alone has no spread.
        if (drawn > 0).sum() > 1:
            yield judge(fit, config, counts=drawn.astype(np.float64))


def _halves(
    record: Record, target: TargetRecord | None
) -> Iterator[tuple[Record, TargetRecord | None]]:
    middle = len(record.year) // 2
    if middle < 200:
        raise InputError(
            "too few steps to certify a graph",
            found=f"{len(record.year)} steps",
            expected=">= 400, for two halves",
        )
    for part in (slice(None, middle), slice(middle, None)):
        fine = None if target is None else replace(target, values=target.values[part])
        yield record.select(part), fine


def _rescaled(record: Record) -> Record:
    """Give every channel another unit."""
    rng = np.random.default_rng(0)
    fields = {}
    for name, field in record.fields.items():
        factor = np.exp(rng.uniform(-3, 3, (1, field.shape[1], 1, 1)))
        fields[name] = field * factor
    return replace(record, fields=fields)


def _certified(
    link: Link,
    share: float,
    halves: list[LinkGraph],
    parts: list[LinkLosses],
    record: Record,
) -> CertifiedLink:
    twins = [
        next(
            twin
            for twin in half.links
            if (twin.source, twin.target) == (link.source, link.target)
        )
        for half in halves
    ]
    # An effect that is not linear has no sign; then both halves must gain.
    same = twins[0].sign == twins[1].sign and min(twin.gain for twin in twins) > 0
    verdict = CERTIFIED if share >= STABLE and same else UNSTABLE
    if link.verdict == UNIDENTIFIABLE:
        verdict = UNIDENTIFIABLE
    elif link.verdict != EDGE:
        verdict = EDGE
    return CertifiedLink(
        link=link,
        share=float(share),
        signs=(twins[0].sign, twins[1].sign),
        half_gains=(twins[0].gain, twins[1].gain),
        season_gains=_season_gains(link, parts, record),
        verdict=verdict,
    )


def _season_gains(
    link: Link, parts: list[LinkLosses], record: Record
) -> dict[str, float]:
    """Return the mean evidence for a link in every season."""
    part = next(p for p in parts if link.target in p.targets)
    i, k = part.sources.index(link.source), part.targets.index(link.target)
    season = record.season[np.searchsorted(record.number, part.number)]
    quarter = ((np.asarray(season) * 12 + 1) // 3 % 4).astype(int)
    values = part.losses.evidence[:, i, k]
    return {
        name: float(values[quarter == n].mean())
        for n, name in enumerate(SEASONS)
        if (quarter == n).any()
    }


Made = tuple[Record, TargetRecord | None]


def _surrogates(
    record: Record, target: TargetRecord | None, count: int
) -> Iterator[tuple[str, Iterator[Made]]]:
    """Yield the kinds of surrogates without any link, each with its records."""
    names, year = list(record.fields), np.asarray(record.year)

    def made(
        change: Callable[[NDArray[Any], int, int], NDArray[Any]],
    ) -> Iterator[Made]:
        for number in range(count):
            fields = {
                name: change(np.asarray(record.fields[name]), k, number)
                for k, name in enumerate(names)
            }
            yield replace(record, fields=fields), target

    yield "years shuffled", made(lambda v, k, n: _years_shuffled(v, year, k, n))
    yield "phases randomised", made(lambda v, k, n: _phases_randomised(v, 1000 * n + k))


def _years_shuffled(
    values: NDArray[Any], year: NDArray[Any], variable: int, number: int
) -> NDArray[Any]:
    """Put years in another order, so that no two variables keep the same year.

    Variable k takes the year k + 1 places further in an order drawn for all. Where
    there are too few years for that, the remainder is a turn by a part of a year.
    """
    years, place = np.unique(year, return_index=True)
    order = np.random.default_rng(number).permutation(len(years))
    turned = np.roll(order, -(variable + 1) % len(years))
    ends = np.append(place[1:], len(year))

    length = np.diff(np.append(place, len(year)))
    take = np.empty(len(year), np.int64)
    for here, there in zip(order, turned, strict=True):
        days = np.arange(length[here])
        take[place[here] : ends[here]] = place[there] + np.minimum(
            days, length[there] - 1
        )
    rounds = (variable + 1) // len(years)
    return np.roll(values[take], 91 * rounds, axis=0)


def _phases_randomised(values: NDArray[Any], seed: int) -> NDArray[Any]:
    """Turn the phases of all cells and channels of a variable alike."""
    rng = np.random.default_rng(seed)
    filled = np.where(np.isfinite(values), values, 0.0)
    spectrum = np.fft.rfft(filled, axis=0)
    turn = np.exp(2j * np.pi * rng.uniform(size=len(spectrum)))
    turn[0] = 1.0
    if len(values) % 2 == 0:
        turn[-1] = 1.0  # the fastest wave has no phase
    turned = spectrum * turn.reshape(-1, *[1] * (values.ndim - 1))
    out = np.fft.irfft(turned, n=len(values), axis=0)
    return np.where(np.isfinite(values), out, np.nan).astype(values.dtype)


def r2_sortability(record: Record, graph: LinkGraph) -> float:
    """Return the share of edges between sources along which R2 on all others rises.

    .5 without edges. R2 is that of a variable's spatial mean, seasons removed.
    """
    means = [np.nanmean(field, axis=(2, 3))[:, :1] for field in record.fields.values()]
    series = np.concatenate(means, axis=1)[:, :, None, None]
    series = np.nan_to_num(series)
    left = remove_harmonics(series, np.asarray(record.season), harmonics=3)[:, :, 0, 0]
    inverse = np.linalg.pinv(np.corrcoef(left.T))
    r2 = dict(zip(record.names, 1 - 1 / np.diag(inverse), strict=True))
    rising = [
        r2[link.target] > r2[link.source] for link in graph.edges if link.target in r2
    ]
    return float(np.mean(rising)) if rising else 0.5
