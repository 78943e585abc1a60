"""Where things are in a data set: coordinates found through the CF conventions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import cftime
import numpy as np
import xarray as xr
from cf_xarray.accessor import CFDatasetAccessor

from st_cdgm.data.space.grid import CF_ATTRS, Grid
from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.typing import Floats

# Names accepted only where the file carries no CF attributes at all.
_FALLBACK = {
    "latitude": ("lat", "latitude", "lats", "nav_lat", "xlat"),
    "longitude": ("lon", "longitude", "lons", "long", "nav_lon", "xlong"),
}
# Spellings of the units that CF allows, in small letters.
_UNITS = {
    kind: {f"{unit}{end}" for unit in ("degree", "degrees") for end in ends}
    for kind, ends in {
        "latitude": ("_north", "_n", "n"),
        "longitude": ("_east", "_e", "e"),
    }.items()
}
_BOUNDS_ENDINGS = ("_bnds", "_bounds", "_vertices", "_bnd")


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """What is where in a data set, found once by :func:`locate`.

    Attributes
    ----------
    pairs : dict
        Latitude and longitude that span a grid -> their dimensions; regular ones first.
    times : tuple of str
        Dimension coordinates with decoded dates, the likeliest time axis first.
    undated : tuple of str
        Time axes by the conventions or their name, whose values are no dates.
    fields : tuple of str
        The real fields: numbers on both horizontal dimensions, without cell bounds,
        grid mappings, coordinates stored as variables, text and helper variables such
        as Gaussian weights or date codes. Without any latitude and longitude, numbers
        with at least two dimensions count.
    """

    pairs: dict[tuple[str, str], frozenset[Hashable]]
    times: tuple[str, ...]
    undated: tuple[str, ...]
    fields: tuple[str, ...]

    def pair(self, dims: Iterable[Hashable] | None = None) -> tuple[str, str] | None:
        """Names of latitude and longitude, of those on ``dims`` if given, or None."""
        for pair, spanned in self.pairs.items():
            if dims is None or spanned <= set(dims):
                return pair
        return None


def locate(ds: xr.Dataset) -> Located:
    """Find coordinates and fields of any data set by the CF conventions.

    Coordinates that are listed as plain variables are found, too.
    """
    promoted = ds.set_coords([n for n in named_positions(ds) if n in ds.data_vars])
    # As an attribute, ds.cf would keep files open until collected.
    known, bounds = CFDatasetAccessor(promoted).coordinates, _bounds_variables(ds)
    lats, lons = (_candidates(promoted, known, bounds, kind) for kind in CF_ATTRS)

    # A file with both kinds is regular: its 2-D copies say nothing more.
    pairs = [(a, b) for a in lats for b in lons if _spans_grid(ds[a], ds[b])]
    pairs.sort(key=lambda pair: ds[pair[0]].ndim)
    spans = {(a, b): frozenset(ds[a].dims) | frozenset(ds[b].dims) for a, b in pairs}

    left_out = bounds | set(pairs[0] if pairs else ())
    named = known.get("time", []) + ["time"]
    return Located(
        pairs=spans,
        times=tuple(_dated_axes(ds)),
        undated=tuple(str(n) for n in named if n in ds.dims and n in ds.coords),
        fields=tuple(
            str(name)
            for name, variable in ds.data_vars.items()
            if str(name) not in left_out and _is_field(variable, spans)
        ),
    )


def named_positions(ds: xr.Dataset) -> list[Hashable]:
    """Variables of which name, standard name or units say latitude or longitude."""
    return [
        name
        for name, variable in ds.variables.items()
        if any(_says(kind, name, variable) for kind in CF_ATTRS)
    ]


def _says(kind: str, name: Hashable, variable: xr.Variable) -> bool:
    return (
        variable.attrs.get("standard_name") == kind
        or str(variable.attrs.get("units", "")).lower() in _UNITS[kind]
        or str(name).lower() in _FALLBACK[kind]
    )


def _bounds_variables(ds: xr.Dataset) -> set[str]:
    """Names of cell boundary variables, declared as such or named so."""
    found = {str(n) for n in ds.variables if str(n).lower().endswith(_BOUNDS_ENDINGS)}
    for variable in ds.variables.values():
        for key in ("bounds", "climatology"):
            name = variable.attrs.get(key, variable.encoding.get(key))
            if name is not None and name in ds.variables:
                found.add(str(name))
    return found


def _candidates(
    ds: xr.Dataset, known: Mapping[str, list[str]], bounds: set[str], kind: str
) -> list[str]:
    names = [str(n) for n in known.get(kind, [])]
    names += [str(n) for n in ds.coords if str(n).lower() in _FALLBACK[kind]]
    return [
        name
        for name in dict.fromkeys(names)
        if name not in bounds
        and ds[name].ndim in (1, 2)
        and np.issubdtype(ds[name].dtype, np.number)
    ]


def _dated_axes(ds: xr.Dataset) -> list[str]:
    """Names of dimension coordinates that hold decoded dates, the likeliest first.

    A forecast may have a start date besides: an axis of several steps, and one that
    calls itself time, come first.
    """
    names = []
    for name in ds.dims:
        if name not in ds.coords:
            continue
        values = ds.indexes[name] if name in ds.indexes else ds[name].values
        dated = np.issubdtype(ds[name].dtype, np.datetime64) or (
            len(values) > 0 and isinstance(values[0], cftime.datetime)
        )
        if dated:
            names.append(str(name))

    def unlikely(name: str) -> tuple[bool, bool]:
        attrs = ds[name].attrs
        is_time = "time" in (attrs.get("standard_name"), name)
        return ds.sizes[name] == 1, not (is_time or attrs.get("axis") == "T")

    return sorted(names, key=unlikely)


def _is_field(
    variable: xr.DataArray, pairs: Mapping[tuple[str, str], frozenset[Hashable]]
) -> bool:
    if "grid_mapping_name" in variable.attrs or variable.dtype.kind not in "fiub":
        return False
    if not pairs:
        return variable.ndim >= 2
    return any(spanned <= set(variable.dims) for spanned in pairs.values())


def _spans_grid(lat: xr.DataArray, lon: xr.DataArray) -> bool:
    if lat.ndim == 1 and lon.ndim == 1:
        return lat.dims != lon.dims
    return lat.ndim == 2 and set(lat.dims) == set(lon.dims)


def required_coordinates(
    ds: xr.Dataset,
    *,
    file: str | Path | None,
    variable: str | None = None,
    located: Located | None = None,
) -> tuple[str, str]:
    """Names of latitude and longitude of a variable, or of the data set.

    Raises
    ------
    MissingVariableError
        If there are none that span a grid.
    InputError
        If they are not in degrees.
    """
    located = locate(ds) if located is None else located
    found = located.pair(None if variable is None else ds[variable].dims)
    if found is not None:
        _check_degrees(ds, found, file=file)
        return found

    listed = ", ".join(f"{n}{tuple(c.dims)}" for n, c in ds.coords.items())
    dims = ds.sizes if variable is None else ds[variable].dims
    raise MissingVariableError(
        "no latitude and longitude of a two-dimensional grid",
        file=file,
        variable=variable,
        found=f"{listed or 'no coordinate'}; dimensions {', '.join(map(str, dims))}",
        expected="coordinates with standard_name latitude and longitude, 1-D or 2-D",
        remedy="add them to the file (units degrees_north, degrees_east); a projection "
        "needs 2-D lat and lon, an unstructured grid must be regridded first",
    )


def _check_degrees(
    ds: xr.Dataset, pair: tuple[str, str], *, file: str | Path | None
) -> None:
    """Refuse radians and metres, and a latitude that says it is a longitude."""
    for name, kind in zip(pair, ("latitude", "longitude"), strict=True):
        units = str(ds[name].attrs.get("units", ""))
        other = "longitude" if kind == "latitude" else "latitude"
        plain = (
            units.lower().startswith(("deg", "\N{DEGREE SIGN}")) or not units.strip()
        )
        if plain and not _says(other, name, ds.variables[name]):
            continue

        raise InputError(
            f"the units of the {kind} do not fit",
            file=file,
            variable=name,
            found=f"units {units!r}",
            expected=f"{CF_ATTRS[kind]['units']}, under a name that means it",
            remedy="correct name, standard name and units, and convert the values "
            "(ncatted, ncap2)",
        )


def check_not_empty(
    ds: xr.Dataset, names: tuple[str, str], *, file: str | Path | None
) -> None:
    """Raise InputError if a coordinate has no values at all."""
    for name in names:
        if not ds[name].size:
            raise InputError(
                "a coordinate is empty",
                file=file,
                variable=name,
                found=", ".join(f"{dim} = {n}" for dim, n in ds[name].sizes.items()),
                expected="at least one cell",
                remedy="check how the file was cut",
            )


def read_grid(
    ds: xr.Dataset,
    *,
    file: str | Path | None = None,
    variable: str | None = None,
    located: Located | None = None,
) -> Grid:
    """Return the grid of ``variable``, or of the data set, by CF attributes.

    ``located`` is what :func:`locate` found, where that is known.

    Raises
    ------
    MissingVariableError
        If there is no latitude or longitude coordinate.
    InputError
        If the coordinates are not those of a two-dimensional grid.
    """
    lat_name, lon_name = required_coordinates(
        ds, file=file, variable=variable, located=located
    )
    lat_var, lon_var = ds[lat_name], ds[lon_name]
    y_name, x_name = dims = rows_and_columns(ds, lat_var, lon_var)

    # Values, rows first, and longitudes without a jump.
    lat = _coordinate_values(lat_var, dims, file=file)
    lon = _coordinate_values(lon_var, dims, file=file)
    _check_latitudes(lat, lat_name, file=file)
    lon = continuous(lon)

    y = x = None
    if lat_var.ndim == 1:
        _check_monotonic(lat, lat_name, file=file)
        _check_monotonic(lon, lon_name, file=file)
        y_attrs = _plain_attrs(lat_var.attrs) | CF_ATTRS["latitude"]
        x_attrs = _plain_attrs(lon_var.attrs) | CF_ATTRS["longitude"]
    else:
        y, y_attrs = _dimension_coordinate(ds, y_name)
        x, x_attrs = _dimension_coordinate(ds, x_name)
    return Grid(
        lat=lat,
        lon=lon,
        y_name=y_name,
        x_name=x_name,
        y=y,
        x=x,
        y_attrs=y_attrs,
        x_attrs=x_attrs,
        mapping=_grid_mapping(ds, variable),
    )


def rows_and_columns(
    ds: xr.Dataset, lat: xr.DataArray, lon: xr.DataArray
) -> tuple[str, str]:
    """Dimensions of rows and of columns; of 2-D coordinates by the axis attributes."""
    if lat.ndim == 1:
        return str(lat.dims[0]), str(lon.dims[0])
    first, second = (str(d) for d in lat.dims)
    axes = CFDatasetAccessor(ds).axes
    swapped = first in axes.get("X", []) or second in axes.get("Y", [])
    return (second, first) if swapped else (first, second)


def _coordinate_values(
    coordinate: xr.DataArray, dims: tuple[str, str], *, file: str | Path | None
) -> Floats:
    """Values as float64, in the order of ``dims``; InputError if one is missing."""
    ordered = coordinate.transpose(*dims, missing_dims="ignore")
    values = np.asarray(ordered.values, np.float64)
    if values.size and np.isfinite(values).all():
        return values
    raise InputError(
        "a coordinate is empty or has missing values",
        file=file,
        variable=str(coordinate.name),
        found=f"{int((~np.isfinite(values)).sum())} missing of {values.size}",
        expected="a finite value in every cell",
        remedy="cut the region to cells with coordinates, or repair the file",
    )


def _check_latitudes(lat: Floats, name: str, *, file: str | Path | None) -> None:
    """Raise InputError unless all are in -90..90 degrees."""
    if np.abs(lat).max() > 90.0 + 1e-3:
        raise InputError(
            "latitudes are not in degrees north",
            file=file,
            variable=name,
            found=f"{lat.min():g}..{lat.max():g}",
            expected="-90..90",
            remedy="give latitude and longitude in degrees",
        )


def _check_monotonic(values: Floats, name: str, *, file: str | Path | None) -> None:
    """Raise InputError unless strictly increasing or strictly decreasing."""
    steps = np.diff(values)
    if (steps > 0).all() or (steps < 0).all():
        return
    raise InputError(
        "a coordinate is neither increasing nor decreasing",
        file=file,
        variable=name,
        found=f"{np.array2string(values, threshold=8, precision=4)}",
        expected="a strictly monotonic coordinate",
        remedy=f"sort the file along {name} (xarray: ds.sortby({name!r}))",
    )


def _dimension_coordinate(
    ds: xr.Dataset, name: str
) -> tuple[Floats | None, dict[str, Any]]:
    """Values and attributes of a dimension coordinate, if the file has it."""
    if name not in ds.coords or not np.issubdtype(ds[name].dtype, np.number):
        return None, {}
    return np.asarray(ds[name].values, np.float64), _plain_attrs(ds[name].attrs)


def _grid_mapping(ds: xr.Dataset, variable: str | None) -> dict[str, Any] | None:
    """Attributes of the grid mapping, its name under ``variable``; None without."""
    names = [str(n) for n, v in ds.variables.items() if "grid_mapping_name" in v.attrs]
    if variable is not None:
        known = {**ds[variable].encoding, **ds[variable].attrs}
        names = [*str(known.get("grid_mapping") or "").split()[:1], *names]
    for name in (name.rstrip(":") for name in names):
        if name in ds.variables:
            return _plain_attrs(ds[name].attrs) | {"variable": name}
    return None


def _plain_attrs(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON has them; references to other variables are dropped."""
    kept = {str(k): v for k, v in attrs.items() if k not in ("bounds", "coordinates")}
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in kept.items()}


def continuous(lon: Floats) -> Floats:
    """Longitudes without a jump inside the region; untouched where there is none."""
    if lon.size < 2 or _largest_step(lon) <= 180.0:
        return lon
    if lon.ndim == 1:
        turned = np.unwrap(lon, period=360.0)
        return cast("Floats", turned - 360.0 * np.round(turned.mean() / 360.0))
    centre = np.rad2deg(np.angle(np.exp(1j * np.deg2rad(lon)).mean()))
    turned = centre + (lon - centre + 180.0) % 360.0 - 180.0
    # Around a pole every choice jumps somewhere: keep the file's own.
    return turned if _largest_step(turned) <= 180.0 else lon


def _largest_step(lon: Floats) -> float:
    steps = [np.abs(np.diff(lon, axis=a)) for a in range(lon.ndim)]
    return max((float(s.max()) for s in steps if s.size), default=0.0)
