"""The scorecard: every source, every variable, every metric, on the same days."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.data.variables.table import is_precipitation
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.evaluation.alignment import Aligned, align, open_source
from st_cdgm.evaluation.diagnostics import build_diagnostics, write_diagnostics
from st_cdgm.evaluation.gains import DailyScore, Gain, block_length, gains_of
from st_cdgm.evaluation.metrics.blocks import Pair, accumulate
from st_cdgm.evaluation.metrics.deterministic import CorrelationScore, MeanErrorScore
from st_cdgm.evaluation.metrics.distribution import WetDayScore, quantile_change_of
from st_cdgm.evaluation.metrics.probabilistic import (
    CrpsScore,
    EnergyScore,
    RankHistogram,
    SpreadSkillScore,
    reliability_index,
)
from st_cdgm.evaluation.metrics.spectra import Spectrum, SpectrumScore
from st_cdgm.outputs import check_output_directory, write_atomically

_LOGGER = logging.getLogger(__name__)

COLUMNS = ["source", "variable", "metric", "value", "units"]
WET_DAY = 1.0  # mm day-1


@dataclass(frozen=True)
class Metric:
    """How to read a metric.

    Attributes
    ----------
    title : str
        A few words for a table head.
    ideal : float
        The value of a perfect forecast; of two values the one nearer to it is better.
        NaN for a number that only describes.
    units : str or None
        Units; those of the variable when None.
    """

    title: str
    ideal: float
    units: str | None = None


METRICS: dict[str, Metric] = {
    "crps": Metric("fair CRPS", 0.0),
    "energy_score": Metric("fair energy score of the day's field", 0.0),
    "rmse": Metric("RMSE of the ensemble mean", 0.0),
    "mae": Metric("mean absolute error of the ensemble mean", 0.0),
    "bias": Metric("bias of the ensemble mean", 0.0),
    "correlation": Metric(
        "correlation in time of the ensemble mean, annual cycle included", 1.0, "1"
    ),
    "spread_skill": Metric("spread-skill ratio", 1.0, "1"),
    "rank_histogram_distance": Metric(
        "distance of the rank histogram from flat", 0.0, "1"
    ),
    "p99_bias": Metric("bias of the 99th percentile", 0.0),
    "p99_ratio": Metric("ratio of the 99th percentile", 1.0, "1"),
    "wet_day_frequency": Metric("share of wet days", math.nan, "1"),
    "wet_day_frequency_truth": Metric("share of wet days, truth", math.nan, "1"),
    "wet_day_frequency_bias": Metric("bias of the share of wet days", 0.0, "1"),
    "spectrum_distance": Metric("distance of the log spectra", 0.0, "dB"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorecard:
    """Scores in long form, with the protocol under which they were made.

    Attributes
    ----------
    rows : DataFrame
        Columns source, variable, metric, value, units.
    protocol : dict
        What was compared on which days; only what JSON can hold.
    gains : list of Gain
        Per variable, the relative gain of the first source over the best of the others
        with its interval; empty with one source, and in files of earlier versions.
    """

    rows: pd.DataFrame
    protocol: dict[str, Any] = field(default_factory=dict)
    gains: list[Gain] = field(default_factory=list)

    def to_json(self, path: Path) -> Path:
        """Write valid JSON (a missing value is null)."""
        rows = [
            {**row, "value": row["value"] if math.isfinite(row["value"]) else None}
            for row in self.rows.to_dict(orient="records")
        ]
        content = {
            "format": 1,
            "protocol": _plain(self.protocol),
            "gains": _plain([gain.to_dict() for gain in self.gains]),
            "rows": rows,
        }
        text = json.dumps(content, indent=1, allow_nan=False)
        return write_atomically(path, lambda p: p.write_text(text + "\n", "utf-8"))

    def to_csv(self, path: Path) -> Path:
        """Write the rows, one score a line."""
        return write_atomically(path, lambda p: self.rows.to_csv(p, index=False))

    @classmethod
    def from_json(cls, path: Path) -> Scorecard:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        MissingFileError, InputError
            No such file; not a scorecard.
        """
        if not path.is_file():
            raise MissingFileError("There is no scorecard.", file=path)
        try:
            stored = json.loads(path.read_text("utf-8"))
            rows = pd.DataFrame(stored["rows"], columns=COLUMNS)
            protocol = dict(stored["protocol"])
            gains = [Gain.from_dict(row) for row in stored.get("gains", [])]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                "The file is not a scorecard.", file=path, found=str(error)
            ) from error
        rows["value"] = rows["value"].astype(float)
        return cls(rows=rows, protocol=protocol, gains=gains)

    def wide(self, metric: str = "crps") -> pd.DataFrame:
        """Return a table of sources by variables, in the order of the scorecard."""
        chosen = self.rows[self.rows["metric"] == metric]
        if chosen.empty:
            raise InputError(
                "The scorecard does not have this metric.",
                found=metric,
                expected=", ".join(dict.fromkeys(self.rows["metric"])),
            )
        table = chosen.pivot_table(
            index="source", columns="variable", values="value", dropna=False, sort=False
        )
        return table.reindex(
            index=list(dict.fromkeys(self.rows["source"])),
            columns=list(dict.fromkeys(chosen["variable"])),
        )

    def best(self, metric: str = "crps") -> dict[str, str]:
        """Return for each variable the source nearest to the ideal value.

        Sources without a finite value do not take part; a variable without any is left
        out.
        """
        table = self.wide(metric)
        ideal = METRICS[metric].ideal if metric in METRICS else 0.0
        distance = (table - ideal).abs().dropna(axis=1, how="all")
        return {str(name): str(source) for name, source in distance.idxmin().items()}

    def skill(self, reference: str, metric: str = "crps") -> pd.DataFrame:
        """Return ``1 - score / score of reference``: 0 equal, 1 perfect, < 0 worse."""
        table = self.wide(metric)
        if reference not in table.index:
            raise InputError(
                "The scorecard does not have this source.",
                found=reference,
                expected=", ".join(map(str, table.index)),
            )
        return 1 - table / table.loc[reference]


def _plain(value: Any) -> Any:
    """Return ``value`` in the types JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """All that one source's variable gives.

    Attributes
    ----------
    values : dict
        Metric name to value.
    spectrum : Spectrum
        Spectra of the members and the truth.
    histogram : ndarray
        Rank histogram. Shape ``(M + 1,)``.
    daily : DailyScore
        Fair CRPS per day.
    """

    values: dict[str, float]
    spectrum: Spectrum
    histogram: NDArray[np.float64]
    daily: DailyScore


def score_pair(pair: Pair, target: TargetVariable) -> PairScores:
    """Compute every metric that has a meaning for ``target``."""
    crps, energy, error = CrpsScore(), EnergyScore(), MeanErrorScore()
    pearson, spread, ranks = CorrelationScore(), SpreadSkillScore(), RankHistogram()
    spectrum, wet = SpectrumScore(), WetDayScore(threshold=WET_DAY)
    accumulate(pair, crps, energy, error, pearson, spread, ranks, spectrum, wet)
    quantile = quantile_change_of(pair, q=0.99)
    ensemble = pair.shape[1] > 1
    values = {
        "crps": crps.value,
        "energy_score": energy.value,
        "rmse": error.rmse,
        "mae": error.mae,
        "bias": error.bias,
        "correlation": pearson.temporal,
        "spread_skill": spread.value,
        "rank_histogram_distance": reliability_index(ranks.value)
        if ensemble
        else math.nan,
        "p99_bias": quantile.difference,
        "spectrum_distance": spectrum.value.distance,
    }
    if is_precipitation(target.name, target.standard_name):
        values |= {
            "p99_ratio": quantile.ratio,
            "wet_day_frequency": wet.value.forecast,
            "wet_day_frequency_truth": wet.value.reference,
            "wet_day_frequency_bias": wet.value.difference,
        }
    return PairScores(
        values=values,
        spectrum=spectrum.value,
        histogram=ranks.value,
        daily=DailyScore(value=crps.daily, weight=crps.daily_weight),
    )


def _rows(
    source: str, target: TargetVariable, scores: PairScores
) -> Iterator[tuple[str, str, str, float, str]]:
    for name, metric in METRICS.items():
        if name in scores.values:
            units = target.units if metric.units is None else metric.units
            yield source, target.name, name, scores.values[name], units


def evaluate_ensembles(
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    *,
    protocol: Mapping[str, Any],
    output: Path,
    baseline: xr.Dataset | None = None,
    land: NDArray[np.float32] | None = None,
) -> Scorecard:
    """Score ensembles against the truth and write the results.

    Every source is scored on the days that the truth and all sources have in common,
    with cell-area weights, on the cells where the truth exists. Metrics: ``METRICS``,
    each defined in :mod:`st_cdgm.evaluation.metrics`; the tail ratio and the wet days
    (at least 1 mm/day) only for precipitation. The CRPS of the first source is compared
    with that of the best other one, with an interval over days.

    Parameters
    ----------
    forecasts : mapping of str to Dataset
        The model first, then what it is compared with. Variables
        (time, realization, y, x) or, deterministic, (time, y, x).
    truth : Dataset
        Variables (time, y, x), NaN where there is no truth. Units are converted.
    protocol : mapping
        What the reader should know (splits, seed, checkpoint ...), stored as it is. The
        key ``scored`` is added: days, period, calendar, members, weights.
    output : Path
        Directory for ``scorecard.json``, ``scorecard.csv`` and ``diagnostics.nc``.
    baseline : Dataset, optional
        The model's first guess, shown in the diagnostics but not scored.
    land : ndarray, optional
        Land area fraction, kept in the diagnostics for maps. Shape ``(Y, X)``.

    Raises
    ------
    GridMismatchError
        A source has another grid than the truth.
    MissingVariableError
        The first source has a variable without truth.
    InputError
        No common day (both periods are named), other calendars, or a forecast that is
        not finite where the truth exists.
    OutputError
        The results cannot be written.
    """
    check_output_directory(output)
    aligned = align(forecasts, truth)
    rows: list[tuple[str, str, str, float, str]] = []
    scores: dict[tuple[str, str], PairScores] = {}
    for source in aligned.sources:
        for target in aligned.targets:
            if target.name not in source.fields:
                continue
            found = score_pair(aligned.pair(source, target.name), target)
            scores[source.name, target.name] = found
            rows += _rows(source.name, target, found)
            _LOGGER.info(
                "%s %s: CRPS %.4g", source.name, target.name, found.values["crps"]
            )
    card = Scorecard(
        rows=pd.DataFrame(rows, columns=COLUMNS),
        protocol={**protocol, "scored": _scored(aligned)},
        gains=gains_of(
            {key: value.daily for key, value in scores.items()},
            [source.name for source in aligned.sources],
            [target.name for target in aligned.targets],
            block=block_length(aligned.days.ordinal),
        ),
    )
    first_guess = None
    if baseline is not None:
        first_guess = open_source(
            "baseline", baseline, [target.name for target in aligned.targets]
        )
        aligned.truth.grid.check_same(
            first_guess.grid, file="baseline", role="baseline"
        )
    diagnostics = build_diagnostics(
        aligned,
        spectra={key: value.spectrum for key, value in scores.items()},
        histograms={key: value.histogram for key, value in scores.items()},
        daily={key: value.daily.value for key, value in scores.items()},
        baseline=first_guess,
        land=land,
    )
    write_diagnostics(diagnostics, Path(output) / "diagnostics.nc")
    card.to_csv(Path(output) / "scorecard.csv")
    card.to_json(Path(output) / "scorecard.json")
    return card


def _scored(aligned: Aligned) -> dict[str, Any]:
    return {
        "days": len(aligned.days),
        "period": aligned.days.period(),
        "calendar": aligned.days.calendar,
        "grid": str(aligned.truth.grid),
        "weights": "cell area",
        "wet_day": f"{WET_DAY:g} mm day-1",
        "members": {source.name: source.members for source in aligned.sources},
    }
