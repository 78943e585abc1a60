"""Values that a file declares invalid, besides its fill and missing values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from numpy.typing import NDArray

__all__ = ["Invalid", "invalid_values"]

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
