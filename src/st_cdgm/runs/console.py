"""Threads, logging, console, progress. Light to import."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_cdgm.errors import InputError
from st_cdgm.redaction import RedactingFormatter, redacted

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console
logger = logging.getLogger(__name__)

Advance = Callable[[int, int | None], None]
# How often a plain line says how far a step is, where no bar can be drawn.
PLAIN_SECONDS = 30.0


@dataclass(kw_only=True)
class Session:
    """What the global options say, and where the log is.

    Attributes
    ----------
    log_level : str or None
        Level on the terminal; None: the configuration's, or WARNING when quiet.
    log_file : Path or None
        ``run.log`` once a run directory is known.
    command : str
        The command as it was typed, for the history of output files; empty in Python.
    announce : bool
        Whether results are printed on standard output.
    """

    log_level: str | None = None
    log_file: Path | None = None
    command: str = ""
    announce: bool = True

    @property
    def quiet(self) -> bool:
        """Whether standard output is a file or a pipe: results only, no decoration."""
        return not sys.stdout.isatty()

    @property
    def draws(self) -> bool:
        """Whether there is a terminal on which bars can be drawn."""
        return sys.stdout.isatty() and sys.stderr.isatty()

    @property
    def tells(self) -> bool:
        """Whether progress is wanted at all."""
        return self.log_level in (None, "DEBUG", "INFO")


def console(*, wide: bool = False) -> Console:
    """Return a console on standard output (NO_COLOR is honoured by Rich).

    ``wide``: a table that goes into a file or a pipe is not folded to 80 columns.
    """
    from rich.console import Console

    width = 1000 if wide and not sys.stdout.isatty() else None
    return Console(soft_wrap=True, highlight=False, width=width)


def table_lines() -> Box | None:
    """Return the lines of tables: none in a file or a pipe."""
    from rich import box

    return box.SIMPLE_HEAD if sys.stdout.isatty() else None


@cache
def error_console() -> Console:
    """Return the one console on standard error: log and bars share it, or collide."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False)


def show_results(results: Mapping[str, object]) -> None:
    """Print results on standard output, one a line, names and values aligned."""
    width = max(map(len, results)) + 1
    for name, value in results.items():
        line = f"{name + ':':<{width}} {value}"
        console().print(redacted(line), markup=False)


def show_failure(session: Session, error: BaseException) -> None:
    """Report an error in one message, and where to read more if it was unexpected."""
    if isinstance(error, InputError):
        show("Error", str(error))
        return

    first = str(error).strip().splitlines()
    kind = type(error).__name__
    show("Failed", f"{kind}: {first[0]}" if first else kind)
    if session.log_level == "DEBUG":
        error_console().print(_traced(error), markup=False)
    if session.log_file is not None:
        with session.log_file.open("a", encoding="utf-8") as log:
            log.write(_traced(error))
    more = session.log_file or "run again with --log-level DEBUG"
    show("Traceback", str(more))


def _traced(error: BaseException) -> str:
    return redacted("".join(traceback.format_exception(error)))


def show(label: str, message: str) -> None:
    """Print a message with a label on standard error."""
    from rich.text import Text

    error_console().print(Text.assemble((f"{label}: ", "bold red"), redacted(message)))


def note(session: Session, text: str) -> None:
    """Say what a user waits for, also where the log is silent because of a pipe."""
    logger.info(text)
    if session.quiet and session.log_level is None:
        error_console().print(text, markup=False)


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
            RedactingFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        )
        handlers.append(file)

    _replace_handlers(logging.getLogger("st_cdgm"), handlers)
    _replace_handlers(logging.getLogger("py.warnings"), handlers)
    logging.captureWarnings(True)
    warnings.filterwarnings("ignore", module=r"torch_geometric\.")


def _terminal_handler() -> logging.Handler:
    if not sys.stderr.isatty():
        plain = logging.StreamHandler()
        plain.setFormatter(RedactingFormatter("%(levelname)s: %(message)s"))
        return plain
    from rich.logging import RichHandler

    rich = RichHandler(console=error_console(), show_path=False, markup=False)
    rich.setFormatter(RedactingFormatter("%(message)s"))
    return rich


def follow_log(name: str) -> None:
    """Let another package's warnings go where the package's own log goes."""
    other = logging.getLogger(name)
    other.handlers = list(logging.getLogger("st_cdgm").handlers)
    other.setLevel(logging.WARNING)
    other.propagate = False


def _replace_handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> None:
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(min(handler.level for handler in handlers))
    logger.propagate = False


# -- Progress --------------------------------------------------------------------------


@contextmanager
def progress(
    session: Session, description: str, total: int | None = None
) -> Iterator[Advance]:
    """Show a bar on a terminal, else a plain line now and then, on standard error.

    Yields a function that takes a number of steps done and, where it becomes known only
    later, their total (else None).
    """
    from rich.progress import Progress

    if not session.draws:
        with _plain_progress(description, total, told=session.tells) as advance:
            yield advance
        return
    with Progress(console=error_console(), transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps, known: bars.update(task, advance=steps, total=known)


@contextmanager
def _plain_progress(
    description: str, total: int | None, *, told: bool
) -> Iterator[Advance]:
    """Print a line every `PLAIN_SECONDS`, from a thread: some steps never report."""
    state = {"done": 0, "total": total or 0}
    started, over = time.monotonic(), threading.Event()

    def advance(steps: int, known: int | None) -> None:
        state["done"] += steps
        state["total"] = known or state["total"]

    def tell() -> None:
        while not over.wait(PLAIN_SECONDS):
            line = progress_line(
                description, **state, seconds=time.monotonic() - started
            )
            error_console().print(line, markup=False)

    thread = threading.Thread(target=tell, daemon=True)
    if told:
        thread.start()
    try:
        yield advance
    finally:
        over.set()
        if told:
            thread.join()


def progress_line(description: str, *, done: int, total: int, seconds: float) -> str:
    """Return how far a step is: done of total, time so far, time left (estimated)."""
    parts = [f"{description}: {lasting(seconds)}"]
    if total:
        parts = [f"{description}: {done}/{total}", f"{lasting(seconds)} so far"]
    if total > done > 0:
        left = seconds / done * (total - done)
        parts.append(f"about {lasting(left)} left")
    return ", ".join(parts)


def lasting(seconds: float) -> str:
    """Return a length of time in words, as exact as an estimate deserves."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


def byte_size(size: float) -> str:
    """Return a number of bytes with a unit of thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size = size / 1000
    return f"{size:.3g} TB"


class _Watch:
    """Advances a bar of `progress`, and tells a session early how long it will take."""

    def __init__(self, session: Session, advance: Advance) -> None:
        self.session, self.advance = session, advance
        self.done, self.told = 0, False


class TrainingWatch(_Watch):
    """Advance a bar by every update; say early how long a training will take."""

    SKIPPED, MEASURED = 2, 8  # the first updates are slower

    def started(self, trainer: Any) -> None:
        """Take note of the updates that are left."""
        self.left = int(trainer.estimated_stepping_batches) - trainer.global_step
        self.epochs = int(trainer.max_epochs) - trainer.current_epoch
        self.advance(0, self.left)
        self.begun = self.measured_from = time.monotonic()

    def updated(self) -> None:
        """Count an update; after a few, tell the time they predict for all."""
        self.done += 1
        self.advance(1, None)
        if self.done == self.SKIPPED:
            self.measured_from = time.monotonic()
        if self.done == self.SKIPPED + self.MEASURED and not self.told:
            one = (time.monotonic() - self.measured_from) / self.MEASURED
            self._tell(one * self.left, ", validation not counted")

    def epoch_ended(self) -> None:
        """Tell the time that the first epoch predicts, if it was shorter than that."""
        if not self.told:
            self._tell((time.monotonic() - self.begun) * self.epochs, "")

    def _tell(self, seconds: float, remark: str) -> None:
        self.told = True
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        note(self.session, f"training: about {lasting(seconds)} for {epochs}{remark}")


class DownscalingWatch(_Watch):
    """Advance a bar by every day; say early how large and how long it will be."""

    def started(self, days: int, members: int, shape: tuple[int, int, int]) -> None:
        """Tell the size of ``members`` fields of ``shape`` (C, Y, X) for every day."""
        self.days, self.begun = days, time.monotonic()
        self.advance(0, days)
        values = days * members * math.prod(shape)
        note(
            self.session,
            f"downscaling: {days} days, {members} members, "
            f"up to {byte_size(4 * values)}",
        )

    def made(self, days: int) -> None:
        """Count days; the first ones tell the time for all."""
        if not self.done and days < self.days:
            seconds = (time.monotonic() - self.begun) / days * self.days
            note(self.session, f"downscaling: about {lasting(seconds)}")
        self.done += days
        self.advance(days, None)


def run_tool(main: Callable[[], int | None]) -> None:
    """Run a program of its own and exit: 2 and a message where an input is at fault."""
    try:
        code = main() or 0
    except InputError as error:
        show_failure(Session(), error)
        code = 2
    sys.exit(code)
