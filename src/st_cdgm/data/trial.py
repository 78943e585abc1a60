"""A trial opening of HDF5 files in a helper process.

On some damaged files the HDF5 library never returns, or brings its process down; no
exception comes of it that could be caught. The helper opens each new file first. It is
started once, on the first such file, and stays for the process's life.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, cast

from st_cdgm.data.formats import HEAD_BYTES, is_hdf5, unreadable

__all__ = ["try_opening"]

logger = logging.getLogger(__name__)

CPU_SECONDS = 5.0  # for the metadata of one file; waiting for a disk does not count

# An endless loop ends by SIGPROF, whatever the library does with the interpreter.
_CHILD = """
import json, signal, sys
import netCDF4
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGPROF, signal.SIG_DFL)
for line in sys.stdin:
    path, seconds = json.loads(line)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with netCDF4.Dataset(path) as file:
            for variable in file.variables.values():
                for name in variable.ncattrs():
                    variable.getncattr(name)
    except Exception:
        pass
    signal.setitimer(signal.ITIMER_PROF, 0)
    print("done", flush=True)
"""


class _Helper:
    """The child process of this process, or of none yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.owner = -1
        self.process: subprocess.Popen[str] | None = None
        self.known: set[tuple[str, int, int]] = set()

    def _started(self) -> subprocess.Popen[str]:
        if self.process is None or self.owner != os.getpid():
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self.owner = os.getpid()
        return self.process

    def ask(self, file: Path) -> str | None:
        """Return None if the file lets itself be opened, else how the helper died."""
        with self.lock:
            process = self._started()
            asked, answered = (
                cast(IO[str], process.stdin),
                cast(IO[str], process.stdout),
            )
            with contextlib.suppress(BrokenPipeError):
                asked.write(json.dumps([str(file.absolute()), CPU_SECONDS]) + "\n")
                asked.flush()
            if answered.readline():
                return None
            self.process = None
            code = process.wait()
            asked.close()
            answered.close()
        if code == -signal.SIGPROF:
            return "the HDF5 library does not come to an end with it"
        if code < 0:
            return f"the HDF5 library crashes on it ({signal.Signals(-code).name})"
        logger.debug("the helper ended with status %d; no trial opening", code)
        return None

    def stop(self) -> None:
        """End the helper with its owner."""
        if self.process is not None and self.owner == os.getpid():
            with contextlib.suppress(OSError):
                cast(IO[str], self.process.stdin).close()
            self.process.wait()


_helper = _Helper()
atexit.register(_helper.stop)


def try_opening(file: Path, *, role: str) -> None:
    """Raise unless an HDF5 file can be opened; other files are let through.

    A file that has been tried and has not changed since is not tried again. Where no
    helper can be started the file is let through.

    Raises
    ------
    InputError
        If the library hangs or crashes on the file.
    """
    if os.name != "posix" or not file.is_file():
        return
    with file.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if not is_hdf5(head):
        return
    state = file.stat()
    key = (str(file.absolute()), state.st_mtime_ns, state.st_size)
    if key in _helper.known:
        return
    try:
        trouble = _helper.ask(file)
    except OSError as error:
        logger.debug("no helper for a trial opening: %s", error)
        return
    if trouble is not None:
        raise unreadable(file, role=role, error=ValueError(trouble), head=head)
    _helper.known.add(key)
