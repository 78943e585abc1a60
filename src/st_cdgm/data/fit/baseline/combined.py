"""Baselines put together: which baseline each target gets.

``lr_interp``, ``climatology``, ``regression`` and ``ridge`` need no truth at prediction
time.
``hr_smoothing`` does: it is an oracle, for super-resolution studies only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from st_cdgm import registry
from st_cdgm.data.fit.baseline.climatology import ClimatologyBaseline
from st_cdgm.data.fit.baseline.contract import (
    Baseline,
    BaselineDays,
    BaselineTask,
    filed,
)
from st_cdgm.data.fit.baseline.lr_interp import LrInterpBaseline
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import (
    ordered_temperatures,
    precipitation_channels,
)
from st_cdgm.errors import ConfigError, MissingVariableError, check_choice
from st_cdgm.typing import FloatArray, State


class CombinedBaseline(Baseline):
    """Take some targets from one baseline and the rest from another.

    The result is made admissible: precipitation not negative, temperatures in order.

    Parameters
    ----------
    parts : sequence of (Baseline, channels)
        Each gives the listed target channels, in that order; together every channel
        exactly once.
    precipitation : sequence of int
        Channels that must not be negative.
    ordered : sequence of int
        Channels of the ordered temperatures, coldest first.
    sources : sequence, optional
        The predictor channels that each part sees; None: all.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Baseline, Sequence[int]]],
        *,
        precipitation: Sequence[int] = (),
        ordered: Sequence[int] = (),
        sources: Sequence[Sequence[int] | None] | None = None,
    ) -> None:
        self.parts = tuple((part, tuple(channels)) for part, channels in parts)
        self.sources = tuple(
            None if seen is None else tuple(seen)
            for seen in sources or [None] * len(parts)
        )
        self.precipitation = tuple(precipitation)
        self.ordered = tuple(ordered)
        self.oracle = any(part.oracle for part, _ in self.parts)
        self.cross_fitted = all(part.cross_fitted for part, _ in self.parts)
        self.history = max(part.history for part, _ in self.parts)

    @property
    def strategy(self) -> str:
        """Name of the parts' only strategy, or ``auto``."""
        names = {part.strategy for part, _ in self.parts}
        return names.pop() if len(names) == 1 else "auto"

    @classmethod
    def build(cls, task: BaselineTask) -> Self:
        """Interpolate where a coarse counterpart exists, else take the climatology."""
        found = [i for i, t in enumerate(task.targets) if t.name in task.found]
        rest = [i for i, t in enumerate(task.targets) if t.name not in task.found]
        kinds = ((LrInterpBaseline, found), (ClimatologyBaseline, rest))
        parts = [(kind.build(task.only(own)), own) for kind, own in kinds if own]
        return cls.of(parts, task)

    @classmethod
    def of(
        cls,
        parts: Sequence[tuple[Baseline, Sequence[int]]],
        task: BaselineTask,
        sources: Sequence[Sequence[int] | None] | None = None,
    ) -> Self:
        """Put baselines together, admissible for the targets of a task."""
        return cls(
            parts,
            sources=sources,
            precipitation=precipitation_channels(task.targets),
            ordered=ordered_temperatures(task.targets),
        )

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the parts, put together; see :meth:`Baseline.predict`."""
        return self.predict_days(BaselineDays(lr=lr, season=season, truth=truth))

    def predict_days(self, days: BaselineDays) -> FloatArray:
        """Return the parts, put together; see :meth:`Baseline.predict_days`."""
        order = np.argsort([c for _, channels in self.parts for c in channels])
        pieces = []
        for (part, channels), seen in zip(self.parts, self.sources, strict=True):
            # Most need no more than the day itself.
            if seen is None and part.history == 1 and not part.cross_fitted:
                truth = None if days.truth is None else days.truth[:, list(channels)]
                pieces.append(part.predict(days.lr, days.season, truth))
            else:
                pieces.append(part.predict_days(days.only(channels, seen)))

        out = np.concatenate(pieces, axis=1)[:, order]
        for channel in self.precipitation:
            np.maximum(out[:, channel], 0.0, out=out[:, channel])
        for lower, upper in pairwise(self.ordered):
            np.maximum(out[:, upper], out[:, lower], out=out[:, upper])
        return out

    def to_state(self) -> State:
        """Return facts and arrays."""
        meta: dict[str, Any] = {
            "kind": "combined",
            "precipitation": list(self.precipitation),
            "ordered": list(self.ordered),
            "parts": [],
        }
        arrays: dict[str, NDArray[Any]] = {}

        for i, (part, channels) in enumerate(self.parts):
            facts, fields = part.to_state()
            facts = {"kind": part.strategy, **facts}
            own = {"channels": list(channels), "baseline": facts}
            if self.sources[i] is not None:
                own["sources"] = list(self.sources[i] or ())
            meta["parts"].append(own)
            arrays |= {f"{i}.{key}": value for key, value in fields.items()}
        return meta, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild all parts.

        Raises
        ------
        ConfigError
            If a part's strategy is not registered: a plugin is missing.
        """
        parts = []
        for i, part in enumerate(meta["parts"]):
            kind = registry.get("baseline", part["baseline"]["kind"])
            own = kind.from_state(part["baseline"], filed(arrays, i))
            parts.append((own, part["channels"]))
        return cls(
            parts,
            precipitation=meta["precipitation"],
            ordered=meta["ordered"],
            sources=[part.get("sources") for part in meta["parts"]],
        )


def counterparts(
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    mapping: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Find the coarse counterpart of each target: its name to the channel's index.

    The map decides where it names the target; else the surface channel of the same
    name; else the only one that is the same variable under another name (``mx2t`` and
    ``tasmax``); else the only one with the same standard name.

    Raises
    ------
    MissingVariableError
        If the map names a target or a channel that does not exist.
    """
    mapping = dict(mapping or {})
    names = [channel.name for channel in channels]
    _check_map(mapping, [t.name for t in targets], names)

    surface = {i: c for i, c in enumerate(channels) if c.level is None}
    out = {}
    for target in targets:
        if target.name in mapping:
            out[target.name] = names.index(mapping[target.name])
            continue

        for key in ("name", "row", "standard_name"):
            own = getattr(target, key)
            alike = [i for i, c in surface.items() if own and getattr(c, key) == own]
            if len(alike) == 1:
                out[target.name] = alike[0]
                break

    return out


def build_baseline(
    strategy: str,
    *,
    mapping: Mapping[str, str] | None = None,
    sources: Mapping[str, Sequence[Any]] | None = None,
    **task: Any,
) -> CombinedBaseline:
    """Build and fit the configured baseline.

    Parameters
    ----------
    strategy : str
        ``auto``: ``lr_interp`` where a coarse counterpart exists, else ``climatology``;
        or a registered name: these two, ``regression``, ``ridge``, ``hr_smoothing`` (an
        oracle).
    mapping : mapping, optional
        Target name to channel name; see :func:`counterparts`.
    sources : mapping, optional
        Target name to the node types or levels whose channels it may see; see
        :func:`source_groups`. Targets that see the same are fitted together.
    **task
        Attributes of :class:`st_cdgm.data.fit.baseline.contract.BaselineTask` but
        ``found``. The blocks are not called where nothing is fitted.

    Raises
    ------
    MissingVariableError
        If ``lr_interp`` lacks the counterpart of a target, or the map is wrong.
    InputError
        If the units of a target and its counterpart differ in an unknown way.
    """
    check_choice("baseline_strategy", strategy, strategies())
    found = counterparts(task["targets"], task["channels"], mapping)
    whole = BaselineTask(found=found, **task)
    kind = None if strategy == "auto" else registry.get("baseline", strategy)
    if sources and not (kind and kind.restricts):
        raise ConfigError(
            "this baseline cannot be restricted to some of the predictors",
            variable="data.baseline_sources",
            found=f"data.baseline_strategy {strategy}",
            expected="ridge or regression",
            remedy="choose one of these, or leave data.baseline_sources out",
        )

    if kind is None:
        return CombinedBaseline.build(whole)
    groups = source_groups(whole.targets, whole.channels, sources or {})
    parts = []
    for targets, seen in groups:
        own = whole if len(groups) == 1 else whole.only(targets)
        parts.append((kind.build(own if seen is None else own.seeing(seen)), targets))
    return CombinedBaseline.of(parts, whole, [seen for _, seen in groups])


def source_groups(
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    sources: Mapping[str, Sequence[Any]],
) -> list[tuple[list[int], list[int] | None]]:
    """Put targets together that see the same predictors.

    Parameters
    ----------
    targets, channels : sequence
        Target variables and predictor channels.
    sources : mapping
        Target name to node types (``SURF``, ``GP850``) or levels (``850``).

    Returns
    -------
    list of (targets, channels)
        Indices of both; channels are None where a group sees all.

    Raises
    ------
    MissingVariableError
        If a target, a node type or a level does not exist, or a target sees nothing.
    """
    known = {channel.group for channel in channels}
    _check_sources(sources, [t.name for t in targets], sorted(known))
    groups: dict[tuple[int, ...] | None, list[int]] = {}
    for i, target in enumerate(targets):
        allowed = {_node_type(one) for one in sources.get(target.name, known)}
        seen = tuple(
            c for c, channel in enumerate(channels) if channel.group in allowed
        )
        groups.setdefault(None if allowed == known else seen, []).append(i)
    return [(own, None if seen is None else list(seen)) for seen, own in groups.items()]


def _node_type(name: object) -> str:
    """Return ``850`` as ``GP850``; node types stay as they are."""
    text = f"{name:g}" if isinstance(name, int | float) else str(name)
    return f"GP{text}" if text[:1].isdigit() else text


def _check_sources(
    sources: Mapping[str, Sequence[Any]], targets: list[str], known: list[str]
) -> None:
    for target, names in sources.items():
        # First the target, then what it may see.
        if target not in targets:
            raise MissingVariableError(
                "data.baseline_sources names an unknown target",
                variable=target,
                expected=", ".join(targets),
            )
        wrong = [name for name in names if _node_type(name) not in known]
        if wrong or not names:
            raise MissingVariableError(
                "data.baseline_sources names predictors that there are not",
                variable=f"data.baseline_sources.{target}",
                found=", ".join(map(str, wrong)) or "none",
                expected=f"some of {', '.join(known)}",
                remedy="name node types (SURF, GP850) or levels (850)",
            )


def strategies() -> tuple[str, ...]:
    """Return what ``data.baseline_strategy`` may be."""
    return ("auto", *registry.names("baseline"))


def _check_map(
    mapping: Mapping[str, str], targets: list[str], names: list[str]
) -> None:
    for target, channel in mapping.items():
        wrong, known = (target, targets) if target not in targets else (channel, names)
        if wrong not in known:
            raise MissingVariableError(
                "data.baseline_map names an unknown variable",
                variable=wrong,
                found=f"{target}: {channel}",
                expected=", ".join(known),
            )
