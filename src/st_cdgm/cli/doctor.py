"""``st-cdgm doctor``: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import typer

from st_cdgm.cli._options import logged
from st_cdgm.runs.console import console
from st_cdgm.runs.environment import Status, run_checks


def doctor(ctx: typer.Context) -> None:
    """Check Python, libraries, threads, memory, disk and accelerator.

    Exits with 1 if something essential is wrong.
    """
    from rich.text import Text

    logged(ctx, level="WARNING")
    out = console()
    styles = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
    failed = False

    for check in run_checks():
        failed |= check.status is Status.FAIL
        out.print(
            Text.assemble(
                (f"{check.status.value:<5}", styles[check.status]),
                f"{check.name:<18} {check.found}",
            )
        )
        if check.remedy:
            out.print(f"{'':23} -> {check.remedy}", markup=False)
    if failed:
        raise typer.Exit(1)
