"""The listening page's server: who may ask (a token, this machine's own pages), what can be asked, how it is answered.

Nothing from outside is ever a path: audio and pictures are asked for by the numbers of clip and view, the page's own
files by names that are in the package. Requests are answered in threads, so that a slow one keeps no other waiting.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import secrets
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from logitstore.errors import AudioError, LogitstoreError, UsageError
from logitstore.jobs.pages import asset
from logitstore.jobs.serve.listening import Listening
from logitstore.jobs.serve.search import MOST_ROWS, Asked, BusyError
from logitstore.texts import in_json, one_line

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
_KINDS = {
    "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8",
    "json": "application/json", "svg": "image/svg+xml", "txt": "text/plain; charset=utf-8", "png": "image/png",
    "woff2": "font/woff2",
}  # fmt: skip
MOST_BODY = 1 << 14
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


@dataclass(frozen=True)
class Door:
    """Who may come in: whoever has the token, at an address that the server has.

    :param hosts: names and addresses that requests may be for, in lower case. :param any_address: whether any IP
        address will do beside them: of a server that listens on all of its machine's.
    """

    token: str
    port: int
    hosts: frozenset[str]
    any_address: bool = False

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers do not tell ports apart."""
        return f"logitstore-{self.port}"

    def knows(self, host: str) -> bool:
        """Whether a Host header is this server's own; a page elsewhere whose name was made to lead here is not."""
        name, _, port = host.rpartition(":") if re.search(r":\d+$", host) else (host, "", "80")
        name = name.strip("[]").lower().rstrip(".")
        if not port.isascii() or port != str(self.port):
            return False
        return name in self.hosts or (self.any_address and _is_address(name))

    def opens(self, token: str | None) -> bool:
        """Whether this is the token, in a time that does not tell how much of it is right."""
        return token is not None and secrets.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def make_app(listening: Listening, door: Door) -> Starlette:
    """The server of one store's listening page, as an ASGI application."""
    pages = _Pages(listening)
    routes = [
        Route("/", pages.index),
        Route("/static/{name}", pages.static),
        Route("/api/store", pages.store),
        Route("/api/search", pages.search),
        Route("/api/clip/{clip}", pages.clip),
        Route("/api/verdicts", pages.verdicts),
        Route("/api/verdict", pages.verdict, methods=["POST"]),
        Route("/api/undo", pages.undo, methods=["POST"]),
        Route("/audio/{clip}/{name}", pages.sound),
        Route("/picture/{clip}/{name}", pages.picture),
    ]
    handlers: Mapping[Any, Any] = {
        HTTPException: lambda _, error: _wrong(error.detail, error.status_code),
        BusyError: lambda _, error: _wrong(error, 503),
        UsageError: lambda _, error: _wrong(error, 400),
        AudioError: lambda _, error: _wrong(error, 404),
        LogitstoreError: lambda _, error: _wrong(error, 500),
        Exception: _failed,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.add_middleware(_Guard, door=door)
    return app


class _Guard:
    """Looks at every request before anything else does, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *(each for each in more if each[0] not in given)]
            await send(message)

        refused = self._refused(Request(scope))
        await (refused or self._app)(scope, receive, with_headers)

    def _refused(self, request: Request) -> Response | None:
        """The answer to a request that may not be made; None for one that may."""
        door = self._door
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not door.knows(hosts[0]):
            return _wrong("this server is not at that address; use the one that it printed", 400)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            request.url.path != "/" or request.method != "GET"
        ):
            return _wrong("a page of another site may not ask this", 401)
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{hosts[0]}":
            return _wrong("a page of another site may not ask this", 401)
        if request.url.path == "/" and "token" in request.query_params:
            if not door.opens(request.query_params["token"]):
                return PlainTextResponse("This token is wrong. Open the address that the server printed.\n", 401)
            answer = RedirectResponse("/", 303)
            answer.set_cookie(door.cookie, door.token, httponly=True, samesite="strict", path="/")
            return answer
        if not door.opens(request.cookies.get(door.cookie)):
            if request.url.path == "/":
                return PlainTextResponse("Open the address that the server printed: it holds a token.\n", 401)
            return _wrong("no token: open the address that the server printed", 401)
        return None


class _Pages:
    """What is answered to whom has come in."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        folder = resources.files("logitstore.jobs.serve").joinpath("static")
        self._files = (
            {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()} if folder.is_dir() else {}
        )
        self._files["theme.css"] = asset("theme.css").encode()

    def index(self, request: Request) -> Response:
        """The page itself."""
        return self._file(request, "index.html")

    def static(self, request: Request) -> Response:
        """A file of the page, by a name that the package has."""
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        kind = _KINDS.get(name.rpartition(".")[2])
        if name not in self._files or kind is None:
            raise HTTPException(404, "there is no such file of the page")
        return _bytes(request, self._files[name], kind)

    def store(self, _: Request) -> Response:
        """What the store is."""
        return _json(self._listening.store_document())

    def search(self, request: Request) -> Response:
        """A page of results."""
        given = request.query_params
        known = {"class", "text", "question", "where", "sort", "descending", "verdict", "offset", "limit"}
        for name in given:
            if name not in known and not name.startswith("p."):
                raise UsageError(f"a search takes no {name[:80]!r}; it takes {', '.join(sorted(known))} and p.NAME")
        wanted = Asked(
            of_class=given.get("class", ""),
            text=given.get("text", ""),
            question=given.get("question", ""),
            values={name[2:]: _value(text) for name, text in given.items() if name.startswith("p.") and text != ""},
            where=given.get("where", ""),
            verdict=given.get("verdict", ""),
            sort=given.get("sort", ""),
            descending=_flag(given.get("descending", "")),
        )
        offset = _whole("offset", given.get("offset", "0"), 0, 10**12)
        limit = _whole("limit", given.get("limit", "50"), 1, MOST_ROWS)
        return _json(self._listening.results(wanted, offset, limit))

    def clip(self, request: Request) -> Response:
        """One clip with its views."""
        return _json(self._listening.clip_document(self._clip(request)))

    def sound(self, request: Request) -> Response:
        """The samples of the original or of a view."""
        clip, view = self._clip(request), self._view(request, "wav")
        return _bytes(request, self._listening.sound(clip, view), "audio/wav")

    def picture(self, request: Request) -> Response:
        """The log-mel of the original or of a view."""
        clip, view = self._clip(request), self._view(request, "png")
        return _bytes(request, self._listening.picture(clip, view), "image/png")

    def verdicts(self, _: Request) -> Response:
        """How many verdicts there are."""
        file = self._listening.verdicts
        return _json({"counts": self._listening.counts(), "file": "" if file is None else str(file.file)})

    async def verdict(self, request: Request) -> Response:
        """Write a verdict."""
        given = await _body(request, {"clip": (int,), "verdict": (str, type(None)), "note": (str,),
                                      "label": (str, type(None))}, ("clip", "verdict"))  # fmt: skip
        return await run_in_threadpool(self._give, given)

    def _give(self, given: dict[str, Any]) -> Response:
        listening = self._listening
        said = listening.give(given["clip"], given["verdict"] or None, given.get("note", ""), given.get("label"))
        counts = listening.counts()
        return _json({"verdict": None if said is None else said.to_dict(), "undone": False, "counts": counts})

    async def undo(self, request: Request) -> Response:
        """Take the last verdict back."""
        await _body(request, {}, ())
        return await run_in_threadpool(self._undo)

    def _undo(self) -> Response:
        clip, now = self._listening.undo()
        verdict = None if now is None else now.to_dict()
        return _json({"clip": clip, "verdict": verdict, "undone": True, "counts": self._listening.counts()})

    def _clip(self, request: Request) -> int:
        text = request.path_params["clip"]
        if not re.fullmatch(r"\d{1,12}", text, re.ASCII) or int(text) >= len(self._listening.index):
            raise HTTPException(404, f"there is no clip {text[:20]!r}")
        return int(text)

    def _view(self, request: Request, ending: str) -> int | None:
        found = re.fullmatch(rf"(original|\d{{1,6}})\.{ending}", request.path_params["name"], re.ASCII)
        clip = self._clip(request)
        if found is None:
            raise HTTPException(404, f"there is no such sound or picture; there is original.{ending} and N.{ending}")
        if found[1] == "original":
            return None
        if int(found[1]) not in self._listening.store[clip].views:
            raise HTTPException(404, f"clip {clip} has no view {found[1]}")
        return int(found[1])


async def _body(request: Request, kinds: Mapping[str, tuple[type, ...]], needed: Sequence[str]) -> dict[str, Any]:
    """The JSON object that was posted, whose values are of these kinds.

    :raises HTTPException: it is too large. :raises UsageError: it is anything else.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UsageError("the content-type must be application/json")
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY:
            raise HTTPException(413, f"the body has more than {MOST_BODY:,} bytes")
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON") from None
    if not isinstance(document, dict):
        raise UsageError("the body is not a JSON object")
    return _checked(document, kinds, needed)


def _checked(
    document: dict[str, Any], kinds: Mapping[str, tuple[type, ...]], needed: Collection[str]
) -> dict[str, Any]:
    for name, value in document.items():
        if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise UsageError(f"{name[:80]!r} cannot be that; allowed are {', '.join(kinds) or 'no keys'}")
    for name in needed:
        if name not in document:
            raise UsageError(f"the body lacks {name!r}")
    return document


def _value(text: str) -> int | float | str:
    """A parameter of a question: a number where it looks like one."""
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        return int(text)
    return float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else text


def _flag(text: str) -> bool | None:
    if text not in ("", "0", "1"):
        raise UsageError(f"descending is {text[:20]!r}; allowed are 0 and 1")
    return None if text == "" else text == "1"


def _whole(name: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"\d{1,12}", text, re.ASCII) or not least <= int(text) <= most:
        raise UsageError(f"{name} is {text[:20]!r}; allowed are {least:,} to {most:,}")
    return int(text)


def _failed(_: Request, error: Exception) -> Response:
    """The answer where the program itself is wrong: the terminal has the rest."""
    traceback.print_exception(error)
    return _wrong("the server failed; its terminal says where", 500)


def _json(document: Mapping[str, Any], status: int = 200) -> Response:
    return Response(in_json(document).encode("utf-8", "replace"), status, media_type="application/json")


def _wrong(error: object, status: int) -> Response:
    return _json({"error": one_line(str(error))}, status)


def _bytes(request: Request, content: bytes, kind: str) -> Response:
    """A file, or the range of it that was asked for; a browser that has it already is told so."""
    tag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"etag": tag, "cache-control": "private, no-cache", "accept-ranges": "bytes"}
    if tag in [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    found = None if asked is None else _RANGE.fullmatch(asked.strip())
    if found is None or found[0] == "bytes=-" or request.headers.get("if-range", tag) != tag:
        return Response(content, headers=headers, media_type=kind)
    size = len(content)
    if found[1]:
        first, last = int(found[1]), min(int(found[2] or size), size - 1)
    else:
        first, last = max(0, size - int(found[2])), size - 1
    if first > last:
        return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {first}-{last}/{size}"
    return Response(content[first : last + 1], 206, headers=headers, media_type=kind)
