"""How sure is a difference? Gains over the best reference with intervals over days."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from st_cdgm.evaluation.resampling import MIN_BLOCKS, resampled_sums
from st_cdgm.typing import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class DailyScore:
    """A score day by day, arrays of shape ``(T,)``."""

    value: Floats  # area mean, NaN on days without truth
    weight: Floats  # sum of the counted cell weights, 0 on days without truth


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The model's score against that of the best reference, in one variable."""

    variable: str
    reference: str  # with the smallest score in the variable
    gain: float  # 1 - model / reference: positive where the model is better
    low: float  # of its 95 % interval, see relative_gain; NaN with too few days
    high: float
    days: int  # scored days with truth
    block: int  # block length in scored days
    metric: str = "crps"

    @property
    def has_interval(self) -> bool:
        """Whether there were enough days for an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def outcome(self) -> str:
        """``wins``, ``loses``, or one of three that decide nothing.

        ``ties``: the interval contains 0; ``unclear``: there are too few days for one;
        ``unknown``: a score is missing.
        """
        if not math.isfinite(self.gain):
            return "unknown"
        if not self.has_interval:
            return "unclear"
        if self.low <= 0 <= self.high:
            return "ties"
        return "wins" if self.low > 0 else "loses"

    @property
    def interval(self) -> str:
        """The interval, or why there is none, in words."""
        if not self.has_interval:
            return f"{self.days} scored days are too few for an interval"
        if self.outcome == "ties":
            return f"95 % interval {_side(self.low)} to {_side(self.high)}"
        # Of a loss the smaller size comes first, as of a win.
        near, far = sorted((self.low, self.high), key=abs)
        return f"95 % interval {percent(near).removesuffix(' %')} to {percent(far)}"

    @property
    def words(self) -> str:
        """The difference and its interval in words."""
        if self.outcome == "unknown":
            return "cannot be compared: a score is missing"
        if self.outcome in ("ties", "unclear"):
            verdict = "tie" if self.has_interval else "no clear difference"
            return f"{verdict} ({_side(self.gain)}; {self.interval})"
        return f"{_side(self.gain)} ({self.interval})"

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name, as they stand in ``scorecard.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Gain:
        """Read what :meth:`to_dict` gave; null numbers are NaN.

        Files of earlier versions do not name the metric, which is the CRPS.
        """
        stored = {"metric": "crps", **stored}
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


def relative_gain(
    model: DailyScore, reference: DailyScore, *, block: int
) -> tuple[float, float, float]:
    """Return ``1 - model / reference`` of the mean scores, and its 95 % interval.

    Moving-block bootstrap over days, see :mod:`st_cdgm.evaluation.resampling`; model
    and reference are averaged over the same resampled days. The bounds are the 2.5 and
    97.5 % quantiles of the gain over 2000 resamples of a fixed seed. They hold what the
    choice of days does, not what another training run would do; with few blocks they
    are too narrow.

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
    own, other = resampled_sums(sums, block)
    if not (other > 0).all():
        return gain, math.nan, math.nan
    low, high = np.quantile(1 - own / other, [0.025, 0.975])
    return gain, float(low), float(high)


def gains_of(
    daily: Mapping[tuple[str, str], DailyScore],
    sources: Sequence[str],
    variables: Sequence[str],
    *,
    block: int,
    metric: str = "crps",
) -> list[Gain]:
    """Compare the first source with the best of the others, per variable.

    The best reference has the smallest mean score over all days and is not chosen anew
    in a resample. A variable that no reference has is left out.

    Parameters
    ----------
    daily : mapping
        ``(source, variable)`` to its daily score.
    sources, variables : sequence of str
        Names, the model first.
    block : int
        Block length in scored days.
    metric : str
        Which score it is.
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
                metric=metric,
            )
        )
    return gains


def _mean(score: DailyScore) -> float:
    counted = score.weight > 0
    if not counted.any():
        return math.nan
    return float(np.average(score.value[counted], weights=score.weight[counted]))
