"""Bias-adjusted interpolation: quantile mapping of the interpolated coarse field."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.baseline.lr_interp import LrInterpBaseline
from st_cdgm.data.fit.preprocessor import Preprocessor
from st_cdgm.data.space.grid import interpolation
from st_cdgm.data.task.days import FieldArrays
from st_cdgm.errors import InputError
from st_cdgm.references.base import Reference
from st_cdgm.references.days import season_distance, season_pool, training_days
from st_cdgm.references.encoded import EncodedCells
from st_cdgm.references.tuning import choose
from st_cdgm.registry import register
from st_cdgm.typing import FloatArray

_LOGGER = logging.getLogger(__name__)
WINDOWS = (15.0, 30.0, 45.0)
# A coarse channel that follows a target less than this is no predictor of it.
LEAST_CORRELATION = 0.2


@register("reference", "quantile_mapping")
@dataclass(kw_only=True, eq=False)
class QuantileMappingReference(Reference):
    r"""The interpolated coarse field with the distribution of the fine truth.

    In every cell and season a value becomes the truth of the same rank,

    .. math:: x \mapsto F_{\mathrm{truth}}^{-1}\bigl(F_{\mathrm{coarse}}(x)\bigr)

    with the empirical distributions of the training days whose day of the year is at
    most ``window`` days away. Beyond the training values the correction of the most
    extreme one holds. What is mapped is the coarse counterpart of the target where the
    baseline has one, else the coarse channel that follows the truth best.

    One deterministic member: the method says nothing about spread, and members made by
    adding errors would no longer have the distribution that it is there to give.

    Attributes
    ----------
    window : float
        Half width of the season in days, chosen on validation days where there are any
        (15).

    References
    ----------
    Maraun (2013), doi:10.1175/JCLI-D-12-00821.1; Cannon et al. (2015),
    doi:10.1175/JCLI-D-14-00754.1; Gutierrez et al. (2019), doi:10.1002/joc.5462.
    """

    window: float = 15.0

    def fit(
        self,
        train: FieldArrays,
        preprocessor: Preprocessor,
        validation: FieldArrays | None = None,
    ) -> Self:
        """Keep the training values of both; choose the window.

        Raises
        ------
        InputError
            A target has no coarse counterpart, and no channel follows it.
        """
        days, truth = training_days(train, preprocessor)
        self._preprocessor = preprocessor
        self._cells = EncodedCells(preprocessor).cells
        self._season = days.season
        self._truth = self._flat(np.where(preprocessor.valid, truth, days.baseline))
        self._source = self._sources(days)
        self._coarse = self._mapped(days)

        if validation is not None:
            self.window = choose(WINDOWS, self._trial, validation, preprocessor)
            self.candidates = len(WINDOWS)
        return self

    def predict(
        self, days: FieldArrays, *, members: int, seed: int
    ) -> NDArray[np.float32]:
        """Return the mapped fields. Shape ``(T, 1, C, Y, X)`` whatever ``members``."""
        del members, seed
        return self._by_season(days, self._mapped(days), self.window)

    def _by_season(
        self, days: FieldArrays, coarse: FloatArray, window: float
    ) -> NDArray[np.float32]:
        """Map values ``(T, C, P)``; every day of the year has one mapping."""
        mapped = np.empty(coarse.shape, dtype=np.float32)
        apart = season_distance(days.season, self._season)
        number = np.unique(days.season, return_inverse=True)[1]
        for k in range(int(number.max(initial=-1)) + 1):
            at = np.flatnonzero(number == k)
            pool = season_pool(apart[at[0]], window, 1)
            mapped[at] = map_quantiles(
                coarse[at], self._coarse[pool], self._truth[pool]
            )

        return self._fields(mapped)

    def _trial(self, days: FieldArrays) -> Callable[[float], NDArray[np.float32]]:
        """Return what another window makes of some days."""
        return partial(self._by_season, days, self._mapped(days))

    def _fields(self, mapped: FloatArray) -> NDArray[np.float32]:
        """Return mapped values ``(T, C, P)`` as fields, temperatures in their order."""
        valid, codec = self._preprocessor.valid, self._preprocessor.codec
        ordered = list(codec.ordered)
        mapped[:, ordered] = np.sort(mapped[:, ordered], axis=1)
        rain = list(codec.nonnegative)
        mapped[:, rain] = np.maximum(mapped[:, rain], 0.0)

        out = np.full((len(mapped), len(valid), valid[0].size), np.nan, np.float32)
        out[:, :, self._cells] = mapped
        fields = out.reshape(len(mapped), 1, *valid.shape)
        return np.where(valid, fields, np.float32(np.nan))

    def _flat(self, fields: FloatArray) -> FloatArray:
        """Return ``(T, C, Y, X)`` on the cells that count. Shape ``(T, C, P)``."""
        flat = fields.reshape(*fields.shape[:2], -1)
        return np.ascontiguousarray(flat[:, :, self._cells], dtype=np.float32)

    def _sources(self, days: FieldArrays) -> list[tuple[int, float] | None]:
        """Return the channel of each target and its sign, None for the baseline."""
        baseline = self._preprocessor.baseline
        parts = getattr(baseline, "parts", [(baseline, range(self._truth.shape[1]))])
        given = {
            channel
            for part, channels in parts
            if isinstance(part, LrInterpBaseline)
            for channel in channels
        }
        return [
            None if c in given else self._best_channel(days, c)
            for c in range(self._truth.shape[1])
        ]

    def _best_channel(self, days: FieldArrays, target: int) -> tuple[int, float]:
        """Return the channel with the largest correlation and the sign of that."""
        truth = _anomalies(self._truth[:, target])
        found = []
        for channel in range(days.lr.shape[1]):
            coarse = _anomalies(self._interpolated(days, channel))
            together = (coarse * truth).sum(axis=0)
            size = np.square(coarse).sum(axis=0) * np.square(truth).sum(axis=0)
            found.append(float((together / np.sqrt(np.maximum(size, 1e-30))).mean()))

        best = int(np.argmax(np.abs(found)))
        names = [one.name for one in self._preprocessor.channels]
        name = self._preprocessor.targets[target].name
        if abs(found[best]) < LEAST_CORRELATION:
            raise InputError(
                "no coarse channel follows a target: there is nothing to map",
                variable=name,
                found=f"correlation {found[best]:.2f} with {names[best]}, the largest",
                expected=f"a coarse counterpart, or {LEAST_CORRELATION} at least",
                remedy="name one in data.baseline_map, or leave quantile_mapping out",
            )
        _LOGGER.info("quantile_mapping: %s from %s", name, names[best])
        return best, float(np.sign(found[best]))

    def _interpolated(self, days: FieldArrays, channel: int) -> FloatArray:
        grids = self._preprocessor.lr_grid, self._preprocessor.hr_grid
        fine = interpolation(*grids).apply(days.lr[:, channel])
        return cast("FloatArray", fine.reshape(len(fine), -1)[:, self._cells])

    def _mapped(self, days: FieldArrays) -> FloatArray:
        """Return what is mapped, target by target. Shape ``(T, C, P)``."""
        out = self._flat(days.baseline)
        for target, source in enumerate(self._source):
            if source is not None:
                channel, sign = source
                out[:, target] = sign * self._interpolated(days, channel)
        return out


def _anomalies(values: FloatArray) -> FloatArray:
    return cast("FloatArray", values - values.mean(axis=0))


def map_quantiles(
    values: FloatArray, coarse: FloatArray, truth: FloatArray
) -> FloatArray:
    """Map values by the empirical distributions of ``n`` days, cell by cell.

    A value that is not below k of the n coarse values becomes the k-th smallest truth;
    one below all of them, or above, gets the difference of the extremes added.

    Parameters
    ----------
    values : ndarray
        Shape ``(t, ...)``.
    coarse, truth : ndarray
        Shape ``(n, ...)`` each.

    Returns
    -------
    ndarray
        Shape ``(t, ...)``.
    """
    x, y = np.sort(coarse, axis=0), np.sort(truth, axis=0)
    out = np.empty_like(values)
    for t, value in enumerate(values):
        rank = (x <= value).sum(axis=0)
        at = np.maximum(rank - 1, 0)[None]
        inside = np.take_along_axis(y, at, axis=0)[0]
        out[t] = np.where(rank == 0, value + (y[0] - x[0]), inside)
        out[t] = np.where(value > x[-1], value + (y[-1] - x[-1]), out[t])
    return out
