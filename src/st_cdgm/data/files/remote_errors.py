"""What file systems raise about URLs, in words that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from st_cdgm.data.files.sniff import unreadable
from st_cdgm.errors import InputError, MissingFileError

_REFUSED = (401, 403)
_NO_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError")
_UNREACHABLE = (
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ConnectTimeoutError",
    "EndpointConnectionError",
    "ServerDisconnectedError",
)


@contextmanager
def clean_errors(url: str, role: str) -> Iterator[None]:
    """Turn what file systems raise into errors that name the URL and a remedy."""
    try:
        yield
    except (InputError, json.JSONDecodeError):
        raise
    except Exception as error:
        raise translated(url, role, error) from error


def translated(url: str, role: str, error: Exception) -> InputError:
    """Return the error of ours that an error of a file system stands for."""
    if isinstance(error, ImportError):
        return needs_library(url, role, error)

    causes = list(_causes(error))
    if ours := next((c for c in causes if isinstance(c, InputError)), None):
        return ours

    names = {type(cause).__name__ for cause in causes}
    statuses = [s for s in (getattr(c, "status", None) for c in causes) if s]
    words = f"{type(causes[-1]).__name__}: {causes[-1]}"
    if names & set(_NO_CREDENTIALS):
        return _forbidden(url, role, "no credentials")
    if any(s in _REFUSED for s in statuses) or isinstance(error, PermissionError):
        return _forbidden(url, role, f"access denied ({words})")
    if any(isinstance(c, TimeoutError) for c in causes):
        return _silent(url, role, "no answer within the time limit")

    unreachable = any(isinstance(c, ConnectionError) for c in causes)
    if unreachable or names & set(_UNREACHABLE) or max(statuses, default=0) >= 500:
        return _silent(url, role, words)
    if any(isinstance(c, FileNotFoundError | IsADirectoryError) for c in causes):
        return absent(url, role)

    return unreadable(url, role=role, error=error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def absent(url: str, role: str) -> MissingFileError:
    """Return the error for a URL behind which there is nothing."""
    return MissingFileError(
        f"the {role} file does not exist",
        file=url,
        found="nothing at this URL",
        expected="a NetCDF file or Zarr directory",
        remedy="check the URL",
    )


def _forbidden(url: str, role: str, found: str) -> MissingFileError:
    return MissingFileError(
        f"the {role} file may not be read",
        file=url,
        found=found,
        remedy="give credentials as the protocol expects them (AWS_ACCESS_KEY_ID, "
        "~/.aws; FSSPEC_S3_KEY); for public buckets FSSPEC_S3_ANON=true",
    )


def _silent(url: str, role: str, found: str) -> InputError:
    return InputError(
        f"the server of the {role} file does not answer",
        file=url,
        found=found,
        expected="a server that can be reached",
        remedy="check the address and the network, or try again later",
    )


def needs_library(url: str, role: str, error: ImportError) -> InputError:
    """Return the error for a protocol whose library is not installed."""
    return InputError(
        f"the {role} URL needs a library that is not installed",
        file=url,
        found=str(error),
        expected="the libraries for remote data",
        remedy='pip install "st-cdgm[remote]"',
    )
