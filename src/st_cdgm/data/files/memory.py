"""Data sets that are handed over in memory in place of a file."""

from __future__ import annotations

import datetime
from typing import Any

import cftime
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.layouts import in_cf_form
from st_cdgm.data.files.lazy import NO_FILE, TIMES, text_attributes
from st_cdgm.data.space.coordinates import Located
from st_cdgm.errors import InputError


def from_memory(ds: xr.Dataset) -> tuple[xr.Dataset, Located]:
    """Return a data set in memory as it would be if it were read from a file.

    Dates become those of cftime; what was opened without dask gets lazy pieces. The
    data set given is not changed. What is in it comes beside it.

    Raises
    ------
    InputError
        If its time units cannot be decoded.
    """
    label = str(ds.encoding.get("source", NO_FILE))
    undecoded = any("since" in str(v.attrs.get("units")) for v in ds.variables.values())
    try:
        made = ds.copy()
        if undecoded:
            made = xr.decode_cf(
                ds, mask_and_scale=False, decode_times=TIMES, decode_timedelta=False
            )
    except ValueError as error:
        raise InputError(
            "the time axis cannot be decoded",
            file=label,
            found=str(error),
            expected="dates, or numbers with CF time units and a CF calendar",
            remedy="mend the time units or calendar",
        ) from error

    if ds.encoding.get("source") and not ds.chunks:
        # Opened without dask: stay lazy. Dates are objects, whose size nobody knows.
        fields = {n: v for n, v in made.data_vars.items() if not v.dtype.hasobject}
        made = made.assign({name: v.chunk("auto") for name, v in fields.items()})
    for name, variable in ds.variables.items():
        if variable.dtype.kind == "M" and not bool(variable.isnull().any()):
            made[name] = (variable.dims, _cftime(variable), variable.attrs)

    made, located = in_cf_form(text_attributes(made))
    made.encoding["source"] = label
    return made, located


def _cftime(variable: xr.Variable) -> NDArray[Any]:
    """Dates of numpy, which are proleptic Gregorian, as those of cftime."""
    stamps = variable.values.astype("datetime64[us]").astype(datetime.datetime)
    dates = np.empty(stamps.shape, dtype=object)
    for at, stamp in np.ndenumerate(stamps):
        parts = (*stamp.timetuple()[:6], stamp.microsecond)
        dates[at] = cftime.datetime(*parts, calendar="proleptic_gregorian")
    return dates
