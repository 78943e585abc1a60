"""Passwords and tokens in URLs, which belong in no message, log or result."""

from __future__ import annotations

import logging
import re

HIDDEN = "***"
# user:password@ and token@ of an address; nothing of it is worth showing.
_LOGIN = re.compile(r"(\b[a-z][\w+.-]*://)[^\s/?#'\"]*@", re.IGNORECASE)
# Parameters whose names say that they open something: token=, X-Amz-Signature= ...
_WORDS = "token|secret|passw|pwd|signature|credential|auth|session"
_WORDS += "|api[_-]?key|access[_-]?key"
_PARAMETER = re.compile(
    rf"([?&;](?:[\w.%-]*(?:{_WORDS})[\w.%-]*|key|sig|sas|code)=)[^&;\s#'\"]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Return a text with the passwords and tokens of its URLs hidden.

    Examples
    --------
    >>> redacted("https://me:secret@host/lr.nc?token=abc&year=2001")
    'https://***@host/lr.nc?token=***&year=2001'
    """
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))


class RedactingFormatter(logging.Formatter):
    """Format log records, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        return redacted(super().format(record))
