"""Where a result comes from: versions, data checksums, seed, commit."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from st_cdgm._version import __version__
from st_cdgm.redaction import redacted
from st_cdgm.runs.environment import LIBRARIES

# Inputs of `downscale` up to this size are hashed: a few seconds a gigabyte.
HASHED_BYTES = 4_000_000_000


def provenance(files: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return what ``provenance.json`` holds of a run on files or patterns of files.

    Raises
    ------
    MissingFileError
        An input does not exist.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [redacted(word) for word in sys.argv],
        "st_cdgm": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "seed": seed,
        "data": checksums(files),
    }


def output_attributes(
    checkpoint: Path, files: Sequence[str], *, command: str = ""
) -> dict[str, str]:
    """Return the global attributes of an ensemble that say where it comes from.

    ``history`` (time, ``command`` as it was typed, versions), ``checkpoint`` with the
    SHA-256 of its weights, and ``input_files``, each with its SHA-256, or with its size
    above `HASHED_BYTES`, or alone if it is remote.
    """
    from st_cdgm.checkpoint.directory import WEIGHTS

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    used = ("torch", "numpy", "xarray", "netCDF4")
    versions = ", ".join(f"{name} {_version(name)}" for name in used)
    made = command or "written from Python"
    hashed = checksums(files, limit=HASHED_BYTES)
    named = (f"{_short(path)} {mark}".strip() for path, mark in hashed.items())
    weights = _sha256([checkpoint / WEIGHTS])
    return {
        "history": f"{now} {made} (st-cdgm {__version__}, {versions})",
        "input_files": ", ".join(named),
        "checkpoint": f"{checkpoint} ({WEIGHTS} sha256:{weights})",
    }


def _short(path: str) -> str:
    """Return the name of a file; of a URL without what follows its path."""
    return Path(path.partition("?")[0] if "://" in path else path).name


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def checksums(files: Sequence[str], *, limit: int | None = None) -> dict[str, str]:
    """Return the SHA-256 of every file; a directory (Zarr) counts as its files.

    A remote file is named by its size, entity tag and date instead. With ``limit``
    (bytes) a larger file is named by its size, and nothing is asked of a server.
    """
    from st_cdgm.data.files.open import is_url, resolve_paths
    from st_cdgm.data.files.remote import fingerprint, local_path

    found: dict[str, str] = {}
    for pattern in files:
        if is_url(pattern) and local_path(pattern) is None:
            mark = fingerprint(pattern) if limit is None else ""
            found[redacted(pattern)] = mark
            continue
        for path in resolve_paths(pattern, role="input"):
            inside = sorted(p for p in path.rglob("*") if p.is_file()) or [path]
            found[str(path)] = _mark(inside, limit)
    return found


def _mark(paths: Sequence[Path], limit: int | None) -> str:
    if limit is None:
        return _sha256(paths)
    size = sum(path.stat().st_size for path in paths)
    return f"sha256:{_sha256(paths)}" if size <= limit else f"of {size} bytes"


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as handle:
            hashlib.file_digest(handle, lambda: digest)
    return digest.hexdigest()


def git_commit() -> str | None:
    """Return the commit of the source tree, ``-dirty`` if it was changed, or None."""
    git = shutil.which("git")
    source = Path(__file__).resolve().parent
    if git is None or "site-packages" in source.parts:
        return None

    def output(*arguments: str) -> str | None:
        done = subprocess.run(
            [git, "-C", str(source), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = output("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and output("status", "--porcelain") else commit
