"""Lazy arrays that say which file and variable they come from when reading fails."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array
import netCDF4
import numpy as np
import xarray as xr
from dask.array.core import normalize_chunks
from dask.base import tokenize
from numpy.typing import NDArray

from st_cdgm.errors import InputError

NO_FILE = "data set in memory"


class _Dates(xr.coders.CFDatetimeCoder):
    """Dates of cftime; a missing one is an error, not the first of the epoch."""

    def decode(
        self, variable: xr.Variable, name: Hashable | None = None
    ) -> xr.Variable:
        axis = variable.dims == (name,) and "since" in str(variable.attrs.get("units"))
        if axis and variable.dtype.kind == "f" and np.isnan(variable.values).any():
            raise ValueError("time stamps are missing")
        return super().decode(variable, name=name)


TIMES = _Dates(use_cftime=True)
# What the NetCDF library leaves where a program has not written anything.
_NEVER_WRITTEN = np.float32(netCDF4.default_fillvals["f4"])


@dataclass(frozen=True, kw_only=True)
class Invalid:
    """Which decoded values of a variable are missing.

    Attributes
    ----------
    low, high : float
        Valid range, in decoded values.
    never_written : bool
        Whether the library's own fill value counts, as no other one is declared.
    """

    low: float = -np.inf
    high: float = np.inf
    never_written: bool = False

    def masked(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the values with NaN for the invalid ones."""
        with np.errstate(invalid="ignore"):
            wrong = (values < self.low) | (values > self.high)
            if self.never_written:
                wrong |= values.astype(np.float32) == _NEVER_WRITTEN
        if wrong.any():
            values = values.copy()
            values[wrong] = np.nan
        return values


def invalid_values(variable: xr.Variable) -> Invalid | None:
    """Find what a variable declares invalid; None where nothing is.

    ``valid_range``, ``valid_min`` and ``valid_max`` are those of the NetCDF
    conventions, which xarray leaves to its users: in packed numbers if the attribute
    has their type, in unpacked ones if it is wider. Whole numbers stay as they are.
    """
    if variable.dtype.kind != "f" or variable.ndim < 2:
        return None
    known = variable.encoding
    low, high = _valid_range(variable)
    declared = {"_FillValue", "missing_value", "scale_factor", "add_offset"}
    blank = not declared & (set(known) | set(variable.attrs))
    if not blank and np.isinf([low, high]).all():
        return None
    return Invalid(low=low, high=high, never_written=blank)


def _valid_range(variable: xr.Variable) -> tuple[float, float]:
    attrs = variable.attrs
    both = np.atleast_1d(np.asarray(attrs.get("valid_range", [])))
    if both.shape == (2,):
        low, high = both
    else:
        low, high = attrs.get("valid_min"), attrs.get("valid_max")
    return _decoded(variable, low, -np.inf), _decoded(variable, high, np.inf)


def _decoded(variable: xr.Variable, given: Any, otherwise: float) -> float:
    """Return one end of the range as the values are read, half a step further out."""
    number, known = np.asarray(given), variable.encoding
    unsigned = "_Unsigned" in known or "_Unsigned" in variable.attrs
    if number.dtype.kind not in "iuf" or number.size != 1 or unsigned:
        return otherwise
    end = float(number.reshape(-1)[0])
    if not np.isfinite(end):
        return otherwise

    outwards = float(np.sign(otherwise))
    packed = "scale_factor" in known or "add_offset" in known
    if packed and number.dtype == known.get("dtype"):
        scale = float(np.asarray(known.get("scale_factor", 1.0)).reshape(-1)[0])
        offset = float(np.asarray(known.get("add_offset", 0.0)).reshape(-1)[0])
        if scale < 0.0:  # the ends change places; both are given or none is used
            return otherwise

        return end * scale + offset + outwards * 0.5 * scale
    if packed and number.dtype.kind != "f":
        return otherwise  # neither packed nor unpacked

    return end + outwards * 1e-6 * abs(end)


LARGEST_BYTES = 1 << 60
MOST_CHUNKS = 10_000_000
_PACKING = ("scale_factor", "add_offset")
_TEXT = (
    *("units", "standard_name", "long_name", "cell_methods", "axis", "positive"),
    *("calendar", "bounds", "climatology", "grid_mapping", "grid_mapping_name"),
)
# One word, or one and a modifier; "unknown" and titles are no names.
_STANDARD_NAME = re.compile(
    r"(?!(?:unknown|undefined|none)$)[a-z][a-z0-9_]*"
    r"( (detection_minimum|number_of_observations|standard_error|status_flag"
    r"|component_\w+))?",
    re.IGNORECASE,
)


def on_dask(ds: xr.Dataset, source: str | Path, *, version: str = "") -> xr.Dataset:
    """Put a data set that was opened without chunks on dask, piece by piece.

    ``source`` is the path or URL for messages; ``version`` distinguishes the states of
    a file that changes.

    Raises
    ------
    InputError
        If a variable claims a size that no disk holds. While reading: if the values
        cannot be read, naming file and variable.
    """
    lazy: dict[Any, xr.Variable] = {}
    for name, variable in ds.variables.items():
        if name in ds.indexes or variable.ndim == 0:
            continue
        chunks = _chunks(variable, str(name), source)
        array: Any = dask.array  # its stubs leave this untyped
        mark = tokenize(str(source), version, str(name), chunks)
        data = array.from_array(
            _Values(variable, str(name), str(source)),
            chunks=chunks,
            name=f"{name}-{mark}",
            meta=np.empty((0,) * variable.ndim, variable.dtype),
        )
        lazy[name] = xr.Variable(
            variable.dims, data, variable.attrs, variable.encoding, fastpath=True
        )

    made = ds.assign(lazy)
    made.encoding = ds.encoding
    return made


class _Values:
    """The values of a variable of a file, as dask reads them."""

    def __init__(self, variable: xr.Variable, name: str, source: str) -> None:
        self.variable, self.name, self.source = variable, name, source
        self.shape, self.dtype = variable.shape, variable.dtype
        self.ndim = variable.ndim
        self.invalid = invalid_values(variable)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        # Every library has its own exceptions.
        with readable(self.name, self.source, (Exception,)):
            values = np.asarray(self.variable[key].values)
        return values if self.invalid is None else self.invalid.masked(values)


@contextmanager
def readable(
    name: str,
    file: str,
    failures: tuple[type[Exception], ...] = (OSError, RuntimeError),
) -> Iterator[None]:
    """Turn the failure of a library to read values into one of ours."""
    try:
        yield
    except failures as error:
        raise InputError(
            "the values cannot be read",
            file=file,
            variable=name,
            found=f"{type(error).__name__}: {error}",
            expected="a complete file",
            remedy="the file is damaged or cut off, or its server is gone: copy or "
            "download it again",
        ) from error


def _chunks(
    variable: xr.Variable, name: str, source: str | Path
) -> tuple[tuple[int, ...], ...]:
    """Pieces that follow those of the file; all at once for text and dates."""
    shape, size = variable.shape, math.prod(variable.shape)
    stored = variable.encoding.get("preferred_chunks", {})
    step = tuple(stored.get(d, n) for d, n in zip(variable.dims, shape, strict=True))
    whole = variable.dtype.kind in "OSU" or size == 0
    parts = zip(shape, step, strict=True)
    pieces = 1 if whole else math.prod(-(-n // max(int(part), 1)) for n, part in parts)
    too_large = size * max(variable.dtype.itemsize, 1) > LARGEST_BYTES
    if too_large or pieces > MOST_CHUNKS:
        raise InputError(
            "a variable claims a size that cannot be",
            file=source,
            variable=name,
            found=" x ".join(map(str, shape)),
            expected=f"at most {MOST_CHUNKS} pieces and {LARGEST_BYTES} bytes",
            remedy="the header is damaged: copy or download the file again",
        )

    if whole:
        return normalize_chunks(shape, shape=shape)  # type: ignore[no-untyped-call,no-any-return]

    return normalize_chunks(  # type: ignore[no-untyped-call,no-any-return]
        "auto", shape=shape, dtype=variable.dtype, previous_chunks=step
    )


def text_attributes(ds: xr.Dataset) -> xr.Dataset:
    """Make text of attributes that are to be text, such as ``units = 1``.

    A standard name that is no name (``unknown``, ``daily rain rate``) is dropped: what
    the variable is follows from its own name then.
    """
    made = ds.copy()
    for variable in made.variables.values():
        for key in _TEXT:
            if not isinstance(variable.attrs.get(key, ""), str):
                variable.attrs[key] = str(variable.attrs[key])
        named = variable.attrs.get("standard_name", "").strip()
        if named and not _STANDARD_NAME.fullmatch(named):
            del variable.attrs["standard_name"]
    return made


def check_packing(ds: xr.Dataset, source: str | Path) -> None:
    """Raise InputError where values would be unpacked with what is no number."""
    for name, variable in ds.variables.items():
        for key in _PACKING:
            value = variable.encoding.get(key)
            if value is None or _usable(value, key):
                continue
            raise InputError(
                "a variable cannot be unpacked",
                file=source,
                variable=str(name),
                found=f"{key} = {value!r}",
                expected="one finite number, and not 0 as scale_factor",
                remedy=f"correct the attribute (ncatted -a {key},{name},o,f,VALUE)",
            )


def _usable(value: Any, key: str) -> bool:
    number = np.asarray(value)
    finite = number.dtype.kind in "iuf" and bool(np.isfinite(number).all())
    return finite and number.size == 1 and bool(key != "scale_factor" or number.all())
