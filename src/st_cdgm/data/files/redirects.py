"""Redirects of web servers: not from the network into this one.

A server elsewhere could let a reader fetch what only this machine, or its neighbours,
may see: a redirect from a public address to a local one is refused, unless
``ST_CDGM_LOCAL_REDIRECTS=1`` asks for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

from st_cdgm.errors import InputError

ALLOW = "ST_CDGM_LOCAL_REDIRECTS"


@cache
def redirect_watch() -> Any:
    """Return the one watcher of redirects, for the sessions of aiohttp."""
    from aiohttp import TraceConfig

    watch = TraceConfig()
    watch.on_request_redirect.append(_check)
    return watch


async def _check(_session: Any, _context: Any, redirect: Any) -> None:
    """Raise InputError where a redirect leads from outside to a local address."""
    headers = redirect.response.headers
    target = headers.get("Location") or headers.get("URI") or ""
    asked, following = str(redirect.url), urljoin(str(redirect.url), target)
    if os.environ.get(ALLOW) == "1":
        return
    if await _is_local(following) and not await _is_local(asked):
        raise InputError(
            "a web server redirects to a local address",
            file=asked,
            found=f"a redirect to {following}",
            expected="an address as public as the one that was asked for",
            remedy=f"name that address yourself, or allow it with {ALLOW}=1",
        )


async def _is_local(url: str) -> bool:
    """Whether any address of a URL's host is not one of the public network."""
    host = urlsplit(url).hostname or ""
    found = await _addresses(host)
    return any(
        not ipaddress.ip_address(one.partition("%")[0]).is_global for one in found
    )


async def _addresses(host: str) -> list[str]:
    """Return the numeric addresses of a host, none of one that is not known."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except OSError:
        return []
    return [str(address[4][0]) for address in found]
