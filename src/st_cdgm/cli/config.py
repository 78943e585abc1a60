"""``st-cdgm config``: show, check and compare configurations; their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from st_cdgm.cli import _options as options

config = typer.Typer(
    help="Show, check and compare configurations; write their JSON schema.\n\n"
    "Example: st-cdgm config diff my.yaml iberia",
    no_args_is_help=True,
)
Source = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="Packaged preset or YAML file.")
]


@config.command()
def show(source: Source, overrides: options.Overrides = None) -> None:
    """Print every key with its value.

    Example: st-cdgm config show iberia training.epochs=5
    """
    options.load(source, overrides, dry_run=True)


@config.command()
def check(source: Source, overrides: options.Overrides = None) -> None:
    """Check keys, values, periods and files, without reading the data.

    Example: st-cdgm config check my.yaml
    """
    settings = options.load(source, overrides)
    from st_cdgm.runs.checks import check_before_training

    check_before_training(settings, to_the_end="test" in settings.data.splits.names())
    typer.echo(f"Sound: {source}")


@config.command()
def diff(
    source: Source,
    other: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="What it is compared with.")
    ] = "base",
) -> None:
    """Print the keys whose values differ: there (-) and here (+).

    Exits with 0 in any case. Example: st-cdgm config diff my.yaml iberia
    """
    from st_cdgm.config.load import SCHEMA, differences, load_config
    from st_cdgm.config.schema import Config

    # The default values alone have no training period, which a check would miss.
    there = Config() if other == SCHEMA else load_config(other)
    here = load_config(source)
    for key, before, after in differences(there, here):
        typer.echo(f"{key}\n  - {json.dumps(before)}\n  + {json.dumps(after)}")


@config.command()
def schema(
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it here instead.")
    ] = None,
) -> None:
    """Print the JSON schema of configuration files, every key with its description.

    Editors check and complete files that begin with the line
    # yaml-language-server: $schema=FILE

    Example: st-cdgm config schema --output st-cdgm.schema.json
    """
    from st_cdgm.config.describe import json_schema
    from st_cdgm.outputs import write_bytes

    text = json.dumps(json_schema(), indent=2, default=vars) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    write_bytes(output, text.encode())
    typer.echo(f"Schema: {output}")
