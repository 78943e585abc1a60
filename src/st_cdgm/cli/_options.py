"""Options that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from st_cdgm.redaction import redacted
from st_cdgm.runs.console import Session, start_logging

if TYPE_CHECKING:
    from st_cdgm.config.schema import Config

CONFIG = typer.Option(
    "--config", "-c", metavar="NAME|FILE", help="Packaged preset or YAML file."
)
ConfigOption = Annotated[str, CONFIG]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Values that replace the file's."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the resolved configuration and stop."),
]
RESUME_HELP = "Go on from the last state of this run."
ResumeOption = Annotated[bool, typer.Option("--resume", help=RESUME_HELP)]
OVERWRITE_HELP = "Replace the run in run.dir, if any; other files stay."
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help=OVERWRITE_HELP)]


def session(ctx: typer.Context) -> Session:
    """Return the session of this invocation."""
    found = ctx.find_object(Session)
    return Session() if found is None else found


def logged(ctx: typer.Context, *, level: str = "INFO") -> Session:
    """Return the session of this invocation, with its log begun."""
    current = session(ctx)
    start_logging(current, level=level)
    return current


def split(text: str, *, option: str, form: str) -> tuple[str, str]:
    """Split what was given to an option in the form ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise typer.BadParameter(f"expected {form}, found {text}", param_hint=option)
    return name, value


def load(name: str, overrides: list[str] | None, *, dry_run: bool = False) -> Config:
    """Load a configuration; with ``dry_run`` print it and end the verb."""
    from st_cdgm.config.load import config_to_yaml, load_config

    settings = load_config(name, overrides or [])
    if dry_run:
        typer.echo(redacted(config_to_yaml(settings)), nl=False)
        raise typer.Exit
    return settings
