"""Deterministic first guesses on the fine grid, to which the model adds a residual.

``lr_interp``, ``climatology`` and ``regression`` need no truth at prediction time.
``hr_smoothing`` does: it is an oracle, for super-resolution studies only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.baseline.interpolation import (
    Baseline,
    ClimatologyBaseline,
    LrInterpBaseline,
    SmoothingBaseline,
)
from st_cdgm.data.fit.baseline.regression import RegressionBaseline
from st_cdgm.data.fit.codecs.choice import build_codec
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.moments import Blocks
from st_cdgm.data.space.grid import Grid, interpolation
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.data.variables.table import ordered_temperatures, precipitation_channels
from st_cdgm.data.variables.units import units_factor
from st_cdgm.errors import InputError, MissingVariableError, check_choice
from st_cdgm.typing import FloatArray, State

STRATEGIES = ("auto", "lr_interp", "climatology", "hr_smoothing", "regression")


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
    blocks: Blocks,
    codec: TargetCodec | None = None,
    mapping: Mapping[str, str] | None = None,
    factor: int = 4,
) -> CombinedBaseline:
    """Build and fit the configured baseline.

    Parameters
    ----------
    strategy : {"auto", "lr_interp", "climatology", "hr_smoothing", "regression"}
        ``auto``: ``lr_interp`` where a coarse counterpart exists, else ``climatology``.
        ``regression``: see
        :class:`st_cdgm.data.fit.baseline.regression.RegressionBaseline`.
    targets, channels : sequence
        Target variables and predictor channels.
    lr_grid, hr_grid : Grid
        Coarse and fine grid.
    blocks : callable
        Gives an iterator over blocks of training days in time order, anew at each call:
        raw predictors in canonical units ``(T, C_lr, y, x)``, fraction of the year
        ``(T,)``, truth ``(T, C, Y, X)``, NaN where missing. Not called where nothing is
        fitted; see :func:`array_blocks` for days in memory.
    codec : TargetCodec, optional
        In whose space ``regression`` is linear; the default codec if None.
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
    elif strategy == "regression":
        fitted_regression = RegressionBaseline.fit(
            blocks,
            codec=build_codec(targets) if codec is None else codec,
            root=precipitation_channels(channels),
        )
        parts = [(fitted_regression, everything)]
    else:
        if strategy == "lr_interp":
            _check_all_found(targets, channels, found)
        if strategy == "climatology":
            found = {}
        parts = _interpolated(targets, channels, lr_grid, hr_grid, found)
        parts += _climatology(targets, hr_grid, blocks, found)
    return CombinedBaseline(
        parts,
        precipitation=precipitation_channels(targets),
        ordered=ordered_temperatures(targets),
    )


def _interpolated(
    targets: Sequence[TargetVariable],
    channels: Sequence[Channel],
    lr_grid: Grid,
    hr_grid: Grid,
    found: Mapping[str, int],
) -> list[tuple[Baseline, Sequence[int]]]:
    """Interpolate the targets that have a counterpart."""
    use = [i for i, target in enumerate(targets) if target.name in found]
    if not use:
        return []
    source = [found[targets[i].name] for i in use]
    pairs = zip(use, source, strict=True)
    convert = [_conversion(channels[c], targets[i]) for i, c in pairs]
    to_fine = interpolation(lr_grid, hr_grid)
    return [(LrInterpBaseline(source, convert, to_fine), use)]


def _climatology(
    targets: Sequence[TargetVariable],
    hr_grid: Grid,
    blocks: Blocks,
    found: Mapping[str, int],
) -> list[tuple[Baseline, Sequence[int]]]:
    """Fit a climatology to the targets that have no counterpart."""
    rest = [i for i, target in enumerate(targets) if target.name not in found]
    if not rest:
        return []
    days = ((season, truth[:, rest]) for _, season, truth in blocks())
    shape, names = (len(rest), *hr_grid.shape), [targets[i].name for i in rest]
    return [(ClimatologyBaseline.fit_blocks(days, shape, names), rest)]


def array_blocks(
    raw: FloatArray, season: FloatArray, truth: FloatArray, days: int = 256
) -> Blocks:
    """Return the ``blocks`` of training days that are in memory.

    Parameters
    ----------
    raw, season, truth : ndarray
        All training days; see :func:`build_baseline`.
    days : int
        Days per block.
    """

    def blocks() -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
        for start in range(0, len(truth), days):
            part = slice(start, start + days)
            yield raw[part], season[part], truth[part]

    return blocks


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
