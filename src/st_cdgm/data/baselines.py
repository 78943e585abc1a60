"""Deterministic first guesses on the fine grid, to which the model adds a residual.

``lr_interp`` and ``climatology`` need no truth at prediction time. ``hr_smoothing``
does: it is an oracle, for super-resolution studies only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fields import Channel, TargetVariable
from st_cdgm.data.first_guess import (
    Baseline,
    ClimatologyBaseline,
    LrInterpBaseline,
    SmoothingBaseline,
)
from st_cdgm.data.grids import Grid, interpolation
from st_cdgm.data.normalization import check_choice
from st_cdgm.data.transforms import ordered_temperatures, precipitation_channels
from st_cdgm.data.units import units_factor
from st_cdgm.errors import InputError, MissingVariableError

__all__ = [
    "STRATEGIES",
    "Baseline",
    "ClimatologyBaseline",
    "CombinedBaseline",
    "LrInterpBaseline",
    "SmoothingBaseline",
    "build_baseline",
    "counterparts",
]

STRATEGIES = ("auto", "lr_interp", "climatology", "hr_smoothing")
FloatArray = NDArray[np.float32]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class CombinedBaseline(Baseline, kind="combined"):
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
        self.strategy = self.parts[0][0].strategy if len(self.parts) == 1 else "auto"
        self.oracle = any(part.oracle for part, _ in self.parts)

    def predict(
        self, lr: FloatArray, season: FloatArray, truth: FloatArray | None = None
    ) -> FloatArray:
        """Return the parts, put together; see :meth:`Baseline.predict`."""
        pieces = [
            part.predict(
                lr, season, None if truth is None else truth[:, list(channels)]
            )
            for part, channels in self.parts
        ]
        order = np.argsort([c for _, channels in self.parts for c in channels])
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
            meta["parts"].append({"channels": list(channels), "baseline": facts})
            arrays |= {f"{i}.{key}": value for key, value in fields.items()}
        return meta, arrays

    @classmethod
    def _restore(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Baseline:
        parts = []
        for i, part in enumerate(meta["parts"]):
            prefix = f"{i}."
            own = {
                key.removeprefix(prefix): value
                for key, value in arrays.items()
                if key.startswith(prefix)
            }
            parts.append((Baseline.from_state(part["baseline"], own), part["channels"]))
        return cls(parts, precipitation=meta["precipitation"], ordered=meta["ordered"])


def counterparts(
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    mapping: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Find the coarse counterpart of each target.

    The map decides where it names the target; else the surface channel of the same
    name; else the only surface channel with the same standard name.

    Returns
    -------
    dict
        Target name to channel index, for the targets that have a counterpart.

    Raises
    ------
    MissingVariableError
        If the map names a target or a channel that does not exist.
    """
    mapping = dict(mapping or {})
    names = [channel.name for channel in channels]
    _check_map(mapping, [t.name for t in targets], names)
    out = {}
    for target in targets:
        surface = [(i, c) for i, c in enumerate(channels) if c.level is None]
        same = [
            i
            for i, c in surface
            if c.standard_name and c.standard_name == target.standard_name
        ]
        if target.name in mapping:
            out[target.name] = names.index(mapping[target.name])
        elif target.name in (c.name for _, c in surface):
            out[target.name] = names.index(target.name)
        elif len(same) == 1:
            out[target.name] = same[0]
    return out


def build_baseline(
    strategy: str,
    *,
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    lr_grid: Grid,
    hr_grid: Grid,
    truth: FloatArray,
    season: FloatArray,
    mapping: Mapping[str, str] | None = None,
    factor: int = 4,
) -> CombinedBaseline:
    """Build and fit the configured baseline.

    Parameters
    ----------
    strategy : {"auto", "lr_interp", "climatology", "hr_smoothing"}
        ``auto``: ``lr_interp`` where a coarse counterpart exists, else ``climatology``.
    targets, channels : sequence
        Target variables and predictor channels.
    lr_grid, hr_grid : Grid
        Coarse and fine grid.
    truth, season : ndarray
        Training days, shapes ``(T, C, Y, X)`` and ``(T,)``.
    mapping : mapping, optional
        Target name to channel name.
    factor : int
        Block side of ``hr_smoothing``.

    Raises
    ------
    MissingVariableError
        If ``lr_interp`` lacks the counterpart of a target, or the map is wrong.
    InputError
        If the units of a target and its counterpart differ in an unknown way.
    """
    check_choice("baseline_strategy", strategy, STRATEGIES)
    everything = tuple(range(len(targets)))
    found = counterparts(targets, channels, mapping)
    if strategy == "hr_smoothing":
        parts: list[tuple[Baseline, Sequence[int]]] = [
            (SmoothingBaseline(max(int(factor), 1)), everything)
        ]
    else:
        if strategy == "lr_interp":
            _check_all_found(targets, channels, found)
        use_lr = [
            i
            for i in everything
            if strategy != "climatology" and targets[i].name in found
        ]
        rest = [i for i in everything if i not in use_lr]
        parts = []
        if use_lr:
            source = [found[targets[i].name] for i in use_lr]
            pairs = zip(use_lr, source, strict=True)
            convert = [_conversion(channels[c], targets[i]) for i, c in pairs]
            to_fine = interpolation(lr_grid, hr_grid)
            parts.append((LrInterpBaseline(source, convert, to_fine), use_lr))
        if rest:
            names = [targets[i].name for i in rest]
            fitted = ClimatologyBaseline.fit(truth[:, rest], season, names)
            parts.append((fitted, rest))
    return CombinedBaseline(
        parts,
        precipitation=precipitation_channels(targets),
        ordered=ordered_temperatures(targets),
    )


def _conversion(channel: Channel, target: TargetVariable) -> tuple[float, float]:
    """Return factor and offset from a channel's units to a target's."""
    found = units_factor(channel.units, target.units)
    if found is None:
        raise InputError(
            "a target and its coarse counterpart have units that do not convert",
            variable=f"{target.name} from {channel.name}",
            found=f"{channel.units} for {target.units}",
            expected="units of the same kind",
            remedy="map another channel in data.baseline_map or use climatology",
        )
    return found


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


def _check_all_found(
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    found: Mapping[str, int],
) -> None:
    missing = [t.name for t in targets if t.name not in found]
    if missing:
        raise MissingVariableError(
            "no coarse counterpart for a target",
            variable=", ".join(missing),
            found=", ".join(c.name for c in channels),
            expected="a predictor channel for each target",
            remedy="name one in data.baseline_map, or use baseline_strategy auto",
        )
