"""The coarse fields of some days, as recorded and as they would have been."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from st_cdgm.checkpoint.build import channel_groups
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.read.cubes import ChannelCube
from st_cdgm.data.read.derived.appending import add_derived, derivable
from st_cdgm.data.read.readers import labelled
from st_cdgm.data.time.periods import period_days
from st_cdgm.errors import InputError
from st_cdgm.explanation.edits import Edit
from st_cdgm.explanation.graph import TestedGraph
from st_cdgm.explanation.regressions import Inputs
from st_cdgm.explanation.world import WorldModel, longest_lag
from st_cdgm.typing import FloatArray, Floats, Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseWorlds:
    """Predictors of the days asked for, in both worlds.

    Attributes
    ----------
    index : ndarray
        The days' places in the record. Shape ``(N,)``.
    factual, counterfactual : ndarray
        As the model gets them; equal to the bit where nothing answers.
        Shape ``(N, C, y, x)``.
    outside : dict of str to float
        Levels that leave the range of training by the edit: their distance in parts of
        the largest of training, see `WorldModel.distance`.
    """

    index: Indices
    factual: FloatArray
    counterfactual: FloatArray
    outside: dict[str, float]

    def changed(self, preprocessor: Preprocessor) -> FloatArray:
        """Return the change in canonical units. Shape ``(N, C, y, x)``."""
        after = preprocessor.physical_lr(self.counterfactual)
        change = after - preprocessor.physical_lr(self.factual)
        return np.where(self.counterfactual == self.factual, np.float32(0), change)


class CoarseRecord:
    """Predictors of a file, and the world model of those of its training days.

    Parameters
    ----------
    cube : ChannelCube
        Training days, and the days to ask about.
    preprocessor : Preprocessor
        Of the checkpoint.
    graph : TestedGraph
        Who acts on whom.

    Raises
    ------
    InputError
        The graph has other levels than the model.
    """

    def __init__(
        self, cube: ChannelCube, preprocessor: Preprocessor, graph: TestedGraph
    ) -> None:
        self.cube, self.preprocessor, self.graph = cube, preprocessor, graph
        self.groups = channel_groups(preprocessor.channels)
        graph.check_nodes(self.groups, [t.name for t in preprocessor.targets])
        self.inputs: Inputs = graph.inputs(self.groups)

    @cached_property
    def world(self) -> WorldModel:
        """The world model of the training days; InputError where they are too few."""
        days = training_days(self.cube, self.preprocessor.periods.get("train", []))
        return WorldModel.fit(
            self._standardised(days),
            self.cube.days.season[days],
            self.cube.days.ordinal[days],
            groups=self.groups,
            inputs=self.inputs,
            floors=_floors(self.preprocessor),
        )

    def worlds(
        self,
        start: str,
        days: int,
        edits: Sequence[Edit],
        pattern: Floats,
        *,
        edit_days: int = 1,
        hold_others: bool = False,
    ) -> CoarseWorlds:
        """Return both worlds from ``start`` on; arguments as those of `Question`.

        Raises
        ------
        InputError
            Days or their past are not in the file; too few training days.
        """
        index = self._days(start, days)
        lags, season = self.world.lags, self.cube.days.season[index]
        lr, climate = self._standardised(index), self.world.climate
        anomalies = climate.anomalies(lr, season)
        past, recorded = anomalies[:lags], anomalies[lags:]

        # What the model does not tell of these days is the same in both worlds.
        floor = climate.floor(season[lags:])
        errors = self.world.abduct(anomalies, floor)
        edited = {edit.node for edit in edits}
        free = edited if hold_others else self.graph.descendants(edited)
        held = self._held(recorded, free)
        driven: dict[str, Any] = {"floor": floor, "held": held}
        factual = self.world.roll(past, errors, **driven)
        action = _Action(self, factual, season[lags:], edits, pattern, edit_days)
        counterfactual = self.world.roll(past, errors, edit=action, **driven)

        outside = {}
        for name in self.groups:
            found = self.world.distance(name, counterfactual)
            if found > max(1.0, self.world.distance(name, recorded)):
                outside[name] = found
        return CoarseWorlds(
            index=index[lags:],
            factual=lr[lags:],
            counterfactual=lr[lags:] + (counterfactual - factual) * climate.scale,
            outside=outside,
        )

    def _held(
        self, recorded: FloatArray, free: Collection[str]
    ) -> Mapping[str, FloatArray]:
        return {
            name: recorded[:, channels]
            for name, channels in self.groups.items()
            if name not in free
        }

    def _days(self, start: str, days: int) -> Indices:
        """Return the places of the days and of the L days before."""
        calendar = self.cube.days
        at = int(
            period_days(
                calendar.key,
                start,
                start,
                file=self.cube.file,
                calendar=calendar.calendar,
                variable="from",
            )[0]
        )
        lags = longest_lag(self.inputs)

        index = np.arange(max(at - lags, 0), min(at + days, len(calendar)))
        whole = len(index) == lags + days
        if not whole or np.any(np.diff(calendar.ordinal[index]) != 1):
            raise InputError(
                "the days asked about are not all in the file",
                file=self.cube.file,
                found=calendar.period(),
                expected=f"{days} days from {start} and {lags} before, without a gap",
                remedy="ask for fewer days, or give more predictors",
            )
        return index

    def _standardised(self, index: Indices) -> FloatArray:
        return self.preprocessor.standardise_lr(self.cube.load(index))


class _Action:
    """Change days as the edits say, and let derived predictors follow."""

    def __init__(
        self,
        record: CoarseRecord,
        factual: FloatArray,
        season: FloatArray,
        edits: Sequence[Edit],
        pattern: Floats,
        edit_days: int,
    ) -> None:
        self._record, self._factual, self._season = record, factual, season
        self._edits, self._pattern, self._days = edits, pattern, edit_days
        channels = record.preprocessor.channels
        can = set(derivable(channels))
        self._derived = [
            number
            for number, channel in enumerate(channels)
            if channel.derived and channel.name in can
        ]

    def __call__(self, lead: int, day: FloatArray) -> FloatArray:
        """Return the anomalies of a day ``(C, y, x)`` as they are to be."""
        out = day.copy()
        for edit in self._edits if lead < self._days else ():
            field = out[edit.channel]
            if edit.physical:
                raw = self._physical(out, lead)
                raw[edit.channel] = edit.applied(raw[edit.channel], self._pattern)
                made = self._anomalies(raw, lead)[edit.channel]
            else:
                made = edit.applied(field, self._pattern)
            touched = edit.touched(self._pattern)
            out[edit.channel] = np.where(touched, made, field)

        if self._derived:
            self._follow(out, lead)
        return out

    def _follow(self, day: FloatArray, lead: int) -> None:
        """Set derived predictors: those of the record, and what the change makes."""
        before, after = self._factual[lead], self._physical(day, lead)
        raw = self._physical(before, lead)
        was, becomes = self._derive(raw), self._derive(after)
        raw[self._derived] += becomes - was
        made = self._anomalies(raw, lead)[self._derived]
        day[self._derived] = np.where(becomes == was, before[self._derived], made)

    def _derive(self, raw: FloatArray) -> FloatArray:
        """Compute the derived predictors of a day in canonical units."""
        preprocessor = self._record.preprocessor
        known = [n for n, c in enumerate(preprocessor.channels) if not c.derived]
        channels = tuple(preprocessor.channels[n] for n in known)
        cube = replace(
            self._record.cube,
            grid=preprocessor.lr_grid,
            channels=channels,
            values=labelled(raw[None, known], "channel", [c.name for c in channels]),
        )
        names = [preprocessor.channels[n].name for n in self._derived]
        values = add_derived(cube, names).values[:, len(known) :]
        return np.asarray(values[0], np.float32)

    def _physical(self, day: FloatArray, lead: int) -> FloatArray:
        climate = self._record.world.climate
        fields = climate.fields(day[None], self._season[lead : lead + 1])
        return np.asarray(self._record.preprocessor.physical_lr(fields)[0])

    def _anomalies(self, raw: FloatArray, lead: int) -> FloatArray:
        lr = self._record.preprocessor.standardise_lr(raw[None])
        climate = self._record.world.climate
        return np.asarray(climate.anomalies(lr, self._season[lead : lead + 1])[0])


def _floors(preprocessor: Preprocessor) -> dict[int, FloatArray]:
    """Return no rain, as the model gets it, of channels that enter by their root."""
    shape = (1, len(preprocessor.channels), *preprocessor.lr_grid.shape)
    dry = preprocessor.standardise_lr(np.zeros(shape, np.float32))[0]
    return {channel: dry[channel] for channel in preprocessor.lr_root}


def training_days(cube: ChannelCube, period: Sequence[str]) -> Indices:
    """Return the places of a model's training days in a file; there may be none.

    ``period`` is ``[start, end, ...]``, several pairs where it has several pieces.
    """
    parts = []
    for start, end in zip(period[::2], period[1::2], strict=True):
        try:
            parts.append(period_days(cube.days.key, start, end))
        except InputError:  # a piece that the file does not have
            continue
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
