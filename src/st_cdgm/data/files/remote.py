"""Data behind a URL: HTTP servers, object stores, and whatever else fsspec knows."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from st_cdgm.data.files.remote_errors import absent, clean_errors, needs_library
from st_cdgm.data.files.remote_files import (
    HTTP,
    RemoteFile,
    bounded_options,
    filesystem,
    limit_retries,
    protocol_of,
)
from st_cdgm.data.files.sniff import (
    HEAD_BYTES,
    ZARR_MARKS,
    is_hdf5,
    is_netcdf3,
    unreadable,
)
from st_cdgm.errors import InputError, MissingFileError
from st_cdgm.outputs import temporary_name
from st_cdgm.redaction import redacted

logger = logging.getLogger(__name__)
_PATTERN = re.compile(r"[*\[]|\?(?!.*=)")


@dataclass(frozen=True, kw_only=True, eq=False)
class RemoteStore:
    """A Zarr hierarchy behind a URL.

    Attributes
    ----------
    store : zarr.storage.FsspecStore
        Read-only access to its keys.
    options : dict
        Format and whether one key holds all metadata, for xarray.
    """

    store: Any
    options: dict[str, Any]


def local_path(url: str) -> Path | None:
    """Return the path behind a ``file://`` URL, None for any other."""
    if not url.lower().startswith(("file://", "local://")):
        return None
    from fsspec.implementations import local  # type: ignore[import-untyped]

    return Path(local.LocalFileSystem._strip_protocol(url))


def expand_url(url: str, *, role: str) -> list[str]:
    """Expand a pattern, or a folder of ``*.nc`` files, into URLs.

    Raises
    ------
    MissingFileError
        If nothing matches.
    InputError
        If the server cannot be asked, or cannot list what it has (HTTP).
    """
    prefix, _, last = url.rpartition("::")
    protocol, _, inside = last.partition("://")
    pattern = bool(_PATTERN.search(inside))
    if protocol in HTTP:
        if pattern and "*" in inside:
            raise InputError(
                f"the {role} files are named by a pattern on a web server",
                file=url,
                found="a pattern over HTTP, which cannot list files",
                expected="one URL per file",
                remedy="list the URLs one by one",
            )
        return [url]

    # Other servers list what matches; a folder stands for its NetCDF files.
    fs, path = filesystem(url, role=role)
    with clean_errors(url, role):
        if not pattern:
            if not _is_folder(fs, path):
                return [url]
            path = f"{path.rstrip('/')}/*.nc"
        found = [str(one) for one in fs.glob(path)]
    if not found:
        raise absent(url, role)

    start = f"{prefix}::" if prefix else ""
    scheme = f"{protocol}://"
    return sorted(start + scheme + one.removeprefix(scheme) for one in found)


def _is_folder(fs: Any, path: str) -> bool:
    if path.rstrip("/").endswith(".zarr") or fs.isfile(path) or not fs.isdir(path):
        return False
    return not any(fs.exists(f"{path.rstrip('/')}/{mark}") for mark in ZARR_MARKS)


def locate_url(url: str, *, role: str) -> Path | RemoteFile | RemoteStore:
    """Find out what lies behind a URL and how it can be read.

    NetCDF 4 is read in place where the server can send parts of a file; NetCDF 3, and
    files on a server without range requests, are copied to a temporary folder that
    goes away with the process. Zarr is read chunk by chunk.

    Raises
    ------
    MissingFileError
        If nothing is there or it may not be read.
    InputError
        If the server cannot be reached or sends something else, or a library that the
        protocol needs is not installed.
    """
    fs, path = filesystem(url, role=role)
    if path.rstrip("/").endswith(".zarr"):
        return _zarr(fs, path, url, role) or _raise(absent(url, role))

    try:
        with clean_errors(url, role):
            file = RemoteFile(url)
            head, by_parts = file.probe()
    except InputError as error:
        missing = isinstance(error, MissingFileError)
        return (missing and _zarr(fs, path, url, role)) or _raise(error)
    if is_hdf5(head) and by_parts:
        try:
            import h5netcdf  # type: ignore[import-untyped]  # noqa: F401
        except ImportError as error:
            raise needs_library(url, role, error) from error

        return file
    file.close()
    if is_hdf5(head) or is_netcdf3(head):
        return _downloaded(fs, path, url, role)
    unknown = ValueError(f"a file that begins with {head[:8]!r}")
    damaged = unreadable(url, role=role, error=unknown, head=head)
    return _zarr(fs, path, url, role) or _raise(damaged)


def describe(url: str) -> tuple[str, int]:
    """Return the kind of data behind a URL and its size, without reading the values.

    ``Zarr``, ``NETCDF4`` or ``NETCDF3``, and bytes, 0 where the server does not tell.
    Errors as for :func:`locate_url`.
    """
    where = locate_url(url, role="data")
    fs, path = filesystem(url, role="data")
    if isinstance(where, RemoteFile):
        where.close()
    with clean_errors(url, "data"):
        if isinstance(where, RemoteStore):
            return "Zarr", 0 if protocol_of(url) in HTTP else int(fs.du(path))
        size = int(fs.info(path).get("size") or 0)

    if isinstance(where, Path):
        with where.open("rb") as stream:
            old = is_netcdf3(stream.read(HEAD_BYTES))
        return "NETCDF3" if old else "NETCDF4", where.stat().st_size

    return "NETCDF4", size


def fingerprint(url: str) -> str:
    """Describe the present version of a remote file: size, entity tag, date.

    An object is not read for it, so that this is cheap for any size; two equal
    fingerprints mean the same content as far as the server tells. Errors as for
    :func:`locate_url`.
    """
    fs, path = filesystem(url, role="input")
    with clean_errors(url, "input"):
        return _version(fs, path) or "unknown"


def _version(fs: Any, path: str) -> str:
    """Size, entity tag and date; empty where the server tells none but the size."""
    info = {str(key).lower(): value for key, value in fs.info(path).items()}
    keys = ("etag", "lastmodified", "last-modified", "mtime", "created")
    told = [f"{key}={info[key]}" for key in keys if info.get(key)]
    return "; ".join([f"size={info.get('size')}", *told]) if told else ""


def _raise(error: InputError) -> Any:
    raise error


# -- Copies ----------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Folder for copies; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="st-cdgm-")


def _downloaded(fs: Any, path: str, url: str, role: str) -> Path:
    """Copy a file here, unless this process has the same version of it already."""
    with clean_errors(url, role):
        version = _version(fs, path)
        size = fs.info(path).get("size")
    name = PurePosixPath(path.partition("?")[0]).name or "data"
    mark = hashlib.sha256(f"{url} {version}".encode()).hexdigest()[:16]
    target = Path(_folder().name) / f"{mark}-{name}"
    if version and target.exists():
        return target

    bytes_told = size or "unknown"
    logger.info("%s is copied to %s (%s bytes)", redacted(url), target, bytes_told)
    part = temporary_name(target)
    try:
        with clean_errors(url, role):
            fs.get_file(path, str(part))

        received = part.stat().st_size
        if size is not None and received != size:
            cut = ValueError(f"{received} bytes arrived of {size}")
            raise unreadable(url, role=role, error=cut)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)

    return target


# -- Zarr ------------------------------------------------------------------------------


def _zarr(fs: Any, path: str, url: str, role: str) -> RemoteStore | None:
    """Return the Zarr hierarchy at a URL, or None if there is none."""
    for mark in ZARR_MARKS:
        meta = _json(fs, f"{path.rstrip('/')}/{mark}", url, role)
        if meta is None:
            continue
        consolidated = mark == ".zmetadata" or bool(meta.get("consolidated_metadata"))
        _check_listing(fs, url, role, consolidated=consolidated)
        version = 3 if mark == "zarr.json" else 2
        options = {"zarr_format": version, "consolidated": consolidated}
        return RemoteStore(store=_store(fs, path, url, role), options=options)
    return None


def _json(fs: Any, path: str, url: str, role: str) -> dict[str, Any] | None:
    try:
        with clean_errors(url, role):
            found = json.loads(fs.cat_file(path))
    # Some object stores forbid what they do not have.
    except (MissingFileError, json.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _check_listing(fs: Any, url: str, role: str, *, consolidated: bool) -> None:
    if consolidated or protocol_of(url) not in HTTP:
        return
    raise InputError(
        f"the {role} store cannot be listed",
        file=url,
        found="a Zarr store without consolidated metadata on a web server",
        expected="consolidated metadata: a web server cannot list what a store has",
        remedy="consolidate it where it lies (zarr.consolidate_metadata), or open it "
        "through a protocol that lists (s3://, file://)",
    )


def _store(fs: Any, path: str, url: str, role: str) -> Any:
    from fsspec.implementations import asyn_wrapper
    from zarr.storage import FsspecStore

    with clean_errors(url, role):
        if "::" in url:  # a cache in between works in the loop of its own file system
            wrapped = asyn_wrapper.AsyncFileSystemWrapper(fs, asynchronous=True)
            return FsspecStore(fs=wrapped, path=path, read_only=True)
        options = bounded_options(url)
        store = FsspecStore.from_url(url, storage_options=options, read_only=True)
        limit_retries(store.fs)
        return store
