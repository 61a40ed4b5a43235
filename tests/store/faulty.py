"""A server that stands before an S3 API on this machine, counts what it is asked, and does what networks do.

It refuses with 503 or 429, cuts the connection before a request came through or, worse, after it did, and waits.
"""

from __future__ import annotations

import http.client
import http.server
import re
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code><Message>Conflicting operation.</Message></Error>"
_BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_ERRORS = {"503": _SLOW_DOWN, "429": _SLOW_DOWN, "409": _CONFLICT}
_NOT_SENT_ON = ("host", "connection", "content-length", "transfer-encoding")


@dataclass
class Fault:
    """What happens to the next ``times`` requests of a ``kind`` (GET, PUT, LIST, …) whose object's name has ``name``.

    :param what: a status (``503``, ``429``, ``409``, ``500``), ``cut`` before the request goes on, ``lost`` (it is
        done, and its answer never comes), ``half`` (the answer ends in its middle) or ``slow`` (it takes ``seconds``).
    """

    kind: str
    what: str
    name: str = ""
    times: int = 1
    seconds: float = 0.0


@dataclass
class Faulty:
    """The server: where it is, the kinds of the requests that came, and the faults that are still to happen."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    line: Callable[[], str] = lambda: ""  # what happens to any other request
    moments: list[tuple[float, str, str]] = field(default_factory=list)  # seconds, kind, name
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, kind: str, name: str) -> Fault:
        """Note a request; what is to happen to it."""
        with self.lock:
            self.asked[kind] += 1
            self.moments.append((time.monotonic(), kind, name))
            for fault in self.faults:
                if fault.times and kind == fault.kind and re.search(fault.name, name):
                    fault.times -= 1
                    return fault
            return Fault(kind, self.line())


@contextmanager
def faulty(upstream: str) -> Iterator[Faulty]:
    """Such a server before the one at a URL."""
    there = urllib.parse.urlsplit(upstream)
    place = threading.local()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer goes out in one piece

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            kind = "LIST" if self.command == "GET" and "list-type=2" in query else self.command
            fault = server.fault(kind, urllib.parse.unquote(path))
            what = fault.what
            if what.isdigit():
                self._answer(int(what), [], _ERRORS.get(what, _BROKEN))
                return
            if what == "cut":
                self._cut()
                return
            status, headers, content = self._forward(body)
            if what == "slow":
                time.sleep(fault.seconds)
            if what == "lost":
                self._cut()
                return
            self._answer(status, headers, content, half=what == "half")

        do_PUT = do_DELETE = do_HEAD = do_POST = do_GET  # noqa: N815

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            """What the real server says; over one connection a thread."""
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _NOT_SENT_ON}
            for attempt in range(2):
                if getattr(place, "connection", None) is None:
                    place.connection = http.client.HTTPConnection(there.hostname or "", there.port or 80)
                try:
                    place.connection.request(self.command, self.path, body, headers)
                    answer = place.connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                except (http.client.HTTPException, OSError):
                    place.connection = None
                    if attempt:
                        raise
            raise AssertionError

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, half: bool = False) -> None:
            self.send_response_only(status)
            length = str(len(content))
            for name, value in headers:
                if name.lower() == "content-length":
                    length = value
                elif name.lower() not in _NOT_SENT_ON:
                    self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                with suppress(OSError):  # nobody waits for it any more
                    self.wfile.write(content[: len(content) // 2] if half else content)
            if half:
                with suppress(OSError):
                    self.wfile.flush()
                self._cut()

        def _cut(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        server = Faulty(f"http://127.0.0.1:{serving.server_port}")
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            serving.shutdown()
