"""Which calibration is weakest: distances from the ideal in units of a tolerance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from st_cdgm.evaluation.metrics.base import Metric, metric_of

COLUMNS = ["variable", "metric", "value", "low", "high", "ideal", "distance", "sure"]


def judged(rows: pd.DataFrame) -> pd.DataFrame:
    """Return what can be judged of one source's rows, the weakest first.

    Scores whose interval leaves no doubt that they miss their ideal come first, by the
    distance of their value; then the others. The distance is in tolerances of the
    metric, ``sure`` is that of the nearest value of the interval.

    Parameters
    ----------
    rows : DataFrame
        Of a scorecard; bounds may be missing.
    """
    found = []
    for row in rows.to_dict(orient="records"):
        metric = metric_of(row["metric"])
        if math.isnan(metric.tolerance) or not math.isfinite(row["value"]):
            continue
        low, high = row.get("low", math.nan), row.get("high", math.nan)
        found.append(
            {
                **{name: row[name] for name in COLUMNS[:3]},
                "low": low,
                "high": high,
                "ideal": metric.ideal,
                "distance": metric.distance(row["value"]),
                "sure": _sure(metric, low, high),
            }
        )

    table = pd.DataFrame(found, columns=COLUMNS)
    order = np.lexsort([-table["distance"], ~(table["sure"] > 0)])
    return table.iloc[order].reset_index(drop=True)


def _sure(metric: Metric, low: float, high: float) -> float:
    """Return the distance of the nearest value of an interval, NaN without one."""
    if math.isnan(low) or math.isnan(high):
        return math.nan
    if low <= metric.ideal <= high:
        return 0.0
    return min(metric.distance(low), metric.distance(high))
