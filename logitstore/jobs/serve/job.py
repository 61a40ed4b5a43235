"""Serve the listening page of a store, until it is interrupted."""

from __future__ import annotations

import asyncio
import getpass
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from logitstore.errors import MissingExtraError, UsageError
from logitstore.jobs.serve.index import Told, make_index
from logitstore.options import Option, Options, Stores

if TYPE_CHECKING:
    from logitstore.jobs.serve.listening import Listening

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("0.0.0.0", "::", "")
_GRACE = 2  # seconds for the requests that run when the server is told to end


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Options):
    """What ``logitstore serve`` is asked."""

    store: Stores
    audio_root: Annotated[
        str,
        Option("The folder, or packed audio, that the paths of the clips are relative to.", group="Audio",
               metavar="DIR", names="audio"),
    ]  # fmt: skip
    label_column: Annotated[
        str | None,
        Option("The column of labels in the store's clip table.", group="Audio", metavar="NAME",
               default="label, labels, category or the like, where there is one"),
    ] = None  # fmt: skip
    host: Annotated[
        str,
        Option("The address to listen at. Whoever reaches it and has the token can hear the audio and give verdicts.",
               group="Running", metavar="ADDRESS"),
    ] = "127.0.0.1"  # fmt: skip
    port: Annotated[int, Option("The port to listen at; 0 for any that is free.", group="Running", least=0,
                                most=65535)] = 0  # fmt: skip
    verdicts: Annotated[
        str | None,
        Option("Where verdicts are kept; several servers may share a file.", group="Output", metavar="FILE",
               default="verdicts.csv in the folder that the store lies in"),
    ] = None  # fmt: skip
    person: Annotated[
        str | None,
        Option("Who gives the verdicts.", group="Output", metavar="NAME", default="the name of the user"),
    ] = None
    read_only: Annotated[bool, Option("Take no verdicts.", group="Output")] = False


@dataclass(frozen=True)
class Serving:
    """A server that listens: its address with the token, what it serves, and whether other machines can reach it."""

    url: str
    listening: Listening
    exposed: bool


def serve(options: ServeOptions, ready: Callable[[Serving], None], told: Told | None = None) -> None:
    """Serve the listening page of a store until the process is interrupted.

    :param ready: is called once, when the server listens. :param told: is told of the first pass over the store.
    :raises MissingExtraError: Starlette or uvicorn is not installed.
    :raises UsageError: the store has no block yet; no such column; the file of verdicts is damaged; the address cannot
        be listened at.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(str(error.name), "serve", "the listening page") from None
    from logitstore.jobs.serve.app import Door, make_app
    from logitstore.jobs.serve.listening import Listening
    from logitstore.store.reader import open_store
    from logitstore.store.verdicts import Verdicts, beside, person_name

    stores = [options.store] if isinstance(options.store, str) else list(options.store)
    store = open_store(stores, audio_root=options.audio_root)
    verdicts = None
    if not options.read_only:
        file = options.verdicts or beside(store)
        if file is None:
            raise UsageError(
                f"{store.location} lies in no folder of this machine; say where verdicts go: --verdicts FILE"
            )
        verdicts = Verdicts(file)
    person = person_name(options.person or _user())
    listener = _listen(options.host, options.port)
    try:
        listening = Listening(store, make_index(store, options.label_column, told), verdicts, person)
        listening.search.questions()
        port = int(listener.getsockname()[1])
        token = secrets.token_urlsafe(32)
        door = Door(token, port, *_names(options.host))
        config = uvicorn.Config(
            make_app(listening, door), log_level="critical", access_log=False, server_header=False, proxy_headers=False,
            ws="none", lifespan="off", http="h11", h11_max_incomplete_event_size=1 << 15, limit_concurrency=200,
            timeout_keep_alive=30, timeout_graceful_shutdown=_GRACE,
        )  # fmt: skip
        host = "127.0.0.1" if options.host in _EVERYWHERE else options.host
        shown = f"[{host}]" if ":" in host else host
        ready(Serving(f"http://{shown}:{port}/?token={token}", listening, options.host not in _LOOPBACK))
        threading.Thread(target=listening.warm, name="warm", daemon=True).start()

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                await asyncio.to_thread(listening.search.close)
                await super().shutdown(sockets)

        Server(config).run(sockets=[listener])
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)  # asyncio sends at once where the protocol is TCP's
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        raise UsageError(
            f"{host!r}, port {port}, cannot be listened at: {error.strerror or error}; give another --host or --port"
        ) from error
    return listener


def _names(host: str) -> tuple[frozenset[str], bool]:
    """The names and addresses that a server at an address answers to, and whether any other address will do too."""
    if host in _LOOPBACK:
        return frozenset(_LOOPBACK), False
    everywhere = host in _EVERYWHERE
    own = {host, *_LOOPBACK, socket.gethostname(), socket.getfqdn()} if everywhere else {host}
    return frozenset(name.lower() for name in own), everywhere


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"
