"""The scorecard: every source, every variable, every metric, on the same days."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import pandas as pd
import xarray as xr

from st_cdgm._version import __version__
from st_cdgm.data.files.open import Paths, file_label, open_dataset
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.evaluation.alignment import Aligned, align
from st_cdgm.evaluation.diagnostics import build_diagnostics, write_diagnostics
from st_cdgm.evaluation.gains import DailyScore, Gain, block_length, gains_of
from st_cdgm.evaluation.metrics.base import Metric, metric_of, metrics_of
from st_cdgm.evaluation.metrics.blocks import Pair, accumulate
from st_cdgm.evaluation.metrics.distribution import WET_DAY
from st_cdgm.evaluation.metrics.probabilistic import CrpsScore, RankHistogram
from st_cdgm.evaluation.metrics.spectra import Spectrum, SpectrumScore
from st_cdgm.evaluation.source import open_source
from st_cdgm.outputs import check_output_directory, native, write_atomically
from st_cdgm.typing import FloatArray, Floats

_LOGGER = logging.getLogger(__name__)

COLUMNS = ["source", "variable", "metric", "value", "units"]


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
            "protocol": self.protocol,
            "gains": [gain.to_dict() for gain in self.gains],
            "rows": rows,
        }
        text = json.dumps(native(content), indent=1, allow_nan=False)
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

    def to_dataframe(self) -> pd.DataFrame:
        """Return a table of all scores: variables and metrics by sources."""
        table = self.rows.pivot_table(
            index=["variable", "metric", "units"],
            columns="source",
            values="value",
            dropna=False,
            sort=False,
        )
        sources = list(dict.fromkeys(self.rows["source"]))
        return table.dropna(how="all")[sources]

    def _repr_html_(self) -> str:
        return self.to_dataframe().to_html(float_format="{:.4g}".format, na_rep="")

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
        out, and so are all where the metric has no ideal value or is not known here.
        """
        table = self.wide(metric)
        distance = (table - metric_of(metric).ideal).abs().dropna(axis=1, how="all")
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


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """All that one source's variable gives."""

    values: dict[str, float]  # by metric
    units: dict[str, str]  # by metric
    spectrum: Spectrum  # of the members and the truth
    histogram: Floats  # of ranks, shape (M + 1,)
    daily: DailyScore  # fair CRPS


def score_pair(
    pair: Pair, target: TargetVariable, metrics: Mapping[str, Metric]
) -> PairScores:
    """Compute those of the metrics that have a meaning for ``target``, in one pass."""
    suited = {name: m for name, m in metrics.items() if m.suits(target)}
    # What the diagnostics show is counted with them, each only once.
    kinds = (CrpsScore, RankHistogram, SpectrumScore)
    needed = dict.fromkeys([*kinds, *(metric.score for metric in suited.values())])
    scores: dict[type, Any] = {kind: kind() for kind in needed}
    accumulate(pair, *scores.values())

    crps = scores[CrpsScore]
    return PairScores(
        values={n: float(m.value(scores[m.score])) for n, m in suited.items()},
        units={name: metric.units or target.units for name, metric in suited.items()},
        spectrum=scores[SpectrumScore].value,
        histogram=scores[RankHistogram].value,
        daily=DailyScore(value=crps.daily, weight=crps.daily_weight),
    )


def evaluate_files(
    prediction: Paths,
    truth: Paths,
    *,
    references: Mapping[str, Paths] | None = None,
    mask: str = "common",
    output: Path | None = None,
) -> Scorecard:
    """Score an ensemble, and others, against a truth; each a file or a data set.

    Parameters
    ----------
    prediction, truth : path, several paths, or Dataset
        NetCDF files or Zarr directories. The scorecard names the prediction as its file
        is called, without folder and ending.
    references : mapping of str to path or Dataset
        What the prediction is compared with.
    mask, output
        See :func:`evaluate_ensembles`.

    Raises
    ------
    InputError
        See :func:`evaluate_ensembles`; also where a reference has the prediction's
        name.
    """
    name = source_name(prediction)
    if references and name in references:
        raise InputError(
            "a reference has the name of the prediction",
            found=name,
            expected="a name of its own for each",
            remedy="give the reference another name",
        )

    sources = {name: prediction, **(references or {})}
    protocol = {
        "forecasts": {name: _named(paths) for name, paths in sources.items()},
        "truth": _named(truth),
        "version": __version__,
    }
    return evaluate_ensembles(
        sources, truth, protocol=protocol, output=output, mask=mask
    )


def source_name(paths: Paths) -> str:
    """Return the name of a forecast in scorecards: that of its file, without ending."""
    if isinstance(paths, xr.Dataset):
        source = str(paths.encoding.get("source", "prediction"))
    else:
        source = str(paths if isinstance(paths, str | Path) else next(iter(paths), ""))
    return PurePath(source.rstrip("/")).stem or "prediction"


def _named(paths: Paths) -> str:
    """Return what a protocol says of an input."""
    if isinstance(paths, xr.Dataset):
        return file_label(paths)
    if isinstance(paths, str | Path):
        return str(paths)
    return ", ".join(map(str, paths))


def evaluate_ensembles(
    forecasts: Mapping[str, Paths],
    truth: Paths,
    *,
    protocol: Mapping[str, Any],
    output: Path | None,
    metrics: Sequence[str] = (),
    mask: str = "common",
    baseline: xr.Dataset | None = None,
    land: FloatArray | None = None,
) -> Scorecard:
    """Score ensembles against the truth and write the results.

    Every source is scored on the days and cells that the truth and all sources have in
    common, with cell-area weights. The metrics are those registered (see
    :mod:`st_cdgm.evaluation.metrics.base`), each on the variables it has a meaning for.
    The CRPS of the first source is compared with that of the best other one, with an
    interval over days.

    Parameters
    ----------
    forecasts : mapping of str to Dataset or path
        The model first, then what it is compared with. Variables
        (time, realization, y, x) or, deterministic, (time, y, x); members may also be
        called ``member``, ``number`` or ``ensemble``.
    truth : Dataset or path
        Variables (time, y, x), NaN where there is no truth. Units are converted.
    protocol : mapping
        What the reader should know (splits, seed, checkpoint ...), stored as it is. The
        key ``scored`` is added: days, period, calendar, members, weights, mask.
    output : Path or None
        Directory for ``scorecard.json``, ``scorecard.csv`` and ``diagnostics.nc``; None
        writes nothing.
    metrics : sequence of str
        Metrics beside the standard ones.
    mask : {"common", "truth", "strict"}
        ``common`` scores what all have and says what is left out; with ``truth`` every
        cell and day with truth must be predicted; ``strict`` refuses, besides,
        predictions without truth.
    baseline : Dataset, optional
        The model's baseline, shown in the diagnostics but not scored.
    land : ndarray, optional
        Land area fraction, kept in the diagnostics for maps. Shape ``(Y, X)``.

    Raises
    ------
    ConfigError
        There is no metric of a name.
    GridMismatchError
        A source has another grid than the truth.
    MissingVariableError
        The first source has a variable without truth.
    InputError
        No common day (both periods are named), other calendars, or a gap that ``mask``
        does not allow.
    OutputError
        The results cannot be written.
    """
    columns = metrics_of(metrics)
    if output is not None:
        check_output_directory(output)

    with ExitStack() as files:
        opened = {
            name: _opened(paths, "forecast", files) for name, paths in forecasts.items()
        }
        aligned = align(opened, _opened(truth, "truth", files), mask=mask)
        scores = _score_all(aligned, columns)
        card = _card(aligned, scores, protocol)
        if output is None:
            return card

        shown = None
        if baseline is not None:
            names = [target.name for target in aligned.targets]
            shown = open_source("baseline", baseline, names)
            shown = shown.on_grid(aligned.truth.grid, role="baseline")

        # What a report draws needs the fields once more.
        diagnostics = build_diagnostics(
            aligned,
            spectra={key: value.spectrum for key, value in scores.items()},
            histograms={key: value.histogram for key, value in scores.items()},
            daily={key: value.daily.value for key, value in scores.items()},
            baseline=shown,
            land=land,
        )
        write_diagnostics(diagnostics, Path(output) / "diagnostics.nc")

    card.to_csv(Path(output) / "scorecard.csv")
    card.to_json(Path(output) / "scorecard.json")
    return card


def _opened(paths: Paths, role: str, files: ExitStack) -> xr.Dataset:
    """Open what is a path, to be closed with ``files``; settle what is in memory."""
    opened = open_dataset(paths, role=role)
    if not isinstance(paths, xr.Dataset):
        return files.enter_context(opened)
    if "source" not in paths.encoding:
        opened.encoding.pop("source", None)  # its name in the scorecard says more
    return opened


def _score_all(
    aligned: Aligned, columns: Mapping[str, Metric]
) -> dict[tuple[str, str], PairScores]:
    """Score every source in every variable that it has."""
    scores: dict[tuple[str, str], PairScores] = {}
    for source in aligned.sources:
        for target in aligned.targets:
            if target.name not in source.fields:
                continue
            found = score_pair(aligned.pair(source, target.name), target, columns)
            scores[source.name, target.name] = found
            _LOGGER.info(
                "%s %s: CRPS %.4g", source.name, target.name, found.values["crps"]
            )
    return scores


def _card(
    aligned: Aligned,
    scores: Mapping[tuple[str, str], PairScores],
    protocol: Mapping[str, Any],
) -> Scorecard:
    rows = [
        (*key, name, value, found.units[name])
        for key, found in scores.items()
        for name, value in found.values.items()
    ]

    return Scorecard(
        rows=pd.DataFrame(rows, columns=COLUMNS),
        protocol={**protocol, "scored": _scored(aligned)},
        gains=gains_of(
            {key: value.daily for key, value in scores.items()},
            [source.name for source in aligned.sources],
            [target.name for target in aligned.targets],
            block=block_length(aligned.days.ordinal),
        ),
    )


def _pools(aligned: Aligned) -> dict[str, Any]:
    """Say which sources are scored as mixtures, and of how many networks."""
    pools = {
        source.name: len(set(source.network.tolist()))
        for source in aligned.sources
        if source.network is not None
    }
    return {"networks": pools} if pools else {}


def _scored(aligned: Aligned) -> dict[str, Any]:
    return {
        "days": len(aligned.days),
        "period": aligned.days.period(),
        "calendar": aligned.days.calendar,
        "grid": str(aligned.truth.grid),
        "weights": "cell area",
        "wet_day": f"{WET_DAY:g} mm day-1",
        "members": {source.name: source.members for source in aligned.sources},
        **_pools(aligned),
        "mask": aligned.scored,
    }
