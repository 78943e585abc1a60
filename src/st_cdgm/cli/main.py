"""Entry point: the verbs, the global options, the exit codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from st_cdgm._version import __version__
from st_cdgm.cli import (
    demo,
    discover,
    doctor,
    downscale,
    evaluate,
    inspect,
    plugins,
    preprocess,
    report,
    run,
    synthesize,
    train,
)
from st_cdgm.cli._options import session
from st_cdgm.errors import InputError
from st_cdgm.registry import load_plugins
from st_cdgm.runs.console import (
    Session,
    error_console,
    prepare_threads,
    record_traceback,
)

EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_INTERRUPTED = 130


class LogLevel(StrEnum):
    """Levels of ``--log-level``."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class ReadableErrors(TyperGroup):
    """Turn exceptions into one readable message and an exit code.

    2 for what the user can mend (an :class:`~st_cdgm.errors.InputError`), 130 for
    Ctrl-C, 1 for the rest. Usage errors are typer's own and exit with 2.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            _show("Error", str(error))
            raise typer.Exit(EXIT_INPUT) from error
        except KeyboardInterrupt as error:
            raise _interrupted(ctx) from error
        except SystemExit as error:  # how Lightning ends a training after Ctrl-C
            if isinstance(error.__context__, KeyboardInterrupt):
                raise _interrupted(ctx) from error
            raise
        except Exception as error:
            if _is_control_flow(error):
                raise
            _fail(ctx, error)
            raise typer.Exit(EXIT_FAILED) from error


def _is_control_flow(error: Exception) -> bool:
    """Whether typer itself raised this, to exit or to report wrong usage."""
    return isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "exit_code")


def _show(label: str, message: str) -> None:
    from rich.text import Text

    error_console().print(Text.assemble((f"{label}: ", "bold red"), message))


def _interrupted(ctx: typer.Context) -> typer.Exit:
    """Say what a stopped command leaves behind; return the exit."""
    log = session(ctx).log_file
    kept = "no unfinished file is left"
    if log is not None and (log.parent / "checkpoints").is_dir():
        kept += f"; the checkpoints so far are in {log.parent / 'checkpoints'}"
    _show("Interrupted", kept)
    return typer.Exit(EXIT_INTERRUPTED)


def _fail(ctx: typer.Context, error: Exception) -> None:
    """Report an unexpected failure in one line, and where to read more."""
    current = session(ctx)
    first = str(error).strip().splitlines()
    kind = type(error).__name__
    _show("Failed", f"{kind}: {first[0]}" if first else kind)
    if current.log_level == LogLevel.DEBUG:
        error_console().print_exception()
    record_traceback(current, error)
    if current.log_file is not None:
        _show("Traceback", str(current.log_file))
    else:
        _show("Traceback", "run again with --log-level DEBUG")


app = typer.Typer(
    name="st-cdgm",
    cls=ReadableErrors,
    no_args_is_help=True,
    add_completion=False,
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
        LogLevel | None,
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
    prepare_threads()
    ctx.obj = Session(log_level=None if log_level is None else log_level.value)
    if plugin:
        load_plugins(plugin)


for verb in (
    demo.demo,
    run.run,
    synthesize.synthesize,
    preprocess.preprocess,
    train.train,
    downscale.downscale,
    evaluate.evaluate,
    report.report,
    inspect.inspect,
    discover.discover,
    doctor.doctor,
    plugins.plugins,
):
    app.command(verb.__name__)(verb)


def main() -> None:
    """Run the command line and leave with its exit code."""
    app()
