"""Formats by their first bytes, and a trial opening of HDF5 files.

On some damaged files the HDF5 library never returns, or brings its process down, so
that a helper process opens a suspicious file first.
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

from st_cdgm.errors import InputError

HEAD_BYTES = 64
ZARR_MARKS = ("zarr.json", ".zmetadata", ".zgroup")
_FOREIGN = {
    b"GRIB": ("GRIB", "convert it: cdo -f nc4 copy in.grib out.nc"),
    b"PK\x03\x04": ("a ZIP archive", "unpack it first"),
    b"\x1f\x8b": ("a gzip archive", "unpack it first (gunzip)"),
    b"<": ("a web page", "download it again: the server sent a page, not the data"),
    b"version https://git-lfs": ("a Git LFS pointer", "fetch the data: git lfs pull"),
}


def is_hdf5(head: bytes) -> bool:
    """Whether a file that begins so is HDF5, as every NetCDF 4 file is."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def is_netcdf3(head: bytes) -> bool:
    """Whether a file that begins so is NetCDF 3 (classic, 64-bit offset or data)."""
    return head[:3] == b"CDF" and head[3:4] in (b"\x01", b"\x02", b"\x05")


def is_zarr(path: Path) -> bool:
    """Whether a local directory is, or calls itself, a Zarr store."""
    return path.suffix == ".zarr" or any((path / mark).exists() for mark in ZARR_MARKS)


def unreadable(
    file: str | Path, *, role: str, error: Exception, head: bytes | None = None
) -> InputError:
    """Make the error for a file that is no data or is damaged.

    ``error`` is what the reading library said; ``head`` the first bytes of the file, if
    there is one.
    """
    found = f"{type(error).__name__}: {error}"
    remedy = "check or download the file again"
    if head == b"":
        found = "an empty file (0 bytes)"
    for signature, (kind, way_out) in _FOREIGN.items():
        if head is not None and head.lstrip().startswith(signature):
            found, remedy = kind, way_out
    return InputError(
        f"the {role} file cannot be read",
        file=file,
        found=found,
        expected="a complete NetCDF 3/4 file or Zarr directory",
        remedy=remedy,
    )


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
            asked = cast("IO[str]", process.stdin)
            answered = cast("IO[str]", process.stdout)
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
                cast("IO[str]", self.process.stdin).close()
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
