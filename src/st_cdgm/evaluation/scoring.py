"""All metrics of all sources and variables, each field read once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import xarray as xr

from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.evaluation.alignment import Aligned
from st_cdgm.evaluation.climate import Climate, climates
from st_cdgm.evaluation.gains import DailyScore
from st_cdgm.evaluation.metrics.base import ALL, JointMetric, Metric
from st_cdgm.evaluation.metrics.blocks import Pair, accumulate_all
from st_cdgm.evaluation.metrics.calibration.patches import (
    PatchEnergyScore,
    PatchVariogramScore,
)
from st_cdgm.evaluation.metrics.calibration.scales import Calibrated, ScaleScore
from st_cdgm.evaluation.metrics.calibration.windows import Scale
from st_cdgm.evaluation.metrics.probabilistic import CrpsScore
from st_cdgm.evaluation.metrics.quantiles import Quantiles, QuantilesScore
from st_cdgm.evaluation.metrics.spectra import Spectrum, SpectrumScore
from st_cdgm.evaluation.metrics.variograms import Variogram, VariogramScore
from st_cdgm.evaluation.resampling import Measured
from st_cdgm.evaluation.source import Source

_LOGGER = logging.getLogger(__name__)
T = TypeVar("T")

# What the diagnostics show of every variable is counted with its metrics.
_SHOWN = (CrpsScore, ScaleScore, QuantilesScore, SpectrumScore, VariogramScore)
# Joint scores that are compared with those of the references, by metric.
COMPARED = {"patch_energy": PatchEnergyScore, "patch_variogram": PatchVariogramScore}


class Row(NamedTuple):
    """A row of the scorecard."""

    source: str
    variable: str
    metric: str
    value: float
    units: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the diagnostics show of one variable of one source."""

    daily: DailyScore  # fair CRPS
    scales: dict[Scale, Calibrated]
    quantiles: Quantiles
    spectrum: Spectrum
    variogram: Variogram


@dataclass(kw_only=True)
class Results:
    """All that the sources give.

    Attributes
    ----------
    rows : list of Row
        Sources and variables in order, metrics by their place.
    shown : dict
        ``(source, variable)`` to what the diagnostics show.
    daily : dict
        Metric to ``(source, variable)`` to its daily score, of what is compared.
    """

    rows: list[Row] = field(default_factory=list)
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)
    daily: dict[str, dict[tuple[str, str], DailyScore]] = field(default_factory=dict)


def score_sources(
    aligned: Aligned,
    metrics: Mapping[str, Metric],
    climatology: xr.Dataset | None = None,
) -> Results:
    """Score every source in every variable that it has.

    Parameters
    ----------
    aligned : Aligned
        Truth and sources on the scored days.
    metrics : mapping of str to Metric
        In the order of the rows; each where it has a meaning.
    climatology : Dataset, optional
        See :func:`st_cdgm.evaluation.climate.climates`.
    """
    usual = climates(aligned, climatology)
    results = Results(daily={"crps": {}, **{name: {} for name in COMPARED}})
    for source in aligned.sources:
        _score_source(aligned, source, metrics, usual, results)
    return results


def _score_source(
    aligned: Aligned,
    source: Source,
    metrics: Mapping[str, Metric],
    usual: Mapping[str, Climate],
    results: Results,
) -> None:
    """Read the fields of a source once; add what they give to the results."""
    targets = [t for t in aligned.targets if t.name in source.fields]
    single = {n: m for n, m in metrics.items() if not isinstance(m, JointMetric)}
    together = {n: m for n, m in metrics.items() if isinstance(m, JointMetric)}
    kinds: list[Any] = [*COMPARED.values(), *(m.score for m in together.values())]
    joint: dict[Any, Any] = {kind: kind() for kind in dict.fromkeys(kinds)}
    scores = {target.name: _scores(target, single) for target in targets}
    failed: dict[int, Exception] = {}
    accumulate_all(
        {t.name: _pair(aligned, source, t.name, usual[t.name]) for t in targets},
        {name: list(found.values()) for name, found in scores.items()},
        list(joint.values()),
        failed,
    )
    _check_needed(scores, joint, failed)

    for target in targets:
        found = scores[target.name]
        results.rows += _rows(source.name, target, found, single, failed)
        results.shown[source.name, target.name] = _shown(found)
        crps: CrpsScore = found[CrpsScore]
        results.daily["crps"][source.name, target.name] = DailyScore(
            value=crps.daily, weight=crps.daily_weight
        )
        _LOGGER.info("%s %s: CRPS %.4g", source.name, target.name, crps.value)

    # What sees all variables comes after them.
    for name, metric in together.items():
        read = partial(metric.rows, joint[metric.score])
        rows = _read(name, source.name, joint[metric.score], read, failed) or {}
        for variable, measured in rows.items():
            if math.isfinite(measured.value):
                results.rows.append(
                    _row(source.name, variable, name, measured, metric.units)
                )
    for name, kind in COMPARED.items():
        results.daily[name][source.name, ALL] = joint[kind].daily


def _scores(target: TargetVariable, metrics: Mapping[str, Metric]) -> dict[Any, Any]:
    """Return the scores that a variable needs, each once."""
    suited = (m.score for m in metrics.values() if m.suits(target))
    return {kind: kind() for kind in dict.fromkeys([*_SHOWN, *suited])}


def _pair(aligned: Aligned, source: Source, variable: str, usual: Climate) -> Pair:
    """Return forecast and truth with the days and what is usual on them.

    Rows go north and columns east, whatever the files do: blocks of cells begin in the
    same corner.
    """
    pair = aligned.pair(source, variable)
    grid = aligned.truth.grid
    north = grid.lat2d[-1].mean() >= grid.lat2d[0].mean()
    east = grid.lon2d[:, -1].mean() >= grid.lon2d[:, 0].mean()
    turn = (
        ...,
        slice(None, None, 1 if north else -1),
        slice(None, None, 1 if east else -1),
    )

    return replace(
        pair,
        forecast=lambda days: pair.forecast(days)[turn],
        reference=lambda days: pair.reference(days)[turn],
        weights=pair.weights[turn],
        ordinal=aligned.days.ordinal,
        year=aligned.days.day // 10000,
        normal=lambda days: usual.normal(days)[turn],
        size=usual.size,
    )


def _rows(
    source: str,
    target: TargetVariable,
    scores: Mapping[Any, Any],
    metrics: Mapping[str, Metric],
    failed: Mapping[int, Exception],
) -> Iterator[Row]:
    """Yield the rows of a variable; of an optional metric only what is defined."""
    for name, metric in metrics.items():
        if not metric.suits(target):
            continue
        score, where = scores[metric.score], f"{source}, {target.name}"
        read = partial(metric.measured, score)
        measured = _read(name, where, score, read, failed) or Measured(math.nan)
        optional = metric.optional or metric.calibration
        if optional and not math.isfinite(measured.value):
            continue
        yield _row(source, target.name, name, measured, metric.units or target.units)


def _read(
    metric: str,
    where: str,
    score: object,
    read: Callable[[], T],
    failed: Mapping[int, Exception],
) -> T | None:
    """Read a metric's numbers; None and a warning where it or its score failed."""
    error = failed.get(id(score))
    if error is None:
        try:
            return read()
        except Exception as raised:  # noqa: BLE001 - as for the scores
            error = raised
    reason = " ".join(str(error).split()) or type(error).__name__
    _LOGGER.warning("no %s of %s: %s", metric, where, reason)
    return None


def _check_needed(
    scores: Mapping[str, Mapping[Any, Any]],
    joint: Mapping[Any, Any],
    failed: Mapping[int, Exception],
) -> None:
    """Raise what a score raised that scorecard and diagnostics are made of."""
    needed = [found[kind] for found in scores.values() for kind in _SHOWN]
    needed += [joint[kind] for kind in COMPARED.values()]
    for score in needed:
        if id(score) in failed:
            raise failed[id(score)]


def _row(
    source: str, variable: str, metric: str, measured: Measured, units: str
) -> Row:
    return Row(source, variable, metric, measured.value, units, *measured[1:])


def _shown(scores: Mapping[Any, Any]) -> Shown:
    crps: CrpsScore = scores[CrpsScore]
    return Shown(
        daily=DailyScore(value=crps.daily, weight=crps.daily_weight),
        scales=scores[ScaleScore].value,
        quantiles=scores[QuantilesScore].value,
        spectrum=scores[SpectrumScore].value,
        variogram=scores[VariogramScore].value,
    )
