"""Windows as samples in tar files (WebDataset): writing, indexing, reading.

Members are ``KEY.lr.npy``, ``KEY.baseline.npy``, ``KEY.residual.npy``, ``KEY.hr.npy``,
``KEY.static.npy`` where there are static fields, and ``KEY.time.json``. Anything else
is refused; nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from st_cdgm.data.store.work import in_parts
from st_cdgm.data.task.days import DayReader, Fields
from st_cdgm.errors import InputError
from st_cdgm.outputs import FileFacts, digest, sync

FIELDS = ("lr", "baseline", "residual", "hr", "static")
MEMBERS = (*FIELDS, "time")
SHARD_NAME = "data_{:06d}.tar"


def member_suffix(field: str) -> str:
    """Return the suffix of a member, ``lr.npy`` or ``time.json``."""
    return f"{field}.json" if field == "time" else f"{field}.npy"


# -- Writing ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ShardBlocks:
    """Compute and write shards to ``root``; may be sent to other processes.

    ``windows`` holds the first and one past the last day of every sample, ``iso`` every
    day of the record; static fields ``(C_s, Y, X)`` are repeated in every sample. The
    bytes depend on the data alone: no dates, owners or random names.
    """

    read: DayReader
    root: str
    windows: tuple[tuple[int, int], ...]
    iso: tuple[str, ...]
    shard_size: int
    bytes_per_day: int
    static: NDArray[np.float32] | None = None

    def __call__(self, number: int) -> FileFacts:
        """Write a shard; return the facts of its file, which is on disk then."""
        name = SHARD_NAME.format(number)
        path = Path(self.root) / name
        record = in_parts(self.read, len(self.iso), self.bytes_per_day)
        first = number * self.shard_size
        windows = self.windows[first : first + self.shard_size]

        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for sample, (start, stop) in enumerate(windows, start=first):
                fields = record.window(start, stop)
                for field, content in self._members(fields, self.iso[start:stop]):
                    member = tarfile.TarInfo(f"{sample:08d}.{member_suffix(field)}")
                    member.size = content.tell()
                    content.seek(0)
                    archive.addfile(member, content)
                cast("Any", archive).members = []  # it would keep them all

        sync(path)
        return {name: digest(path)}

    def _members(
        self, fields: Fields, iso: Sequence[str]
    ) -> Iterator[tuple[str, io.BytesIO]]:
        """Yield the members of a sample, each open behind its last byte."""
        if self.static is not None:
            fields = {**fields, "static": self.static}
        for field in FIELDS:
            if field in fields:
                content = io.BytesIO()
                np.save(content, np.ascontiguousarray(fields[field], dtype="<f4"))
                yield field, content

        content = io.BytesIO()
        content.write(json.dumps(list(iso)).encode())
        yield "time", content


# -- Reading ---------------------------------------------------------------------------


class Shard:
    """One shard, indexed on opening, from which samples are read in one go each.

    ``label`` is its name in messages, ``keys`` are the sample keys in the order of the
    file.

    Raises
    ------
    InputError
        If it is no tar file, is cut off, or holds members of another kind.
    """

    def __init__(self, path: Path, label: str | None = None) -> None:
        self.label = label or str(path)
        try:
            self._file: BinaryIO = path.open("rb", buffering=0)
        except OSError as error:
            raise self._error("cannot be opened", found=str(error)) from error
        self.keys: list[str] = []
        self._places = self._index()

    def __len__(self) -> int:
        return len(self.keys)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, number: int) -> dict[str, Any]:
        """Return the arrays and the dates of a sample.

        The arrays are views into one buffer that belongs to the caller.

        Raises
        ------
        InputError
            If a member is damaged; it names shard and key.
        """
        places, key = self._places[number], self.keys[number]
        there = places[:, 1] > 0
        start = int(places[there, 0].min())
        stop = int(places[there].sum(axis=1).max())

        buffer = np.empty(stop - start, dtype=np.uint8)
        done = 0
        while done < len(buffer):
            rest = [memoryview(buffer.data)[done:]]
            received = os.preadv(self._file.fileno(), rest, start + done)
            if not received:
                raise self._error("is cut off", key=key)
            done += received

        sample: dict[str, Any] = {}
        for field, (offset, size) in zip(MEMBERS, places.tolist(), strict=True):
            if size:
                member = buffer[offset - start : offset - start + size]
                sample[field] = self._decoded(field, key, member)
        return sample

    def _decoded(self, field: str, key: str, member: NDArray[np.uint8]) -> Any:
        try:
            if field == "time":
                dates = json.loads(member.tobytes())
                if not isinstance(dates, list) or not all(
                    isinstance(date, str) for date in dates
                ):
                    raise ValueError("not a list of dates")  # noqa: TRY301, TRY004
                return dates
            # What comes before the values in version 1.0.
            length = int.from_bytes(member[8:10].tobytes(), "little")
            shape, offset = _array_layout(member[: 10 + length].tobytes())
            return member[offset:].view(np.float32).reshape(shape)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._error(
                "has a damaged member",
                key=f"{key}.{member_suffix(field)}",
                found=str(error),
            ) from error

    def _index(self) -> NDArray[np.int64]:
        """Find all members. Shape ``(samples, members, 2)``: offset and size."""
        places: list[NDArray[np.int64]] = []
        length = os.fstat(self._file.fileno()).st_size
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as archive:
                for member in archive:
                    key, field = self._named(member)
                    if not self.keys or self.keys[-1] != key:
                        self.keys.append(key)
                        places.append(np.zeros((len(MEMBERS), 2), np.int64))

                    row = MEMBERS.index(field)
                    if places[-1][row, 1]:
                        raise self._error("has a member twice", key=member.name)
                    if member.offset_data + member.size > length:
                        raise self._error("is cut off", key=member.name)

                    places[-1][row] = member.offset_data, member.size
                    cast("Any", archive).members = []  # it would keep them all
                end = archive.offset
        except InputError:
            raise
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise self._error("is no readable tar file", found=str(error)) from error

        # Behind the last member there is a blank block.
        tail = os.pread(self._file.fileno(), tarfile.BLOCKSIZE, end)
        if len(tail) < tarfile.BLOCKSIZE or any(tail):
            raise self._error("is cut off", found="no end mark")
        if len(set(self.keys)) != len(self.keys):
            raise self._error("has a sample in two places")
        return np.stack(places) if places else np.zeros((0, len(MEMBERS), 2), np.int64)

    def _named(self, member: tarfile.TarInfo) -> tuple[str, str]:
        """Return key and field of a member; refuse what is no array and no list."""
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        field = suffix.rpartition(".")[0]
        known = field in MEMBERS and suffix == member_suffix(field)
        plain = member.isreg() and not member.issparse() and member.size > 0
        if not plain or not known:
            raise self._error(
                "holds a member that is not read",
                key=member.name,
                found="an empty file" if known else "another kind of member",
                expected=", ".join(f"KEY.{member_suffix(name)}" for name in MEMBERS),
            )
        return f"{folder}/{stem}" if folder else stem, field

    def _error(
        self,
        problem: str,
        *,
        key: str | None = None,
        found: str | None = None,
        expected: str | None = None,
    ) -> InputError:
        return InputError(
            f"a shard {problem}",
            file=self.label,
            variable=key,
            found=found,
            expected=expected,
            remedy="copy the shard again; st-cdgm preprocess --verify DIR checks all",
        )


@lru_cache(maxsize=64)
def _array_layout(head: bytes) -> tuple[tuple[int, ...], int]:
    """Return shape and offset of the values from the header of a ``.npy`` member.

    Raises
    ------
    ValueError
        If it is not a little-endian float32 array in C order.
    """
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f".npy version {version}, not (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.dtype("<f4") or fortran:
        raise ValueError(f"{dtype} values, not float32 in C order")
    if any(n < 1 for n in shape):
        raise ValueError(f"shape {shape}, not sizes of at least 1")
    return tuple(int(n) for n in shape), stream.tell()
