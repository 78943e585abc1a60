"""From held-out losses to a tested graph.

With ``L_k`` the held-out loss of target k predicted from all pasts, ``L_k(-i)`` without
i's past, and ``L_k(i*)`` with i's past of another segment in its place (a shadow: the
same season, the same memory, no link)::

    gain_ik   = (L_k(-i) - L_k) / L_k
    shadow_ik = (L_k(-i) - L_k(i*)) / L_k

The link i -> k is accepted iff

* it is found among all pairs at the false discovery rate (Benjamini-Hochberg, the
  nested test of Clark and West on blocks of days, Student's t);
* its gain exceeds 0 at a level of its own;
* its gain exceeds a multiple of the best shadow of k. A gain that fails this alone is
  *not identifiable*: what the years have in common predicts as well as the parent;
* the past still helps where the same step of all other variables is known. Where it
  does not, the link is faster than a step and is listed without a direction.

An accepted link is *doubtful* when the parts of its two variables that no past tells go
together at the same step, and more so in means over one to four weeks of steps: a slow
driver that is not among the variables does that, a link between the two does not.

References
----------
Granger, Investigating causal relations by econometric models and cross-spectral
methods, doi:10.2307/1912791.
Kursa & Rudnicki, Feature selection with the Boruta package (shadow variables),
doi:10.18637/jss.v036.i11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.held_out.losses import Losses
from st_cdgm.discovery.statistics import (
    block_means,
    mean_test,
    q_values,
    slow_likeness,
)
from st_cdgm.typing import Floats, Indices

GIVEN_LEVEL = 0.05
EDGE, DOUBTFUL = "predictive link", "doubtful"
ACCEPTED = (EDGE, DOUBTFUL)


@dataclass(frozen=True, kw_only=True)
class Link:
    """What was found about one ordered pair.

    Attributes
    ----------
    source, target : str
        Variables.
    lag : str
        Steps after which the source acts: ``1``, ``1,3``, or ``1-3`` where its lags
        cannot be told apart.
    gain, low, high : float
        Relative held-out gain and its 95 % interval.
    p, q : float
        Of the nested test, one-sided, and its false discovery rate over all pairs.
    shadow, shadow_ratio : float
        Gain of the source's own shadow; gain over the best shadow of the target.
    sign : int
        Of the strongest linear effect, 0 where the folds do not agree.
    effect : float
        That effect: deviations of a channel of the target per deviation of a channel of
        the source, everywhere around it.
    channels : str
        The two channels, ``a -> b``.
    verdict : str
        ``predictive link``, ``doubtful``, ``not identifiable``, ``within a step``,
        ``none``.
    """

    source: str
    target: str
    lag: str
    gain: float
    low: float
    high: float
    p: float
    q: float
    shadow: float
    shadow_ratio: float
    sign: int
    effect: float
    channels: str
    verdict: str

    @property
    def accepted(self) -> bool:
        """Whether it is an edge of the graph."""
        return self.verdict in ACCEPTED


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkLosses:
    """Held-out losses of some targets about some sources, and their names.

    Attributes
    ----------
    sources, targets : tuple of str
        S and Q names.
    source_channels, target_channels : list of str
        All channels, source by source and target by target.
    losses : Losses
        Of all folds.
    number : ndarray
        Number of each held-out step. Shape ``(D,)``.
    lags : list of int
        Those tested.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    source_channels: list[tuple[str, str]]
    target_channels: list[tuple[str, str]]
    losses: Losses
    number: Indices
    lags: list[int]

    def columns(self, target: int) -> list[int]:
        """Return the channels of a target."""
        name = self.targets[target]
        return [c for c, (own, _) in enumerate(self.target_channels) if own == name]

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Pairs to judge: all but a variable with itself. Shape ``(S, Q)``."""
        return np.array([[i != k for k in self.targets] for i in self.sources])


@dataclass(frozen=True, kw_only=True, eq=False)
class LinkGraph:
    """Links between variables, tested on parts of the record that no fit has seen.

    Attributes
    ----------
    variables : tuple of str
        All nodes, sources first.
    targets : tuple of str
        Nodes that only receive links: the fine fields.
    links : tuple of Link
        All ordered pairs that were tested.
    same_step : tuple of tuple
        Pairs whose parts that the past does not tell go together, no direction.
    error : dict
        Held-out loss of each variable.
    """

    variables: tuple[str, ...]
    targets: tuple[str, ...]
    links: tuple[Link, ...]
    same_step: tuple[tuple[str, str], ...]
    error: dict[str, float]

    @property
    def edges(self) -> list[Link]:
        """Accepted links, the largest gain first."""
        kept = [link for link in self.links if link.accepted]
        return sorted(kept, key=lambda link: -link.gain)

    def matrix(self) -> Floats:
        """Return the gains of accepted links, ``[i, k]``: i -> k. Shape ``(V, V)``."""
        out = np.zeros((len(self.variables),) * 2)
        for link in self.edges:
            i, k = map(self.variables.index, (link.source, link.target))
            out[i, k] = link.gain
        return out

    def parents(self, target: str) -> list[str]:
        """Return the sources of accepted links to a variable."""
        return [link.source for link in self.edges if link.target == target]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        return {
            "variables": list(self.variables),
            "targets": list(self.targets),
            "error": self.error,
            "pairs": [asdict(link) for link in self.links],
            "same_step": [list(pair) for pair in self.same_step],
        }


def judge(
    parts: Sequence[LinkLosses],
    config: DiscoveryConfig,
    *,
    block_weights: Floats | None = None,
) -> LinkGraph:
    """Apply the rule to held-out losses, the false discovery rate over all parts.

    Parameters
    ----------
    parts : sequence of LinkLosses
        Links between predictors, and from predictors to targets.
    config : DiscoveryConfig
        Blocks and levels.
    block_weights : ndarray, optional
        How often each block counts, for resampling. Shape ``(B,)``.
    """
    tested = [_Tests(part, config, block_weights) for part in parts]
    p = np.concatenate(
        [tests.p[part.pairs] for tests, part in zip(tested, parts, strict=True)]
    )
    q = iter(np.split(q_values(p), np.cumsum([part.pairs.sum() for part in parts])))

    links: list[Link] = []
    same: list[tuple[str, str]] = []
    error: dict[str, float] = {}
    for part, tests in zip(parts, tested, strict=True):
        rates = np.ones(part.pairs.shape)
        rates[part.pairs] = next(q)
        links += tests.links(rates)
        same += tests.same_step()
        error |= dict(zip(part.targets, tests.error.tolist(), strict=True))

    sources = parts[0].sources
    receiving = tuple(k for part in parts for k in part.targets if k not in sources)
    return LinkGraph(
        variables=(*sources, *receiving),
        targets=receiving,
        links=tuple(links),
        same_step=tuple(same),
        error=error,
    )


class _Tests:
    """Test statistics of one part."""

    def __init__(
        self, part: LinkLosses, config: DiscoveryConfig, weights: Floats | None
    ) -> None:
        self.part, self.config, losses = part, config, part.losses

        block = config.block or int(np.clip(len(part.number) // 60, 5, 30))

        def of(values: Floats) -> Any:
            blocks, _ = block_means(values, part.number, block)
            return mean_test(blocks, weights)

        self.gain, self.nested = of(losses.without), of(losses.evidence)
        self.lag, self.given = of(losses.lag), of(losses.given)
        self.spared = of(losses.same_step)
        self.shadow = np.where(part.pairs, of(losses.shadow).mean, 0.0)
        self.best = np.maximum(self.shadow.max(axis=0), 0.0)
        self.p, self.error = self.nested.p, losses.full.mean(axis=0)

    def links(self, rates: Floats) -> list[Link]:
        """Return all pairs of the part, given their false discovery rates."""
        return [self._link(i, k, rates[i, k]) for i, k in np.argwhere(self.part.pairs)]

    def same_step(self) -> list[tuple[str, str]]:
        """Return pairs whose same step helps, both ways, over all pairs."""
        part = self.part
        pairs = np.argwhere(np.triu(self.together))
        return [(part.sources[i], part.targets[k]) for i, k in pairs]

    @cached_property
    def together(self) -> NDArray[np.bool_]:
        """Pairs whose unexplained parts go together. Shape ``(S, Q)``."""
        pairs, found = self.part.pairs, np.zeros(self.part.pairs.shape, bool)
        if np.any(self.part.losses.same_step):
            found[pairs] = q_values(self.spared.p[pairs]) < self.config.level
            found &= found.T
        return found

    def _slow(self, i: int, k: int) -> bool:
        """Whether the unexplained parts are more alike in longer means."""
        part = self.part
        residual = [part.losses.residual[:, part.columns(v)] for v in (i, k)]
        z = slow_likeness(residual[0], residual[1], part.number)
        return bool(z.max() > stats.norm.isf(self.config.doubt_level / z.size))

    def _link(self, i: int, k: int, rate: float) -> Link:
        low, high = self.gain.interval()
        sign, effect, channels = self._effect(i, k)
        gain, best = self.gain.mean[i, k], self.best[k]

        return Link(
            source=self.part.sources[i],
            target=self.part.targets[k],
            lag=self._lags(i, k),
            gain=float(gain),
            low=float(low[i, k]),
            high=float(high[i, k]),
            p=float(self.p[i, k]),
            q=float(rate),
            shadow=float(self.shadow[i, k]),
            shadow_ratio=float(gain / best) if best > 0 else float("inf"),
            sign=sign,
            effect=effect,
            channels=channels,
            verdict=self._verdict(i, k, rate),
        )

    def _verdict(self, i: int, k: int, rate: float) -> str:
        config = self.config
        found = rate < config.level and self.gain.p[i, k] < config.gain_level
        if not found:
            return "none"
        if self.gain.mean[i, k] <= config.shadow_ratio * self.best[k]:
            return "not identifiable"
        if np.any(self.part.losses.given) and self.given.p[i, k] > GIVEN_LEVEL:
            return "within a step"
        hidden = self.together[i, k] and self._slow(i, k)
        return DOUBTFUL if hidden else EDGE

    def _lags(self, i: int, k: int) -> str:
        """Name the lags that are needed beside the others; all where none is."""
        lags = self.part.lags
        needed = q_values(self.lag.p[:, i, k]) < self.config.level
        if needed.any():
            return ",".join(str(lag) for lag, n in zip(lags, needed, strict=True) if n)
        return f"{lags[0]}-{lags[-1]}" if len(lags) > 1 else str(lags[0])

    def _effect(self, i: int, k: int) -> tuple[int, float, str]:
        """Return sign, size and channels of the strongest linear effect."""
        part = self.part
        source, columns = part.sources[i], part.columns(k)
        rows = [c for c, (own, _) in enumerate(part.source_channels) if own == source]
        effect = part.losses.effect[:, :, rows][..., columns]  # (folds, L, c, k)
        mean = effect.mean(axis=0)
        lag, a, b = np.unravel_index(np.abs(mean).argmax(), mean.shape)
        signs = np.sign(effect[:, lag, a, b])
        sign = int(signs[0]) if (signs == signs[0]).all() else 0
        names = part.source_channels[rows[a]][1], part.target_channels[columns[b]][1]
        return sign, float(mean[lag, a, b]), " -> ".join(names)
