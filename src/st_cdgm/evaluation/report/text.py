"""Numbers, and a sentence about the calibration, as a page prints them."""

from __future__ import annotations

import math

import pandas as pd

from st_cdgm.evaluation.metrics.base import metric_of


def number(value: float) -> str:
    """Return a value with four significant digits at most, a dash for NaN."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    if value == 0:
        return "0"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        text = f"{value:.2e}"
    else:
        digits = max(0, 3 - math.floor(math.log10(abs(value))))
        text = f"{value:.{min(digits, 3)}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def spaced(low: float, high: float) -> str:
    """Return an interval as ``0.951 to 1.047``, empty where a bound is missing."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low)} to {number(high)}"


def weakest(judged: pd.DataFrame) -> str:
    """Say in one sentence which calibration is farthest from its ideal.

    Parameters
    ----------
    judged : DataFrame
        See :meth:`st_cdgm.evaluation.scorecard.Scorecard.calibration`.
    """
    if judged.empty:
        return ""
    row = judged.iloc[0]
    metric = metric_of(row["metric"])
    interval = spaced(row["low"], row["high"])
    known = f"95 % interval {interval}" if interval else "no interval"
    text = (
        f"The weakest calibration: {row['variable']}, {metric.title}: "
        f"{number(row['value'])} ({known}; ideal {metric.ideal:g}"
    )

    if interval and row["sure"] == 0:
        return f"{text}, which the interval holds)."
    if row["distance"] <= 1:
        return f"{text}, within its tolerance of {metric.tolerance:g})."
    return text + ")."
