"""Baselines put together: which baseline each target gets.

``lr_interp``, ``climatology`` and ``regression`` need no truth at prediction time.
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
from st_cdgm.data.fit.baseline.contract import Baseline, BaselineTask, filed
from st_cdgm.data.fit.baseline.lr_interp import LrInterpBaseline
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import (
    ordered_temperatures,
    precipitation_channels,
)
from st_cdgm.errors import MissingVariableError, check_choice
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
    """

    def __init__(
        self,
        parts: Sequence[tuple[Baseline, Sequence[int]]],
        *,
        precipitation: Sequence[int] = (),
        ordered: Sequence[int] = (),
    ) -> None:
        self.parts = tuple((part, tuple(channels)) for part, channels in parts)
        self.precipitation = tuple(precipitation)
        self.ordered = tuple(ordered)
        self.oracle = any(part.oracle for part, _ in self.parts)

    @property
    def strategy(self) -> str:
        """Name of the only part's strategy, or ``auto``."""
        return self.parts[0][0].strategy if len(self.parts) == 1 else "auto"

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
        cls, parts: Sequence[tuple[Baseline, Sequence[int]]], task: BaselineTask
    ) -> Self:
        """Put baselines together, admissible for the targets of a task."""
        return cls(
            parts,
            precipitation=precipitation_channels(task.targets),
            ordered=ordered_temperatures(task.targets),
        )

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the parts, put together; see :meth:`Baseline.predict`."""
        order = np.argsort([c for _, channels in self.parts for c in channels])
        pieces = [
            part.predict(
                lr, season, None if truth is None else truth[:, list(channels)]
            )
            for part, channels in self.parts
        ]
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
            meta["parts"].append({"channels": list(channels), "baseline": facts})
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
        return cls(parts, precipitation=meta["precipitation"], ordered=meta["ordered"])


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
    strategy: str, *, mapping: Mapping[str, str] | None = None, **task: Any
) -> CombinedBaseline:
    """Build and fit the configured baseline.

    Parameters
    ----------
    strategy : str
        ``auto``: ``lr_interp`` where a coarse counterpart exists, else ``climatology``;
        or a registered name: these two, ``regression``, ``hr_smoothing`` (an oracle).
    mapping : mapping, optional
        Target name to channel name; see :func:`counterparts`.
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
    if strategy == "auto":
        return CombinedBaseline.build(whole)
    only = registry.get("baseline", strategy).build(whole)
    return CombinedBaseline.of([(only, range(len(whole.targets)))], whole)


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
