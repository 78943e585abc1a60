"""Remote files through fsspec: which file system, how long to wait, how to read."""

from __future__ import annotations

import gc
import io
import os
from typing import Any

from st_cdgm.data.files.redirects import redirect_watch
from st_cdgm.data.files.remote_errors import needs_library
from st_cdgm.data.files.sniff import HEAD_BYTES
from st_cdgm.errors import InputError
from st_cdgm.redaction import redacted

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
ATTEMPTS = 2
BLOCK_BYTES = 1 << 20  # one range request
BLOCKS_KEPT = 16  # in memory, per open file
HTTP = ("http", "https")
_S3 = ("s3", "s3a")


def filesystem(url: str, *, role: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path on it, with bounded waiting.

    Raises
    ------
    InputError
        If the protocol is unknown, its library is absent, or an option does not fit.
    """
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    try:
        fs, path = url_to_fs(url, **bounded_options(url))
    except ImportError as error:
        raise needs_library(url, role, error) from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the {role} URL cannot be used",
            file=url,
            found=str(error),
            expected="a protocol such as https:// or s3://, with options it knows",
            remedy="correct the URL or the storage options",
        ) from error
    limit_retries(fs)
    return fs, str(path)


def limit_retries(fs: Any) -> None:
    """Let a file system try a request twice at most, where it repeats requests."""
    if hasattr(fs, "retries"):
        fs.retries = min(int(fs.retries), ATTEMPTS)


def bounded_options(url: str) -> dict[str, Any]:
    """Options for fsspec that bound the waiting, where none are configured.

    Over HTTP they also refuse redirects into this network.
    """
    from fsspec.config import conf  # type: ignore[import-untyped]

    inner = protocol_of(url)
    configured = conf.get(inner, {})
    own = {
        key: {**value, **configured[key]} if key in configured else value
        for key, value in _limits(inner).items()
    }
    return {inner: own} if "::" in url else own


def protocol_of(url: str) -> str:
    """Return the protocol of a URL, of the innermost one of a chain."""
    return url.rpartition("::")[2].partition("://")[0]


def _limits(protocol: str) -> dict[str, Any]:
    """Options that bound how long a server is waited for, and where it may send us."""
    if protocol in HTTP:
        try:
            from aiohttp import ClientTimeout
        except ImportError:  # fsspec says so in its own words
            return {}
        timeout = ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
        )
        watched = [redirect_watch()]
        return {"client_kwargs": {"timeout": timeout, "trace_configs": watched}}
    if protocol in _S3:
        limits = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
        }
        return {"config_kwargs": limits}

    return {}


class RemoteFile(io.RawIOBase):
    """A remote file as a seekable binary file that survives pickling and forking.

    Whatever goes wrong while reading is an OSError that names the URL.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self._position = 0
        self._process = -1
        self._open()

    def _open(self) -> None:
        fs, path = filesystem(self.url, role="input")
        options: dict[str, Any] = {}
        if getattr(fs, "async_impl", False):  # a network, not a file on disk
            options = {
                "block_size": BLOCK_BYTES,
                "cache_type": "blockcache",
                "cache_options": {"maxblocks": BLOCKS_KEPT},
            }
        self._file = fs.open(path, "rb", **options)
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFile, (self.url,)

    def probe(self) -> tuple[bytes, bool]:
        """Return the first bytes, and whether parts of the file can be asked for."""
        size = getattr(self._file, "size", None)
        if not size or not self._file.seekable():
            return self._file.read(HEAD_BYTES), False
        try:
            self._file.seek(size - 1)
            by_parts = len(self._file.read(1)) == 1
        except ValueError:  # what fsspec raises where ranges are ignored
            return self._stream_head(), False
        self._file.seek(0)
        return self._file.read(HEAD_BYTES), by_parts

    def _stream_head(self) -> bytes:
        fs, path = filesystem(self.url, role="input")
        with fs.open(path, "rb", block_size=0) as stream:
            return bytes(stream.read(HEAD_BYTES))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, in bytes."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}
        self._position = offset + start.get(whence, self._file.size)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes."""
        # A collection that runs in the thread of fsspec and meets a dead HDF5 object
        # would wait for the lock that the caller holds, and the caller for it.
        collecting = gc.isenabled()
        gc.disable()
        try:
            if self._process != os.getpid():
                self._open()
            self._file.seek(self._position)
            data = self._file.read(len(buffer))
        except Exception as error:
            raise self._failure(error) from error
        finally:
            if collecting:
                gc.enable()

        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _failure(self, error: Exception) -> OSError:
        return OSError(redacted(f"{self.url}: {type(error).__name__}: {error}"))

    def close(self) -> None:
        """Close the connection's file, too."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()
