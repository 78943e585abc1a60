"""Several files as one data set: along time, or variable beside variable."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import xarray as xr

from st_cdgm.data.space.coordinates import Located
from st_cdgm.errors import InputError

SAME_COORDINATE = 1e-3  # coordinates of two files closer than this are the same


def label_of(files: Sequence[str | Path]) -> str:
    """Name of one or many files, for messages."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} ... ({len(files)} files)"


def join(
    opened: Sequence[tuple[xr.Dataset, Located]],
    files: Sequence[str | Path],
    *,
    role: str,
) -> xr.Dataset:
    """Join files lazily along time, or side by side where their variables differ.

    Raises
    ------
    InputError
        If calendars, grids, levels or units differ, or periods overlap.
    """
    _check_one_calendar(opened, files)
    parts = [part for part, _ in opened]
    _check_one_unit(parts, files)
    snapped = [_snap_coordinates(part, parts[0]) for part in parts]
    try:
        combined = xr.combine_by_coords(
            snapped,
            compat="override",
            coords="minimal",
            data_vars="minimal",
            join="exact",
            combine_attrs="override",
        )
    except (ValueError, TypeError, KeyError) as error:
        found = str(error).splitlines()[0]
        raise _misfit(found, files, role=role) from error

    for name, index in combined.indexes.items():
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise _misfit(f"{name} {twice} is in two files", files, role=role)

    # Closing the joined data set closes its files.
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.callback(part.close)
        combined.set_close(stack.pop_all().close)

    return cast("xr.Dataset", combined)


def _misfit(found: str, files: Sequence[str | Path], *, role: str) -> InputError:
    return InputError(
        f"the {role} files do not fit together",
        file=label_of(files),
        found=found,
        expected="the same grid and levels in all files, and periods that follow each "
        "other without overlap",
        remedy="pass only files of one grid; cut overlapping periods (cdo seldate)",
    )


def _check_one_calendar(
    opened: Sequence[tuple[xr.Dataset, Located]], files: Sequence[str | Path]
) -> None:
    calendars: dict[str, str | Path] = {}
    for (part, located), file in zip(opened, files, strict=True):
        for name in located.times[:1]:
            if part[name].size:
                calendars.setdefault(str(part[name].dt.calendar), file)
    if len(calendars) > 1:
        raise InputError(
            "the files have different calendars",
            file=label_of(files),
            found=", ".join(f"{c} in {Path(f).name}" for c, f in calendars.items()),
            expected="one calendar",
            remedy="convert them to one calendar first (xarray: convert_calendar)",
        )


def _check_one_unit(parts: Sequence[xr.Dataset], files: Sequence[str | Path]) -> None:
    """Refuse a variable whose units change: only the first file's would be kept."""
    seen: dict[Hashable, tuple[str, str | Path]] = {}
    for part, file in zip(parts, files, strict=True):
        for name, variable in part.variables.items():
            units = str(variable.attrs.get("units", "none"))
            first, where = seen.setdefault(name, (units, file))

            if units != first:
                raise InputError(
                    "the files give a variable in different units",
                    file=label_of(files),
                    variable=str(name),
                    found=f"{first} in {Path(where).name}, {units} in "
                    f"{Path(file).name}",
                    expected="the same units in all files",
                    remedy="convert some of them first (cdo mulc, setattribute)",
                )


def _snap_coordinates(part: xr.Dataset, first: xr.Dataset) -> xr.Dataset:
    """Give ``part`` the first file's coordinates where they differ by rounding only."""
    same: dict[Hashable, Any] = {}
    for name, index in part.indexes.items():
        other = first.indexes.get(name)
        if other is None or len(other) != len(index) or index.dtype.kind not in "fiu":
            continue
        if np.allclose(index, other, rtol=0.0, atol=SAME_COORDINATE):
            same[name] = first[name]
    return part.assign_coords(same)
