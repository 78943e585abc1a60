"""The weather of predictors and targets, compared on the coarse cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.fit.baseline.combined import counterparts
from st_cdgm.data.inspect.roles import number
from st_cdgm.data.inspect.similarity import (
    LAGS,
    anomalies,
    block_means,
    finite_mean,
    lag_correlations,
    layouts,
    pattern_correlation,
)
from st_cdgm.data.read.cubes import ChannelCube, TargetCube
from st_cdgm.data.space.grid import Grid, nearest_index
from st_cdgm.data.variables.table import PRECIPITATION, precipitation_channels
from st_cdgm.data.variables.units import units_factor
from st_cdgm.typing import Floats, Indices

MOST_DAYS, BLOCK_DAYS = 730, 61  # days looked at, in blocks of a season
MOST_VALUES = 10**8  # fine values looked at per variable
WHOLE_GRID = 20_000  # coarse cells up to which turned grids are tried
FEWEST_CELLS = 6  # coarse cells from which patterns say something


@dataclass(frozen=True, kw_only=True)
class Counterpart:
    """A target and the predictor that resembles it most, of the same quantity first.

    Attributes
    ----------
    target, channel : str
        Their names.
    target_units, channel_units : str
        Units in which they are used.
    same_quantity : bool
        Whether both are the same quantity.
    target_mean, channel_mean : float
        Over the shared days and coarse cells; the channel's in the target's units
        where these convert.
    correlation : float or None
        Of the area means of the same days, annual cycle removed.
    lag_correlations : list of float or None
        The same with the predictors of -5 to 5 days later, the best of all channels.
    pattern : float or None
        Correlation over days and coarse cells of the anomalies without their area mean.
    best_layout : str
        How the coarse values have to be rearranged for the best pattern correlation.
    best_pattern : float or None
        That correlation.
    """

    target: str
    channel: str
    target_units: str
    channel_units: str
    same_quantity: bool
    target_mean: float | None
    channel_mean: float | None
    correlation: float | None
    lag_correlations: list[float | None]
    pattern: float | None
    best_layout: str
    best_pattern: float | None


def some_days(shared: Indices, grid: Grid) -> Indices:
    """Return all shared days, or of many some blocks spread over the record."""
    cells = grid.shape[0] * grid.shape[1]
    most = int(np.clip(MOST_VALUES // cells, 3 * BLOCK_DAYS, MOST_DAYS))
    if len(shared) <= most:
        return shared
    starts = np.linspace(0, len(shared) - BLOCK_DAYS, most // BLOCK_DAYS).astype(int)
    chosen = np.unique(starts[:, None] + np.arange(BLOCK_DAYS))
    return shared[chosen]


class PairedWeather:
    """Both records on the coarse cells under the targets, as anomalies.

    Compared are the days ``index`` of the fine record, shape ``(T,)``.
    """

    def __init__(self, lr: ChannelCube, hr: TargetCube, index: Indices) -> None:
        self.lr, self.hr, self.index = lr, hr, index
        self.day = hr.days.ordinal[index]
        whole = nearest_index(lr.grid, hr.grid)
        rows, columns = np.divmod(whole, lr.grid.shape[1])
        y, x = self.box = _box(rows, columns, lr.grid.shape)
        self.shape = (y.stop - y.start, x.stop - x.start)
        self.cell = (rows - y.start) * self.shape[1] + columns - x.start

        steps = _steps_at(lr.days.ordinal, self.day)  # (T, L) steps of the record
        used = np.unique(steps[steps >= 0])
        place = np.full(len(lr.days) + 1, -1)
        place[used] = np.arange(len(used))
        self.steps = place[steps]  # (T, L) steps of what is read here
        self.lr_days = lr.days.select(used)
        self.coarse = self._read_coarse(used)  # (S, C_lr, cells)
        self.links = counterparts(hr.targets, lr.channels)

    @property
    def same_day(self) -> Indices:
        """Step of the coarse record for each day. Shape ``(T,)``."""
        return np.asarray(self.steps[:, LAGS.index(0)], np.int64)

    def _read_coarse(self, used: Indices) -> Floats:
        values = self.lr.values.isel(y=self.box[0], x=self.box[1])
        fields = np.asarray(values[used].values, np.float64)
        for c in precipitation_channels(self.lr.channels):
            fields[:, c] = np.sqrt(np.maximum(fields[:, c], 0.0))
        return fields.reshape(*fields.shape[:2], -1)

    def _read_fine(self, target: int) -> Floats:
        """Target on the coarse cells, block by block. Shape ``(T, cells)``."""
        rain = self.hr.targets[target].quantity is PRECIPITATION
        cells = self.shape[0] * self.shape[1]
        parts = []
        for start in range(0, len(self.index), BLOCK_DAYS):
            part = self.hr.values[self.index[start : start + BLOCK_DAYS], target]
            flat = np.asarray(part.values, np.float64).reshape(len(part), -1)
            if rain:
                flat = np.sqrt(np.maximum(flat, 0.0))
            parts.append(block_means(flat, self.cell, cells))
        return np.concatenate(parts)

    def compare(self, target: int) -> Counterpart:
        """Compare one target with all channels."""
        named = self.hr.targets[target]
        values = self._read_fine(target)
        covered = np.isfinite(values).mean(axis=0) > 0.5
        fine = anomalies(values, self.hr.days.season[self.index], self.day)[:, covered]
        lagged = self._lagged(fine, covered)  # (C_lr, L)
        channel, same = self._channel(target, lagged)
        name, best, given = self._layout(fine, covered, channel)
        found = self.lr.channels[channel]
        means = self._means(target, channel, values[:, covered], covered)
        top = np.where(np.isfinite(lagged), np.abs(lagged), -1.0).max(axis=0)

        return Counterpart(
            target=named.name,
            channel=found.name,
            target_units=named.units,
            channel_units=found.units,
            same_quantity=same,
            target_mean=means[0],
            channel_mean=means[1],
            correlation=number(lagged[channel, LAGS.index(0)]),
            lag_correlations=[number(r) if r >= 0.0 else None for r in top],
            pattern=number(given),
            best_layout=name,
            best_pattern=number(best),
        )

    def _lagged(self, fine: Floats, covered: NDArray[np.bool_]) -> Floats:
        """Correlations of the area means of each channel and lag."""
        days = self.lr_days
        mean = finite_mean(fine, axis=1)
        series = finite_mean(self.coarse[:, :, covered], axis=2)  # (S, C_lr)
        series = anomalies(series, days.season, days.ordinal)
        return np.stack([lag_correlations(mean, s, self.steps) for s in series.T])

    def _channel(self, target: int, lagged: Floats) -> tuple[int, bool]:
        """Return the channel of the same quantity, else the most similar one."""
        named = self.hr.targets[target]
        if named.name in self.links:
            return self.links[named.name], True
        strength = np.where(np.isfinite(lagged), np.abs(lagged), -1.0).max(axis=1)
        alike = [c.quantity is named.quantity for c in self.lr.channels]
        if named.quantity is not None and any(alike):
            return int(np.where(alike, strength, -2.0).argmax()), True
        return int(strength.argmax()), False

    def _layout(
        self, fine: Floats, covered: NDArray[np.bool_], channel: int
    ) -> tuple[str, float, float]:
        """Best layout, its pattern correlation, and that of the layout as given."""
        days, here = self.lr_days, self.same_day
        fields = anomalies(self.coarse[:, channel], days.season, days.ordinal)
        fields = fields[np.maximum(here, 0)].reshape(-1, *self.shape)
        fields[here < 0] = np.nan
        found: dict[str, float] = {}
        if covered.sum() >= FEWEST_CELLS:
            for name, arranged in layouts(fields):
                flat = arranged.reshape(len(here), -1)[:, covered]
                if np.isfinite(flat).mean() > 0.6 * np.isfinite(here).mean():
                    found[name] = pattern_correlation(fine, flat)

        found = {name: r for name, r in found.items() if np.isfinite(r)}
        if "as given" not in found:
            return "as given", np.nan, np.nan

        sign = np.sign(found["as given"]) if channel not in self.links.values() else 1
        best = max(found, key=lambda name: sign * found[name])
        return best, found[best], found["as given"]

    def _means(
        self, target: int, channel: int, values: Floats, covered: NDArray[np.bool_]
    ) -> tuple[float | None, float | None]:
        named, found = self.hr.targets[target], self.lr.channels[channel]
        here = self.same_day[self.same_day >= 0]
        shared = self.coarse[here, channel][:, covered]
        fine, coarse = (
            float(np.nanmean(v**2 if one.quantity is PRECIPITATION else v))
            if np.isfinite(v).any()
            else np.nan
            for v, one in ((values, named), (shared, found))
        )
        factor = units_factor(found.units, named.units)
        if factor is not None:
            coarse = coarse * factor[0] + factor[1]
        return number(fine), number(coarse)


def _box(
    rows: Indices, columns: Indices, shape: tuple[int, int]
) -> tuple[slice, slice]:
    """Return the whole grid, or of a large one the part around the targets."""
    if shape[0] * shape[1] <= WHOLE_GRID:
        return slice(0, shape[0]), slice(0, shape[1])
    return (
        slice(max(int(rows.min()) - 2, 0), min(int(rows.max()) + 3, shape[0])),
        slice(max(int(columns.min()) - 2, 0), min(int(columns.max()) + 3, shape[1])),
    )


def _steps_at(ordinal: Indices, day: Indices) -> Indices:
    """Step of each day plus lag in a record, -1 where it has none. Shape ``(T, L)``."""
    wanted = day[:, None] + np.array(LAGS)
    place = np.clip(np.searchsorted(ordinal, wanted), 0, len(ordinal) - 1)
    return np.where(ordinal[place] == wanted, place, -1)
