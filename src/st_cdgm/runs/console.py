"""Threads, logging, console, progress. Light to import."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


Advance = Callable[[int, int | None], None]


@dataclass(kw_only=True)
class Session:
    """What the global options say, and where the log is.

    Attributes
    ----------
    log_level : str or None
        Level on the terminal; None: the configuration's, or WARNING when quiet.
    log_file : Path or None
        ``run.log`` once a run directory is known.
    """

    log_level: str | None = None
    log_file: Path | None = None

    @property
    def quiet(self) -> bool:
        """Whether standard output is a file or a pipe: results only, no decoration."""
        return not sys.stdout.isatty()


def prepare_threads() -> None:
    """Let idle OpenMP threads sleep. Effective only before torch is loaded.

    Spinning threads slow a small model by an order of magnitude when cores are shared.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def console() -> Console:
    """Return a console on standard output (NO_COLOR is honoured by Rich)."""
    from rich.console import Console

    return Console(soft_wrap=True, highlight=False)


def error_console() -> Console:
    """Return a console on standard error."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


def start_logging(
    session: Session, *, level: str = "INFO", run_dir: Path | None = None
) -> None:
    """Send the package's log to standard error, and to ``run.log`` in ``run_dir``.

    Calling it again replaces the handlers, so that a later call may add the file.
    """
    terminal = _terminal_handler()
    terminal.setLevel(session.log_level or ("WARNING" if session.quiet else level))
    handlers: list[logging.Handler] = [terminal]
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        session.log_file = run_dir / "run.log"
        file = logging.FileHandler(session.log_file, encoding="utf-8")
        file.setLevel(min(logging.INFO, terminal.level))
        file.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        )
        handlers.append(file)
    _replace_handlers(logging.getLogger("st_cdgm"), handlers)
    _replace_handlers(logging.getLogger("py.warnings"), handlers)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", module=r"torch_geometric\.")


def _terminal_handler() -> logging.Handler:
    if not sys.stderr.isatty():
        plain = logging.StreamHandler()
        plain.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        return plain
    from rich.logging import RichHandler

    return RichHandler(console=error_console(), show_path=False, markup=False)


def _replace_handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(min(handler.level for handler in handlers))
    logger.propagate = False


def record_traceback(session: Session, error: BaseException) -> None:
    """Append the traceback to the run's log, if there is one."""
    if session.log_file is not None:
        with session.log_file.open("a", encoding="utf-8") as log:
            log.writelines(traceback.format_exception(error))


@contextmanager
def progress(
    session: Session, description: str, total: int | None = None
) -> Iterator[Advance]:
    """Show a bar on standard error; yield a function that advances it.

    The function takes a number of steps and, where it becomes known only later, the
    total (else None). Nothing is shown when standard output is not a terminal.
    """
    from rich.progress import Progress

    with Progress(
        console=error_console(), disable=session.quiet, transient=True
    ) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps, known: bars.update(task, advance=steps, total=known)
