"""One forecast, or the truth, as the scores read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from st_cdgm.data.files.open import data_variables, time_bounds, time_name
from st_cdgm.data.space.coordinates import read_grid
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.matching import same_cells_order
from st_cdgm.data.time.axis import day_keys
from st_cdgm.data.time.calendar import CalendarDays
from st_cdgm.data.variables.units import to_canonical
from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.typing import FloatArray, Indices

MEMBER = "realization"
# Coordinate along the members: which network of a pool made each.
NETWORK = "network"
# What others call it; a dimension whose standard name is "realization" counts, too.
_MEMBERS = {MEMBER, "realisation", "member", "members", "number", "ensemble", "ens"}

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One ensemble (or the truth) on its own time axis, read lazily.

    Attributes
    ----------
    name : str
        ``truth``, or the key of the forecast.
    file : str
        Where it came from (its name if it came from no file), for messages.
    fields : dict
        Variable name to an array (time, realization, y, x) in canonical units.
    days : CalendarDays
        Days of the source.
    grid : Grid
        Its grid.
    index : ndarray
        Positions of the scored days on the time axis. Shape ``(T,)``.
    hidden : mapping
        Variable name to the cells that are read as missing, as packed bits. Shape
        ``(T, ceil(Y * X / 8))``, uint8.
    """

    name: str
    file: str
    fields: dict[str, xr.DataArray]
    days: CalendarDays
    grid: Grid
    index: Indices
    hidden: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """Ensemble size M."""
        return int(next(iter(self.fields.values())).sizes[MEMBER])

    @property
    def network(self) -> Indices | None:
        """Which network of a pool made each member, if the file says so. ``(M,)``."""
        labels = next(iter(self.fields.values())).coords.get(NETWORK)
        if labels is None or labels.dims != (MEMBER,):
            return None
        return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.int64)

    def read(self, variable: str, days: slice | Indices) -> FloatArray:
        """Return scored days of a variable. Shape ``(t, M, Y, X)``."""
        picked = _as_slice(self.index[days])
        block = self.fields[variable].isel({self.fields[variable].dims[0]: picked})
        values: FloatArray = block.to_numpy().astype(np.float32, copy=False)
        if variable not in self.hidden:
            return values

        cells = int(np.prod(self.grid.shape))
        bits = np.unpackbits(self.hidden[variable][days], axis=1, count=cells)
        lost = bits.reshape(-1, 1, *self.grid.shape).astype(bool)
        return np.where(lost, np.float32(np.nan), values)

    def on_grid(self, grid: Grid, *, role: str = "forecast") -> Source:
        """Return the source with its cells in the order of ``grid``.

        Raises
        ------
        GridMismatchError
            If they are not the same cells.
        """
        order = same_cells_order(grid, self.grid)
        if order is None:
            grid.check_same(self.grid, file=self.file, role=role)  # says why
            return self

        if all(np.array_equal(index, np.arange(len(index))) for index in order):
            return self
        places = dict(zip((self.grid.y_name, self.grid.x_name), order, strict=True))
        turned = {name: field.isel(places) for name, field in self.fields.items()}
        return replace(self, fields=turned, grid=grid)


def _as_slice(index: Indices) -> slice | Indices:
    """Evenly spaced positions as a slice, which files read much faster."""
    steps = np.diff(index)
    if index.size < 2 or (steps != steps[0]).any():
        return index
    return slice(int(index[0]), int(index[-1]) + 1, int(steps[0]))


def open_source(name: str, dataset: xr.Dataset, variables: Sequence[str]) -> Source:
    """Check one data set and put its variables in the order (time, member, y, x).

    Raises
    ------
    MissingVariableError
        If it has none of the variables.
    InputError
        If grid, time or units cannot be used, or a variable has a further dimension.
    """
    present = [variable for variable in variables if variable in dataset]
    file = label(name, dataset)
    if not present:
        raise MissingVariableError(
            "A source has none of the scored variables.",
            file=file,
            found=", ".join(data_variables(dataset)),
            expected=", ".join(variables),
        )
    if len(present) < len(variables):
        missing = sorted(set(variables) - set(present))
        _LOGGER.warning("%s is not scored in %s: absent", name, ", ".join(missing))

    # Where and when, then the fields in this order.
    grid = read_grid(dataset, file=file, variable=present[0])
    time = time_name(dataset)
    days = day_keys(dataset[time], bounds=time_bounds(dataset, time), file=file)
    dims = (time, MEMBER, grid.y_name, grid.x_name)
    fields = {
        variable: _in_order(
            to_canonical(dataset[variable], file=file, role="hr"), dims, file=file
        )
        for variable in present
    }
    return Source(
        name=name,
        file=file,
        fields=fields,
        days=days,
        grid=grid,
        index=np.arange(len(days)),
    )


def _in_order(
    da: xr.DataArray, dims: tuple[str, str, str, str], *, file: str
) -> xr.DataArray:
    """Name the members, or make one; drop what has one entry; sort the dimensions."""
    for dim in [str(dim) for dim in da.dims if dim not in dims]:
        named = dim in da.coords and da[dim].attrs.get("standard_name") == MEMBER
        if (named or dim.lower() in _MEMBERS) and MEMBER not in da.dims:
            da = da.rename({dim: MEMBER})
        elif da.sizes[dim] == 1:
            da = da.isel({dim: 0}, drop=True)
        else:
            raise InputError(
                "A variable has a further dimension.",
                file=file,
                variable=str(da.name),
                found=f"{dim} of {da.sizes[dim]}",
                expected=f"time, latitude, longitude and members ({MEMBER})",
                remedy=f"select one entry (xarray: ds.isel({dim}=0)), or name the "
                f"dimension {MEMBER} if these are members",
            )

    if MEMBER not in da.dims:
        da = da.expand_dims(MEMBER)
    return da.transpose(*dims)


def label(name: str, dataset: xr.Dataset) -> str:
    """Return the file behind a data set, or its name."""
    return str(dataset.encoding.get("source", name))
