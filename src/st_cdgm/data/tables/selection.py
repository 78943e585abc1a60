"""Open a file plainly, cut it to a region and a period, find its statistics."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.lazy import on_dask, text_attributes
from st_cdgm.data.files.open import (
    local_engine,
    open_dataset,
    resolve_paths,
    time_name,
)
from st_cdgm.data.files.sniff import try_opening
from st_cdgm.data.space.coordinates import (
    check_not_empty,
    continuous,
    required_coordinates,
)
from st_cdgm.data.time.axis import iso
from st_cdgm.errors import InputError, MissingVariableError

logger = logging.getLogger(__name__)
Range = tuple[float, float]
_DATE = re.compile(
    r"^\s*(-?\d{1,6})(?:-(\d{1,2}))?(?:-(\d{1,2}))?"
    r"(?:[T ](\d{1,2})(?::(\d{1,2}))?(?::(\d{1,2})(?:\.\d*)?)?)?Z?\s*$"
)


# -- Time ------------------------------------------------------------------------------


def time_dimension(ds: xr.Dataset) -> str | None:
    """Name of the time dimension with a coordinate, None where there is none."""
    try:
        return time_name(ds)
    except MissingVariableError:
        return None


def plain_dates(ds: xr.Dataset, *, file: str | Path | None = None) -> xr.Dataset:
    """Give the time axis pandas dates, field by field and down to the second.

    A calendar with dates that pandas does not have (30 February) keeps its own.
    """
    name = time_dimension(ds)
    if name is None or np.issubdtype(ds[name].dtype, np.datetime64):
        return ds
    if ds[name].dtype.kind in "iuf":
        logger.warning(
            "%s: %s stays as it is: its units %r do not make dates",
            file,
            name,
            ds[name].attrs.get("units"),
        )
        return ds

    # Such calendars keep their dates even where the file has none of the odd ones.
    foreign = ("360_day", "all_leap", "366_day")
    if ds[name].size and getattr(ds[name].values[0], "calendar", "") in foreign:
        logger.info("%s: %s keeps its calendar, pandas lacks its dates", file, name)
        return ds

    texts = [iso(s) if isinstance(s, cftime.datetime) else s for s in ds[name].values]
    try:
        stamps = np.array(texts, dtype="datetime64[us]")
    except ValueError:
        logger.info("%s: %s keeps its calendar, pandas lacks its dates", file, name)
        return ds
    low, high = pd.Timestamp.min, pd.Timestamp.max
    if stamps.size and low < stamps.min() and stamps.max() < high:
        stamps = stamps.astype("datetime64[ns]")
    return ds.assign_coords({name: (name, stamps, ds[name].attrs)})


def cut_period(
    ds: xr.Dataset, start: Any, end: Any, *, file: str | Path | None = None
) -> xr.Dataset:
    """Keep the stamps from ``start`` to ``end``, both included; None leaves it open.

    A bound is a date, or text as coarse as wanted: ``2001`` begins on 1 January and
    ends on the last day of the year, in every calendar.

    Raises
    ------
    MissingVariableError
        If there is no time axis.
    InputError
        If a bound is not a date, or no stamp lies between them.
    """
    name = time_name(ds)
    first, last = _date_parts(start), _date_parts(end)
    values = ds[name].values
    if values.dtype.kind in "iuf":
        raise InputError(
            "the time axis has numbers instead of dates",
            file=file,
            variable=name,
            found=f"units {ds[name].attrs.get('units', 'none')!r}",
            expected="CF time units such as 'days since 1990-01-01'",
            remedy="set the time units (cdo settaxis)",
        )
    stamps = [_date_parts(stamp) for stamp in values]
    # An open end holds for every stamp: nothing precedes the empty tuple.
    keep = [i for i, s in enumerate(stamps) if s >= first and s[: len(last)] <= last]
    if not keep and stamps:
        raise InputError(
            "the period has no time stamp of the file",
            file=file,
            variable=name,
            found=f"{iso(values[0])}..{iso(values[-1])}",
            expected=f"stamps in {start or 'the beginning'}..{end or 'the end'}",
            remedy="check the period; it is written YYYY or YYYY-MM-DD",
        )
    return ds.isel({name: keep})


def _date_parts(date: Any) -> tuple[int, ...]:
    """Year, month, ... as far as given, which compare in every calendar."""
    if date is None:
        return ()
    text = date if isinstance(date, str | int) else iso(date)
    match = _DATE.match(str(text))
    if match is None:
        raise InputError(
            "a bound of the period is not a date",
            found=repr(date),
            expected="YYYY, YYYY-MM-DD or YYYY-MM-DDThh:mm",
        )
    return tuple(int(part) for part in match.groups() if part is not None)


# -- Space -----------------------------------------------------------------------------


def cut_region(
    ds: xr.Dataset,
    *,
    lat_range: Range | None = None,
    lon_range: Range | None = None,
    file: str | Path | None = None,
) -> xr.Dataset:
    """Cut a latitude-longitude box, whatever the axis order and longitude convention.

    ``lat_range`` holds two latitudes in either order, degrees north; ``lon_range`` the
    west and the east edge in degrees east, both -180..180 or 0..360. A region across 0
    or 180 degrees comes out in one piece, west to east as in the file, its longitudes
    without a jump. On a curvilinear grid the smallest block of rows and columns that
    holds the box is kept, and its cells outside become NaN.

    Raises
    ------
    InputError
        If no cell lies in the box.
    """
    lat_name, lon_name = required_coordinates(ds, file=file)
    lat, lon = ds[lat_name], ds[lon_name]
    check_not_empty(ds, (lat_name, lon_name), file=file)
    inside = _inside(lat, lon, lat_range, lon_range)
    if not bool(inside.any()):
        raise InputError(
            "the region has no cell of the grid",
            file=file,
            found=f"latitudes {float(lat.min()):g}..{float(lat.max()):g}, longitudes "
            f"{float(lon.min()):g}..{float(lon.max()):g}",
            expected=f"cells in lat {lat_range}, lon {lon_range}",
            remedy="check the region; west comes before east",
        )

    chosen = {}
    for dim in inside.dims:
        others = [d for d in inside.dims if d != dim]
        index = np.flatnonzero(inside.any(others).values)
        chosen[dim] = _in_one_piece(index, inside.sizes[dim]) if lon_range else index
    block, inside = ds.isel(chosen), inside.isel(chosen)

    # A rectangle of a regular grid; of a curvilinear one, a block and its cells inside.
    if lat.ndim == 1:
        return _without_jump(block, lon_name)
    masked = {
        name: variable.where(inside).assign_attrs(variable.attrs)
        for name, variable in block.data_vars.items()
        if set(inside.dims) <= set(variable.dims)
    }
    return block.assign(masked)


def _in_one_piece(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Order of an index set that runs over the end of a circle back to its start."""
    breaks = np.flatnonzero(np.diff(index) > 1)
    if len(breaks) == 1 and index[0] == 0 and index[-1] == size - 1:
        return np.roll(index, -(int(breaks[0]) + 1))
    return index


def _without_jump(ds: xr.Dataset, name: str) -> xr.Dataset:
    """Write longitudes across the seam of the file so that they rise or fall."""
    lon = ds[name]
    steps = np.diff(lon.values)
    if not ((steps > 0).any() and (steps < 0).any()):
        return ds
    turned = continuous(lon.values.astype(np.float64))
    return ds.assign_coords({name: lon.copy(data=turned)})


def _inside(
    lat: xr.DataArray,
    lon: xr.DataArray,
    lat_range: Range | None,
    lon_range: Range | None,
) -> xr.DataArray:
    """Return which cells lie in a box; all of them without ranges."""
    in_lat, in_lon = xr.ones_like(lat, dtype=bool), xr.ones_like(lon, dtype=bool)
    if lat_range is not None:
        in_lat = (lat >= min(lat_range)) & (lat <= max(lat_range))
    if lon_range is not None:
        width = lon_range[1] - lon_range[0]
        width = 360.0 if abs(width) >= 360.0 else width % 360.0
        # The edges belong to the box in spite of rounding.
        in_lon = (lon - lon_range[0] + 1e-6) % 360.0 <= width + 2e-6
    inside = (in_lat & in_lon).transpose(*dict.fromkeys((*lat.dims, *lon.dims)))
    return inside.drop_vars([n for n in inside.coords if n not in inside.dims])


# -- Opening and statistics ------------------------------------------------------------


def open_plain(path: Path, chunks: Any) -> xr.Dataset:
    """Open plainly: bounds stay variables, dates are pandas' where these exist."""
    options = local_engine(path) | {"chunks": None, "decode_timedelta": False}
    try_opening(path, role="inspected")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)
            return _on_dask(path, options, chunks)
    except Exception as error:
        try:
            open_dataset(path, role="inspected").close()  # knows the usual reasons
        except InputError as known:
            if "time axis" not in known.problem:
                raise

            logger.warning("%s", known)
            return _on_dask(path, options | {"decode_times": False}, chunks)

        raise InputError(
            "the file cannot be read",
            file=path,
            found=f"{type(error).__name__}: {error}",
            expected="a complete NetCDF file, HDF5 file or Zarr directory",
        ) from error


def _on_dask(path: Path, options: dict[str, Any], chunks: Any) -> xr.Dataset:
    """Open with values that name file and variable where they cannot be read."""
    opened = xr.open_dataset(path, **options)
    ds = text_attributes(opened)
    for name, variable in opened.variables.items():  # shown as the file has it
        if "standard_name" in variable.attrs:
            named = str(variable.attrs["standard_name"])
            ds.variables[name].attrs.setdefault("standard_name", named)
    ds = on_dask(ds, path)
    ds.set_close(opened.close)
    return ds if chunks is None else ds.chunk(chunks)


def statistics_of(
    path: str | Path | None, given: xr.Dataset | None, what: str, file: Path
) -> xr.Dataset:
    """Return statistics from a file, else those given; raise InputError without any."""
    if path is not None:
        found = resolve_paths(path, role="inspected")[0]
        with open_plain(found, None) as opened:
            return opened.load()
    if given is not None:
        return given
    raise InputError(
        "normalisation needs statistics",
        file=file,
        variable=what,
        found="none",
        expected="means and standard deviations of the variables",
        remedy=f"pass {what}_filepath or {what}_dataset",
    )


def pooled(
    name: str, means: xr.Dataset, stds: xr.Dataset, *, file: Path
) -> tuple[float, float]:
    """Mean and standard deviation over all cells, by the law of total variance."""
    for what, statistics in (("means", means), ("stds", stds)):
        if name not in statistics.data_vars:
            raise MissingVariableError(
                f"the {what} lack a variable that is to be normalised",
                file=file,
                variable=name,
                found=", ".join(map(str, statistics.data_vars)) or "no variables",
                remedy="compute its statistics, or leave it out",
            )

    centre, spread = means[name].astype(np.float64), stds[name].astype(np.float64)
    mean = float(centre.mean())
    std = float(np.sqrt(float((spread**2).mean()) + float(centre.var())))
    if not np.isfinite([mean, std]).all():
        raise InputError(
            "the statistics of a variable have no values",
            file=file,
            variable=name,
            found=f"mean {mean:g}, standard deviation {std:g}",
        )
    if std == 0.0:
        logger.warning("%s: %s has standard deviation 0, taken as 1", file, name)
    return mean, std or 1.0
