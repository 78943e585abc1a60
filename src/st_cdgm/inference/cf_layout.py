"""How an ensemble lies in a CF-1.8 dataset: names, attributes, time, encoding, checks.

``variable(time, realization, y, x)``, float32. Time comes first, as cdo wants it.
A time stamp is 00:00 of its day, as in the inputs. Where a variable is a statistic over
the day (``cell_methods: time: sum``, ``mean`` ...) ``time_bnds`` gives its limits 00:00
and 24:00: without them nothing says whether the stamp opens or closes the day.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm._version import __version__
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.variables.fields import TargetVariable
from st_cdgm.errors import InputError

TIME_UNITS = "days since 1850-01-01"
FILL_VALUE = np.float32(9.969209968386869e36)  # netCDF's default for floats

# int64 is no data type of CF 1.8 (it came with 1.9).
_INT = np.int32
_CHUNK_BYTES = 2**20
_CALENDARS = (
    "standard",
    "gregorian",
    "proleptic_gregorian",
    "noleap",
    "365_day",
    "all_leap",
    "366_day",
    "360_day",
    "julian",
)
_OVER_THE_DAY = re.compile(
    r"\btime:\s*(sum|mean|maximum|minimum|range|median|mid_range|mode|variance|"
    r"standard_deviation|root_mean_square)\b"
)
_NETWORK_ATTRS = {"long_name": "network of the pool that made it", "units": "1"}
_REALIZATION_ATTRS = {
    "standard_name": "realization",
    "long_name": "ensemble member",
    "units": "1",
}


def layout(
    fields: NDArray[np.floating],
    number: NDArray[np.int32],
    *,
    calendar: str,
    targets: Sequence[TargetVariable],
    grid: Grid,
    members: Sequence[int] | range,
    attrs: Mapping[str, Any] | None,
    networks: int = 1,
) -> xr.Dataset:
    """Return the dataset as it is stored: numbers and CF attributes, not decoded.

    Parameters
    ----------
    fields, number : ndarray
        Values ``(T, M, C, Y, X)``, T may be 0, and days as of `encode_days` ``(T,)``.
    calendar, targets, grid, members, attrs, networks
        As in `st_cdgm.inference.writer.ensemble_dataset`.

    Raises
    ------
    InputError
        Names or members that cannot be stored in one file.
    """
    horizontal = grid.coords()
    _check_contents(targets, members, horizontal)

    daily = any(_OVER_THE_DAY.search(t.cell_methods or "") for t in targets)
    mapping = str(grid.mapping["variable"]) if grid.mapping else None
    member = ("realization", np.asarray(members, dtype=_INT), _REALIZATION_ATTRS)
    time = ("time", number, _time_attrs(calendar, daily=daily))
    coords = {"time": time, "realization": member, **horizontal}
    if networks > 1:
        made_by = np.asarray(members, dtype=_INT) % networks
        coords["network"] = ("realization", made_by, _NETWORK_ATTRS)

    ds = xr.Dataset(coords=coords, attrs=_global_attrs(attrs))
    if mapping is not None:
        ds = ds.reset_coords(mapping)
    if daily:
        ds["time_bnds"] = (("time", "bnds"), day_bounds(number))

    dims = ("time", "realization", grid.y_name, grid.x_name)
    for c, target in enumerate(targets):
        values = fields[:, :, c].astype(np.float32, copy=False)
        ds[target.name] = (dims, values, _target_attrs(target, mapping))

    return ds


def encoding(stored: xr.Dataset, total_days: int | None) -> dict[str, dict[str, Any]]:
    """Return the storage of every variable of a `layout`: fill values, chunks, zlib.

    Chunks hold about 1 MiB, so that both a map and a time series are read fast.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for name, variable in stored.variables.items():
        if variable.ndim == 4:
            _, m, y, x = variable.shape
            days = max(1, _CHUNK_BYTES // (4 * m * y * x))
            members = max(1, min(m, _CHUNK_BYTES // (4 * y * x)))
            chosen[str(name)] = {
                "dtype": "float32",
                "_FillValue": FILL_VALUE,
                "zlib": True,
                "complevel": 1,
                "chunksizes": (min(days, total_days or 64), members, y, x),
            }
        elif variable.dtype.kind in "if":  # coordinates have no missing values
            chosen[str(name)] = {"_FillValue": None}

    return chosen


# --- time -----------------------------------------------------------------------------


def encode_days(day: NDArray[np.integer], calendar: str) -> NDArray[np.int32]:
    """Return days YYYYMMDD ``(T,)`` as days since 1850-01-01 in their CF calendar.

    Raises
    ------
    InputError
        A day does not exist in the calendar, or the calendar is unknown.
    """
    if calendar not in _CALENDARS:
        raise InputError(
            "Unknown calendar.",
            variable="time",
            found=repr(calendar),
            expected=", ".join(_CALENDARS),
        )
    if not len(day):
        return np.zeros(0, dtype=_INT)

    try:
        dates = [
            cftime.datetime(d // 10000, d // 100 % 100, d % 100, calendar=calendar)
            for d in day.tolist()
        ]
    except ValueError as error:
        raise InputError(
            f"A day does not exist in its calendar ({error}).",
            variable="time",
            found=f"days {int(day[0])} to {int(day[-1])}, calendar {calendar!r}",
            expected="integers YYYYMMDD",
        ) from error
    return np.asarray(cftime.date2num(dates, TIME_UNITS, calendar), dtype=_INT)


def day_bounds(number: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the limits of days, 00:00 and 24:00. Shape ``(T, 2)``."""
    return np.stack([number, number + _INT(1)], axis=1)


def _time_attrs(calendar: str, *, daily: bool) -> dict[str, str]:
    """Return the attributes of the time coordinate."""
    attrs = {
        "standard_name": "time",
        "long_name": "time",
        "axis": "T",
        "units": TIME_UNITS,
        "calendar": calendar,
    }
    return attrs | {"bounds": "time_bnds"} if daily else attrs


# --- attributes -----------------------------------------------------------------------


def _target_attrs(target: TargetVariable, mapping: str | None) -> dict[str, Any]:
    """Return a variable's attributes, with a long name in any case."""
    readable = (target.standard_name or target.name).replace("_", " ")
    attrs = {"long_name": readable} | target.attrs()
    return attrs if mapping is None else attrs | {"grid_mapping": mapping}


def _global_attrs(attrs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the global attributes: ours, then the caller's, never None."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ours = {
        "title": "Downscaled ensemble",
        "source": f"st-cdgm {__version__}",
        "history": f"{now} written by st-cdgm {__version__}",
    }
    given = {key: value for key, value in (attrs or {}).items() if value is not None}
    return ours | given | {"Conventions": "CF-1.8"}


# --- checks ---------------------------------------------------------------------------


def check_days(day: NDArray[Any], *, last: int | None = None) -> None:
    """Refuse days that are not increasing integers, or not after ``last``."""
    if day.ndim != 1 or day.dtype.kind not in "iu":
        raise InputError(
            "Days must be a vector of integers YYYYMMDD.",
            variable="time",
            found=f"shape {day.shape}, dtype {day.dtype}",
        )

    days = day.astype(np.int64)
    if last is not None:
        days = np.concatenate([[last], days])
    later = np.diff(days) > 0
    if not later.all():
        at = int(np.argmin(later))
        raise InputError(
            "Days must increase.",
            variable="time",
            found=f"{days[at + 1]} after {days[at]}",
            expected="every day once, in order",
        )


def check_fields(
    fields: NDArray[Any],
    shape: tuple[int, ...],
    targets: Sequence[TargetVariable],
) -> None:
    """Refuse fields of another shape and values that float32 cannot hold."""
    if fields.shape != shape:
        raise InputError(
            "The fields do not have the shape (time, member, variable, y, x) expected.",
            found=fields.shape,
            expected=shape,
        )
    for c, target in enumerate(targets):
        if (np.abs(fields[:, :, c]) >= FILL_VALUE).any():
            raise InputError(
                "The fields hold infinite or absurdly large values.",
                variable=target.name,
                expected="finite values, NaN where there are none",
            )


def _check_contents(
    targets: Sequence[TargetVariable],
    members: Sequence[int] | range,
    taken: Mapping[str, Any],
) -> None:
    """Refuse names used twice or by a coordinate, and members used twice or none."""
    names = [target.name for target in targets]
    reserved = {"time", "time_bnds", "bnds", "realization", "network", *taken}
    bad = sorted({n for n in names if names.count(n) > 1 or n in reserved})
    if bad or not names:
        raise InputError(
            "The target names cannot be variables of one file.",
            variable=", ".join(bad) or None,
            found=names,
            expected=f"different names, none of {sorted(reserved)}",
        )

    if not len(members) or len(set(members)) != len(members):
        raise InputError(
            "Member numbers must be different, and at least one.",
            variable="realization",
            found=list(members),
        )
