"""How sure is a difference? Gains over the best reference with intervals over days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from st_cdgm.typing import Floats, Indices

# Weather remembers some days; drawing single days would give too narrow an interval.
BLOCK_DAYS = 10
RESAMPLES = 2000
SEED = 0
# With fewer blocks an interval would be narrow by construction, not by knowledge.
MIN_BLOCKS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class DailyScore:
    """A score day by day, arrays of shape ``(T,)``."""

    value: Floats  # area mean, NaN on days without truth
    weight: Floats  # sum of the counted cell weights, 0 on days without truth


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The model's fair CRPS against that of the best reference, in one variable."""

    variable: str
    reference: str  # with the smallest CRPS in the variable
    gain: float  # 1 - model / reference: positive where the model is better
    low: float  # of its 95 % interval, see relative_gain; NaN with too few days
    high: float
    days: int  # scored days with truth
    block: int  # block length in scored days

    @property
    def has_interval(self) -> bool:
        """Whether there were enough days for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def outcome(self) -> str:
        """``wins``, ``loses``, ``unclear`` (the interval contains 0) or ``unknown``."""
        if not math.isfinite(self.gain):
            return "unknown"
        if not self.has_interval or self.low <= 0 <= self.high:
            return "unclear"
        return "wins" if self.low > 0 else "loses"

    @property
    def interval(self) -> str:
        """The interval, or why there is none, in words."""
        if not self.has_interval:
            return f"{self.days} scored days are too few for an interval"
        if self.outcome == "unclear":
            return f"95 % interval {_side(self.low)} to {_side(self.high)}"
        # Of a loss the smaller size comes first, as of a win.
        near, far = sorted((self.low, self.high), key=abs)
        return f"95 % interval {percent(near).removesuffix(' %')} to {percent(far)}"

    @property
    def words(self) -> str:
        """The difference and its interval in words."""
        if self.outcome == "unknown":
            return "cannot be compared: a score is missing"
        if self.outcome == "unclear":
            return f"no clear difference ({_side(self.gain)}; {self.interval})"
        return f"{_side(self.gain)} ({self.interval})"

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name, as they stand in ``scorecard.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Gain:
        """Read what :meth:`to_dict` gave; null numbers are NaN."""
        found: dict[str, Any] = {
            item.name: math.nan if stored[item.name] is None else stored[item.name]
            for item in fields(cls)
        }
        return cls(**found)


def percent(gain: float) -> str:
    """Return the size of a relative difference with two significant digits at most."""
    size = 100 * abs(gain)
    digits = 2 if size < 0.995 else 1 if size < 9.95 else 0
    return f"{size:.{digits}f} %"


def _side(gain: float) -> str:
    return percent(gain) + (" better" if gain > 0 else " worse" if gain < 0 else "")


def block_length(ordinal: Indices) -> int:
    """Return how many scored days make about ten days, at least 1.

    Parameters
    ----------
    ordinal : ndarray
        Scored days, counted from any origin. Their median step is taken as the stride.
        Shape ``(T,)``.
    """
    stride = float(np.median(np.diff(ordinal))) if ordinal.size > 1 else 1.0
    return max(1, round(BLOCK_DAYS / stride))


def relative_gain(
    model: DailyScore, reference: DailyScore, *, block: int
) -> tuple[float, float, float]:
    """Return ``1 - model / reference`` of the mean scores, and its 95 % interval.

    Moving-block bootstrap over days: a resample is a row of blocks of ``block``
    consecutive scored days, cut to the number of days; model and reference are averaged
    over the same resampled days. The bounds are the 2.5 and 97.5 % quantiles of the
    gain over 2000 resamples of a fixed seed. They hold what the choice of days does,
    not what another training run would do; with few blocks they are too narrow.

    Parameters
    ----------
    model, reference : DailyScore
        Scores of the same days, with the same weights.
    block : int
        Block length in scored days.

    Returns
    -------
    gain, low, high : float
        The bounds are NaN with fewer days than five blocks, or where a resample has
        a reference score of 0; the gain is NaN where the reference score is.

    References
    ----------
    Kuensch (1989), doi:10.1214/aos/1176347265.
    """
    sums = np.stack(
        [np.where(s.weight > 0, s.value * s.weight, 0.0) for s in (model, reference)]
    )
    own, other = sums.sum(axis=-1)
    if not other > 0:
        return math.nan, math.nan, math.nan
    gain = float(1 - own / other)

    if np.count_nonzero(reference.weight) < MIN_BLOCKS * block:
        return gain, math.nan, math.nan
    own, other = _resampled_sums(sums, block)
    if not (other > 0).all():
        return gain, math.nan, math.nan
    low, high = np.quantile(1 - own / other, [0.025, 0.975])
    return gain, float(low), float(high)


def _resampled_sums(values: Floats, block: int) -> Floats:
    """Sum series over resampled days, the same for all. ``(K, T)`` to ``(K, R)``."""
    T = values.shape[-1]
    count, rest = divmod(T, block)
    starts = np.random.default_rng(SEED).integers(
        0, T - block + 1, size=(RESAMPLES, count + (rest > 0))
    )

    def sums(length: int) -> Floats:
        """Sum of the ``length`` days from each start on."""
        windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)
        return np.asarray(windows.sum(axis=-1))

    total = sums(block)[:, starts[:, :count]].sum(axis=-1)
    if rest:
        total += sums(rest)[:, starts[:, count]]
    return np.asarray(total)


def gains_of(
    daily: Mapping[tuple[str, str], DailyScore],
    sources: Sequence[str],
    variables: Sequence[str],
    *,
    block: int,
) -> list[Gain]:
    """Compare the first source with the best of the others, per variable.

    The best reference has the smallest mean score over all days and is not chosen anew
    in a resample. A variable that no reference has is left out.

    Parameters
    ----------
    daily : mapping
        ``(source, variable)`` to its daily CRPS.
    sources, variables : sequence of str
        Names, the model first.
    block : int
        Block length in scored days.
    """
    model, *references = sources
    gains = []
    for variable in variables:
        # The best reference is chosen once, by all days.
        means = {
            name: mean
            for name in references
            if (name, variable) in daily
            and math.isfinite(mean := _mean(daily[name, variable]))
        }
        if not means or (model, variable) not in daily:
            continue
        best = min(means, key=lambda name: means[name])
        reference = daily[best, variable]

        gain, low, high = relative_gain(daily[model, variable], reference, block=block)
        gains.append(
            Gain(
                variable=variable,
                reference=best,
                gain=gain,
                low=low,
                high=high,
                days=int(np.count_nonzero(reference.weight)),
                block=block,
            )
        )
    return gains


def _mean(score: DailyScore) -> float:
    counted = score.weight > 0
    if not counted.any():
        return math.nan
    return float(np.average(score.value[counted], weights=score.weight[counted]))
