"""Metadata of a file as text for people and as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from st_cdgm.data.space.coordinates import locate
from st_cdgm.data.tables.selection import time_dimension
from st_cdgm.data.time.axis import iso
from st_cdgm.outputs import native

LONGEST = 200  # characters of an attribute
WIDTH = 80
# In the files, but of little help to a reader: said elsewhere or very long.
_LEFT_OUT = ("encoding", "all_attributes", "filters")


def detailed_info(metadata: Mapping[str, Any]) -> str:
    """Lay out all sections of :func:`st_cdgm.data.tables.metadata.extract_metadata`."""
    titles = {
        "file_info": "File",
        "dimensions": "Dimensions",
        "coordinates": "Coordinates that are no dimension",
        "data_variables": "Data variables",
        "global_attributes": "Global attributes",
        "file_structure": "Structure",
        "cf_standard_attributes": "CF standard attributes",
        "cf_conventions": "Other CF attributes",
    }
    name = metadata["file_info"]["filename"]
    lines = ["=" * WIDTH, f"NetCDF file: {name}", "=" * WIDTH]
    for key, title in titles.items():
        lines += ["", title, "-" * len(title)]
        lines += _lines(metadata[key], 2) or ["  none"]

    return "\n".join(lines)


def _lines(content: Mapping[str, Any], indent: int) -> list[str]:
    """One line per entry; a mapping on one line if it fits, else indented below."""
    pad = " " * indent
    lines: list[str] = []
    for key, value in content.items():
        if key in _LEFT_OUT:
            continue
        if not isinstance(value, Mapping) or not value:
            lines.append(f"{pad}{key}: {_short(value)}")
            continue

        shown = _on_one_line(value)
        if shown is not None and len(pad) + len(key) + 2 + len(shown) <= WIDTH:
            lines.append(f"{pad}{key}: {shown}")
        else:
            lines += [f"{pad}{key}:", *_lines(value, indent + 2)]

    return lines


def _on_one_line(content: Mapping[str, Any]) -> str | None:
    if any(isinstance(value, Mapping | list) for value in content.values()):
        return None
    if all(isinstance(value, bool) for value in content.values()):
        return ", ".join(key for key, value in content.items() if value) or "none"
    return ", ".join(f"{key} {_short(value)}" for key, value in content.items())


def _short(value: Any) -> str:
    if value in ({}, [], None):
        return "none"
    text = " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def simple_info(ds: xr.Dataset, path: Path) -> str:
    """Return one line each for file, names, attributes, and ranges of coordinates."""
    lines = [
        f"file: {path}",
        f"dimensions: {', '.join(f'{n}={size}' for n, size in ds.sizes.items())}",
        f"coordinates: {', '.join(map(str, ds.coords)) or 'none'}",
        f"variables: {', '.join(map(str, ds.data_vars)) or 'none'}",
        f"attributes: {', '.join(map(str, ds.attrs)) or 'none'}",
    ]
    time, pair = time_dimension(ds), locate(ds).pair()
    if time is not None and ds.sizes[time]:
        first, last = ds[time].values[[0, -1]]
        if ds[time].dtype.kind in "MO":
            first, last = iso(first), iso(last)
        lines.append(f"time range: {first} to {last}")

    for label, name in zip(("latitude", "longitude"), pair or (), strict=False):
        if not ds[name].size:
            continue
        low, high = float(ds[name].min()), float(ds[name].max())
        lines.append(f"{label} range: {low:g} to {high:g}")

    return "\n".join(lines)


def variable_rows(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per data variable, with the columns of the metadata CSV file.

    ``variable_name, dims, shape, dtype, size, nbytes``, then ``stat_*``, ``attr_*``,
    ``encoding_*``, ``cf_*``, ``fill_value``, ``chunksizes``, ``statistics_error`` and
    ``netcdf4_*``, each where available.
    """
    return [_row(name, v) for name, v in metadata["data_variables"].items()]


def _row(name: str, variable: Mapping[str, Any]) -> dict[str, Any]:
    plain = ("dims", "shape", "dtype", "size", "nbytes")
    prefixed = {
        "stat": "statistics",
        "attr": "attributes",
        "encoding": "encoding",
        "cf": "cf_conventions_attributes",
    }
    row: dict[str, Any] = {"variable_name": name}
    row |= {key: variable[key] for key in plain}
    for prefix, section in prefixed.items():
        row |= _prefixed(prefix, variable.get(section, {}))
    for key in ("fill_value", "chunksizes", "statistics_error"):
        if variable.get(key) is not None:
            row[key] = variable[key]

    row |= _prefixed("netcdf4", variable.get("netcdf4_info", {}))
    return {key: native(value) for key, value in row.items()}


def _prefixed(prefix: str, section: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}_{key}": value for key, value in section.items()}
