"""``st-cdgm inspect``: what is in a data file, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from st_cdgm.cli._common import session, start_logging

__all__ = ["inspect"]

SHOWN_GAPS = 3


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
        typer.echo(report.pop("file", file))
        for line in _lines(report, indent=2):
            typer.echo(line)


def _lines(content: dict[str, Any], indent: int) -> list[str]:
    """Lay a nested dictionary out as indented ``key: value`` lines."""
    pad = " " * indent
    lines: list[str] = []
    for key, value in content.items():
        if isinstance(value, dict):
            lines += [f"{pad}{key}:", *_lines(value, indent + 2)]
        elif isinstance(value, list | tuple) and value and isinstance(value[0], dict):
            entries = (", ".join(map(_pair, entry.items())) for entry in value)
            lines += [f"{pad}{key}:", *(f"{pad}  - {entry}" for entry in entries)]
        elif key == "gaps" and value:
            gaps = [f"{before} to {after}" for before, after in value[:SHOWN_GAPS]]
            more = ["..."] if len(value) > SHOWN_GAPS else []
            lines.append(f"{pad}{key}: {len(value)} ({', '.join([*gaps, *more])})")
        elif key == "problems" and value:
            lines += [f"{pad}{key}:", *(f"{pad}  - {problem}" for problem in value)]
        else:
            lines.append(pad + _pair((key, value)))
    return lines


def _pair(item: tuple[str, Any]) -> str:
    return f"{item[0]}: {_shown(item[1])}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return " ".join(map(_shown, value)) or "none"
    return "none" if value is None else str(value)
