"""Links between plain series: a table or an array of any step, with gaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from st_cdgm.discovery.config import DiscoveryConfig
from st_cdgm.discovery.search import discover_edges
from st_cdgm.discovery.series import Record
from st_cdgm.discovery.verdicts import LinkGraph
from st_cdgm.errors import InputError, MissingFileError

DAYS_PER_YEAR = 365.25


def discover_series(
    series: str | Path | pd.DataFrame | xr.DataArray | xr.Dataset,
    config: DiscoveryConfig | None = None,
    *,
    known: pd.DataFrame | str | Path | None = None,
) -> LinkGraph:
    """Find the lagged links between series.

    Parameters
    ----------
    series : path, DataFrame, DataArray or Dataset
        One column per variable, one row per step; missing values are gaps. A CSV file
        has the time in its first column, where that can be read as dates; else all
        columns are series. A DataArray has dimensions time and variable (with names),
        and may have y and x; a Dataset has one variable per series or field.
    config : DiscoveryConfig, optional
        Defaults when absent.
    known : DataFrame or path, optional
        Drivers from outside at the same steps, such as an index of ENSO or NAO: every
        prediction may use their value of the same step.

    Raises
    ------
    InputError
        The series cannot be read so, or are too short.
    MissingFileError
        There is no such file.
    """
    record = series_record(series, known=known)
    return discover_edges(record, config)


def series_record(
    series: str | Path | pd.DataFrame | xr.DataArray | xr.Dataset,
    *,
    known: pd.DataFrame | str | Path | None = None,
) -> Record:
    """Return series as a record; parameters as in :func:`discover_series`."""
    if isinstance(series, xr.DataArray | xr.Dataset):
        fields, times = _of_xarray(series)
    else:
        table = series if isinstance(series, pd.DataFrame) else read_table(Path(series))
        values = table.to_numpy(np.float64)
        fields = {
            str(name): values[:, [k], None, None]
            for k, name in enumerate(table.columns)
        }
        times = table.index

    outside = None
    if known is not None:
        outside = known if isinstance(known, pd.DataFrame) else read_table(Path(known))
        if isinstance(times, pd.DatetimeIndex):
            outside = outside.reindex(times)
    year, season, number = _calendar(times)
    return Record(
        fields=fields,
        year=year,
        season=season,
        ordinal=number,
        known=None if outside is None else outside.to_numpy(np.float64),
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file; a first column of dates becomes the index.

    Raises
    ------
    InputError
        It is no table of numbers.
    MissingFileError
        There is no such file.
    """
    if not path.is_file():
        raise MissingFileError(
            "there is no such table", file=path, expected="a CSV file of series"
        )
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(
            "the table of series cannot be read", file=path, found=str(error)
        ) from error

    # The first column may be dates, by its texts or by its name.
    first = table.columns[0] if len(table.columns) else ""
    named = str(first).strip().lower() in ("time", "date", "datetime", "day", "month")
    if named or not pd.api.types.is_numeric_dtype(table[first]):
        times = pd.to_datetime(table[first].astype(str), errors="coerce")
        if times.isna().any():
            raise InputError(
                "the first column of the table is neither dates nor numbers",
                file=path,
                variable=str(first),
                found=str(table[first][times.isna()].iloc[0]),
                expected="dates such as 2001-02-28",
            )
        table = table.drop(columns=first).set_index(pd.DatetimeIndex(times))

    words = [c for c in table if not pd.api.types.is_numeric_dtype(table[c])]
    if words:
        raise InputError(
            "a column of the table is not numbers", file=path, variable=str(words[0])
        )
    return table


def _of_xarray(series: xr.DataArray | xr.Dataset) -> tuple[dict[str, Any], Any]:
    """Return fields ``(T, 1, y, x)`` and times."""
    if isinstance(series, xr.DataArray):
        name = next((d for d in series.dims if d in ("variable", "mode", "var")), None)
        if name is None or "time" not in series.dims:
            raise InputError(
                "the array has no dimensions time and variable",
                found=", ".join(map(str, series.dims)),
                expected="time, variable, and y and x for fields",
            )
        # Without coordinates the variables are numbered.
        labels = (
            series[name].values if name in series.coords else range(series.sizes[name])
        )
        parts = {str(label): series.isel({name: k}) for k, label in enumerate(labels)}
    else:
        parts = {str(name): series[name] for name in series.data_vars}

    fields = {}
    for name, part in parts.items():
        rest = [d for d in part.dims if d != "time"]
        values = part.transpose("time", *rest).values.astype(np.float64)
        shape = values.shape[1:] if len(rest) == 2 else (values[0].size, 1)
        fields[name] = values.reshape(len(values), 1, *shape)
    dated = "time" in series.coords
    return fields, series["time"].to_index() if dated else range(series.sizes["time"])


def _calendar(times: Any) -> tuple[Any, Any, Any]:
    """Return year, season and number of each step.

    Without dates the steps are consecutive, and a year is a tenth of them.
    """
    if not isinstance(times, pd.DatetimeIndex | xr.CFTimeIndex):
        count = len(times)
        number = np.arange(count)
        return number * 10 // count, number * 10 / count % 1.0, number

    year = np.asarray(times.year, np.int64)
    standard = isinstance(times, pd.DatetimeIndex)
    day_of_year = times.day_of_year if standard else times.dayofyear
    season = np.asarray((day_of_year - 1) / DAYS_PER_YEAR, np.float64)
    day = np.asarray(
        [(t - times[0]).total_seconds() / 86400.0 for t in times], np.float64
    )
    step = float(np.median(np.diff(day)))
    if step > 27:  # months differ in length; their number counts
        return year, season, np.asarray(times.year * 12 + times.month, np.int64)
    return year, season, np.round(day / step).astype(np.int64)
