"""``st-cdgm plugins``: what can be chosen by name, and where it comes from."""

from __future__ import annotations

from typing import Annotated

import typer

from st_cdgm.cli._options import logged
from st_cdgm.registry import KINDS, entries
from st_cdgm.runs.console import console


def plugins(
    ctx: typer.Context,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help=f"One of: {', '.join(KINDS)}.")
    ] = None,
) -> None:
    """List samplers, codecs, baselines, derived predictors, metrics and references.

    Example: st-cdgm --plugin my_package.my_module plugins --kind metric
    """
    current = logged(ctx, level="WARNING")
    rows = [
        (entry.kind, entry.name, _origin(entry.origin))
        for one in (KINDS if kind is None else (kind,))
        for entry in entries(one)
    ]
    if current.quiet:
        for row in rows:
            typer.echo("\t".join(row))
        return

    from rich import box
    from rich.table import Table

    table = Table("kind", "name", "origin", box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _origin(package: str) -> str:
    """Return ``built-in``, or the distribution of a package and its version."""
    if package == "st_cdgm":
        return "built-in"
    from importlib.metadata import packages_distributions, version

    found = packages_distributions().get(package)
    return f"{found[0]} {version(found[0])}" if found else f"{package}, not installed"
