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

LIBRARIES = (
    "numpy",
    "torch",
    "torch-geometric",
    "diffusers",
    "pytorch-lightning",
    "xarray",
    "netCDF4",
    "scoringrules",
)


def provenance(files: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Return what ``provenance.json`` holds.

    Parameters
    ----------
    files : sequence of str
        Input files; a pattern stands for the files it matches.
    seed : int
        Seed of the run.

    Raises
    ------
    MissingFileError
        An input does not exist.
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "st_cdgm": __version__,
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "seed": seed,
        "data": checksums(files),
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def checksums(files: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of every file; a directory (Zarr) counts as its files.

    A remote file is named by its size, entity tag and date instead.
    """
    from st_cdgm.data.files.open import is_url, resolve_paths
    from st_cdgm.data.files.remote import fingerprint, local_path

    found: dict[str, str] = {}
    for pattern in files:
        if is_url(pattern) and local_path(pattern) is None:
            found[pattern] = fingerprint(pattern)
            continue
        for path in resolve_paths(pattern, role="input"):
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            found[str(path)] = _sha256(inside or [path])
    return found


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
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
