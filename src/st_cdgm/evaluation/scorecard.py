"""The scorecard: every source, every variable, every metric, on the same days."""

from __future__ import annotations

import json
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
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.evaluation.alignment import Aligned, align
from st_cdgm.evaluation.diagnostics import build_diagnostics, write_diagnostics
from st_cdgm.evaluation.gains import Gain, gains_of
from st_cdgm.evaluation.judgement import judged
from st_cdgm.evaluation.metrics.base import ALL, metric_of, metrics_of
from st_cdgm.evaluation.metrics.distribution import WET_DAY
from st_cdgm.evaluation.resampling import block_length
from st_cdgm.evaluation.scoring import COMPARED, Results, score_sources
from st_cdgm.evaluation.source import open_source
from st_cdgm.outputs import check_output_directory, native, write_atomically
from st_cdgm.redaction import redacted
from st_cdgm.typing import FloatArray

COLUMNS = ["source", "variable", "metric", "value", "units"]
# 95 % interval over days; missing where there is none, and in older files.
BOUNDS = ["low", "high"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorecard:
    """Scores in long form, with the protocol under which they were made.

    Attributes
    ----------
    rows : DataFrame
        Columns source, variable, metric, value, units, and low and high, the bounds of
        the 95 % interval of the value where it has one.
    protocol : dict
        What was compared on which days; only what JSON can hold.
    gains : list of Gain
        Per variable, the relative gain of the first source over the best of the others
        in CRPS, and for all variables in the joint scores, with its interval; empty
        with one source, and in files of earlier versions.
    """

    rows: pd.DataFrame
    protocol: dict[str, Any] = field(default_factory=dict)
    gains: list[Gain] = field(default_factory=list)

    def to_json(self, path: Path) -> Path:
        """Write valid JSON (a missing value is null)."""
        rows = []
        for row in self.rows.to_dict(orient="records"):
            bounds = {n: row[n] for n in BOUNDS if math.isfinite(row.get(n, math.nan))}
            value = row["value"] if math.isfinite(row["value"]) else None
            rows.append({**{n: row[n] for n in COLUMNS}, "value": value, **bounds})

        content = {
            "format": 1,
            "protocol": self.protocol,
            "gains": [gain.to_dict() for gain in self.gains],
            "rows": rows,
        }
        text = redacted(json.dumps(native(content), indent=1, allow_nan=False))
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
            rows = pd.DataFrame(stored["rows"], columns=[*COLUMNS, *BOUNDS])
            protocol = dict(stored["protocol"])
            gains = [Gain.from_dict(row) for row in stored.get("gains", [])]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                "The file is not a scorecard.", file=path, found=str(error)
            ) from error
        rows = rows.astype(dict.fromkeys(["value", *BOUNDS], float))
        return cls(rows=rows, protocol=protocol, gains=gains)

    def to_dataframe(self, *, calibration: bool = False) -> pd.DataFrame:
        """Return a table of the scores: variables and metrics by sources.

        With ``calibration`` it is of the calibration at all scales, between variables
        and days, instead; :meth:`calibration` has the intervals.
        """
        metrics = self.rows["metric"].unique()
        wanted = [m for m in metrics if metric_of(m).calibration == calibration]
        table = self.rows[self.rows["metric"].isin(wanted)].pivot_table(
            index=["variable", "metric", "units"],
            columns="source",
            values="value",
            dropna=False,
            sort=False,
        )
        sources = list(dict.fromkeys(self.rows["source"]))
        return table.dropna(how="all").reindex(columns=sources)

    def calibration(self, source: str | None = None) -> pd.DataFrame:
        """Return what a source is judged by besides its skill, the weakest first.

        Every score with an ideal value and a tolerance, such as spread over error at
        every scale. The distance from the ideal is in tolerances: 1 is still good.

        Parameters
        ----------
        source : str, optional
            The first one by default.

        Returns
        -------
        DataFrame
            Columns variable, metric, value, low, high, ideal, distance, sure. ``sure``
            is the distance of the nearest value in the interval, 0 where it holds the
            ideal, and missing without an interval.

        Raises
        ------
        InputError
            The scorecard does not have this source.
        """
        names = list(dict.fromkeys(self.rows["source"]))
        if source is not None:
            self._check_source(source, names)
        chosen = self.rows["source"] == (source or (names[0] if names else ""))
        return judged(self.rows[chosen])

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
        self._check_source(reference, list(table.index))
        return 1 - table / table.loc[reference]

    def _check_source(self, name: str, known: Sequence[str]) -> None:
        if name not in known:
            raise InputError(
                "The scorecard does not have this source.",
                found=name,
                expected=", ".join(known),
            )


def evaluate_files(
    prediction: Paths,
    truth: Paths,
    *,
    references: Mapping[str, Paths] | None = None,
    mask: str = "common",
    metrics: Sequence[str] = (),
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
    mask, metrics, output
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
        sources, truth, protocol=protocol, output=output, metrics=metrics, mask=mask
    )


def source_name(paths: Paths) -> str:
    """Return the name of a forecast in scorecards: that of its file, without ending."""
    if isinstance(paths, xr.Dataset):
        source = str(paths.encoding.get("source", "prediction"))
    else:
        source = str(paths if isinstance(paths, str | Path) else next(iter(paths), ""))
    path = source.partition("?")[0] if "://" in source else source
    return PurePath(path.rstrip("/")).stem or "prediction"


def _named(paths: Paths) -> str:
    """Return what a protocol says of an input."""
    if isinstance(paths, xr.Dataset):
        return redacted(file_label(paths))
    if isinstance(paths, str | Path):
        return redacted(str(paths))
    return ", ".join(redacted(str(path)) for path in paths)


def evaluate_ensembles(
    forecasts: Mapping[str, Paths],
    truth: Paths,
    *,
    protocol: Mapping[str, Any],
    output: Path | None,
    metrics: Sequence[str] = (),
    mask: str = "common",
    baseline: xr.Dataset | None = None,
    climatology: xr.Dataset | None = None,
    land: FloatArray | None = None,
) -> Scorecard:
    """Score ensembles against the truth and write the results.

    The variables that the truth and the first source have are scored, on the days and
    cells that the truth and all sources have in common, with cell-area weights. The
    metrics are those registered (see :mod:`st_cdgm.evaluation.metrics.base`), each on
    the variables it has a meaning for. The CRPS of the first source is compared with
    that of the best other one, with an interval over days.

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
        variable, cell and day with truth must be predicted; ``strict`` refuses,
        besides, predictions without truth.
    baseline : Dataset, optional
        The model's baseline, shown in the diagnostics but not scored.
    climatology : Dataset, optional
        What is usual on the scored days, learned on training days: spectra, variograms
        and scores of several variables are of the departures from it. Without it, from
        the mean of the truth over the scored days. Variables (time, y, x).
    land : ndarray, optional
        Land area fraction of the scored cells, kept in the diagnostics for maps. Shape
        ``(Y, X)``.

    Raises
    ------
    ConfigError
        There is no metric of a name.
    GridMismatchError
        A source shares too little of the truth's grid, or less than ``mask`` allows.
    MissingVariableError
        No variable in common, or one without a match that ``mask`` does not allow.
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
        results = score_sources(aligned, columns, climatology)
        card = _card(aligned, results, protocol, climatology is not None)
        if output is None:
            return card

        shown = None
        if baseline is not None:
            names = [target.name for target in aligned.targets]
            shown = open_source("baseline", baseline, names)
            shown = shown.on_grid(aligned.truth.grid, role="baseline")

        # What a report draws needs the fields once more.
        diagnostics = build_diagnostics(
            aligned, results.shown, baseline=shown, land=land
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


def _card(
    aligned: Aligned, results: Results, protocol: Mapping[str, Any], learned: bool
) -> Scorecard:
    sources = [source.name for source in aligned.sources]
    block = block_length(aligned.days.ordinal)
    variables = {"crps": [target.name for target in aligned.targets]}
    variables |= {metric: [ALL] for metric in COMPARED}
    usual = "of the training days" if learned else "mean of the scored days"

    return Scorecard(
        rows=pd.DataFrame(results.rows, columns=[*COLUMNS, *BOUNDS]),
        protocol={
            **protocol,
            "scored": {**_scored(aligned), "climatology": usual},
        },
        gains=[
            gain
            for metric, names in variables.items()
            for gain in gains_of(
                results.daily[metric], sources, names, block=block, metric=metric
            )
        ],
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
