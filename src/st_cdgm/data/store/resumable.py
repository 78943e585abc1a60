"""A directory of results that is complete or not there, and that a killed run resumes.

The work goes on in ``.NAME.part`` beside the target: ``data`` holds the files,
``journal.jsonl`` one line for every finished block with the checksums of its files. A
block is entered only after its files are on disk, so that after a kill, a crash or a
full disk the same command goes on behind the last entry. At the end ``data`` takes the
target's name.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from st_cdgm.data.store.manifest import METADATA
from st_cdgm.data.store.manifest_check import fits
from st_cdgm.errors import InputError, OutputError
from st_cdgm.outputs import (
    FileFacts,
    check_output_directory,
    digest,
    move_directory,
    sync,
    write_json,
)

_locks: Any
try:
    import fcntl as _locks
except ImportError:  # pragma: no cover - Windows
    _locks = None
logger = logging.getLogger(__name__)
JOURNAL = "journal.jsonl"
LOCK = "lock"


class ResumableOutput:
    """Context in which the blocks of a directory are written, and then published.

    ``target`` is the directory to make. ``facts`` are all that decides its bytes,
    JSON-able: a run is resumed only if its facts are the same. With ``overwrite`` an
    existing target is replaced, at the end, when the new one is complete, and an
    unfinished run with other facts is thrown away.

    Attributes
    ----------
    root : Path
        Where the files are written.
    done : dict
        Number of each finished block to the facts of its files.
    begun : bool
        Whether the run is a resumed one.

    Raises
    ------
    OutputError
        If the target exists, cannot be written, is being written by another process,
        or an unfinished run with other facts lies there; on leaving, if a file could
        not be written.
    """

    def __init__(
        self, target: str | Path, facts: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self.target = Path(target).expanduser()
        self.facts = json.loads(json.dumps(facts))
        self.overwrite = overwrite
        self.work = self.target.with_name(f".{self.target.name}.part")
        self.root = self.work / "data"
        self.done: dict[int, FileFacts] = {}
        self.begun = False
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> ResumableOutput:
        self._check_target()
        try:
            self.work.mkdir(parents=True, exist_ok=True)
            self._acquire()

            try:
                self._resume()
                self.root.mkdir(exist_ok=True)
            except BaseException:
                self._release()
                raise
        except OSError as error:
            if isinstance(error, InputError):
                raise
            raise self._failure(error) from error

        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()
        # Without a finished block there is nothing to go on with.
        if kind is not None and not self.done:
            shutil.rmtree(self.work, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, InputError):
            raise self._failure(error) from error

    def begin(self) -> None:
        """Enter the facts: from here on the run can be resumed."""
        self._append({"facts": self.facts})
        self.begun = True

    def record(self, number: int, files: FileFacts) -> None:
        """Enter a block whose files are on disk."""
        self._append({"block": number, "files": files})
        self.done[number] = files

    def publish(self, metadata: Mapping[str, Any]) -> Path:
        """Write the metadata with all checksums; give the directory its name."""
        known = {name: f for files in self.done.values() for name, f in files.items()}
        names = sorted(
            str(path.relative_to(self.root).as_posix())
            for path in self.root.rglob("*")
            if path.is_file() and path.name != METADATA
        )
        for name in names:
            if name not in known:
                sync(self.root / name)
                known[name] = digest(self.root / name)

        checksums = {name: known[name] for name in names}
        write_json(self.root / METADATA, {**metadata, "checksums": checksums})
        sync(self.root)
        move_directory(self.root, self.target, aside=self.work / "old")
        shutil.rmtree(self.work, ignore_errors=True)
        return self.target

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(
            f"The output could not be written ({error}).",
            file=self.target,
            found=f"{len(self.done)} finished blocks, kept in {self.work}"
            if self.done
            else "no finished block; nothing was kept",
            remedy="make room or mend the rights of the directory, then run the same "
            "command again: it goes on where it stopped",
        )

    def _check_target(self) -> None:
        # What a run killed after its renaming has left.
        if self.target.exists() and self.work.exists() and not self.root.exists():
            shutil.rmtree(self.work, ignore_errors=True)
        check_target(self.target, overwrite=self.overwrite)

    def _acquire(self) -> None:
        self._lock = (self.work / LOCK).open("ab")
        if _locks is None:  # pragma: no cover
            return
        try:
            _locks.flock(self._lock, _locks.LOCK_EX | _locks.LOCK_NB)
        except OSError as error:
            self._lock.close()
            self._lock = None
            raise OutputError(
                "Another process is writing this output.",
                file=self.target,
                remedy="wait for it, or choose another --out",
            ) from error

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _resume(self) -> None:
        """Read the journal; throw away what it does not vouch for."""
        entries = self._entries()
        stored = entries[0]["facts"] if entries else None
        if stored == self.facts:
            self.begun = True
            self.done = {
                entry["block"]: entry["files"]
                for entry in entries[1:]
                if self._on_disk(entry["files"])
            }
            # Files that were being written when the run was killed.
            for path in self.root.rglob("*.partial"):
                path.unlink()
            logger.info(
                "%s: resumed after %d finished blocks", self.target, len(self.done)
            )
            return

        if entries and not self.overwrite:
            known = stored if isinstance(stored, dict) else {}
            differ = [key for key in self.facts if known.get(key) != self.facts[key]]
            raise OutputError(
                "An unfinished run with other inputs or options lies there.",
                file=self.work,
                found=f"other {', '.join(differ) or 'facts'}",
                expected="the same inputs and options, to go on where it stopped",
                remedy="start again with --overwrite, or choose another --out",
            )
        if self.root.exists():
            shutil.rmtree(self.root)
        (self.work / JOURNAL).unlink(missing_ok=True)

    def _entries(self) -> list[dict[str, Any]]:
        """Return the journal's complete lines; a torn last one is cut off."""
        path = self.work / JOURNAL
        if not path.is_file() or not self.root.is_dir():
            return []

        entries: list[dict[str, Any]] = []
        good = 0
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not line.endswith(b"\n") or not _is_entry(entry, first=not entries):
                break
            entries.append(entry)
            good += len(line)

        os.truncate(path, good)
        return entries

    def _on_disk(self, files: FileFacts) -> bool:
        """Whether the files of a block are there in their full size."""
        return all(
            (self.root / name).is_file()
            and (self.root / name).stat().st_size == facts["bytes"]
            for name, facts in files.items()
        )

    def _append(self, entry: Mapping[str, Any]) -> None:
        with (self.work / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())


def _is_entry(entry: Any, *, first: bool) -> bool:
    """Whether a line of the journal is one of ours: the facts first, then blocks."""
    if not isinstance(entry, dict):
        return False
    if first:
        return "facts" in entry
    files: Any = entry.get("files")
    sound = fits(entry.get("block"), int) and fits(files, FileFacts)
    return sound and all("bytes" in facts for facts in files.values())


def check_target(path: str | Path, *, overwrite: bool = False) -> Path:
    """Return the path, or say why no preprocessed directory can be made there.

    Raises
    ------
    OutputError
        If it exists (with ``overwrite``: and is none of ours) or cannot be written.
    """
    target = check_output_directory(Path(path).expanduser())
    if not target.exists():
        return target
    ours = (target / METADATA).is_file()
    if overwrite and (ours or not any(target.iterdir())):
        return target

    found, remedy = "a directory that was not made by preprocessing", ""
    if ours:
        found = "a complete preprocessed directory"
        remedy = "replace it with --overwrite, or "
    raise OutputError(
        "The output exists already.",
        file=target,
        found=found,
        expected="a name that is free",
        remedy=f"{remedy}choose another --out",
    )
