"""Files that appear whole or not at all, and strict JSON."""

from __future__ import annotations

import csv
import ctypes
import errno
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cftime
import numpy as np

from st_cdgm.errors import OutputError

ELSEWHERE = "choose another output path"
FileFacts = dict[str, dict[str, Any]]
_BLOCK = 1 << 20
_HERE = f"{zlib.crc32(platform.node().encode()):08x}"
# Hidden names: of this version (machine, process, number), of earlier ones.
_OWNED = re.compile(r"([0-9a-f]{8})-(\d+)-[0-9a-f]{6}")
_UNOWNED = re.compile(r"[0-9a-f]{12}")
_ABANDONED_SECONDS = 86400.0  # of which nobody knows whether its owner lives
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux


def check_output_path(path: str | Path) -> Path:
    """Return the path, or say why no file can be written there.

    Raises
    ------
    OutputError
        The directory is missing or not writable, or the path is no regular file.
    """
    path = Path(path)
    if path.parent.exists():
        _check_directory(path.parent, path)
    else:
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
    _check_directory(nearest, path)
    _probe(nearest, path)
    return path


# -- Hidden names ----------------------------------------------------------------------


def temporary_name(path: Path) -> Path:
    """Return an unused hidden name beside the output.

    It tells the machine and the process, so that `remove_leftovers` knows whether there
    is still somebody who writes there.
    """
    owner = f"{_HERE}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    return path.with_name(f".{path.name}.{owner}.part")


@contextmanager
def temporary_directory(target: Path) -> Iterator[Path]:
    """Yield a hidden directory beside ``target``; what is left of it is removed.

    It and the files in it have the rights that the umask gives.
    """
    path = temporary_name(target)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(target: Path) -> None:
    """Remove the hidden files and folders that a killed process left of ``target``.

    Those of a living process stay, and for a day those of another machine.
    """
    start, end = f".{target.name}.", ".part"
    with suppress(OSError):
        for path in list(target.parent.iterdir()):
            mark = path.name.removeprefix(start).removesuffix(end)
            if path.name == f"{start}{mark}{end}" and _is_abandoned(path, mark):
                remove(path)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(path: Path, mark: str) -> bool:
    """Whether nobody writes there any more; ``mark`` is the owner's."""
    owner = _OWNED.fullmatch(mark)
    if owner and owner[1] == _HERE:
        return not is_alive(int(owner[2]))
    untouched = time.time() - path.stat().st_mtime > _ABANDONED_SECONDS
    return bool(owner or _UNOWNED.fullmatch(mark)) and untouched


def is_alive(process: int, *, since: float = math.inf) -> bool:
    """Whether there is a process of this number on this machine.

    One that began after ``since`` (seconds of the epoch) has only taken the number.
    """
    import psutil

    try:
        begun = float(psutil.Process(process).create_time())
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return begun <= since


def _check_directory(parent: Path, path: Path) -> None:
    if not parent.is_dir():
        raise OutputError(
            "The output cannot be written there.",
            file=path,
            found=f"{parent} is a file",
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


# -- Files -----------------------------------------------------------------------------


def sync(path: Path) -> None:
    """Bring a file or a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> dict[str, Any]:
    """Return size and SHA-256 of a file."""
    mark = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            mark.update(block)
    return {"bytes": path.stat().st_size, "sha256": mark.hexdigest()}


def write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, then move it there.

    Raises
    ------
    OutputError
        The file cannot be written; no part of it is left behind.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    return path


def not_written(
    path: Path, error: BaseException, *, what: str = "written", needed: int = 0
) -> OutputError:
    """Return the error for a file that a system call failed on, with the space left.

    ``needed`` are the bytes that were being written, where that is known: libraries
    hide that a disk is full.
    """
    where = next((p for p in path.absolute().parents if p.is_dir()), Path("/"))
    left = "unknown space"
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    with suppress(OSError):
        usage = shutil.disk_usage(where)
        left = f"{usage.free / 1e6:,.1f} MB free of {usage.total / 1e6:,.0f} MB"
        full = full or usage.free < needed

    why = "the disk is full" if full else str(error)
    return OutputError(
        f"The output could not be {what} ({why}); nothing was left behind.",
        file=path,
        found=f"{error}; {left} in {where}",
        expected=f"{needed / 1e6:,.1f} MB more for the next part" if needed else None,
        remedy=f"make room, or {ELSEWHERE}"
        if full
        else "check the free space and the rights of its directory",
    )


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write a whole file or none; raise OutputError where it cannot be written."""
    return write_atomically(Path(path), lambda part: part.write_bytes(content))


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 into an existing directory; raise OutputError, or write it all."""
    return write_bytes(check_output_path(path), text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON into a directory that is published later, and sync it.

    The same content gives the same bytes.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")
    sync(path)


def write_table(path: str | Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as CSV; columns in order of appearance, nested values as JSON text.

    Raises
    ------
    OutputError
        If nothing can be written there.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(native(value)) for key, value in row.items()})
    return write_text(path, stream.getvalue())


def _cell(value: Any) -> Any:
    nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, allow_nan=False) if nested else value


def move_directory(new: Path, target: Path, *, aside: Path | None = None) -> None:
    """Put ``new`` in the place of ``target``; the old one goes only afterwards.

    In one step where the system exchanges names. Elsewhere, and where ``aside`` is
    given, the old one waits there meanwhile, by default under a hidden name from which
    `recover_directory` takes it after a kill.
    """
    old = _old_name(target) if aside is None else aside
    if aside is None and target.exists() and _exchanged(new, target):
        _synced(target.parent)
        remove(new)
        remove(old)
        return

    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise

    _synced(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_directory(target: Path) -> None:
    """Give a directory its name back that a kill of `move_directory` has put aside."""
    old = _old_name(target)
    if old.is_dir() and not target.exists():
        with suppress(OSError):  # where nothing may be written
            old.rename(target)
            _synced(target.parent)


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}-old")


def _synced(directory: Path) -> None:
    with suppress(OSError):  # some file systems refuse it
        sync(directory)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; return whether that was possible."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux, or an old library
        return False
    names = (os.fsencode(one.absolute()), os.fsencode(other.absolute()))
    failed: int = rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return failed == 0


# -- Plain values ----------------------------------------------------------------------


def to_json(content: Any) -> str:
    """Strict JSON (RFC 8259: no NaN), indented by 2, other alphabets kept."""
    return json.dumps(native(content), indent=2, ensure_ascii=False, allow_nan=False)


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested mappings with its dotted key; ``{}`` is a value."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def native(value: Any) -> Any:
    """Return the value as None, bool, int, float, str, list or dict.

    Numbers of numpy become those of Python (a float32 the shortest decimal that gives
    it back), NaN, masked values and NaT None, infinities the text ``inf`` or ``-inf``,
    dates ISO 8601, bytes text, arrays and tuples lists.
    """
    if isinstance(value, np.ma.core.MaskedConstant) or value is None:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return native(value[()])
    if isinstance(value, Mapping):
        return {str(key): native(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [native(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, np.datetime64 | np.timedelta64):
        return None if np.isnat(value) else str(value)
    if isinstance(value, int | np.integer):
        return int(value)

    if isinstance(value, float | np.floating):
        return _number(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, cftime.datetime):
        return value.isoformat()
    if isinstance(value, np.void) and value.dtype.names:
        return {name: native(value[name]) for name in value.dtype.names}

    return str(value)


def _number(value: Any) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    # str() of a single-precision number has the digits that belong to it.
    return float(str(value)) if isinstance(value, np.floating) else float(value)
