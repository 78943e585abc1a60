"""A web server for tests: with or without range requests, and with bad manners."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class WebServer:
    """Serves a folder; what lies under a name of ``MANNERS`` is answered badly."""

    folder: Path
    ranges: bool = True
    sent: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def forget(self) -> None:
        self.sent = 0
        self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    state: WebServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):  # noqa: N802
        self._answer(body=False)

    def do_GET(self):  # noqa: N802
        self._answer(body=True)

    def log_message(self, *_args):
        return

    def _answer(self, *, body: bool) -> None:
        state, name = self.state, self.path.lstrip("/").partition("?")[0]
        state.requests.append((self.command, name))
        if state.released.is_set():  # a connection kept from before the end
            self.close_connection = True
            return None
        first = name.partition("/")[0]
        if first.isdigit():
            return self._send(int(first), b"no", body)
        if first == "silent":
            state.released.wait(20)
            return self._send(200, b"late", body)
        if first == "elsewhere":
            place = f"http://127.0.0.1:{state.port}/{name.partition('/')[2]}"
            return self._send(302, b"", body, {"Location": place})
        if first == "page":
            return self._send(200, b"<!DOCTYPE html><html>sorry</html>", body)
        file = state.folder / name.removeprefix("short/")
        if not file.is_file():
            return self._send(404, b"no", body)
        data = file.read_bytes()
        if first == "short":
            return self._cut(data, body)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if state.ranges and asked and body:
            start, stop = int(asked[1]), min(int(asked[2]) + 1, len(data))
            if start >= len(data):
                return self._send(416, b"", body)
            extra = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            return self._send(206, data[start:stop], body, extra)
        return self._send(200, data, body)

    def _send(self, status, data, body, extra=None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for key, value in (extra or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)
                self.state.sent += len(data)

    def _cut(self, data, body) -> None:
        """Promise the whole file and hang up after half of it."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[: len(data) // 2])
        self.close_connection = True


@contextlib.contextmanager
def web_server(folder: Path, *, ranges: bool = True) -> Iterator[WebServer]:
    state = WebServer(folder=folder, ranges=ranges)
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()
