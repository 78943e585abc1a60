"""What a baseline is: the fine fields to which the model adds a residual.

A baseline of one's own is a class in one file, registered by
``@register("baseline", "mine")`` and chosen by ``data.baseline_strategy: mine``. Its
state travels in the checkpoint under that name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import numpy as np
import torch

from st_cdgm import registry
from st_cdgm.data.fit.codecs.target import TargetCodec
from st_cdgm.data.fit.moments import Blocks
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.fields import Channel, TargetVariable
from st_cdgm.typing import FloatArray, Indices, State


@dataclass(frozen=True, kw_only=True, eq=False)
class BaselineDays:
    """Days as a baseline sees them.

    Attributes
    ----------
    lr, season, truth
        See :meth:`Baseline.predict`.
    before : ndarray or None
        Predictors of the day before each, shaped as ``lr``; None where the days
        themselves stand in.
    key : ndarray or None
        Names of the days, see :attr:`CalendarDays.key`; None where unknown. Shape
        ``(T,)``.
    """

    lr: FloatArray
    season: FloatArray
    truth: FloatArray | None = None
    before: FloatArray | None = None
    key: Indices | None = None

    def lagged(self, lag: int) -> FloatArray:
        """Return the predictors of the day before, as regressions ask for them."""
        assert lag == 1
        return self.lr if self.before is None else self.before

    def only(
        self, targets: Sequence[int], channels: Sequence[int] | None = None
    ) -> BaselineDays:
        """Return them with some of the targets and, if given, of the predictors."""
        truth = None if self.truth is None else self.truth[:, list(targets)]
        if channels is None:
            return replace(self, truth=truth)
        chosen = list(channels)
        before = None if self.before is None else self.before[:, chosen]
        return replace(self, lr=self.lr[:, chosen], before=before, truth=truth)


@dataclass(frozen=True, kw_only=True)
class BaselineTask:
    """What a baseline is made for, and of.

    Attributes
    ----------
    targets, channels : sequence
        Target variables and predictor channels.
    lr_grid, hr_grid : Grid
        Coarse and fine grid.
    blocks : callable
        Training days; see :data:`st_cdgm.data.fit.moments.Blocks`.
    found : dict
        Target name to the channel that is its coarse counterpart, where there is one.
    codec : TargetCodec, optional
        Of the targets; None for the default one.
    factor : int
        Block side, cells, for baselines that smooth.
    days : CalendarDays, optional
        Dates of the training days, in the order of the blocks; for baselines that look
        at the day before or leave years out.
    """

    targets: Sequence[TargetVariable]
    channels: Sequence[Channel]
    lr_grid: Grid
    hr_grid: Grid
    blocks: Blocks
    found: Mapping[str, int]
    codec: TargetCodec | None = None
    factor: int = 4
    days: CalendarDays | None = None

    def only(self, index: Sequence[int]) -> BaselineTask:
        """Return the task of some of the targets, with their default codec."""
        chosen = list(index)

        def blocks() -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
            for raw, season, truth in self.blocks():
                yield raw, season, truth[:, chosen]

        targets = [self.targets[i] for i in chosen]
        return replace(self, targets=targets, blocks=blocks, codec=None)

    def seeing(self, index: Sequence[int]) -> BaselineTask:
        """Return the task with some of the predictor channels."""
        chosen = list(index)

        def blocks() -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
            for raw, season, truth in self.blocks():
                yield raw[:, chosen], season, truth

        return replace(
            self,
            channels=[self.channels[i] for i in chosen],
            blocks=blocks,
            found={k: chosen.index(i) for k, i in self.found.items() if i in chosen},
        )


class Baseline(ABC):
    """Fine fields of every target variable, from predictors and the season.

    A frozen dataclass of plain values and arrays needs no methods for its state.

    Attributes
    ----------
    oracle : bool
        True if it needs the truth, so that it cannot serve a real prediction.
    history : int
        Days of predictors that it sees, the day itself included: 1 or 2.
    restricts : bool
        Whether it can be made of some of the predictor channels alone, as
        ``data.baseline_sources`` asks.
    cross_fitted : bool
        Whether a training day is predicted by a fit that has not seen its year.
    """

    oracle: bool = False
    history: int = 1
    restricts: bool = False
    cross_fitted: bool = False

    @property
    def strategy(self) -> str:
        """Name under which it is registered and configured."""
        return registry.name_of("baseline", type(self))

    @classmethod
    @abstractmethod
    def build(cls, task: BaselineTask) -> Self:
        """Make and fit it.

        Raises
        ------
        InputError, ConfigError
            If it cannot serve the task.
        """

    @abstractmethod
    def predict(
        self,
        lr: FloatArray,
        season: FloatArray,
        truth: FloatArray | None = None,
    ) -> FloatArray:
        """Return the fine fields.

        A day's fields do not depend on the other days that are asked for. They need
        not be admissible: negative precipitation and temperatures out of order are
        mended.

        Parameters
        ----------
        lr : ndarray
            Predictors in canonical units, without NaN. Shape ``(T, C_lr, y, x)``.
        season : ndarray
            Fraction of the year elapsed, in [0, 1). Shape ``(T,)``.
        truth : ndarray, optional
            Target fields, for an oracle only. Shape ``(T, C, Y, X)``.

        Returns
        -------
        ndarray
            Target units, without NaN. Shape ``(T, C, Y, X)``, float32.
        """

    def predict_days(self, days: BaselineDays) -> FloatArray:
        """Return the fine fields of days with all that is known of them.

        A baseline that looks at the day before (``history`` 2) or at the dates has its
        own; see :meth:`predict`.
        """
        return self.predict(days.lr, days.season, days.truth)

    def to_state(self) -> State:
        """Return JSON-able facts and arrays, from which :meth:`from_state` rebuilds."""
        own = {f.name: getattr(self, f.name) for f in fields(cast("Any", self))}
        arrays = {k: value for k, value in own.items() if isinstance(value, np.ndarray)}
        return {k: value for k, value in own.items() if k not in arrays}, arrays

    @classmethod
    def from_state(cls, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> Self:
        """Rebuild the baseline written by :meth:`to_state`."""
        own = [field.name for field in fields(cast("Any", cls))]
        return cls(**{key: arrays[key] if key in arrays else meta[key] for key in own})


def filed(arrays: Mapping[str, Any], key: object) -> dict[str, Any]:
    """Return the arrays filed under ``key.``, without that prefix."""
    prefix = f"{key}."
    return {
        name.removeprefix(prefix): np.asarray(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }


def encoded_truth(codec: TargetCodec, truth: FloatArray) -> FloatArray:
    """Return truth as the codec has it, NaN where there is none."""
    given = np.ascontiguousarray(np.where(np.isfinite(truth), truth, np.nan))
    encoded = codec.encode(torch.from_numpy(given.astype(np.float32)))
    return cast("FloatArray", encoded.numpy())
