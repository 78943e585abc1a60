"""Where things are in a data set: coordinates found through the CF conventions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import cftime
import numpy as np
import xarray as xr
from cf_xarray.accessor import CFDatasetAccessor
from numpy.typing import NDArray

from st_cdgm.errors import InputError, MissingVariableError
from st_cdgm.typing import Floats

# Names accepted only where the file carries no CF attributes at all.
_FALLBACK = {
    "latitude": ("lat", "latitude", "lats", "nav_lat", "xlat"),
    "longitude": ("lon", "longitude", "lons", "long", "nav_lon", "xlong"),
}
# Spellings of the units that CF allows, in small letters.
_UNITS = {
    kind: {
        f"degree{plural}{end}"
        for plural in ("", "s")
        for end in (f"_{way}", f"_{n}", n)
    }
    for kind, way, n in (("latitude", "north", "n"), ("longitude", "east", "e"))
}
_BOUNDS_ENDINGS = ("_bnds", "_bounds", "_vertices", "_bnd")
CF_ATTRS = {
    "latitude": {"standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"standard_name": "longitude", "units": "degrees_east"},
}


def _cf(ds: xr.Dataset) -> Any:
    """Return ``ds.cf``; as an attribute it would keep files open until collected."""
    return CFDatasetAccessor(ds)


def bounds_variables(ds: xr.Dataset) -> set[str]:
    """Names of cell boundary variables, declared as such or named so."""
    found = {str(n) for n in ds.variables if str(n).lower().endswith(_BOUNDS_ENDINGS)}
    for variable in ds.variables.values():
        for key in ("bounds", "climatology"):
            name = variable.attrs.get(key, variable.encoding.get(key))
            if name is not None and name in ds.variables:
                found.add(str(name))
    return found


def time_coordinates(ds: xr.Dataset) -> list[str]:
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


def horizontal_coordinates(
    ds: xr.Dataset, variable: str | None = None
) -> tuple[str, str] | None:
    """Names of the latitude and longitude that span a grid, or None.

    Parameters
    ----------
    ds : xarray.Dataset
        Any data set; coordinates listed as plain variables are found too.
    variable : str, optional
        Only coordinates on this variable's dimensions.
    """
    lats, lons = _candidates(ds, "latitude"), _candidates(ds, "longitude")
    if variable is not None:
        dims = set(ds[variable].dims)
        lats = [n for n in lats if set(ds[n].dims) <= dims]
        lons = [n for n in lons if set(ds[n].dims) <= dims]
    pairs = [(a, b) for a in lats for b in lons if _spans_grid(ds[a], ds[b])]
    # A file with both kinds is regular: its 2-D copies say nothing more.
    pairs.sort(key=lambda pair: ds[pair[0]].ndim)
    return pairs[0] if pairs else None


def looks_like(name: object, variable: xr.Variable | xr.DataArray, kind: str) -> bool:
    """Whether name, standard name or units say ``latitude`` or ``longitude``."""
    return (
        variable.attrs.get("standard_name") == kind
        or str(variable.attrs.get("units", "")).lower() in _UNITS[kind]
        or str(name).lower() in _FALLBACK[kind]
    )


def _candidates(ds: xr.Dataset, kind: str) -> list[str]:
    plain = [n for n, variable in ds.data_vars.items() if looks_like(n, variable, kind)]
    promoted = ds.set_coords(plain)
    names = [str(n) for n in _cf(promoted).coordinates.get(kind, [])]
    names += [str(n) for n in promoted.coords if str(n).lower() in _FALLBACK[kind]]
    bounds = bounds_variables(ds)
    return [
        name
        for name in dict.fromkeys(names)
        if name not in bounds
        and ds[name].ndim in (1, 2)
        and np.issubdtype(ds[name].dtype, np.number)
    ]


def _spans_grid(lat: xr.DataArray, lon: xr.DataArray) -> bool:
    if lat.ndim == 1 and lon.ndim == 1:
        return lat.dims != lon.dims
    return lat.ndim == 2 and set(lat.dims) == set(lon.dims)


def required_coordinates(
    ds: xr.Dataset, *, file: str | Path | None, variable: str | None
) -> tuple[str, str]:
    """Like :func:`horizontal_coordinates`, but raise MissingVariableError if none."""
    if variable is None:
        found = horizontal_coordinates(ds)
    else:
        found = horizontal_coordinates(ds, variable)
    if found is not None:
        _check_degrees(ds, found, file=file)
        return found
    raise MissingVariableError(
        "no latitude and longitude of a two-dimensional grid",
        file=file,
        variable=variable,
        found=_found_instead(ds, variable),
        expected="coordinates with standard_name latitude and longitude, 1-D or 2-D",
        remedy="add them to the file (units degrees_north, degrees_east); a projection "
        "needs 2-D lat and lon, an unstructured grid must be regridded first",
    )


def _found_instead(ds: xr.Dataset, variable: str | None) -> str:
    """Describe coordinates, and the dimensions of the variable in question."""
    coordinates = ", ".join(f"{n}{tuple(c.dims)}" for n, c in ds.coords.items())
    dims = ds.sizes if variable is None else ds[variable].dims
    return f"{coordinates or 'no coordinate'}; dimensions {', '.join(map(str, dims))}"


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
        swapped = (
            str(name).lower() in _FALLBACK[other]
            or ds[name].attrs.get("standard_name") == other
            or units.lower() in _UNITS[other]
        )
        if plain and not swapped:
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


def row_and_column(ds: xr.Dataset, lat: xr.DataArray) -> tuple[str, str]:
    """Row and column dimension of a 2-D latitude, by the axis attributes."""
    first, second = (str(d) for d in lat.dims)
    axes = _cf(ds).axes
    swapped = first in axes.get("X", []) or second in axes.get("Y", [])
    return (second, first) if swapped else (first, second)


def coordinate_values(
    coordinate: xr.DataArray,
    dims: tuple[str, str] | None,
    *,
    file: str | Path | None,
) -> Floats:
    """Values as float64, transposed to ``dims``; raise InputError if one is missing."""
    ordered = coordinate if dims is None else coordinate.transpose(*dims)
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


def check_latitudes(lat: Floats, name: str, *, file: str | Path | None) -> None:
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


def check_monotonic(values: Floats, name: str, *, file: str | Path | None) -> None:
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


def axis_attrs(coordinate: xr.DataArray, kind: str) -> dict[str, Any]:
    """Attributes of a 1-D latitude or longitude, CF ones ensured."""
    return _plain_attrs(coordinate.attrs) | CF_ATTRS[kind]


def dimension_coordinate(
    ds: xr.Dataset, name: str
) -> tuple[Floats | None, dict[str, Any]]:
    """Values and attributes of a dimension coordinate, if the file has it."""
    if name not in ds.coords or not np.issubdtype(ds[name].dtype, np.number):
        return None, {}
    return np.asarray(ds[name].values, np.float64), _plain_attrs(ds[name].attrs)


def grid_mapping(ds: xr.Dataset, variable: str | None) -> dict[str, Any] | None:
    """Attributes of the grid mapping, its name under ``variable``; None without."""
    names = [] if variable is None else [_mapping_name(ds[variable])]
    names += [str(n) for n, v in ds.variables.items() if "grid_mapping_name" in v.attrs]
    for name in names:
        if name and name in ds.variables:
            return _plain_attrs(ds[name].attrs) | {"variable": name}
    return None


def _mapping_name(da: xr.DataArray) -> str | None:
    text = da.attrs.get("grid_mapping", da.encoding.get("grid_mapping"))
    return None if not text else str(text).split()[0].rstrip(":")


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


def select_region(
    ds: xr.Dataset,
    *,
    lat_range: tuple[float, float] | None = None,
    lon_range: tuple[float, float] | None = None,
    file: str | Path | None = None,
) -> xr.Dataset:
    """Cut a latitude-longitude box, whatever the axis order and longitude convention.

    Parameters
    ----------
    ds : xarray.Dataset
        Data on a regular or curvilinear grid; on the latter the smallest block of rows
        and columns that holds the box is kept.
    lat_range : (float, float), optional
        Two latitudes in either order, degrees north.
    lon_range : (float, float), optional
        West and east edge in degrees east, both -180..180 or 0..360. A region across
        0 or 180 degrees comes out in one piece, west to east as in the file.
    file : str or Path, optional
        For error messages.

    Raises
    ------
    InputError
        If no cell lies in the box.
    """
    lat_name, lon_name = required_coordinates(ds, file=file, variable=None)
    lat, lon = ds[lat_name], ds[lon_name]
    check_not_empty(ds, (lat_name, lon_name), file=file)
    in_lat, in_lon = xr.ones_like(lat, dtype=bool), xr.ones_like(lon, dtype=bool)
    if lat_range is not None:
        in_lat = (lat >= min(lat_range)) & (lat <= max(lat_range))
    if lon_range is not None:
        width = lon_range[1] - lon_range[0]
        width = 360.0 if abs(width) >= 360.0 else width % 360.0
        # The edges belong to the box in spite of rounding.
        in_lon = (lon - lon_range[0] + 1e-6) % 360.0 <= width + 2e-6
    inside = (in_lat & in_lon).transpose(*dict.fromkeys((*lat.dims, *lon.dims)))
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
    return ds.isel(chosen)


def _in_one_piece(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Order of an index set that runs over the end of a circle back to its start."""
    breaks = np.flatnonzero(np.diff(index) > 1)
    if len(breaks) == 1 and index[0] == 0 and index[-1] == size - 1:
        return np.roll(index, -(int(breaks[0]) + 1))
    return index
