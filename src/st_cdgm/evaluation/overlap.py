"""Which variables, rows and columns forecasts and truth share.

The rules are those of :mod:`st_cdgm.evaluation.masks`, which looks at days and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import xarray as xr

from st_cdgm.data.space.grid import Grid
from st_cdgm.data.space.matching import part_of, shared_cells
from st_cdgm.errors import GridMismatchError, MissingVariableError
from st_cdgm.evaluation.masks import region
from st_cdgm.evaluation.source import Source, counterpart, daily_fields, label


def shared_variables(
    forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset, rule: str
) -> tuple[list[str], list[str]]:
    """Return the scored variables as the first forecast calls them, and what is not.

    Each file may call them by any of their names in the table of variables.

    Raises
    ------
    MissingVariableError
        There is no common variable, or the rule does not allow that one is left out.
    """
    files = [("truth", truth), *forecasts.items()]
    known, model = daily_fields(truth), daily_fields(files[1][1])
    if not model:
        raise MissingVariableError(
            "The forecast has no field to score.",
            file=label("forecast", files[1][1]),
            expected="at least one variable",
            remedy="give a file that st-cdgm downscale wrote",
        )

    # What each has besides, and what it lacks.
    names, left = [name for name in model if counterpart(name, known)], []
    for name, dataset in files:
        file, has = label(name, dataset), daily_fields(dataset)
        own = {wanted: counterpart(wanted, has) for wanted in names}
        if besides := [field for field in has if field not in own.values()]:
            left.append(f"left out {', '.join(besides)} of {file}")
        if absent := [wanted for wanted, field in own.items() if field is None]:
            left.append(f"{name} is not scored in {', '.join(absent)}: absent")

        if rule != "common":
            _check_all(known, has, "A forecast lacks a variable of the truth.", file)
        if rule == "strict" or not names:
            problem = "The truth lacks a variable of the forecast."
            _check_all(has, known, problem, label("truth", truth))
    return names, left


def _check_all(
    wanted: Sequence[str], found: Sequence[str], problem: str, file: str
) -> None:
    """Raise MissingVariableError unless all variables are found."""
    absent = [name for name in wanted if not counterpart(name, found)]
    if absent:
        raise MissingVariableError(
            problem,
            file=file,
            variable=", ".join(absent),
            found=", ".join(found) or "no variable",
            expected=", ".join(wanted),
            remedy="name the variables alike in forecast and truth; --mask common "
            "leaves out what only one has",
        )


def shared_grid(
    truth: Source, sources: Sequence[Source], rule: str
) -> tuple[Grid, list[str]]:
    """Return the cells that truth and all sources have, and what lies beside them.

    Raises
    ------
    GridMismatchError
        They share too little (see :func:`st_cdgm.data.space.matching.shared_cells`), or
        the rule does not allow that a row or column is left out.
    """
    grid = truth.grid
    for source in sources:
        shared = shared_cells(grid, source.grid)
        if shared is None:
            grid.check_same(source.grid, file=source.file, role="forecast")  # says why
            continue

        kept = part_of(grid, shared[0])
        narrow, wide = (kept.shape != one.shape for one in (grid, source.grid))
        if (narrow and rule != "common") or (wide and rule == "strict"):
            beyond = "does not cover" if narrow else "goes beyond"
            raise GridMismatchError(
                f"The forecast {beyond} the grid of the truth.",
                file=source.file,
                found=str(source.grid),
                expected=str(truth.grid),
                remedy="cut both to one region, or score what both have: --mask common",
            )
        grid = kept

    # Where that is, file by file.
    south, north, west, east = region(grid.lat2d, grid.lon2d)
    return grid, [
        f"left out {had[0] - grid.shape[0]} of {had[0]} rows and "
        f"{had[1] - grid.shape[1]} of {had[1]} columns of {one.file}, outside "
        f"{south:.6g}..{north:.6g} N, {west:.6g}..{east:.6g} E"
        for one in (truth, *sources)
        if (had := one.grid.shape) != grid.shape
    ]
