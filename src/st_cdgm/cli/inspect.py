"""``st-cdgm inspect``: what is in a data file, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from st_cdgm.cli._common import session, start_logging

__all__ = ["inspect"]


def inspect(
    ctx: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="NetCDF files or Zarr stores."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show grid, period, calendar, gaps, levels, units and ranges of data files.

    Example: st-cdgm inspect predictors.nc targets.nc
    """
    from st_cdgm.data.inspection import inspect_file

    start_logging(session(ctx))
    reports = {str(file): inspect_file(file).to_dict() for file in files}
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
        return
    for file, report in reports.items():
        typer.echo(file)
        for line in _lines(report, indent=2):
            typer.echo(line)


def _lines(content: dict[str, Any], indent: int) -> list[str]:
    """Lay a nested dictionary out as indented ``key: value`` lines."""
    pad = " " * indent
    lines: list[str] = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"{pad}{key}:", *_lines(value, indent + 2)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{pad}{key}:")
            for entry in value:
                lines.append(
                    f"{pad}  - " + ", ".join(_pair(k, v) for k, v in entry.items())
                )
        else:
            lines.append(pad + _pair(key, value))
    return lines


def _pair(key: str, value: Any) -> str:
    shown = f"{value:.6g}" if isinstance(value, float) else value
    if isinstance(value, list):
        shown = ", ".join(str(item) for item in value) or "none"
    return f"{key}: {'none' if shown is None else shown}"
