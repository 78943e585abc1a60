"""Names of shards: patterns, URLs, and the metadata beside them."""

from __future__ import annotations

import fnmatch
import itertools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from st_cdgm.data.files.open import is_url
from st_cdgm.data.store.manifest import METADATA, read_metadata
from st_cdgm.errors import InputError, MissingFileError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def shard_name(shard: str) -> str:
    """Return the last part of a path or URL."""
    return (
        shard.partition("?")[0].rpartition("/")[2]
        if is_url(shard)
        else Path(shard).name
    )


def expand_shards(patterns: str | Path | Sequence[str | Path]) -> list[str]:
    """Return the shards of one pattern or of many, in order (D20)."""
    given = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    every = [one for pattern in given for one in _braces(str(pattern))]
    shards = [shard for one in every for shard in _matches(one)]
    if not shards:
        raise MissingFileError("no shard is named", expected="at least one path")
    return shards


def _braces(pattern: str) -> list[str]:
    """Expand ``{000..003}`` and ``{a,b}``, as a shell does."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]

    inside = found[1]
    span = _RANGE.fullmatch(inside)
    if span:
        first, last = span.groups()
        width = len(first) if first.startswith("0") else 0
        names = [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)]
    else:
        names = inside.split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    tails = _braces(after)
    return [before + name + tail for name, tail in itertools.product(names, tails)]


def _matches(pattern: str) -> list[str]:
    if pattern.startswith("pipe:"):
        raise InputError(
            "a shard is named by a command",
            file=pattern,
            expected="a path or a URL; commands are not run",
        )
    if is_url(pattern):
        from st_cdgm.data.files.remote import expand_url

        return expand_url(pattern, role="shard")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [str(path)]
    root = Path(path.anchor)
    relative = str(path.relative_to(root)) if path.anchor else str(path)
    found = sorted(root.glob(relative)) if any(c in relative for c in "*?[") else []
    if not found:
        raise MissingFileError(
            "a shard does not exist",
            file=pattern,
            expected="a tar file, or a pattern that matches some",
            remedy="check the path (a relative one starts at the current folder)",
        )
    return [str(one) for one in found]


def shard_metadata(shards: list[str], given: str | Path | None) -> dict[str, Any]:
    """Read the metadata named, or those beside the first shard if there are any."""
    if given is None:
        if is_url(shards[0]):
            return _remote_metadata(shards[0])
        beside = Path(shards[0]).parent
        there = (beside / METADATA).is_file()
        return read_metadata(beside, kind="webdataset") if there else {}
    path = Path(given)
    return read_metadata(
        path.parent if path.name == METADATA else path, kind="webdataset"
    )


def fetch(url: str, folder: str | Path, *, role: str) -> Path:
    """Copy a remote file into a folder."""
    from st_cdgm.data.files.remote_errors import clean_errors
    from st_cdgm.data.files.remote_files import filesystem

    fs, path = filesystem(url, role=role)
    target = Path(folder) / shard_name(url)
    with clean_errors(url, role):
        fs.get_file(path, str(target))
    return target


def _remote_metadata(shard: str) -> dict[str, Any]:
    """Fetch the metadata beside a remote shard, if there are any."""
    url = f"{shard.partition('?')[0].rpartition('/')[0]}/{METADATA}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            fetch(url, folder, role="shard metadata")
        except MissingFileError:
            return {}
        return read_metadata(folder, kind="webdataset")


def check_complete(
    patterns: str | Path | Sequence[str | Path],
    shards: list[str],
    metadata: dict[str, Any],
) -> None:
    """Refuse a glob to which shards of the metadata belong that are not there."""
    if not isinstance(patterns, str | Path) or not metadata:
        return

    there = {shard_name(shard) for shard in shards}
    pattern = shard_name(str(patterns))
    lost = [
        facts["name"]
        for facts in metadata.get("shards", [])
        if facts["name"] not in there and fnmatch.fnmatch(facts["name"], pattern)
    ]
    if lost:
        raise MissingFileError(
            "shards are missing",
            file=str(patterns),
            found=f"{len(shards)} shards, without {', '.join(lost[:5])}",
            expected=f"the {len(metadata['shards'])} shards of the metadata",
            remedy="copy the missing ones, or name those you want one by one",
        )
