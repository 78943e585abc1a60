"""Entry point: the verbs, the global options, the exit codes."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from st_cdgm._version import __version__
from st_cdgm.cli._options import session
from st_cdgm.errors import InputError, Terminated
from st_cdgm.redaction import redacted
from st_cdgm.registry import load_plugins
from st_cdgm.runs.console import Session, show, show_failure

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
# Functions, each in the file of its name, in the order of the help.
VERBS = (
    *("demo", "run", "synthesize", "preprocess", "train", "downscale", "evaluate"),
    *("reference", "report", "inspect", "discover", "certify", "counterfactual"),
    *("doctor", "plugins"),
)
WORDS = "st_cdgm.words"  # where a context keeps the words of the command


class ReadableErrors(TyperGroup):
    """Turn exceptions into one readable message and an exit code.

    2 for what the user can mend (an :class:`~st_cdgm.errors.InputError`), 130 for
    Ctrl-C, 143 for SIGTERM, 1 for the rest. Usage errors are typer's own and exit with
    2.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words of the command: errors and histories quote them."""
        ctx.meta[WORDS] = list(args)
        rest: list[str] = super().parse_args(ctx, args)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            with _ended_by_signal():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _stopped(ctx, "Interrupted", EXIT_INTERRUPTED) from error
        except Terminated as error:
            raise _stopped(ctx, "Terminated", Terminated.STATUS) from error
        except SystemExit as error:  # how Lightning ends a training after Ctrl-C
            if isinstance(error.__context__, KeyboardInterrupt):
                raise _stopped(ctx, "Interrupted", EXIT_INTERRUPTED) from error
            raise

        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if hasattr(error, "exit_code"):  # typer's report of wrong usage
                _suggest_key(error, ctx)
                raise
            show_failure(session(ctx), error)
            known = isinstance(error, InputError)
            raise typer.Exit(EXIT_INPUT if known else EXIT_FAILED) from error


def _suggest_key(error: Any, ctx: typer.Context) -> None:
    """Say how a configuration key is written to who wrote it as an option."""
    option = getattr(error, "option_name", None)
    verb = getattr(error, "ctx", None)
    names = [] if verb is None else [p.name for p in verb.command.params]
    if option is None or "overrides" not in names:
        return
    from st_cdgm.config.keys import keys_like

    keys = keys_like(option.lstrip("-").replace("-", "_"))
    if keys:
        value = _value_of(option, ctx.meta[WORDS])
        written = " or ".join(f"{key}={value}" for key in keys[:3])
        error.message = f"No such option: {option}. Did you mean a key? Write {written}"
        error.possibilities = None


def _value_of(option: str, words: list[str]) -> str:
    """Return what was given to an option, VALUE if that is not clear."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == option:
            return value if equals else after or "VALUE"
    return "VALUE"


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Let SIGTERM, as schedulers send it, end a command as tidily as Ctrl-C does."""

    def end(*_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Terminated

    before = signal.getsignal(signal.SIGTERM)
    ours = threading.current_thread() is threading.main_thread()
    ours = ours and before is signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _stopped(ctx: typer.Context, label: str, status: int) -> typer.Exit:
    """Say what a stopped command leaves behind and how to go on; return the exit."""
    verb, log = ctx.invoked_subcommand, session(ctx).log_file
    kept = "no unfinished file is left"
    if log is None or not (log.parent / "checkpoints").is_dir():
        how = "goes on where it stopped" if verb == "preprocess" else "starts anew"
        show(label, f"{kept}; run the same command again: it {how}")
        return typer.Exit(status)

    checkpoints = log.parent / "checkpoints"
    show(label, f"{kept}; the checkpoints so far are in {checkpoints}")
    if verb in ("run", "train"):
        way = "--resume" if (checkpoints / "last").is_dir() else "--overwrite"
        ways = ("--overwrite", "--resume")
        words = [word for word in ctx.meta[WORDS] if word not in ways]
        show("Go on with", shlex.join(["st-cdgm", *words, way]))
    return typer.Exit(status)


app = typer.Typer(
    name="st-cdgm",
    cls=ReadableErrors,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"st-cdgm {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    ctx: typer.Context,
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None,
        typer.Option(help="Level of the log on the terminal.", case_sensitive=False),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE",
            help="Import a module that adds samplers, metrics ...; may be repeated.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print and exit."
        ),
    ] = False,
) -> None:
    """Climate downscaling ensembles with a learned causal graph."""
    # Idle OpenMP threads are to sleep: spinning ones slow a small model by an order of
    # magnitude when cores are shared. Effective only before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    command = shlex.join(["st-cdgm", *map(redacted, ctx.meta[WORDS])])
    ctx.obj = Session(log_level=log_level, command=command)
    if plugin:
        load_plugins(plugin)


for verb in VERBS:
    app.command(verb)(getattr(import_module(f"st_cdgm.cli.{verb}"), verb))
app.add_typer(import_module("st_cdgm.cli.config").config, name="config")


def main() -> None:
    """Run the command line and leave with its exit code."""
    app()
