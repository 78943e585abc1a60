"""Tables of a data set, whatever the names of its coordinates and its calendar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from st_cdgm.data.files.open import data_variables
from st_cdgm.data.space.coordinates import (
    locate,
    required_coordinates,
    rows_and_columns,
)
from st_cdgm.data.space.grid import Grid
from st_cdgm.data.tables.selection import time_dimension
from st_cdgm.data.variables.levels import channel_name, level_values
from st_cdgm.errors import InputError, MissingVariableError, check_choice

Method = Literal["point", "stacked", "mean"]


# -- Variables -------------------------------------------------------------------------


def fields_of(ds: xr.Dataset) -> list[str]:
    """Names of the fields; without any, of all numeric variables with dimensions."""
    named = data_variables(ds)
    return named or [
        str(name)
        for name, variable in ds.data_vars.items()
        if variable.ndim and variable.dtype.kind in "fiub"
    ]


def check_variables(
    ds: xr.Dataset, names: Sequence[str], *, file: str | Path | None
) -> list[str]:
    """Return the names, at least one and all of them in the data set.

    Raises
    ------
    MissingVariableError
        (a KeyError) If one is unknown; the message lists those there are.
    InputError
        (a ValueError) If there is none.
    """
    available = ", ".join(map(str, ds.data_vars)) or "no variables"
    unknown = [name for name in names if name not in ds.variables]
    if unknown:
        raise MissingVariableError(
            "the file does not have a variable that is asked for",
            file=file,
            variable=", ".join(unknown),
            found=available,
            remedy="choose from the available variables",
        )
    if not names:
        raise InputError(
            "no variable to make a table of",
            file=file,
            found=available,
            expected="at least one field or variable name",
        )

    return list(dict.fromkeys(names))


# -- Tables ----------------------------------------------------------------------------


def table(
    ds: xr.Dataset,
    names: Sequence[str],
    method: Method,
    *,
    drop_na: bool = True,
    file: str | Path | None = None,
) -> pd.DataFrame:
    """Turn variables into a table; only they are read.

    ``method`` and ``drop_na`` as in
    :meth:`st_cdgm.data.netcdf_utils.NetCDFToDataFrame.to_dataframe`.

    Raises
    ------
    ConfigError
        If the method is not one of the three.
    MissingVariableError
        If ``point`` or ``mean`` find no latitude and longitude.
    """
    check_choice("method", method, get_args(Method), section="")
    chosen = ds[list(names)]
    kept = set(locate(ds).pair() or ())
    spanned = {n: ds[n] for n in kept if set(ds[n].dims) <= set(chosen.dims)}
    chosen = chosen.assign_coords(spanned)
    chosen = chosen.drop_vars(set(chosen.coords) - set(chosen.dims) - kept)
    make = {"point": _wide, "stacked": _long, "mean": _mean}[method]
    return make(chosen, list(names), drop_na=drop_na, file=file)


def _long(
    ds: xr.Dataset, names: list[str], *, drop_na: bool, file: str | Path | None
) -> pd.DataFrame:
    if not ds.dims:
        return pd.DataFrame({name: [ds[name].values[()]] for name in names})
    frame = ds.to_dataframe(dim_order=_dimension_order(ds)).reset_index()
    keys = [column for column in frame.columns if column not in names]
    frame = frame[[*keys, *names]]
    if drop_na:
        frame = frame.dropna(subset=names, how="all").reset_index(drop=True)
    return frame


def _mean(
    ds: xr.Dataset, names: list[str], *, drop_na: bool, file: str | Path | None
) -> pd.DataFrame:
    means = {}
    for name in names:
        lat, lon, dims = _axes(ds, name, file=file)
        # Unlike for a model, longitudes may jump.
        grid = Grid(
            lat=lat.values.astype(np.float64),
            lon=lon.values.astype(np.float64),
            y_name=dims[0],
            x_name=dims[1],
        )
        weights = xr.DataArray(grid.area_weights().astype(np.float64), dims=dims)
        means[name] = ds[name].weighted(weights).mean(dims)
    averaged = xr.Dataset(means).reset_coords(drop=True)
    return _long(averaged, names, drop_na=drop_na, file=file)


def _axes(
    ds: xr.Dataset, name: str, *, file: str | Path | None
) -> tuple[xr.DataArray, xr.DataArray, tuple[str, str]]:
    """Latitude and longitude as the file has them, rows first, and their dimensions."""
    pair = required_coordinates(ds, file=file, variable=name)
    lat, lon = (ds[one] for one in pair)
    dims = rows_and_columns(ds, lat, lon)
    lat, lon = (one.transpose(*dims, missing_dims="ignore") for one in (lat, lon))
    return lat, lon, dims


def _wide(
    ds: xr.Dataset, names: list[str], *, drop_na: bool, file: str | Path | None
) -> pd.DataFrame:
    time = time_dimension(ds)
    parts = []
    for name in names:
        lat, lon, space = _axes(ds, name, file=file)
        cells = xr.broadcast(lat, lon)
        places = [axis.transpose(*space).values.ravel() for axis in cells]

        for label, da in _planes(ds[name], name, {time, *space}):
            if time in ds.dims and time not in da.dims:
                da = da.expand_dims({time: ds.indexes[time]})
            rows = [time] if time in da.dims else []
            index = da.indexes[time] if rows else pd.RangeIndex(1)
            columns = pd.MultiIndex.from_arrays(
                [[label] * len(places[0]), *places],
                names=["variable", lat.name, lon.name],
            )
            values = da.transpose(*rows, *space).values.reshape(len(index), -1)
            parts.append(pd.DataFrame(values, index=index, columns=columns))

    frame = pd.concat(parts, axis=1)
    if drop_na:
        frame = frame.dropna(axis=0, how="all").dropna(axis=1, how="all")
    return frame


def _planes(
    da: xr.DataArray, name: str, keep: set[Any]
) -> list[tuple[str, xr.DataArray]]:
    """One field per entry of every further axis, named like a channel: ``ta_850``."""
    planes = [(name, da)]
    for dim in [dim for dim in da.dims if dim not in keep]:
        entries = _entries(da, str(dim))
        planes = [
            (channel_name(label, entry), part.isel({dim: i}, drop=True))
            for label, part in planes
            for i, entry in enumerate(entries)
        ]
    return planes


def _entries(da: xr.DataArray, dim: str) -> list[float]:
    if dim not in da.coords or da[dim].dtype.kind not in "iuf":
        return [float(i) for i in range(da.sizes[dim])]
    try:
        return [float(level) for level in level_values(da[dim])]
    except InputError:  # not a pressure axis
        return [float(value) for value in da[dim].values]


def _dimension_order(ds: xr.Dataset) -> list[Any]:
    """Time first, latitude and longitude last, whatever the order in the file."""
    time = time_dimension(ds)
    space = [dim for name in locate(ds).pair() or () for dim in ds[name].dims]
    first = [time] if time is not None else []
    middle = [dim for dim in ds.sizes if dim not in space]
    return list(dict.fromkeys([*first, *middle, *space]))
