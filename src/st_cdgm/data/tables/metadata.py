"""What a NetCDF file says about itself: ten sections, as plain types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from dask.base import compute

from st_cdgm.data.time.axis import iso
from st_cdgm.errors import InputError
from st_cdgm.outputs import native

SAMPLE = 10  # values of a dimension coordinate that are shown
_CF_STANDARD = (
    *("title", "institution", "source_id", "experiment_id", "grid_label", "history"),
    *("references", "Conventions"),
)
# Only what the section above does not hold already.
_CF_MORE = (
    *("featureType", "source", "comment", "summary", "keywords"),
    *("keywords_vocabulary", "platform", "product_version", "date_created"),
)
_CF_VARIABLE = (
    *("cell_methods", "valid_range", "valid_min", "valid_max", "flag_values"),
    *("flag_meanings", "flag_masks", "coordinates", "bounds", "ancillary_variables"),
    *("positive", "grid_mapping", "formula_terms", "scale_factor", "add_offset"),
)
Section = dict[str, Any]


def extract_metadata(
    ds: xr.Dataset, path: Path, *, statistics: bool = True
) -> dict[str, Any]:
    """Describe a file in ten sections that are always present, in strict JSON types.

    Parameters
    ----------
    ds : xarray.Dataset
        The opened file, perhaps cut; variables are described as they are in it.
    path : Path
        The file, which is opened once more for what xarray does not tell.
    statistics : bool
        Whether to read the values for their range, mean and missing values; they are
        read in pieces, so that the file may be larger than the memory.

    Returns
    -------
    dict
        ``file_info``, ``dimensions``, ``coordinates`` (those that are no dimension),
        ``data_variables``, ``global_attributes``, ``cf_standard_attributes``,
        ``encoding``, ``file_structure``, ``statistics`` (over all variables) and
        ``cf_conventions`` (attributes not in ``cf_standard_attributes``); besides,
        ``netcdf4_extraction_error`` if the second reading fails. Dates are ISO 8601,
        missing numbers None.
    """
    raw, failure = _raw_metadata(path)
    # The variables come first, as the statistics sum them up.
    variables = {
        str(name): _variable(ds[name], raw, statistics=statistics)
        for name in ds.data_vars
    }
    metadata: dict[str, Any] = {
        "file_info": _file_info(path, raw),
        "dimensions": {str(dim): _dimension(ds, str(dim), raw) for dim in ds.sizes},
        "coordinates": {
            str(name): {"dims": list(coordinate.dims), "size": int(coordinate.size)}
            | _values_of(coordinate)
            for name, coordinate in ds.coords.items()
            if name not in ds.sizes
        },
        "data_variables": variables,
        "global_attributes": dict(ds.attrs),
        "cf_standard_attributes": _present(ds.attrs, _CF_STANDARD),
        "encoding": dict(ds.encoding),
        "file_structure": _structure(ds, raw),
        "statistics": _summary(variables, computed=statistics),
        "cf_conventions": _present(ds.attrs, _CF_MORE),
    }
    if failure is not None:
        metadata["netcdf4_extraction_error"] = failure

    return {key: native(section) for key, section in metadata.items()}


def _file_info(path: Path, raw: Section) -> Section:
    parts = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    size = sum(part.stat().st_size for part in parts)
    return {
        "filepath": str(path),
        "filename": path.name,
        "file_size_bytes": size,
        "file_size_mb": round(size / 1024**2, 2),
        "file_extension": path.suffix,
        "file_format": "Zarr" if path.is_dir() else raw.get("format", "unknown"),
    }


def _present(attrs: Mapping[Any, Any], names: tuple[str, ...]) -> Section:
    return {name: attrs[name] for name in names if name in attrs}


# -- Dimensions and coordinates --------------------------------------------------------


def _dimension(ds: xr.Dataset, dim: str, raw: Section) -> Section:
    found: Section = {
        "size": int(ds.sizes[dim]),
        "unlimited": dim in raw.get("unlimited", ds.encoding.get("unlimited_dims", ())),
        "has_coordinates": dim in ds.coords,
    }
    if dim in ds.coords:
        found |= _values_of(ds[dim])
        found |= _attempt("values_sample", lambda: _dated(ds[dim].values[:SAMPLE]))
    if dim in raw.get("dimension_ids", {}):
        found["netcdf4_id"] = raw["dimension_ids"][dim]
    return found


def _values_of(da: xr.DataArray) -> Section:
    return (
        {"dtype": str(da.dtype), "shape": list(da.shape), "attributes": dict(da.attrs)}
        | _attempt("min_value", lambda: _dated(da.min().values[()]))
        | _attempt("max_value", lambda: _dated(da.max().values[()]))
        | _attempt("mean_value", lambda: _dated(da.mean().values[()]))
    )


def _attempt(key: str, make: Any) -> Section:
    try:
        return {key: make()}
    except Exception as error:  # text, vectors, or values that cannot be read
        return {f"{key}_error": f"{type(error).__name__}: {error}".splitlines()[0]}


def _dated(value: Any) -> Any:
    """Return ISO text for dates, anything else unchanged."""
    if isinstance(value, np.ndarray):
        return [_dated(one) for one in value]
    is_date = isinstance(value, np.datetime64) or hasattr(value, "calendar")
    return iso(value) if is_date else value


# -- Variables -------------------------------------------------------------------------


def _variable(da: xr.DataArray, raw: Section, *, statistics: bool) -> Section:
    name = str(da.name)
    found: Section = {
        "dims": list(da.dims),
        "shape": list(da.shape),
        "dtype": str(da.dtype),
        "size": int(da.size),
        "nbytes": int(da.nbytes),
        "attributes": dict(da.attrs),
        "encoding": dict(da.encoding),
    }
    if statistics:
        found |= _attempt("statistics", lambda: _statistics(da))
    attrs = {**da.encoding, **da.attrs}
    found["chunksizes"] = da.encoding.get("chunksizes")
    found["fill_value"] = attrs.get("_FillValue", attrs.get("missing_value"))
    found["cf_conventions_attributes"] = _present(attrs, _CF_VARIABLE)
    if name in raw.get("variables", {}):
        found["netcdf4_info"] = raw["variables"][name]

    return found


def _statistics(da: xr.DataArray) -> Section:
    """Read a variable once, in pieces of dask's default size."""
    if da.size == 0:
        return {"min": None, "max": None, "mean": None, "std": None} | _missing(0)
    text = da.dtype == object and not hasattr(da.values.flat[0], "calendar")
    if da.dtype.kind not in "fiubMmO" or text:
        raise InputError(f"no statistics of values of type {da.dtype}")

    pieces = da if da.dtype == object else da.chunk("auto")
    dated = da.dtype.kind in "MmO"
    real = pieces if dated else pieces.astype(np.float64)
    lazy = {"min": pieces.min(), "max": pieces.max(), "mean": real.mean()}
    lazy |= {"nans": pieces.isnull().sum()} | ({} if dated else {"std": real.std()})
    (found,) = compute(lazy)  # type: ignore[no-untyped-call]

    counted = _missing(int(found.pop("nans")))
    values = {key: value.values[()] for key, value in found.items()}
    if dated:
        return {f"{key}_raw": str(_dated(one)) for key, one in values.items()} | counted
    return values | counted


def _missing(count: int) -> Section:
    return {"has_nan": count > 0, "nan_count": count}


def _summary(variables: Mapping[str, Section], *, computed: bool) -> Section:
    known = {n: v["statistics"] for n, v in variables.items() if "statistics" in v}
    return {
        "computed": computed,
        "variables": list(known),
        "values": sum(int(variables[name]["size"]) for name in known),
        "missing_values": sum(int(one["nan_count"]) for one in known.values()),
    }


# -- What only netCDF4 tells -----------------------------------------------------------


def _structure(ds: xr.Dataset, raw: Section) -> Section:
    counted: Section = {
        "has_groups": bool(raw.get("structure", {}).get("groups")),
        "number_of_dimensions": len(ds.sizes),
        "number_of_coordinates": len(ds.coords),
        "number_of_data_variables": len(ds.data_vars),
        "total_variables": len(ds.variables),
    }
    return counted | dict(raw.get("structure", {"is_valid_netcdf": False}))


def _raw_metadata(path: Path) -> tuple[Section, str | None]:
    try:
        with netCDF4.Dataset(str(path)) as opened:
            groups = dict(_groups(opened))
            unlimited = [n for n, d in opened.dimensions.items() if d.isunlimited()]
            unnamed = all(name.startswith("phony") for name in opened.dimensions)
            plain = opened.dimensions and unnamed  # HDF5 without dimensions of NetCDF

            # Plain values only: nothing may hold on to the file.
            return {
                "format": "HDF5" if plain else str(opened.data_model),
                "unlimited": unlimited,
                "dimension_ids": {
                    n: getattr(d, "_dimid", None) for n, d in opened.dimensions.items()
                },
                "variables": {n: _raw_variable(v) for n, v in opened.variables.items()},
                "structure": {
                    "groups": list(groups),
                    "groups_detail": {
                        name: {
                            "variables": list(group.variables),
                            "dimensions": list(group.dimensions),
                            "groups": list(group.groups),
                        }
                        for name, group in groups.items()
                    },
                    "datatypes": [
                        _datatype(kind)
                        for group in (opened, *groups.values())
                        for known in (group.cmptypes, group.enumtypes, group.vltypes)
                        for kind in known.values()
                    ],
                    "unlimited_dimensions": unlimited,
                    "root_path": str(opened.path),
                    "is_valid_netcdf": not plain,
                },
            }, None
    except (OSError, RuntimeError) as error:
        return {}, f"{type(error).__name__}: {error}"


def _groups(group: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """All groups below, by their path without the leading slash."""
    found = []
    for name, child in group.groups.items():
        found += [(prefix + name, child), *_groups(child, f"{prefix}{name}/")]
    return found


def _datatype(kind: Any) -> Section:
    compound = isinstance(kind, netCDF4.CompoundType)
    fields = kind.dtype.names or () if compound else ()
    found: Section = {
        "name": kind.name,
        **_kinds_of(kind),
        "size": int(np.dtype(kind.dtype).itemsize),
        "fields": [{"name": name, "dtype": str(kind.dtype[name])} for name in fields],
    }
    return found | {"values": dict(kind.enum_dict)} if found["is_enum"] else found


def _kinds_of(kind: Any) -> dict[str, bool]:
    return {
        "is_compound": isinstance(kind, netCDF4.CompoundType),
        "is_enum": isinstance(kind, netCDF4.EnumType),
        "is_vlen": isinstance(kind, netCDF4.VLType),
    }


def _raw_variable(variable: Any) -> Section:
    filters = variable.filters() or {}  # None for NetCDF 3
    chunking = variable.chunking()
    compressors = ("zlib", "szip", "zstd", "bzip2", "blosc")
    named = str(getattr(variable.datatype, "name", variable.dtype))

    return {
        "storage": "chunked" if isinstance(chunking, list) else "contiguous",
        "endianness": str(variable.endian()),
        "all_attributes": {n: variable.getncattr(n) for n in variable.ncattrs()},
        "compression": {
            "filters": filters,
            "is_compressed": any(filters.get(name) for name in compressors),
        },
        "datatype": {
            "name": "string" if variable.dtype is str else named,
            **_kinds_of(variable.datatype),
            "is_vlen": bool(getattr(variable, "_isvlen", False)),
            "is_opaque": False,  # such variables are not readable and not listed
        },
    }
