"""Whether an output can be written, found out before any costly work."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from st_cdgm.errors import OutputError

__all__ = ["check_output_directory", "check_output_path", "temporary_name"]

ELSEWHERE = "choose another output path"


def check_output_path(path: str | Path) -> Path:
    """Return the path, or say why no file can be written there.

    Raises
    ------
    OutputError
        The directory is missing or not writable, or the path is no regular file.
    """
    path = Path(path)
    if path.parent.exists() and not path.parent.is_dir():
        raise _not_a_directory(path, path.parent)
    if not path.parent.is_dir():
        raise OutputError(
            "The output directory does not exist.",
            file=path,
            found=f"no directory {path.parent}",
            expected="a path in an existing directory",
            remedy=f"create it (mkdir -p '{path.parent}'), or {ELSEWHERE}",
        )
    if path.exists() and not path.is_file():
        raise OutputError(
            "The output path exists and is not a regular file.",
            file=path,
            found="a directory" if path.is_dir() else "a device or a pipe",
            expected="the name of a file",
            remedy=f"add a file name, or {ELSEWHERE}" if path.is_dir() else ELSEWHERE,
        )
    _probe(path.parent, path)
    return path


def check_output_directory(path: str | Path) -> Path:
    """Return the path, or say why no directory of files can be made there.

    The directory need not exist; nothing is created.

    Raises
    ------
    OutputError
        The path or a parent is a file, or the nearest existing one is not writable.
    """
    path = Path(path)
    absolute = path.absolute()
    nearest = next(p for p in (absolute, *absolute.parents) if p.exists())
    if not nearest.is_dir():
        raise _not_a_directory(path, nearest)
    _probe(nearest, path)
    return path


def temporary_name(path: Path) -> Path:
    """Return an unused hidden name beside the output."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")


def _not_a_directory(path: Path, what: Path) -> OutputError:
    return OutputError(
        "The output cannot be written there.",
        file=path,
        found=f"{what} is a file",
        expected="a directory",
        remedy=ELSEWHERE,
    )


def _probe(directory: Path, path: Path) -> None:
    """Create and remove an empty file, the one sure test of the rights."""
    probe = temporary_name(directory / "probe")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"The output directory is not writable ({error.strerror}).",
            file=path,
            found=f"no file can be created in {directory}",
            remedy=f"{ELSEWHERE} or change the rights of the directory",
        ) from error
